"""The bytes of a JSON answer as far as they must be kept to read its figures: all of a usual one, the ends of a large one."""

import re

import msgspec

WHOLE_BYTES = 256 * 1024
"""What a larger answer has kept here would be held twice: it is on its way to the client by then."""
HEAD_BYTES, TAIL_BYTES = 4 * 1024, 64 * 1024
_TRIES = 16
"""Places in the tail that are tried: decoding each costs, and a text may hold thousands that look right."""

_MEMBER = re.compile(rb'"(?:usage|stop_reason)"\s*:')
_MODEL = re.compile(rb'"model"\s*:\s*"[^"\\]*"')
_any = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Collected:
    """Holds twice TAIL_BYTES and HEAD_BYTES at most once an answer is larger than WHOLE_BYTES."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._head = b""
        self._tail = bytearray()
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= WHOLE_BYTES:
            self._parts.append(data)
            return
        if self._parts:
            so_far = b"".join(self._parts)
            self._parts.clear()
            self._head, self._tail = so_far[:HEAD_BYTES], bytearray(so_far[-TAIL_BYTES:])
        self._tail += data[-TAIL_BYTES:]
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    def document(self) -> bytes:
        """The answer; of a large one an object with its model and what stands behind its content. Empty: unreadable."""
        if self.size <= WHOLE_BYTES:
            return b"".join(self._parts)
        tail, found = bytes(self._tail), b""
        for place in reversed([member.start() for member in _MEMBER.finditer(tail)][-_TRIES:]):
            # Only from a member of the outermost object does the rest, with a brace before it, make one object.
            rest = b"{" + tail[place:]
            try:
                _any.decode(rest)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            found = rest
        if not found:
            return b""
        model = _MODEL.search(self._head.partition(b'"content"')[0])
        return b'{"content":[0],' + (model.group() + b"," if model else b"") + found[1:]
