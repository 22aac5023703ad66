"""Items 2, 3, 11, 23: who may enter, and what is told to whom."""

import json

from services.cli.conformance.checklist import check
from services.cli.conformance.gateway import error_of, header, message, told
from services.cli.conformance.provider import message_json, plain, says
from services.cli.conformance.recordings import recorded
from services.cli.conformance.results import expect
from services.cli.conformance.scene import Scene
from services.cli.conformance.wire import Answer

OK = says(plain(message_json()))
STRANGER = "vk-conformance-nobody-knows"
OAUTH = ("anthropic-beta", "claude-code-20250219,oauth-2025-04-20")


@check(2, "provider")
async def either_header_or_both_enter(scene: Scene) -> str:
    key, wanted = scene.keys.main, {}
    bearer, api_key = ("Authorization", f"Bearer {key}"), ("x-api-key", key)
    for name, given in {"bearer": [bearer], "x-api-key": [api_key], "both": [bearer, api_key]}.items():
        wanted[name] = (await scene.ask(*given, script=OK)).status
    expect(set(wanted.values()) == {200}, f"a known key is answered {wanted}")
    first = (await scene.ask(bearer, ("x-api-key", STRANGER), script=OK)).status
    second = (await scene.ask(("Authorization", f"Bearer {STRANGER}"), api_key, script=OK)).status
    expect(200 in (first, second) or first == second == 401, f"two different keys are answered {first} and {second}")
    wins = "Authorization" if first == 200 else "x-api-key" if second == 200 else "neither"
    return f"bearer, x-api-key and both: 200; of two different ones, {wins} counts"


@check(3, "provider")
async def the_virtual_key_stays_here(scene: Scene) -> str:
    recording = recorded("02-first-turn-197")
    given = ("Authorization", f"Bearer {scene.keys.main}"), ("x-api-key", scene.keys.main)
    asked = [scene.gateway.replay(recording, scene.keys.main), scene.gateway.request("", message("hello"), *given)]
    found = set[str]()
    for data in asked:
        _, sent = await scene.sent_up(data, OK)
        whole = sent.head + sent.body
        expect(scene.keys.main.encode() not in whole, "the virtual key reached the provider")
        credential = sent.header("x-api-key") or sent.header("authorization") or b""
        expect(credential, "no credential reached the provider")
        if secret := scene.facts.provider_secret:
            expect(secret.encode() in credential, "another credential than the provider's reached it")
        found |= {name for name in ("x-api-key", "authorization") if sent.header(name)}
    return f"upstream had {' and '.join(sorted(found))} of its own, the virtual key nowhere"


def _refused_for_good(answer: Answer, path: str) -> None:
    error = error_of(answer)
    expect((answer.status, error["type"]) == (401, "authentication_error"), f"{path}: {told(answer)}")
    expect(header(answer, "x-should-retry") == "false", f"{path}: no x-should-retry: false, so it is sent 11 times")


@check(11)
async def an_unknown_key_is_refused_for_good(scene: Scene) -> str:
    paths = ("/v1/messages?beta=true", "/v1/messages/count_tokens?beta=true")
    for path in paths:
        for given in (("Authorization", f"Bearer {STRANGER}"), ("x-api-key", STRANGER)):
            _refused_for_good(await scene.none_up(scene.gateway.request("", message("hello"), given, path=path)), path)
    _refused_for_good(await scene.none_up(scene.gateway.request("", message("hello"))), "without a credential")
    return "unknown key and none: 401 authentication_error, x-should-retry: false, nothing upstream"


@check(11, "revoked")
async def a_revoked_key_is_refused_for_good(scene: Scene) -> str:
    answer = await scene.none_up(scene.gateway.request(scene.keys.revoked, message("hello")))
    _refused_for_good(answer, "a revoked key")
    return f"revoked: “{error_of(answer)['message']}”"


@check(23)
async def a_subscription_token_is_explained_and_goes_nowhere(scene: Scene) -> str:
    token = ("Authorization", "Bearer sk-ant-oat01-dummy")
    said = ""
    for path in ("/v1/messages?beta=true", "/v1/messages/count_tokens?beta=true"):
        answer = await scene.none_up(scene.gateway.request("", message("hello"), token, OAUTH, path=path))
        _refused_for_good(answer, path)
        said = error_of(answer)["message"]
        words = ("subscription", "oauth", "claude.ai", "login", "ANTHROPIC_AUTH_TOKEN")
        expect(any(word.lower() in said.lower() for word in words), f"the reason does not explain: {json.dumps(said)}")
    return f"401, nothing upstream: “{said}”"
