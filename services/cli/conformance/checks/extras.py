"""Items 24, 27, 34: MCP, the list of models, and what developers are told to set."""

import json
import time
from typing import Any

from services.cli.conformance.checklist import check
from services.cli.conformance.gateway import Gateway, error_of, told
from services.cli.conformance.provider import plain, says
from services.cli.conformance.recordings import recorded
from services.cli.conformance.recordings import told as recording_of
from services.cli.conformance.results import Broken, NotOffered, expect
from services.cli.conformance.scene import Scene
from services.cli.conformance.wire import Answer

DISCOVERY_SECONDS = 3.0
LISTED = b'{"data":[{"type":"model","id":"%b","display_name":"A"},{"type":"model","id":"%b","display_name":"B"}],"has_more":false}'
METHOD_NOT_FOUND = -32601


@check(24)
async def mcp_is_spoken(scene: Scene) -> str:
    """The client's own exchange, fixture 11: discovery of the new protocol, then the session of the old one."""
    origin = scene.gateway.base_url.removesuffix(scene.gateway.prefix)
    gateway = Gateway(scene.facts.mcp_url or f"{origin}/mcp")
    exchanges = recording_of("11-mcp-http-329")["exchanges"]
    discover, initialize = (each["request"]["body"] for each in exchanges[:2])
    answer = await _rpc(gateway, scene.keys.main, discover, ("mcp-protocol-version", "2026-07-28"))
    if answer.status in (404, 405, 501):
        denial = error_of(answer)["message"] if answer.status == 404 else str(answer.status)
        raise NotOffered(
            f"this gateway has no MCP: POST {gateway.prefix} is denied, “{denial}” (--mcp-url names a server)"
        )
    found = _reply(answer)
    code = (found.get("error") or {}).get("code")
    expect("result" in found or code == METHOD_NOT_FOUND, f"server/discover is answered {found}")
    opened = await _rpc(gateway, scene.keys.main, initialize)
    expect("result" in _reply(opened), f"initialize is answered {_reply(opened)}")
    session = (opened.header("mcp-session-id") or b"").decode()
    within = [("mcp-protocol-version", "2025-11-25")] + ([("mcp-session-id", session)] if session else [])
    await _rpc(gateway, scene.keys.main, {"jsonrpc": "2.0", "method": "notifications/initialized"}, *within)
    listing = await _rpc(gateway, scene.keys.main, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, *within)
    tools = _reply(listing).get("result", {}).get("tools")
    expect(isinstance(tools, list), f"tools/list is answered {listing.status}")
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "no-such-tool", "arguments": {}}}
    denied = _reply(await _rpc(gateway, scene.keys.main, call, *within))
    expect(
        (denied.get("result") or {}).get("isError") is True, f"a denied call is answered {denied}, not isError: true"
    )
    return f"server/discover, initialize, tools/list ({len(tools or [])} tools), a denied call as isError: true"


async def _rpc(gateway: Gateway, key: str, body: dict[str, Any], *more: tuple[str, str]) -> Answer:
    accept = ("Accept", "application/json, text/event-stream")
    return await gateway.send(gateway.request(key, json.dumps(body).encode(), accept, *more, path=""))


def _reply(answer: Answer) -> dict[str, Any]:
    """JSON, or the data of the last event. Raises Broken."""
    data = [line[5:] for line in answer.body.splitlines() if line.startswith(b"data:")] or [answer.body]
    try:
        found = json.loads(data[-1])
    except ValueError:
        raise Broken(f"no JSON-RPC: {answer.status} {answer.body[:80]!r}") from None
    return found if isinstance(found, dict) else {}


async def _listed(scene: Scene, key: str) -> list[dict[str, Any]]:
    began = time.monotonic()
    answer = await scene.gateway.send(scene.gateway.replay(recorded("07-models-discovery-197"), key))
    expect(answer.status == 200, f"GET /v1/models is answered {told(answer)}")
    expect(time.monotonic() - began < DISCOVERY_SECONDS, "it takes longer than the client waits (3 s)")
    found = json.loads(answer.body)
    missing = {"data", "has_more", "first_id", "last_id"} - set(found)
    expect(not missing, f"the list has no {', '.join(sorted(missing))}")
    return list(found["data"])


@check(27, "provider")
async def models_are_listed(scene: Scene) -> str:
    _offer(scene)
    models = await _listed(scene, scene.keys.main)
    names = [str(model["id"]) for model in models]
    seen = [name for name in names if "claude" in name or "anthropic" in name]
    expect(seen, f"no id with `claude`, so the client keeps none of {names}")
    expect(all("display_name" in model for model in models), "a model without display_name")
    return f"{len(names)} models in the official shape"


@check(27, "provider", "policy")
async def models_are_listed_by_the_key_s_policy(scene: Scene) -> str:
    _offer(scene)
    names = [str(model["id"]) for model in await _listed(scene, scene.keys.policy)]
    expect(names, "a key with a policy sees no model at all")
    expect(scene.facts.denied_model not in names, f"{scene.facts.denied_model} is listed, and denied when it is asked")
    return f"a key with a policy sees {', '.join(names)}"


def _offer(scene: Scene) -> None:
    models = (scene.facts.denied_model.encode(), scene.facts.allowed_model.encode())
    scene.provider.script = says(plain(LISTED % models))


WANTED = ("ANTHROPIC_BASE_URL", "CLAUDE_CODE_GATEWAY_HINT_HEADERS", "ANTHROPIC_DEFAULT_HAIKU_MODEL")


@check(34, "snippet")
async def developers_are_told_what_to_set(scene: Scene) -> str:
    for name in WANTED:
        expect(name in scene.facts.snippet, f"{name} is not set")
    retries = "CLAUDE_CODE_MAX_RETRIES"
    expect(retries in scene.facts.snippet, f"{retries} is not set for CI")
    return f"sets {', '.join((*WANTED, retries))}"
