"""Server-sent events as Anthropic writes them: where one ends, what it is, whether it may be the last."""

import re

BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}")
"""A blank line in a stream that uses carriage returns; one at the very end may still become half of CRLF."""

_TERMINAL_HEADS = (
    *(b"event: message_stop", b"event: error", b"event:message_stop", b"event:error"),
    *(b'data: {"type":"message_stop"', b'data: {"type": "message_stop"', b'data: {"type":"error"'),
)


def end_of_event(data: bytes | bytearray, start: int, carriage: bool) -> int:
    """Index after the blank line that ends the event at `start`, -1 while it is unfinished."""
    if not carriage:
        found = data.find(b"\n\n", start)
        return found + 2 if found >= 0 else -1
    match = BLANK.search(data, start)
    return match.end() if match else -1


def fields(event: bytes) -> tuple[str, bytes]:
    """Name and data of one event; the last `event:` line counts, `data:` lines are joined."""
    name, data = b"", []
    for line in event.splitlines():
        key, _, value = line.partition(b":")
        if key == b"event":
            name = value.removeprefix(b" ")
        elif key == b"data":
            data.append(value.removeprefix(b" "))
    return name.decode("latin-1"), b"\n".join(data)


def may_be_terminal(event: bytes) -> int:
    """Offset from which an unfinished event must be kept back, since it may turn out to end the stream; -1: none."""
    offset = 0
    for line in event.splitlines(keepends=True):
        if any(line.startswith(head) or head.startswith(line) for head in _TERMINAL_HEADS):
            return offset
        offset += len(line)
    return -1
