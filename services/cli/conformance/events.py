"""Streams of events: read as the official clients read them, and made by hand."""

import msgspec


def event(name: str, **data: object) -> bytes:
    """One event as the provider writes it."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name} | data))


def parse(stream: bytes) -> list[tuple[str, bytes]]:
    """Read a stream as the official clients do: dispatch at blank lines, the last `event:` counts, strict UTF-8."""
    found: list[tuple[str, bytes]] = []
    name, data = "", list[str]()
    for raw in stream.split(b"\n"):
        line = raw.decode("utf-8").removesuffix("\r")
        if not line:
            if name or data:
                found.append((name, "\n".join(data).encode()))
            name, data = "", []
        elif line.startswith("event:"):
            name = line[6:].removeprefix(" ")
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    return found


def names(stream: bytes) -> list[str]:
    """Of its events, in order."""
    return [name for name, _ in parse(stream)]
