"""One streamed request through the edge to the simulator, and its cost in the console. What it makes for that it deletes."""

import json
import os
import sys
import time
import urllib.request

from services.cli.api import Api
from services.cli.errors import Trouble

NAME = "helm-test"
MODEL = "claude-haiku-5-5"
IN_FORCE = {"wait": "10"}
SECONDS = 60.0


def main() -> None:
    api = Api(os.environ["CONSOLE_URL"].rstrip("/"), os.environ["ADMIN_TOKEN"])
    forget(api)  # what a test that was killed has left
    try:
        secret = govern(api)
        request_id = ask(os.environ["EDGE_URL"].rstrip("/"), secret)
        print(f"{request_id}: $ {cost_nano_usd(api, request_id) / 1e9:.9f}")
    except (Trouble, OSError) as error:
        sys.exit(f"FAILED: {getattr(error, 'message', error)}")
    finally:
        forget(api)


def govern(api: Api) -> str:
    """A key that may spend a dollar at the simulator; returns its secret."""
    provider = {
        "name": NAME,
        "kind": "anthropic",
        "base_url": os.environ["SIMULATOR_URL"],
        "credential": os.environ["SIMULATOR_CREDENTIAL"],
    }
    api.post("/api/v1/providers", provider)
    api.post("/api/v1/customers", {"id": NAME})
    api.post("/api/v1/teams", {"id": NAME, "customer": NAME})
    budget = {"limit_usd": "1", "period": "day"}
    key = {"id": NAME, "team": f"{NAME}/{NAME}", "providers": [{"name": NAME}], "budgets": [budget]}
    return str(api.post("/api/v1/keys", key, query=IN_FORCE)["secret"])


def forget(api: Api) -> None:
    for path in (f"/api/v1/customers/{NAME}?cascade=true", f"/api/v1/providers/{NAME}"):
        try:
            api.raw("DELETE", path)
        except Trouble as trouble:
            if "404" not in trouble.message:
                print(trouble.message)


def ask(edge: str, secret: str) -> str:
    """The id of a request whose answer streamed to its end."""
    body = {"model": MODEL, "max_tokens": 200, "stream": True, "messages": [{"role": "user", "content": "Say hello"}]}
    headers = {
        "authorization": f"Bearer {secret}",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
    }
    url = f"{edge}/anthropic/v1/messages"
    asked = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310  # the chart's own URL
    with urllib.request.urlopen(asked, timeout=SECONDS) as answer:  # noqa: S310  # as above
        if b"event: message_stop" not in answer.read():
            raise OSError("the stream ended without message_stop")
        return str(answer.headers["x-sluicegate-request-id"])


def cost_nano_usd(api: Api, request_id: str) -> int:
    """As the console tells it, once the ledger's entry has come through to ClickHouse."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = [
            item for item in api.get("/api/v1/requests", {"limit": 100})["items"] if item["request_id"] == request_id
        ]
        if found and found[0]["priced"] and found[0]["cost_nano_usd"] > 0:
            return int(found[0]["cost_nano_usd"])
        time.sleep(0.5)
    raise OSError(f"the console does not show a cost for {request_id} within {SECONDS:.0f} s")


main()
