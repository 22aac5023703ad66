"""The usage object, as the provider reports it and as it bills it."""

from typing import Any

import msgspec

from shared.contracts.edge import Line


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one sampling, disjoint but for thinking, which is part of output. kind and model: of an iteration."""

    input_tokens: int = 0
    cache_read: int = 0
    cache_5m: int = 0
    cache_1h: int = 0
    output_tokens: int = 0
    thinking: int = 0
    searches: int = 0
    kind: str = "message"
    model: str = ""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer uses. iterations: empty, or all samplings, and then `whole` leaves out those of other kinds.

    no_split: the report does not say how long cache writes are kept, and then they cost as five minutes.
    """

    whole: Usage
    model: str
    iterations: tuple[Usage, ...] = ()
    speed: str = "standard"
    geo: str = ""
    tier: str = "standard"
    no_split: bool = False


def counts(usage: Usage, *, no_split: bool = False) -> dict[str, Any]:
    """The fields that every usage object has."""
    found: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_5m + usage.cache_1h,
        "cache_read_input_tokens": usage.cache_read,
    }
    if not no_split:
        found["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_5m,
            "ephemeral_1h_input_tokens": usage.cache_1h,
        }
    return found | {"output_tokens": usage.output_tokens}


def at_start(account: Account) -> dict[str, Any]:
    """The usage of message_start: the input is known, of the output one token at most."""
    first = msgspec.structs.replace(account.whole, output_tokens=min(1, account.whole.output_tokens))
    found = counts(first, no_split=account.no_split) | {"service_tier": account.tier}
    if account.geo:
        found["inference_geo"] = account.geo
    return found | {"speed": account.speed}


def at_delta(account: Account, output_tokens: int | None = None) -> dict[str, Any]:
    """The cumulative usage of a message_delta; the split, tier, geo and speed stand in message_start alone."""
    whole = account.whole if output_tokens is None else progressed(account.whole, output_tokens)
    found = counts(whole, no_split=True)
    if whole.thinking:
        found["output_tokens_details"] = {"thinking_tokens": whole.thinking}
    if whole.searches:
        found["server_tool_use"] = {"web_search_requests": whole.searches, "web_fetch_requests": 0}
    if account.iterations and output_tokens is None:
        found["iterations"] = [_iteration(each) for each in account.iterations]
    return found


def final(account: Account) -> dict[str, Any]:
    """The usage of a whole message: what a reader gets by merging message_delta over message_start."""
    return at_start(account) | at_delta(account)


def _iteration(usage: Usage) -> dict[str, Any]:
    named = {"model": usage.model} if usage.model else {}
    return {"type": usage.kind} | named | counts(usage)


def progressed(usage: Usage, output_tokens: int, searches: int | None = None) -> Usage:
    """The same sampling, of which only so much output was made. Thinking comes first."""
    made = min(output_tokens, usage.output_tokens)
    return msgspec.structs.replace(
        usage,
        output_tokens=made,
        thinking=min(usage.thinking, made),
        searches=usage.searches if searches is None else min(searches, usage.searches),
    )


def stopped(account: Account, output_tokens: int, searches: int) -> Account:
    """The account of an answer that ended early. Side samplings stand; the message's own are cut, the last first."""
    left, cut = output_tokens, list[Usage]()
    for each in account.iterations:
        if each.kind == "message":
            each = progressed(each, left)  # noqa: PLW2901  # the same entry, cut
            left -= each.output_tokens
        cut.append(each)
    whole = progressed(account.whole, output_tokens, searches)
    return msgspec.structs.replace(account, whole=whole, iterations=tuple(cut))


def lines(account: Account) -> tuple[Line, ...]:
    """What is billed, meter by meter: the iterations where there are any, else the whole; searches once."""
    found = list[Line]()
    for at, each in enumerate(account.iterations or (account.whole,)):
        write_1h = 0 if account.no_split and not account.iterations else each.cache_1h
        meters = {
            "input": each.input_tokens,
            "cache_write_5m": each.cache_5m + each.cache_1h - write_1h,
            "cache_write_1h": write_1h,
            "cache_read": each.cache_read,
            "output": each.output_tokens - each.thinking,
            "thinking": each.thinking,
        }
        found += [_line(account, meter, count, each.model, at) for meter, count in meters.items() if count]
    if account.whole.searches:
        found.append(_line(account, "web_search", account.whole.searches, "", 0))
    return tuple(found)


def _line(account: Account, meter: str, quantity: int, model: str, iteration: int) -> Line:
    return Line(
        meter=meter,
        quantity=quantity,
        model=model or account.model,
        iteration=iteration,
        tier=account.tier,
        speed=account.speed,
        geo=account.geo,
    )
