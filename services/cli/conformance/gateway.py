"""The gateway that is looked at: where it is, and requests in the words of the Messages API."""

import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from services.cli.conformance.recordings import Headers, Recorded
from services.cli.conformance.results import Broken, expect
from services.cli.conformance.wire import Answer, RawClient
from services.cli.errors import Trouble

MODEL = "claude-sonnet-5-5"


def message(text: str, **fields: object) -> bytes:
    """A small request for the Messages API."""
    asked = {"model": MODEL, "max_tokens": 1000, "messages": [{"role": "user", "content": text}]}
    return json.dumps(asked | fields).encode()


class Gateway:
    """By its base URL, as Claude Code gets it: without `/v1`."""

    def __init__(self, base_url: str) -> None:
        """Raises Trouble."""
        parts = urlsplit(base_url.rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Trouble(f"--base-url {base_url} is no URL like https://gateway.example/anthropic")
        self.base_url = base_url.rstrip("/")
        self.host, self.prefix = parts.hostname, parts.path
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        self.authority = parts.netloc.rpartition("@")[2]

    def request(
        self, key: str, body: bytes, *more: tuple[str, str], path: str = "/v1/messages", method: str = "POST"
    ) -> bytes:
        """One request with its key as a bearer token, unless `more` names a credential. No key: no credential."""
        headers: Headers = [("Host", self.authority), ("Content-Type", "application/json")]
        headers += [("anthropic-version", "2023-06-01"), *more]
        if key and not any(name.lower() in ("authorization", "x-api-key") for name, _ in headers):
            headers.append(("Authorization", f"Bearer {key}"))
        if not any(name.lower() == "transfer-encoding" for name, _ in headers) and (body or method == "POST"):
            headers.append(("Content-Length", str(len(body))))
        target = f"{self.prefix}{path}" or "/"
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def replay(self, recording: Recorded, key: str) -> bytes:
        return recording.bytes_for(key, self.prefix, self.authority)

    def connection(self) -> RawClient:
        return RawClient(self.port, host=self.host, tls=self.tls)

    async def send(self, data: bytes, seconds: float = 30.0) -> Answer:
        """On a connection of its own. Raises Broken when there is no answer."""
        async with self.connection() as client:
            client.send(data)
            answer = await client.answer(seconds)
        expect(answer.status, "the connection was closed without an answer")
        return answer

    async def head(self, path: str, *more: tuple[str, str]) -> Answer:
        """Its answer has no body, whatever its length says."""
        async with self.connection() as client:
            client.send(self.request("", b"", *more, path=path, method="HEAD"))
            return await client.head()

    async def post(self, key: str, body: bytes, *more: tuple[str, str], **how: Any) -> Answer:
        return await self.send(self.request(key, body, *more, **how))


def error_of(answer: Answer) -> dict[str, str]:
    """`error` of an answer in the Messages API's envelope. Raises Broken."""
    try:
        found = json.loads(answer.body)
        kind, error = found["type"], found["error"]
        told = {"type": str(error["type"]), "message": str(error["message"])}
    except (ValueError, KeyError, TypeError):
        raise Broken(f"{answer.status} with a body that is no error envelope: {answer.body[:80]!r}") from None
    expect(kind == "error", f"the envelope's type is {kind!r}")
    return told


def header(answer: Answer, name: str) -> str:
    return (answer.header(name) or b"").decode("latin-1")


def told(answer: Answer) -> str:
    """An answer in a few words."""
    try:
        return f"{answer.status} {error_of(answer)['type']}"
    except Broken:
        return str(answer.status)
