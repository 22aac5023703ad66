"""Every target by its name."""

from collections.abc import Callable

from tests.fuzz.targets import answer, door, facts, messages, request, stream

TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": request.check,
    "answer": answer.check,
    "facts": facts.check,
    "stream": stream.check,
    "door": door.check,
    "messages": messages.check,
}
