"""The price book, indexed for look-up by provider kind, model, speed, instant and prompt size."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from shared.clock import parse
from shared.contracts.pricing import PriceBook, RateCard, Tokens, UnitRate
from shared.rates.names import bare, canonical

TOKEN_METERS = Tokens.__struct_fields__
FOR_EVER = 1 << 62
GLOBAL = ("", "global")
REGIONAL = "regional"


class Limits(msgspec.Struct, frozen=True):
    """What a model can do at most, in tokens: for bounds where the body names none."""

    max_tokens: int
    context_tokens: int


class _Dated(msgspec.Struct, frozen=True):
    """A card with its validity in microseconds, until exclusive."""

    card: RateCard
    from_at: int
    until_at: int


class Book:
    """A PriceBook that is quick to ask. Made once per version; never changes.

    Raises ValueError when the book has no card, since a ceiling could then not be told, or an instant is malformed.
    """

    def __init__(self, book: PriceBook) -> None:
        if not book.cards:
            raise ValueError("a price book without cards would make everything free")
        self.version = book.version
        self._cards: dict[tuple[str, str, str], list[_Dated]] = defaultdict(list)
        self._models: dict[tuple[str, str], list[RateCard]] = defaultdict(list)
        for card in book.cards:
            self._add(card)
        self._limits = {
            name: Limits(max(card.max_tokens for card in cards), max(card.context_tokens for card in cards))
            for name, cards in self._models.items()
        }
        self._units: dict[tuple[str, str], list[tuple[UnitRate, int, int]]] = defaultdict(list)
        for unit in book.units:
            self._units[unit.provider, unit.meter].append((unit, *_validity(unit.valid_from, unit.valid_until)))
        self._regions = {(region.provider, region.region): region.percent for region in book.regions}
        self._ceilings = _ceilings(book.cards)
        self._families = {card.family for card in book.cards if card.family}
        dated = [(card.valid_from, card.valid_until) for card in book.cards]
        dated += [(unit.valid_from, unit.valid_until) for unit in book.units]
        self._turns = sorted({at for each in dated for at in _validity(*each)})

    def next_change(self, at: int) -> int:
        """When any rate begins or ends next; FOR_EVER when none does."""
        later = bisect_right(self._turns, at)
        return self._turns[later] if later < len(self._turns) else FOR_EVER

    def _add(self, card: RateCard) -> None:
        dated = _Dated(card, *_validity(card.valid_from, card.valid_until))
        for model in dict.fromkeys((*card.models, *(canonical(model) for model in card.models))):
            self._cards[card.provider, model, card.speed].append(dated)
            self._models[card.provider, model].append(card)

    def cards(self, provider_kind: str, model: str, speed: str, at: int) -> tuple[RateCard, ...]:
        """The cards of this model and speed in force at `at`: one per band of prompt size; empty when none is.

        The exact id counts first, then the id without the marks of a cloud, then the canonical one.
        """
        for name in (model, bare(model), canonical(model)):
            if found := self._cards.get((provider_kind, name, speed)):
                return tuple(dated.card for dated in found if dated.from_at <= at < dated.until_at)
        return ()

    def card(self, provider_kind: str, model: str, speed: str, at: int, prompt_tokens: int) -> RateCard | None:
        """The card that prices a request whose prompt (input + cache reads + cache writes) has this many tokens."""
        for card in self.cards(provider_kind, model, speed, at):
            above = prompt_tokens > card.prompt_above or card.prompt_above == 0
            if above and (card.prompt_up_to is None or prompt_tokens <= card.prompt_up_to):
                return card
        return None

    def ceiling(self, provider_kind: str, model: str) -> RateCard:
        """The dearest of everything this model's family was ever sold at; of the provider, where no family is known.

        Taken meter by meter over all dates, speeds and bands, so that it is never below what the card will turn out to be.
        A provider kind without any card takes the dearest of the whole book. Its id is empty: it prices nothing by right.
        """
        words = set(canonical(model).split("-"))
        for family in sorted(words & self._families):
            for provider in (provider_kind, ""):
                if found := self._ceilings.get((provider, family)):
                    return found
        return self._ceilings.get((provider_kind, "")) or self._ceilings["", ""]

    def names(self, provider_kind: str, model: str) -> frozenset[str]:
        """Every id that means this model: what an override's pattern is held against, so that hold and bill agree on it
        although the one knows the name that was asked for and the other the name that answered.
        """
        own = {model, bare(model), canonical(model)}
        cards = next((found for name in (model, *own) if (found := self._models.get((provider_kind, name)))), [])
        return frozenset(own.union(*(card.models for card in cards)))

    def unit(self, provider_kind: str, meter: str, at: int) -> UnitRate | None:
        """The rate of a meter that does not depend on the model."""
        found = self._units.get((provider_kind, meter), ())
        return next((unit for unit, from_at, until_at in found if from_at <= at < until_at), None)

    def unit_ceiling(self, meter: str) -> int | None:
        """The dearest rate of this meter anywhere, in pico-USD for one; None when no provider sells it."""
        rates = [unit.pico_usd for (_, name), units in self._units.items() if name == meter for unit, _, _ in units]
        return max(rates, default=None)

    def region_percent(self, provider_kind: str, region: str) -> int:
        """Percent of every token rate in this region: its own class, else, unless global, what a regional endpoint takes."""
        own = self._regions.get((provider_kind, region or "global"))
        if own is not None:
            return own
        return 100 if region in GLOBAL else self._regions.get((provider_kind, REGIONAL), 100)

    def limits(self, provider_kind: str, model: str) -> Limits:
        """The model's own limits; for a model without a card the largest of its family or provider."""
        for name in (model, bare(model), canonical(model)):
            if limits := self._limits.get((provider_kind, name)):
                return limits
        ceiling = self.ceiling(provider_kind, model)
        return Limits(ceiling.max_tokens, ceiling.context_tokens)


def _validity(valid_from: str, valid_until: str | None) -> tuple[int, int]:
    return parse(valid_from), FOR_EVER if valid_until is None else parse(valid_until)


def _ceilings(cards: Iterable[RateCard]) -> dict[tuple[str, str], RateCard]:
    """(provider, family) to the dearest of its cards; an empty string stands for any."""
    groups: dict[tuple[str, str], list[RateCard]] = defaultdict(list)
    for card in cards:
        for group in {(provider, family) for provider in (card.provider, "") for family in (card.family, "")}:
            groups[group].append(card)
    return {group: _dearest(group[0], found) for group, found in groups.items()}


def _dearest(provider: str, cards: list[RateCard]) -> RateCard:
    rates = {meter: max(getattr(card.rates, meter) or 0 for card in cards) for meter in TOKEN_METERS}
    top = max(rates.values())  # a class that no card of the family sells
    return RateCard(
        id="",
        provider=provider,
        models=(),
        rates=Tokens(**{meter: rate or top for meter, rate in rates.items()}),
        geo_percent=max(card.geo_percent for card in cards),
        batch_percent=max(card.batch_percent for card in cards),
        max_tokens=max(card.max_tokens for card in cards),
        context_tokens=max(card.context_tokens for card in cards),
    )
