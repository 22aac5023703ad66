"""May this key use this model, and where does the request go? The answer is a plan of attempts, in order."""

import hashlib
import math
from collections.abc import Iterator

import msgspec

from services.edge.core.facts import Facts
from services.edge.core.refusals import Refusal
from shared.contracts.attribution import Principal
from shared.contracts.config import Credential, Key, Provider, ProviderConfig
from shared.contracts.message import Uid
from shared.directory import Directory, allows
from shared.rates.names import canonical


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One way to serve the request. provider_config: uid of the key's entry for this provider, "" without one.

    wire_model: what upstream gets; where it equals the model asked for, the body is not touched.
    """

    provider: Provider
    provider_config: Uid
    credential: Credential
    wire_model: str
    base_url: str


REMEMBERED_MOST = 4_096  # clients choose models and sessions


class Policy:
    """`plan` and `has_hard_budget`, remembered while the organisation stays as it is: the turns of a session ask the same."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._config_rev = directory.config_rev
        self._plans: dict[tuple[str, str, str], tuple[Attempt, ...] | Refusal] = {}
        self._hard: dict[tuple[str, ...], bool] = {}
        self._needs_owner: bool | None = None

    def plan(self, key: Key, facts: Facts) -> "tuple[Attempt, ...] | Refusal":
        self._refresh()
        asked = (key.uid, facts.model, facts.session)
        found = self._plans.get(asked)
        if found is None:
            found = self._plans[asked] = plan(self._directory, key, facts)
        return found

    def has_hard_budget(self, path: Principal) -> bool:
        self._refresh()
        asked = (path.org, path.customer, path.team, path.key, path.provider_config)
        found = self._hard.get(asked)
        if found is None:
            found = self._hard[asked] = has_hard_budget(self._directory, path)
        return found

    def needs_owner(self) -> bool:
        self._refresh()
        if self._needs_owner is None:
            self._needs_owner = needs_owner(self._directory)
        return self._needs_owner

    def _refresh(self) -> None:
        changed = self._config_rev != self._directory.config_rev
        if changed or len(self._plans) > REMEMBERED_MOST or len(self._hard) > REMEMBERED_MOST:
            self._config_rev = self._directory.config_rev
            self._plans.clear()
            self._hard.clear()
            self._needs_owner = None


def plan(directory: Directory, key: Key, facts: Facts) -> tuple[Attempt, ...] | Refusal:
    """Later attempts are for when an earlier one could not send anything.

    A session stays with one credential while it can, since the provider's prompt cache belongs to it.
    """
    if not model_allowed(key.models, facts.model):
        return _denied(facts.model, [*key.models])
    paths = list(_paths(directory, key))
    if not paths:
        return _nowhere(key)
    open_paths = [path for path in paths if _serves(path, facts.model)]
    if not open_paths:
        return _denied(facts.model, [model for path in paths for model in _patterns(path)])
    sticky = facts.session or key.uid
    attempts = tuple(
        Attempt(
            provider=provider,
            provider_config=config.uid if config else "",
            credential=credential,
            wire_model=facts.model,
            base_url=provider.base_url,
        )
        for provider, config in open_paths
        for credential in by_preference(provider.credentials, sticky)
    )
    return attempts or _nowhere(key)


Path = tuple[Provider, ProviderConfig | None]


def _paths(directory: Directory, key: Key) -> Iterator[Path]:
    """Providers this key may use, in the order it names them; without such a list all of the organisation."""
    if not key.providers:
        yield from ((provider, None) for provider in directory.providers(key.org))
    for config in key.providers:
        if provider := directory.provider(config.provider):
            yield provider, config


def _serves(path: Path, model: str) -> bool:
    provider, config = path
    return model_allowed(provider.models, model) and (config is None or model_allowed(config.models, model))


def _patterns(path: Path) -> tuple[str, ...]:
    provider, config = path
    return (config.models if config else ()) or provider.models


def model_allowed(patterns: tuple[str, ...], model: str) -> bool:
    """A pattern may name a model with or without its date."""
    return allows(patterns, model) or allows(patterns, canonical(model))


def servable(directory: Directory, key: Key, model: str) -> bool:
    """Whether `plan` would find a way for this model."""
    return model_allowed(key.models, model) and any(_serves(path, model) for path in _paths(directory, key))


def by_preference(credentials: tuple[Credential, ...], sticky: str) -> list[Credential]:
    """By weighted rendezvous hashing: shares follow the weights, and a lost credential moves only its own sessions."""
    weighted = [credential for credential in credentials if credential.weight > 0]
    return sorted(weighted, key=lambda credential: _distance(credential, sticky)) if len(weighted) > 1 else weighted


def _distance(credential: Credential, sticky: str) -> float:
    digest = hashlib.sha256(f"{credential.id}\0{sticky}".encode()).digest()
    share = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 1)
    return -math.log(share) / credential.weight


def has_hard_budget(directory: Directory, principal: Principal) -> bool:
    """Whether a budget on the path must not be passed even when the owner is away. So it is with rate limits: only the
    owner counts over all edges."""
    key = directory.entities.get(principal.key)
    if isinstance(key, Key) and key.session_budget_nano_usd:
        return True
    hard = any(rule.mode not in ("soft", "shadow") for _, _, rule in directory.rules_on(principal))
    return hard or directory.rate_limited(principal)


def needs_owner(directory: Directory) -> bool:
    """Whether no stream can begin without the owner's word: there are ways to providers, and each has a hard budget on it."""
    ways = [
        directory.principal(key, config.uid if config else "")
        for key in directory.entities.values()
        if isinstance(key, Key)
        for _, config in _paths(directory, key)
    ]
    return bool(ways) and all(has_hard_budget(directory, way) for way in ways)


def _denied(model: str, allowed: list[str]) -> Refusal:
    names = ", ".join(dict.fromkeys(allowed)) or "none"
    return Refusal(
        reason="invalid",
        code="model_not_allowed",
        message=f"Model '{model}' is not allowed for this key. Allowed models: {names}.",
    )


def _nowhere(key: Key) -> Refusal:
    return Refusal(
        reason="misconfigured",
        code="no_provider",
        message=f"No provider with a credential is configured for key '{key.id}'.",
    )
