"""What the load sends: the same conversation in the words of each gateway, and how to know that an answer is whole."""

MODEL = "claude-sonnet-5-5"
SIZES = {"75kB": 75_000, "1kB": 1_000}


def text(length: int) -> bytes:
    return (b"lorem ipsum " * (length // 12 + 1))[: max(0, length)]


def anthropic(streams: bool, size: int) -> tuple[str, bytes]:
    """(path, body) as Claude Code sends them."""
    head = b'{"model":"%b","stream":%b,"max_tokens":1000,"messages":[{"role":"user","content":"' % (
        MODEL.encode(),
        b"true" if streams else b"false",
    )
    return "/v1/messages?beta=true", head + text(size - len(head) - 4) + b'"}]}'


def tensorzero(streams: bool, size: int) -> tuple[str, bytes]:
    """(path, body) in OpenAI's format: the embedded gateway serves no other."""
    head = (
        b'{"model":"tensorzero::model_name::%b","stream":%b,"max_tokens":1000,"messages":[{"role":"user","content":"'
        % (
            MODEL.encode(),
            b"true" if streams else b"false",
        )
    )
    return "/openai/v1/chat/completions", head + text(size - len(head) - 4) + b'"}]}'


SHAPES = {"anthropic": anthropic, "tensorzero": tensorzero}
LAST_WORDS = (b"message_stop", b"[DONE]")
"""One of them stands in every stream that is whole."""
WORDS = b"word word"
"""In the JSON answer of the provider, and so in what any gateway makes of it."""


def request(shape: str, key: str, streams: bool, size: int) -> bytes:
    """Head and body, ready to be written."""
    path, body = SHAPES[shape](streams, size)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {key}\r\n"
        "User-Agent: claude-cli/2.1.329 (external, sdk-cli)\r\nAccept: application/json\r\n"
        "X-Claude-Code-Session-Id: 00000000-0000-4000-8000-000000000001\r\nanthropic-version: 2023-06-01\r\n"
        "anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def whole(streams: bool, answer: bytes) -> bool:
    """Whether a 200 tells all that the provider said; a gateway that breaks off must not look cheap."""
    return any(words in answer for words in LAST_WORDS) if streams else WORDS in answer and answer.endswith(b"}")
