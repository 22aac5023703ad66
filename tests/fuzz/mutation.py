"""Makes new cases of those that are kept: a few random changes, pieces of others, words of the protocol."""

import random
from collections.abc import Callable

WORDS = {
    "request": (
        *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b";", b",", b"0\r\n\r\n", b"5\r\nhello\r\n"),
        *(
            b"Content-Length: 5",
            b"Content-Length: 0",
            b"Transfer-Encoding: chunked",
            b"Host: a",
            b"Expect: 100-continue",
        ),
        *(
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: h2c",
            b"HTTP/1.0",
            b"HTTP/1.1",
            b"chunked",
            b"http://h",
        ),
        *(
            b"POST /v1/messages HTTP/1.1\r\n",
            b"GET ",
            b"HEAD ",
            b"x-api-key: vk",
            b"?",
            b"#",
            b"//",
            b"FFFFFFFFFFFFFFFF",
        ),
    ),
    "answer": (
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b"\0",
            b":",
            b";",
            b"0\r\n\r\n",
            b"5\r\nhello\r\n",
            b"HTTP/1.1",
        ),
        *(
            b"Content-Length: 5",
            b"Content-Length: 0",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"HTTP/1.0 200 OK",
        ),
        *(
            b"Content-Type: text/event-stream",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b" 204 ",
            b" 304 ",
            b" 101 ",
            b" 200 OK",
        ),
        *(b"event: message_stop\n", b'data: {"type":"message_stop"}\n\n', b"event: error\n", b"\n\n", b"Upgrade: x"),
    ),
    "facts": (
        *(
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\\",
            b"\\u0000",
            b"\\ud800",
            b"null",
            b"true",
            b"1e999",
            b"-0",
            b"\xff",
        ),
        *(
            b'"model":"m"',
            b'"messages":[]',
            b'"max_tokens":1',
            b'"stream":true',
            b'"mod\\u0065l":"n"',
            b'"thinking":{"type":"enabled"}',
        ),
        *(
            b'"type":"image","source":{"type":"base64","data":"',
            b'"cache_control":{"type":"ephemeral"}',
            b'"tools":[{}]',
            b"[[[[[[[[[[",
        ),
    ),
    "stream": (
        *(
            b"\n",
            b"\n\n",
            b"\r",
            b"\r\n",
            b"\r\n\r\n",
            b": ",
            b":",
            b"event: message_stop\n",
            b"event: error\n",
            b"event:error\n",
        ),
        *(
            b'data: {"type":"message_stop"}\n\n',
            b"event: ping\n",
            b"event: content_block_delta\ndata: ",
            b'"usage":{"output_tokens":9}',
        ),
        *(
            b'"type":"thinking_delta"',
            b'"estimated_tokens":4',
            b'"stop_reason":"end_turn"',
            b"null",
            b"\xef\xbb\xbf",
            b"\xe2\x80\xa8",
        ),
        *(b"\n\nevent: content_block_stop\n", b'"index":0', b"\x0b", b"\x0c", b"\x85", b"\x1c", b"data: "),
    ),
    "door": (
        *(
            b"Authorization: ",
            b"x-api-key: ",
            b"Bearer ",
            b"bearer\t",
            b"vk-test",
            b"\r\n",
            b" ",
            b"\t",
            b",",
            b", ",
            b"Basic ",
        ),
        *(b"X-API-KEY:vk-test", b"authorization:Bearer vk-test", b"anthropic-beta: oauth-2025-04-20", b"\xa0", b"\x85"),
    ),
    "messages": (
        *(
            b"\xc0",
            b"\xc1",
            b"\xcb",
            b"\xcf" + b"\xff" * 8,
            b"\xd3\x80" + b"\0" * 7,
            b"\xdd" + b"\xff" * 4,
            b"\x91" * 40,
        ),
        *(b"\xdf" + b"\xff" * 4, b"\xdb" + b"\xff" * 4, b"\xc6" + b"\xff" * 4, b"\x81", b"\x01", b"\x02", b"\xa1\xff"),
    ),
}
LONGEST = 60_000


class Mutator:
    """cases: what to start from. The same seed makes the same cases."""

    def __init__(self, seed: int, cases: list[bytes], words: tuple[bytes, ...]) -> None:
        self._rng = random.Random(seed)
        self._cases = cases
        self._words = words
        self._changes: tuple[Callable[[bytearray], None], ...] = (
            *(self._set, self._flip, self._insert, self._word, self._word, self._delete),
            *(self._repeat, self._splice, self._number, self._swap),
        )

    def next(self) -> bytes:
        data = bytearray(self._rng.choice(self._cases))
        for _ in range(self._rng.choice((1, 1, 2, 3, 6))):
            self._rng.choice(self._changes)(data)
        return bytes(data[:LONGEST])

    def _at(self, data: bytearray, more: int = 0) -> int:
        return self._rng.randrange(len(data) + more) if len(data) + more else 0

    def _piece(self, data: bytes | bytearray) -> tuple[int, int]:
        start = self._rng.randrange(len(data) + 1)
        return start, min(len(data), start + self._rng.choice((1, 2, 4, 16, 64, 1000)))

    def _set(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] = self._rng.randrange(256)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._at(data)] ^= 1 << self._rng.randrange(8)

    def _insert(self, data: bytearray) -> None:
        at = self._at(data, 1)
        data[at:at] = self._rng.randbytes(self._rng.choice((1, 1, 2, 8)))

    def _word(self, data: bytearray) -> None:
        start, end = self._piece(data)
        data[start : self._rng.choice((start, end))] = self._rng.choice(self._words)

    def _delete(self, data: bytearray) -> None:
        start, end = self._piece(data)
        del data[start:end]

    def _repeat(self, data: bytearray) -> None:
        start, end = self._piece(data)
        data[start:start] = data[start:end] * self._rng.choice((1, 1, 2, 10))

    def _splice(self, data: bytearray) -> None:
        other = self._rng.choice(self._cases)
        start, end = self._piece(other)
        at = self._at(data, 1)
        data[at:at] = other[start : self._rng.choice((end, len(other)))]

    def _number(self, data: bytearray) -> None:
        digits = [at for at, byte in enumerate(data[:4000]) if 48 <= byte <= 57]
        if digits:
            at = self._rng.choice(digits)
            data[at : at + 1] = self._rng.choice(
                (b"0", b"1", b"00", b"-1", b"99999999999999999999", b"5", b"a", b"1.5")
            )

    def _swap(self, data: bytearray) -> None:
        start, end = self._piece(data)
        piece = data[start:end]
        del data[start:end]
        at = self._at(data, 1)
        data[at:at] = piece
