"""What closed calls have taught: how much output they make, and how many tokens a byte of their prompts is.

Part of the fold of the ledger: the same log teaches the same. Kept as histograms, so that old calls fade and none is kept.
"""

from collections.abc import Iterator

import msgspec

from shared.contracts.attribution import Principal
from shared.contracts.ledger import Entry, Held
from shared.contracts.pricing import PricedLine

KNOWN_CALLS = 200  # fewer teach nothing
OUTPUT_PER_MILLE = 950
PERCENT_PER_MILLE = 999
LEARNED_ABOVE_BYTES = 4_096  # in a shorter prompt what the provider adds around it outweighs the text
_FADE_AT = 20_000
_LOOK_EVERY = 16
_INPUT = ("input", "cache_write_5m", "cache_write_1h", "cache_read")
_OUTPUT = ("output", "thinking")


class Histogram(msgspec.Struct, gc=False):
    """counts by bucket; at: the bucket that the wanted share of all calls does not pass, as of the last look."""

    counts: dict[int, int] = {}
    total: int = 0
    at: int = 0

    @property
    def known(self) -> bool:
        return self.total >= KNOWN_CALLS

    def add(self, bucket: int, per_mille: int) -> None:
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += 1
        if self.total >= _FADE_AT:
            self.counts = {each: count // 2 for each, count in self.counts.items() if count > 1}
            self.total = sum(self.counts.values())
        if self.total % _LOOK_EVERY == 0 or self.total == KNOWN_CALLS:
            self.at = self._quantile(per_mille)

    def _quantile(self, per_mille: int) -> int:
        above = self.total * (1_000 - per_mille) // 1_000  # so many may be larger
        for bucket in sorted(self.counts, reverse=True):
            above -= self.counts[bucket]
            if above < 0:
                return bucket
        return 0


class Learned(msgspec.Struct, gc=False):
    """By name of whom it was learned from; see `_names`."""

    output: dict[str, Histogram] = {}
    percent: dict[str, Histogram] = {}

    def closed(self, held: Held, entry: Entry) -> None:
        """A call that was cut would have made more: it counts as all that it asked for. What broke off teaches nothing."""
        usage = entry.usage.usage
        if usage.kind != "settled" or usage.operation != "messages":
            return
        cut = usage.outcome == "cut"
        if not cut and (usage.outcome != "ok" or usage.estimated):
            return
        lines = entry.usage.lines
        tokens = max(held.max_tokens, held.output_tokens) if cut else _tokens(lines, _OUTPUT)
        bucket = bucket_of(tokens)
        for name in _names(held.principal, held.model):
            _histogram(self.output, name).add(bucket, OUTPUT_PER_MILLE)
        if held.text_bytes > LEARNED_ABOVE_BYTES and not usage.estimated:
            percent = -(-_tokens(lines, _INPUT) * 100 // held.text_bytes)
            _histogram(self.percent, _name(held.principal.key, held.model)).add(percent, PERCENT_PER_MILLE)

    def output_tokens(self, principal: Principal, model: str) -> int | None:
        """p95 of the nearest of whom enough is known; None where that is nobody."""
        for name in _names(principal, model):
            found = self.output.get(name)
            if found and found.known:
                return largest_in(found.at)
        return None

    def tokens_per_100_bytes(self, key: str, model: str) -> int | None:
        """p99.9 of the tokens that 100 bytes of this key's longer prompts to this model were."""
        found = self.percent.get(_name(key, model))
        return found.at if found and found.known else None


def bucket_of(tokens: int) -> int:
    """Buckets grow with what is in them: a quantile read from them is at most a sixteenth too large, never too small."""
    shift = max(0, tokens.bit_length() - 5)
    return shift * 16 + (tokens >> shift)


def largest_in(bucket: int) -> int:
    """Most tokens that fall into this bucket."""
    shift = max(0, bucket // 16 - 1)
    return ((bucket - shift * 16 + 1) << shift) - 1


def _names(principal: Principal, model: str) -> Iterator[str]:
    """The nearest first: the key with this model, then the key, its team, customer and org with whatever model."""
    yield _name(principal.key, model)
    for uid in (principal.key, principal.team, principal.customer, principal.org):
        if uid:
            yield uid


def _name(key: str, model: str) -> str:
    return f"{key} {model}"


def _histogram(found: dict[str, Histogram], name: str) -> Histogram:
    histogram = found.get(name)
    if histogram is None:
        histogram = found[name] = Histogram()
    return histogram


def _tokens(lines: tuple[PricedLine, ...], meters: tuple[str, ...]) -> int:
    return sum(each.line.quantity for each in lines if each.line.meter in meters)
