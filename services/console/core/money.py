"""Dollars as people write them, and the integers they become. Exact both ways; a float is read by its shortest text."""

import re
from decimal import Decimal

from services.console.core.problem import Invalid

_NUMBER = re.compile(r"^[+-]?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?$", re.ASCII)
_MOST = 2**63 - 1

NANO = 9
PICO_PER_TOKEN = 6  # 1 USD per million tokens is 1,000,000 pico-USD per token
_DEAREST_PICO = 10**10  # a typing error beyond all prices must not make an amount that fits no column
_MOST_PPM = 10**9


def nano_usd(usd: float | int | str, where: str) -> int:
    """US dollars >= 0 in nano-USD. Raises Invalid below zero, beyond 64 bits, or with more than 9 decimals."""
    return _scaled(usd, NANO, where)


def pico_per_token(usd_per_million: float | int | str, where: str) -> int:
    """US dollars per million tokens in pico-USD per token; at most 6 decimals, and 10,000 dollars."""
    pico = _scaled(usd_per_million, PICO_PER_TOKEN, where)
    if pico > _DEAREST_PICO:
        raise Invalid(where, "no price is above 10,000 dollars per million tokens")
    return pico


def percent_ppm(percent: float | int | str, where: str) -> int:
    """A signed percentage in parts per million: -12 is -120,000. From -100 to 100,000, at most 4 decimals."""
    ppm = _scaled(percent, 4, where, signed=True)
    if ppm < -1_000_000:
        raise Invalid(where, "a price cannot fall by more than 100 percent")
    if ppm > _MOST_PPM:
        raise Invalid(where, "a price cannot rise by more than 100,000 percent")
    return ppm


def fraction_ppm(fraction: float) -> int:
    """A share of a limit, 0.8 for 80 %, in parts per million."""
    return round(Decimal(repr(fraction)) * 1_000_000)


def usd_of(nano: int) -> float | int | str:
    """The shortest form that reads back to exactly this many nano-USD."""
    return _plain(nano, NANO)


def usd_per_million_of(pico: int) -> float | int | str:
    return _plain(pico, PICO_PER_TOKEN)


def percent_of(ppm: int) -> float | int | str:
    return _plain(ppm, 4)


def _scaled(value: float | int | str, digits: int, where: str, *, signed: bool = False) -> int:
    text = repr(value) if isinstance(value, float) else str(value)
    if not _NUMBER.match(text):
        raise Invalid(where, f"`{text[:40]}` is not a decimal number")
    amount = Decimal(text).scaleb(digits)
    if amount != amount.to_integral_value():
        raise Invalid(where, f"{text} has more than {digits} decimals")
    if amount < 0 and not signed:
        raise Invalid(where, f"{text} is below zero")
    if abs(amount) > _MOST:
        raise Invalid(where, f"{text} is too large")
    return int(amount)


def _plain(amount: int, digits: int) -> float | int | str:
    exact = Decimal(amount).scaleb(-digits)
    if exact == exact.to_integral_value():
        return int(exact)
    short = float(exact)
    return short if Decimal(repr(short)) == exact else format(exact, "f")
