"""Price overrides of a document, in the form of the bus and back."""

from collections.abc import Callable

from services.console.core.entities import Place
from services.console.core.money import percent_of, percent_ppm, pico_per_token, usd_per_million_of
from services.console.core.paths import scope_name
from services.console.core.problem import Invalid
from services.console.core.rules import ProviderUid, patterns
from shared import clock
from shared.contracts import config, organisation
from shared.directory import Directory

ScopeUid = Callable[[str, str, str], str]
"""(kind, name, where) -> uid of a customer, team, key or provider."""


def price(
    doc: organisation.Price, place: Place, where: str, provider_uid: ProviderUid, scope_uid: ScopeUid
) -> config.PriceOverride:
    if not doc.models:
        raise Invalid(f"{where}models", "name at least one model or pattern")
    if (doc.percent is None) == (doc.usd_per_million is None):
        raise Invalid(f"{where}percent", "give either `percent` or `usd_per_million`")
    from_at, until_at = (_instant(text, f"{where}{name}") for text, name in ((doc.from_, "from"), (doc.until, "until")))
    if until_at and until_at <= from_at:
        raise Invalid(f"{where}until", "this is not after `from`")
    return config.PriceOverride(
        uid=place.uid,
        org=place.org,
        models=patterns(doc.models, f"{where}models"),
        scope=_scope(doc.scope, f"{where}scope", scope_uid),
        provider=provider_uid(doc.provider, f"{where}provider") if doc.provider else "",
        percent_ppm=0 if doc.percent is None else percent_ppm(doc.percent, f"{where}percent"),
        rates={} if doc.usd_per_million is None else _rates(doc.usd_per_million, f"{where}usd_per_million"),
        acts_on=doc.acts_on,
        from_at=from_at,
        until_at=until_at,
        managed_by=place.managed_by,
        revision=place.revision,
    )


def sameness(override: config.PriceOverride) -> tuple[object, ...]:
    """A price has no name: two are the same one when they say about the same thing from the same day on."""
    return (override.scope, override.provider, override.models, override.acts_on, override.from_at)


def _instant(text: str, at: str) -> int:
    if not text:
        return 0
    try:
        return clock.parse(text)
    except ValueError:
        raise Invalid(at, f"`{text}` is not a date like 2026-11-01 or an RFC 3339 instant") from None


def _scope(scope: str, at: str, scope_uid: ScopeUid) -> str:
    if not scope:
        return ""
    kind, _, name = scope.partition(":")
    if kind not in ("provider", "customer", "team", "key") or not name:
        raise Invalid(at, f"`{scope}` is not provider:NAME, customer:ID, team:ID or key:ID")
    return f"{kind}:{scope_uid(kind, name, at)}"


def _rates(card: organisation.UsdPerMillion, at: str) -> dict[str, int]:
    given = {name: getattr(card, name) for name in card.__struct_fields__}
    rates = {name: pico_per_token(usd, f"{at}.{name}") for name, usd in given.items() if usd is not None}
    if not rates:
        raise Invalid(at, "name the rate of at least one meter")
    return rates


def tree(directory: Directory, override: config.PriceOverride) -> dict[str, object]:
    """The way back, as the plain values of an organisation.Price; names for uids."""
    found: dict[str, object] = {
        "models": list(override.models),
        "scope": scope_name(directory, override.scope),
        "provider": directory.name(override.provider),
        "acts_on": override.acts_on,
        "from": _text(override.from_at),
        "until": _text(override.until_at),
    }
    if override.rates:
        found["usd_per_million"] = {meter: usd_per_million_of(pico) for meter, pico in override.rates.items()}
    else:
        found["percent"] = percent_of(override.percent_ppm)
    return found


def _text(at: int) -> str:
    """A whole day as its date, as people write it."""
    return clock.rfc3339(at).removesuffix("T00:00:00.000000Z")
