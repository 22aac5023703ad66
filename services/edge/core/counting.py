"""May the provider's own count of the input save a request that its bound keeps out? What to ask, and what it changes."""

import msgspec

from services.edge.core.bounds import Body
from services.edge.core.facts import Facts
from shared.contracts.budget import Bound, Denied
from shared.errors import Unavailable

SMALL_BYTES = 4_096  # below it the bound is mostly what the provider adds around a prompt
MOST_BYTES_PER_TOKEN = 8  # no text has more
LEAST_ABOVE_TOKENS = 64  # the count is the provider's estimate
ABOVE_PERCENT = 2
COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "output_format")
"""Fields of a request that are part of its input. The endpoint refuses those it does not know."""
_REPLACED = ("text_bytes", "image", "page")  # bounds that the count stands in for

_body = msgspec.json.Decoder(Body)


class _Count(msgspec.Struct, frozen=True):
    input_tokens: int


_count = msgspec.json.Decoder(_Count)


def is_worth_asking(denied: Denied, facts: Facts) -> bool:
    """Whether only the bound of the input may stand between the request and what is left.

    A denial does not tell how much of its need is input. But where all of it were, it would shrink as far as the input
    can, and no further; where even that is more than what is left, counting is of no use.
    """
    left = denied.limit_nano_usd - denied.spent_nano_usd
    if denied.reason != "spent" or not 0 < left < denied.need_nano_usd or facts.input_bytes <= SMALL_BYTES:
        return False
    sizes = {bound.meter: bound.quantity for bound in facts.bounds}
    if sizes.keys() & {"unboundable", "input_tokens"} or denied.input_bound <= 0:
        return False
    fewest = sizes.get("text_bytes", 0) // MOST_BYTES_PER_TOKEN
    return denied.need_nano_usd * fewest <= left * denied.input_bound


def question(body: bytes, wire_model: str) -> bytes:
    """The body of `POST /v1/messages/count_tokens` for this request: its own values, byte for byte, but for the model."""
    found = _body.decode(body)
    asked = {name: found[name] for name in COUNTED if name in found}
    asked["model"] = msgspec.Raw(msgspec.json.encode(wire_model))
    return msgspec.json.encode(asked)


def path(messages_path: str) -> str:
    """Of the endpoint, with the query of the request that it is asked for."""
    bare, mark, query = messages_path.partition("?")
    return f"{bare}/count_tokens{mark}{query}"


def answer(status: int, body: bytes) -> int:
    """The count. Raises Unavailable where there is none."""
    try:
        tokens = _count.decode(body).input_tokens if status == 200 else 0
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable("count_tokens") from error
    if tokens <= 0:
        raise Unavailable("count_tokens")
    return tokens


def counted(facts: Facts, tokens: int) -> Facts:
    """With the count as the bound of the input; searches still add to it."""
    bound = tokens + max(LEAST_ABOVE_TOKENS, tokens * ABOVE_PERCENT // 100)
    others = tuple(bound for bound in facts.bounds if bound.meter not in _REPLACED)
    bounds = (Bound(meter="input_tokens", quantity=bound), *others)
    return msgspec.structs.replace(facts, bounds=bounds, input_estimate=tokens)


def bound_of(facts: Facts) -> int:
    """Tokens of input that a counted request is held for."""
    return next(bound.quantity for bound in facts.bounds if bound.meter == "input_tokens")
