"""One part of a document to one entity of the bus. What the document does not hold (secrets, uids) comes from `old`."""

import hashlib
import re
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from services.console.core.money import nano_usd
from services.console.core.problem import Invalid
from services.console.core.rules import ProviderUid, budget_rules, patterns, rate_limits
from shared.contracts import config, organisation

NewUid = Callable[[], str]
_REF = re.compile(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$")
FIXED = "fixed"
"""Id of the secret that a document gives."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an entity of the bus stands. revision is the one it had, 0 for a new one."""

    uid: str
    org: str
    managed_by: str
    revision: int = 0


def customer(doc: organisation.Customer, place: Place, where: str, provider_uid: ProviderUid) -> config.Customer:
    return config.Customer(
        uid=place.uid,
        org=place.org,
        id=doc.id,
        contact=doc.contact,
        budgets=budget_rules(doc.budgets, "customer", place.uid, f"{where}budgets", provider_uid),
        rate_limits=rate_limits(doc.rate_limits, f"{where}rate_limits"),
        tags=doc.tags,
        managed_by=place.managed_by,
        revision=place.revision,
    )


def team(
    doc: organisation.Team, place: Place, parent: config.Customer, where: str, provider_uid: ProviderUid
) -> config.Team:
    return config.Team(
        uid=place.uid,
        org=place.org,
        customer=parent.uid,
        id=doc.id,
        contact=doc.contact,
        budgets=budget_rules(doc.budgets, "team", place.uid, f"{where}budgets", provider_uid),
        rate_limits=rate_limits(doc.rate_limits, f"{where}rate_limits"),
        tags=doc.tags,
        managed_by=place.managed_by,
        revision=place.revision,
    )


def key(
    doc: organisation.Key,
    place: Place,
    parent: config.Team,
    old: config.Key | None,
    where: str,
    provider_uid: ProviderUid,
    new_uid: NewUid,
) -> config.Key:
    """Keeps secrets, revocation and provider configs' uids of `old`; a `secret` in the document replaces the last such."""
    return config.Key(
        uid=place.uid,
        org=place.org,
        customer=parent.customer,
        team=parent.uid,
        id=doc.id,
        owner=doc.owner,
        contact=doc.contact,
        secrets=_secrets(doc.secret, old.secrets if old else ()),
        budgets=budget_rules(doc.budgets, "key", place.uid, f"{where}budgets", provider_uid),
        session_budget_nano_usd=_session_budget(doc, where),
        rate_limits=rate_limits(doc.rate_limits, f"{where}rate_limits"),
        models=patterns(doc.models, f"{where}models"),
        providers=_provider_configs(doc, old, where, provider_uid, new_uid),
        tags=doc.tags,
        revoked_at=old.revoked_at if old else 0,
        managed_by=place.managed_by,
        revision=place.revision,
    )


def _session_budget(doc: organisation.Key, where: str) -> int:
    return 0 if doc.session_budget_usd is None else nano_usd(doc.session_budget_usd, f"{where}session_budget_usd")


def _secrets(fixed: str | None, old: tuple[config.Secret, ...]) -> tuple[config.Secret, ...]:
    """A document without `secret` leaves them as they are, so that what `get` wrote can be applied again."""
    if fixed is None:
        return old
    made = secret_of(fixed, FIXED)
    if any(secret.hash == made.hash for secret in old):
        return old
    return (*(secret for secret in old if secret.id != FIXED), made)


def secret_of(secret: str, secret_id: str, valid_from: int = 0) -> config.Secret:
    """Only its hash and a hint are kept: 256 random bits need no salt."""
    hint = secret[:7] if len(secret) >= 24 else secret[:3]  # a short fixed secret must not be half told
    return config.Secret(id=secret_id, hash=secret_hash(secret), hint=f"{hint}…", valid_from=valid_from)


def secret_hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _provider_configs(
    doc: organisation.Key, old: config.Key | None, where: str, provider_uid: ProviderUid, new_uid: NewUid
) -> tuple[config.ProviderConfig, ...]:
    known = {found.provider: found.uid for found in old.providers} if old else {}
    made: dict[str, config.ProviderConfig] = {}
    for index, part in enumerate(doc.providers):
        at = f"{where}providers[{index}]"
        provider = provider_uid(part.name, f"{at}.name")
        if provider in made:
            raise Invalid(f"{at}.name", f"`{part.name}` stands twice")
        uid = known.get(provider) or new_uid()
        made[provider] = config.ProviderConfig(
            uid=uid,
            provider=provider,
            budgets=budget_rules(part.budgets, "provider_config", uid, f"{at}.budgets", provider_uid),
            models=patterns(part.models, f"{at}.models"),
        )
    return tuple(made.values())


def provider(doc: organisation.Provider, place: Place, where: str) -> config.Provider:
    return config.Provider(
        uid=place.uid,
        org=place.org,
        name=doc.name,
        kind=doc.kind,
        base_url=_base_url(doc.base_url, f"{where}base_url"),
        credentials=_credentials(doc, where),
        models=patterns(doc.models, f"{where}models"),
        unpriced=doc.unpriced,
        region=doc.region,
        managed_by=place.managed_by,
        revision=place.revision,
    )


def _base_url(url: str, at: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.username or parts.query or parts.fragment:
        raise Invalid(at, "this is not an http or https address without user, query and fragment")
    return url.rstrip("/")


def _credentials(doc: organisation.Provider, where: str) -> tuple[config.Credential, ...]:
    """`credential` is short for one entry named default."""
    if doc.credential is not None and doc.credentials:
        raise Invalid(f"{where}credential", "give `credential` or `credentials`, not both")
    if doc.credential is not None:
        return (config.Credential(id="default", ref=_ref(doc.credential, f"{where}credential")),)
    made: dict[str, config.Credential] = {}
    for index, part in enumerate(doc.credentials):
        at = f"{where}credentials[{index}]"
        if part.id in made:
            raise Invalid(f"{at}.id", f"`{part.id}` stands twice")
        ref = _ref(part.ref, f"{at}.ref")
        made[part.id] = config.Credential(id=part.id, ref=ref, weight=part.weight, region=part.region)
    return tuple(made.values())


def _ref(ref: str, at: str) -> str:
    """The text is not repeated in the error: it may be the secret itself, pasted into the wrong place."""
    if not _REF.match(ref):
        raise Invalid(at, "a credential is a reference: `env:NAME` or `file:/path`")
    return ref
