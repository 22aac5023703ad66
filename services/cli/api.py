"""The console's admin API, and where it is."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from services.cli.errors import Trouble
from services.cli.supervisor import data, ports

TIMEOUT_SECONDS = 30.0


class Target(msgspec.Struct, frozen=True):
    """Which console is meant: by URL and token, else by the data directory of a running `sluicegate up`."""

    data_dir: Path = Path(".sluicegate")
    url: str = ""
    token: str = ""

    def running(self) -> dict[str, Any] | None:
        """The content of DATA/ports.json."""
        return ports.read(data.Layout(self.data_dir).ports)

    def simulator_url(self) -> str:
        """Where the simulator of the running `sluicegate up` is; empty with a real key, or for a console elsewhere."""
        running = None if self.url else self.running()
        port = (running or {}).get("http", {}).get("simulator")
        return f"http://{ports.LOOPBACK}:{port}" if port else ""

    def console_url(self) -> str:
        if self.url:
            return self.url.rstrip("/")
        if (running := self.running()) is None:
            raise Trouble(
                f"nothing runs on {self.data_dir}: start it with `sluicegate up`, or name a console with --url"
            )
        return f"http://{ports.LOOPBACK}:{running['console']}"

    def admin_token(self) -> str:
        layout = data.Layout(self.data_dir)
        found = self.token or data.read_secret(layout.given_token) or data.read_secret(layout.admin_token)
        if not found:
            raise Trouble(
                "no admin token: pass --token, set SLUICEGATE_ADMIN_TOKEN, or name the --data-dir that has one"
            )
        return found

    def api(self) -> "Api":
        return Api(self.console_url(), self.admin_token())


class Api:
    """Requests to `/api/v1`. Every failure is Trouble with one line for people."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self._token = url, token
        # a console on this machine is never behind the proxy that the environment names
        local = (urllib.parse.urlsplit(url).hostname or "") in ("127.0.0.1", "localhost", "::1")
        handlers = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str, query: Mapping[str, str | int | None] | None = None) -> Any:
        return json.loads(self.raw("GET", path, query=query) or b"null")

    def post(self, path: str, body: object = None, query: Mapping[str, str | int | None] | None = None) -> Any:
        return json.loads(self.raw("POST", path, json.dumps(body or {}).encode(), query=query) or b"null")

    def patch(self, path: str, body: object) -> Any:
        return json.loads(self.raw("PATCH", path, json.dumps(body).encode()) or b"null")

    def post_yaml(self, path: str, text: str, query: Mapping[str, str | int | None] | None = None) -> Any:
        return json.loads(self.raw("POST", path, text.encode(), "application/yaml", query) or b"null")

    def all(self, path: str, query: Mapping[str, str | int | None] | None = None) -> list[dict[str, Any]]:
        """Every item of a paged list."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.get(path, dict(query or {}) | ({"cursor": cursor} if cursor else {}))
            found += page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return found

    def raw(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str | int | None] | None = None,
    ) -> bytes:
        given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        url = f"{self.url}{path}" + (f"?{urllib.parse.urlencode(given)}" if given else "")
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type}
        request = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310  # the user's console
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            raise Trouble(_refusal(error)) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise Trouble(
                f"the console at {self.url} does not answer ({reason}); is `sluicegate up` running?"
            ) from None


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        told = json.loads(error.read())["error"]["message"]
    except (ValueError, KeyError, TypeError, OSError):
        told = error.reason
    if error.code == 401:
        return f"the console does not accept the admin token ({told}); pass --token or set SLUICEGATE_ADMIN_TOKEN"
    return f"the console answered {error.code}: {told}"


def unit(path: str) -> str:
    """One slug as a part of a path."""
    return urllib.parse.quote(path, safe="")
