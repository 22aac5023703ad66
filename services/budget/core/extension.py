"""A stream needs more than it holds: what there is of it, at every hard budget that it is booked on."""

from collections.abc import Callable, Sequence

import msgspec

from services.budget.core.admission import Rules
from services.budget.core.holds import at_held_rate
from services.budget.core.limits import Limit
from services.budget.core.state import Hold, State
from services.budget.core.verdicts import no_budget, spent_refusal
from shared.contracts.budget import Denied, Extend, Granted
from shared.contracts.ledger import Extended
from shared.contracts.message import Micros, NanoUSD

LEAST_TOKENS = 256  # fewer are not worth a question


class Decided(msgspec.Struct, frozen=True, gc=False):
    """event: None where nothing moves."""

    event: Extended | None
    answer: Granted | Denied


class Lacking(msgspec.Struct, frozen=True, gc=False):
    """Not now: there is money that others hold, or an older stream is before it."""

    budget_ids: tuple[str, ...]


class _Booked(msgspec.Struct, frozen=True, gc=False):
    """A hard budget of the hold. most: for the extension, if all other holds came free."""

    limit: Limit
    most: NanoUSD
    free: NanoUSD


def judge(
    state: State, rules: Rules, ask: Extend, now: Micros, is_before: Callable[[str, str], bool]
) -> Decided | Lacking:
    """All that is asked for as soon as it is free everywhere; where it can never be, as much as is left.

    Asked again with the same n it answers the same. is_before: (budget_id, rid), whether an older stream waits there.
    """
    hold = state.holds.get(ask.rid)
    if hold is None:
        return Decided(None, no_budget(state, "too_late"))
    if ask.n in hold.extensions:
        return Decided(None, _granted(state, hold, hold.extensions[ask.n], 0))
    booked = _booked(state, rules, hold, now)
    tokens, price = ask.output_tokens, _price(hold, ask.output_tokens)
    refusing = [each for each in booked if each.most < price]
    if refusing:
        tokens = _tokens_for(hold, min(each.most for each in refusing))
        if tokens < min(LEAST_TOKENS, ask.output_tokens):
            return Decided(None, _refusal(state, rules, refusing, price, now))
        price = _price(hold, tokens)
    lacking = tuple(each.limit.id for each in booked if each.free < price or is_before(each.limit.id, ask.rid))
    if lacking:
        return Lacking(lacking)
    event = Extended(rid=ask.rid, n=ask.n, nano_usd=price, output_tokens=tokens, at=now)
    return Decided(event, _granted(state, hold, tokens, price))


def _booked(state: State, rules: Rules, hold: Hold, now: Micros) -> list[_Booked]:
    found = []
    for charge in hold.held.charges:
        limit = rules.catalogue.limit(charge.budget_id)
        if limit and limit.hard:
            left, free = limit.room(state, charge, hold.held.admitted_at, now)
            found.append(_Booked(limit, left - hold.nano_usd, free))
    return found


def _refusal(state: State, rules: Rules, refusing: Sequence[_Booked], price: NanoUSD, now: Micros) -> Denied:
    """By the strictest of those that refuse."""
    limit = min(refusing, key=lambda each: (each.limit.rule.at_cap != "cut", each.most)).limit
    denied = spent_refusal(state, limit, now, rules.catalogue.contact(limit))
    return msgspec.structs.replace(denied, need_nano_usd=price)


def _output_money(hold: Hold) -> NanoUSD:
    return hold.held.nano_usd - hold.held.input_nano_usd


def _price(hold: Hold, tokens: int) -> NanoUSD:
    return at_held_rate(tokens, _output_money(hold), hold.held.output_tokens)


def _tokens_for(hold: Hold, nano_usd: NanoUSD) -> int:
    money = _output_money(hold)
    return max(0, nano_usd * hold.held.output_tokens // money) if money else 0


def _granted(state: State, hold: Hold, output_tokens: int, price: NanoUSD) -> Granted:
    return Granted(
        held_input_tokens=hold.held.input_tokens,
        held_output_tokens=output_tokens,
        held_nano_usd=hold.nano_usd + price,
        charges=hold.held.charges,
        at_cap=hold.held.at_cap,
        remaining_nano_usd=0,
        standings=(),
        admitted_at=hold.held.admitted_at,
        owner_epoch=state.owner_epoch,
    )
