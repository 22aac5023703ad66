"""From a request to everything that will be sent for it, decided before the first byte goes out."""

from collections.abc import Callable
from decimal import Decimal

import msgspec

from services.simulator.core import ask as asks
from services.simulator.core import frames, script, usage
from services.simulator.core.ask import Ask
from services.simulator.core.directives import Directives, UnknownDirective
from services.simulator.core.faults import Course, course
from services.simulator.core.frames import Message, Thinking
from services.simulator.core.script import Script
from services.simulator.core.tokens import BYTES_PER_TOKEN, Split
from services.simulator.core.usage import Account, Usage
from shared.contracts.edge import Line

Price = Callable[[tuple[Line, ...]], int]  # nano-USD at list price, rounded up once
Fast = Callable[[str], bool]  # whether a model is sold at fast speed
LARGEST_OUTPUT = 10_000_000
THINKING_SHARE = 4  # without a wish, a thinking model thinks a quarter of what it then says
TOOL_TOKENS = 8  # what a tool's name costs beside its input


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Silence before the first event and before each delta, where no directive says otherwise."""

    ttft_ms: int = 0
    chunk_ms: int = 0


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Output tokens by part. cut: max_tokens ended the answer."""

    thinking: int
    tool: int
    text: int
    cut: bool

    @property
    def output(self) -> int:
        """All of it, as the provider counts."""
        return self.thinking + self.tool + self.text


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A good answer and the course it really takes."""

    message: Message
    course: Course


def answer(ask: Ask, split: Split, request_id: str, price: Price, fast: Fast, pace: Pace) -> Answer:
    """Raises UnknownDirective where a directive's value makes no sense."""
    wish, said = ask.wish, script.script(ask)
    base = _account(ask, split, said, fast)
    if base.iterations:
        sizes = Sizes(thinking=0, tool=0, text=base.whole.output_tokens, cut=False)
    else:
        sizes = fit(*_wanted(ask, said, base, price), limit=ask.body.max_tokens or LARGEST_OUTPUT)
    whole = msgspec.structs.replace(base.whole, output_tokens=sizes.output, thinking=sizes.thinking)
    message = _message(ask, said, sizes, msgspec.structs.replace(base, whole=whole), request_id, pace)
    line = list(frames.stream(message))
    line[0] = msgspec.structs.replace(line[0], wait_ms=pace.ttft_ms if wish.ttft_ms is None else wish.ttft_ms)
    return Answer(message=message, course=course(tuple(line), wish, request_id))


def fit(thinking: int, tool: int, output: int, *, limit: int) -> Sizes:
    """Give each part its tokens, thinking first; a tool call that max_tokens would cut in two is left out."""
    total, cut = min(output, limit), output > limit
    thinking = min(thinking, total)
    tool = 0 if cut else min(tool, total - thinking)
    return Sizes(thinking=thinking, tool=tool, text=total - thinking - tool, cut=cut)


def _account(ask: Ask, split: Split, said: Script, fast: Fast) -> Account:
    """What is used, but for the output."""
    wish, model = ask.wish, ask.wish.model or ask.model
    named = (wish.input_tokens, wish.cache_read, wish.cache_5m, wish.cache_1h)
    if any(count is not None for count in named):  # who names one class wants to know all of them
        inputs = [count or 0 for count in named]
    else:
        inputs = [split.input_tokens, split.cache_read, split.cache_5m, split.cache_1h]
    whole = Usage(
        input_tokens=inputs[0],
        cache_read=inputs[1],
        cache_5m=inputs[2],
        cache_1h=inputs[3],
        searches=said.searches,
    )
    iterations = _iterations(wish)
    if iterations:
        own = [each for each in iterations if each.kind == "message"]
        made, read = sum(each.output_tokens for each in own), sum(each.input_tokens for each in own)
        whole = Usage(input_tokens=read, output_tokens=made, searches=said.searches)
    return Account(
        whole=whole,
        model=model,
        iterations=iterations,
        speed="fast" if (wish.speed or ask.body.speed) == "fast" and fast(model) else "standard",
        geo=wish.geo or ask.body.inference_geo or "global",
        tier=wish.tier,
        no_split=wish.no_split,
    )


def _iterations(wish: Directives) -> tuple[Usage, ...]:
    """`in:out`, `kind:in:out` or `kind:model:in:out`, separated by bars. Raises UnknownDirective."""
    found = list[Usage]()
    for written in wish.iterations.split("|") if wish.iterations else []:
        parts = written.strip().split(":")
        kind, model = (parts[0] if len(parts) > 2 else "message", parts[1] if len(parts) > 3 else "")
        if len(parts) not in (2, 3, 4) or not all(part.isdigit() for part in parts[-2:]):
            raise UnknownDirective(f"x-simulator: iterations: `{written}` is not [kind:[model:]]input:output")
        found.append(Usage(input_tokens=int(parts[-2]), output_tokens=int(parts[-1]), kind=kind, model=model))
    return tuple(found)


def _wanted(ask: Ask, said: Script, base: Account, price: Price) -> tuple[int, int, int]:
    """Tokens of thinking, of the tool and of everything, as if there were no max_tokens."""
    wish = ask.wish
    text = tokens_of(said.text)
    tool = TOOL_TOKENS + tokens_of(said.tool.input.decode()) if said.tool else 0
    thinks = ask.body.thinking.get("type") == "enabled"
    thinking = wish.thinking if wish.thinking is not None else text // THINKING_SHARE if thinks else 0
    if wish.cost_usd is not None:
        output = _affordable(base, thinking, wish.cost_usd, price, ask.body.max_tokens or LARGEST_OUTPUT)
    elif wish.output_tokens is not None:
        output = wish.output_tokens
    else:
        output = thinking + tool + max(text, wish.chunks or 0)
    return thinking, tool, output


def _affordable(base: Account, thinking: int, cost_usd: Decimal, price: Price, limit: int) -> int:
    """The most output whose bill does not pass the amount: exact where the rates allow, else less by under a token."""
    most = int(cost_usd * 1_000_000_000)

    def costs(output: int) -> int:
        made = msgspec.structs.replace(base.whole, output_tokens=output, thinking=min(thinking, output))
        return price(usage.lines(msgspec.structs.replace(base, whole=made)))

    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if costs(middle) <= most else (low, middle - 1)
    return low


def _message(ask: Ask, said: Script, sizes: Sizes, account: Account, request_id: str, pace: Pace) -> Message:
    wish = ask.wish
    tool = None if sizes.cut else said.tool
    reason = "max_tokens" if sizes.cut else "tool_use" if tool else "end_turn"
    hidden = wish.thinking_hidden or ask.body.thinking.get("display") == "omitted"
    return Message(
        id=f"msg_{request_id[4:]}",
        account=account,
        stop_reason=reason,
        text=_words(ask, said, sizes),
        text_tokens=sizes.text,
        tool=tool,
        tool_tokens=sizes.tool,
        thinking=Thinking(tokens=sizes.thinking, hidden=hidden) if sizes.thinking else None,
        searches=said.searches,
        chunks=wish.chunks or min(64, max(1, sizes.text // 4)),
        chunk_ms=pace.chunk_ms if wish.chunk_ms is None else wish.chunk_ms,
        deltas=wish.message_deltas,
        no_usage=wish.no_usage,
    )


def _words(ask: Ask, said: Script, sizes: Sizes) -> str:
    """The text, as long as its tokens say: four bytes each."""
    if tokens_of(said.text) == sizes.text or (asks.wants_json(ask.body) and not sizes.cut):
        return said.text
    size = sizes.text * BYTES_PER_TOKEN
    return said.text[:size] if len(said.text) >= size else f"{said.text} {frames.filler(size)}"[:size]


def tokens_of(text: str) -> int:
    """Tokens of a text that we say ourselves, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)
