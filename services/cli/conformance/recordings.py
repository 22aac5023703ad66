"""Recorded exchanges of the real client, as they lie in `captures/`; `manifest.json` there says where each is from."""

import json
from pathlib import Path
from typing import Any

import msgspec

Headers = list[tuple[str, str]]

CAPTURES = Path(__file__).with_name("captures")
NOT_PASSED = {"authorization", "x-api-key", "host", "connection", "accept-encoding", "content-length"}
"""Headers of a recorded request that belong to its connection or its credential."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A captured request: its line's words, headers in order, and the bytes of its body."""

    method: str
    path: str
    headers: Headers
    body: bytes

    def bytes_for(self, key: str, prefix: str = "/anthropic", host: str = "gateway.test") -> bytes:
        """As the client would send it with this virtual key to a gateway at this prefix."""
        own = {"authorization": f"Bearer {key}", "content-length": str(len(self.body)), "host": host}
        framed = [(name, own.get(name.lower(), value)) for name, value in self.headers]
        path = prefix + self.path.removeprefix("/anthropic")
        lines = [f"{self.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in framed)]
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    @property
    def passing(self) -> Headers:
        """What has to reach the provider, in this order."""
        return [header for header in self.headers if header[0].lower() not in NOT_PASSED]

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


def recorded(name: str) -> Recorded:
    """`02-first-turn-197`. Its body is written as the client writes JSON."""
    request = told(name)["request"]
    written = json.dumps(request["body"], separators=(",", ":"), ensure_ascii=False) if request["body"] else ""
    headers = [(str(key), str(value)) for key, value in request["headers"]]
    return Recorded(method=request["method"], path=request["path"], headers=headers, body=written.encode())


def told(name: str) -> dict[str, Any]:
    """The whole recording."""
    found = json.loads((CAPTURES / f"{name}.json").read_text())
    assert isinstance(found, dict)
    return found


def stream_of(name: str) -> bytes:
    """The recorded answer."""
    return (CAPTURES / f"{name}.sse").read_bytes()


class Vocabulary(msgspec.Struct, kw_only=True):
    """What a client says beside its prompts. headers: in lower case."""

    betas: set[str] = msgspec.field(default_factory=set)
    body_keys: set[str] = msgspec.field(default_factory=set)
    headers: set[str] = msgspec.field(default_factory=set)

    def hear(self, headers: Headers, body: object) -> None:
        self.headers |= {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() == "anthropic-beta":
                self.betas |= {beta.strip() for beta in value.split(",") if beta.strip()}
        if isinstance(body, dict):
            self.body_keys |= set(body)

    def beyond(self, known: "Vocabulary") -> "Vocabulary":
        """What is not in the other."""
        return Vocabulary(
            betas=self.betas - known.betas,
            body_keys=self.body_keys - known.body_keys,
            headers=self.headers - known.headers,
        )

    @property
    def empty(self) -> bool:
        return not (self.betas or self.body_keys or self.headers)


DOCUMENTED = Vocabulary(
    betas={"oauth-2025-04-20", "extended-cache-ttl-2025-04-11"},  # of a subscription login, which caches for an hour
    headers={"x-api-key"},
)
"""Known to us without a recording."""


def known_vocabulary() -> Vocabulary:
    """Of all recordings together, and what is documented."""
    found = Vocabulary(betas=set(DOCUMENTED.betas), headers=set(DOCUMENTED.headers))
    for path in sorted(CAPTURES.glob("[0-9]*.json")):
        if request := told(path.stem).get("request"):
            found.hear(request["headers"], request["body"])
    return found
