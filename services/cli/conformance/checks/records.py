"""Items 25, 29, 31: to whom a request belongs, and that nothing of a prompt is kept."""

import asyncio
import json
from uuid import uuid4

from services.cli.conformance.checklist import check
from services.cli.conformance.files import files
from services.cli.conformance.gateway import message, told
from services.cli.conformance.provider import Turn, message_json, plain, says, stream
from services.cli.conformance.recordings import recorded, stream_of
from services.cli.conformance.results import expect
from services.cli.conformance.scene import Scene

ODD_METADATA: tuple[object, ...] = (
    {"user_id": "x"}, {"user_id": '{"session_id": 7}'}, {"user_id": None}, {"user_id": [1]}, {}, None, "text", [1], 7,
)  # fmt: skip


@check(25, "provider")
async def metadata_of_any_shape_is_tolerated(scene: Scene) -> str:
    for metadata in ODD_METADATA:
        body = message("x", metadata=metadata)
        answer, sent = await scene.sent_up(scene.gateway.request(scene.keys.main, body), says(plain(message_json())))
        expect(answer.status == 200, f"metadata {json.dumps(metadata)} is answered {told(answer)}")
        expect(sent.body == body, f"metadata {json.dumps(metadata)} is changed on its way")
    return f"{len(ODD_METADATA)} shapes of metadata: 200"


@check(25, "provider", "books")
async def a_session_in_the_metadata_is_found(scene: Scene) -> str:
    session = str(uuid4())
    user = json.dumps({"device_id": "0" * 64, "account_uuid": "", "session_id": session})
    answer = await scene.ask(script=says(plain(message_json())), metadata={"user_id": user})
    found = (await scene.books.of(answer)).decision["session_id"]
    expect(found == session, f"the JSON in metadata.user_id is not read: session {found!r}")
    return "the session in metadata.user_id is read"


@check(25, "provider", "logs")
async def no_word_of_a_prompt_an_answer_or_a_key_is_kept(scene: Scene) -> str:
    """Looked for in every file, after requests that end in each way."""
    words = [f"{name}{uuid4().hex}" for name in ("prompt", "answer")]
    said = message_json(content=[{"type": "text", "text": words[1]}])
    stranger = f"vk-{uuid4().hex}"
    for script in (says(plain(said)), says(plain(said, "529 Overloaded")), _endless_short):
        asked = message(words[0], system=words[0], stream=script is _endless_short, metadata={"user_id": words[0]})
        for key in (scene.keys.main, stranger):
            await scene.sent(scene.gateway.request(key, asked), script)
    await scene.gateway.post(scene.keys.main, b'{"model": 7, "' + words[0].encode() + b'"')
    await asyncio.sleep(1)  # what is written late is written by then
    forbidden = [word.encode() for word in (*words, stranger)]
    looked_at = list(files(scene.facts.logs))
    found = [path.name for path, data in looked_at if any(word in data for word in forbidden)]
    expect(not found, f"kept in {', '.join(found)}")
    return f"no word of prompts, answers or foreign keys in {len(looked_at)} files"


async def _endless_short(turn: Turn) -> None:
    await turn.start_stream()
    await turn.chunk(stream_of("02-first-turn-197")[:700])
    turn.reset()


ATTRIBUTED = {
    "02-first-turn-197": ("main", ""),
    "04-subagent-haiku-197": ("subagent", ""),
    "09-hint-headers-main-329": ("main", "prompt"),
    "10-hint-headers-subagent-329": ("subagent", "prompt"),
}


@check(29, "provider", "books")
async def recorded_requests_are_attributed(scene: Scene) -> str:
    for name, (request_class, hint) in ATTRIBUTED.items():
        recording = recorded(name)
        answer = await scene.sent(scene.gateway.replay(recording, scene.keys.main), says(stream(stream_of(name))))
        row = (await scene.books.of(answer)).attempts[0]
        wanted = {
            "session_id": recording.header("x-claude-code-session-id"),
            "agent_id": recording.header("x-claude-code-agent-id"),
            "prompt_id": recording.header("x-claude-code-prompt-id") if hint else "",
            "request_class": request_class,
        }
        found = {column: row[column] for column in wanted}
        expect(found == wanted, f"fixture {name}: {found} instead of {wanted}")
    return f"{len(ATTRIBUTED)} recorded requests: session, agent, prompt id and class in the ledger"


@check(29, "provider", "books")
async def cost_is_told_by_session(scene: Scene) -> str:
    session = str(uuid4())
    answer = await scene.ask(("X-Claude-Code-Session-Id", session), script=says(plain(message_json())))
    entry = await scene.books.of(answer)
    line = await scene.books.grouped_by_session(session)
    expect(line, "no report has cost by session")
    assert line
    expect(line["cost_nano_usd"] == entry.cost_nano_usd, f"the report says {line['cost_nano_usd']} nano-USD")
    return "the spend report groups by session"


@check(31, "provider", "books")
async def a_title_is_classified_as_background(scene: Scene) -> str:
    recording = recorded("05-title-request-197")
    data = scene.gateway.replay(recording, scene.keys.main)
    row = (await scene.books.of(await scene.sent(data, says(stream(stream_of("05-title-request-197")))))).decision
    expect(row["request_class"] == "auxiliary", f"a recorded title request is classified {row['request_class']!r}")
    return "a recorded title request: auxiliary"
