"""What the owner's `Denied` says to a person: which budget or limit, how much of it is used, when to go on, whom to ask."""

from datetime import UTC, datetime

from services.edge.core.refusals import Limit, Refusal
from shared.contracts.attribution import Principal
from shared.contracts.budget import Denied, Granted
from shared.contracts.config import Key
from shared.directory import Directory

PERIODS = {"hour": "hourly", "day": "daily", "week": "weekly", "month": "monthly", "quarter": "quarterly"} | {
    "year": "yearly",
    "total": "total",
}
SCOPES = {"org": "organisation", "provider_config": "provider"}
POOLED = ("org", "customer", "team")  # their budgets are shared by many keys
LONGEST_BUSY_SECONDS = 60  # above it the client gives up at once instead of waiting (contract 3.3)


def refusal(denied: Denied, directory: Directory, now: int, *, model: str, stream: bool) -> Refusal:
    """now: microseconds. model: as asked for; stream: a request that does not stream can be told a way out."""
    match denied.reason:
        case "spent":
            return _spent(denied, directory, now, stream)
        case "busy" | "rate_limited":
            return (_busy if denied.reason == "busy" else _rate_limited)(denied, directory, now)
        case "unpriced":
            text = f"Model '{model}' has no price yet, and a budget of this key does not allow unpriced models."
            return Refusal(reason="invalid", code="unpriced", message=text + _ask(denied.contact))
        case "unboundable":
            return _unboundable(denied, directory)
        case "unknown":
            return Refusal(reason="authentication", code="unknown", message="This key is revoked or no longer exists.")
    return Refusal(
        reason="unavailable",
        code=denied.reason,
        message="The gateway could not admit this request; nothing was sent to the provider.",
        retry_after_s=1,
    )


def _spent(denied: Denied, directory: Directory, now: int, stream: bool) -> Refusal:
    left = denied.limit_nano_usd - denied.spent_nano_usd
    text = f"Budget exceeded: {_used(denied, directory)}"
    if 0 < left < denied.need_nano_usd:
        text += f": {dollars(left)} is left, and this request could cost {dollars(denied.need_nano_usd, up=True)}"
        if not stream:
            text += " (lower max_tokens, or stream)"
    elif 0 < denied.need_nano_usd <= left:  # there is room: the owner remembers a cut
        text += f": {dollars(left)} is left, at which an answer of this conversation was just cut"
    text += f"; {_resets(denied.resets_at)}."
    return Refusal(
        reason="spent",
        code=denied.reason,
        message=text + _ask(denied.contact),
        retry_after_s=_until(denied, now),
        limit=_limit(denied),
    )


def _unboundable(denied: Denied, directory: Directory) -> Refusal:
    text = (
        "The cost of this request cannot be bounded (inputs by URL or file, or tools that the provider runs), "
        f"and {budget_name(denied.budget_id, directory)} does not allow that."
    )
    return Refusal(reason="invalid", code="unboundable", message=text + _ask(denied.contact))


def _busy(denied: Denied, directory: Directory, now: int) -> Refusal:
    wait = min(LONGEST_BUSY_SECONDS, max(1, denied.retry_after_s))
    text = (
        f"Budget busy: {_used(denied, directory)}, and {dollars(denied.held_nano_usd)} is held for other requests; "
        f"retry at {clock(now + wait * 1_000_000)} UTC ({wait} s)."
    )
    return Refusal(
        reason="busy", code=denied.reason, message=text + _ask(denied.contact), retry_after_s=wait, limit=_limit(denied)
    )


def _rate_limited(denied: Denied, directory: Directory, now: int) -> Refusal:
    """Above 60 s the client fails at once and shows the sentence, so the time stands there too (contract 1)."""
    whose, limit = budget_name(denied.budget_id, directory), _rate(denied)
    most, used, asked = denied.rate_most, denied.rate_used, denied.rate_asked
    if asked > most:
        text = f"Request too large: it may take {asked:,} tokens, and the limit of {whose} is {most:,} {limit}."
        text += " Shorten it, or lower max_tokens."
        return Refusal(
            reason="beyond", code=denied.reason, message=text + _ask(denied.contact), limit=_rate_taken(denied)
        )
    wait = max(1, denied.retry_after_s)
    text = f"Rate limit reached: {whose} has used {used:,} of its {most:,} {limit}"
    if denied.rate_limit.startswith("tokens"):
        text += f", and this request may take {asked:,}"
    text += f"; retry at {clock(now + wait * 1_000_000)} UTC ({wait} s)."
    return Refusal(
        reason="busy",
        code=denied.reason,
        message=text + _ask(denied.contact),
        retry_after_s=wait,
        limit=_rate_taken(denied),
    )


def _rate(denied: Denied) -> str:
    """`requests per minute for claude-opus-*`."""
    models = denied.budget_id.split(":", 3)[3:]
    return denied.rate_limit.replace("_", " ") + "".join(f" for {pattern}" for pattern in models)


def _rate_taken(denied: Denied) -> Limit:
    return Limit(
        budget_id=denied.budget_id,
        period="",
        utilization_ppm=denied.rate_used * 1_000_000 // max(1, denied.rate_most),
        resets_at=denied.resets_at,
        pooled=split_budget_id(denied.budget_id)[0] in POOLED,
    )


def cutting_budget(granted: Granted, principal: Principal, directory: Directory) -> str:
    """Which budget a stream is cut at where none has refused it: what made its hold small, else the fullest that cuts.

    A hold may be smaller than the bound because only so much was expected. "" where nothing tells.
    """
    if granted.limited_by:
        return granted.limited_by
    lenient = {
        rule.id
        for _, _, rule in directory.rules_on(principal)
        if rule.mode in ("soft", "shadow") or rule.at_cap != "cut"
    }
    return next((each.budget_id for each in granted.standings if each.budget_id not in lenient), "")


def cut_off(budget_id: str, principal: Principal, directory: Directory) -> str:
    """What a stream ends with that has come to its hold. budget_id: where."""
    _, _, period = split_budget_id(budget_id)
    whose = f" of the {PERIODS.get(period, period)} budget of {budget_name(budget_id, directory)}" if budget_id else ""
    contact = next((rule.contact for _, _, rule in directory.rules_on(principal) if rule.id == budget_id), "")
    text = f"Budget exceeded: the answer was cut at what was left{whose}."
    return text + _ask(contact or directory.contact(principal))


def _limit(denied: Denied) -> Limit:
    scope, _, period = split_budget_id(denied.budget_id)
    taken = denied.spent_nano_usd + denied.held_nano_usd
    ppm = taken * 1_000_000 // denied.limit_nano_usd if denied.limit_nano_usd > 0 else 1_000_000
    return Limit(
        budget_id=denied.budget_id,
        period=period,
        utilization_ppm=ppm,
        resets_at=denied.resets_at,
        pooled=scope in POOLED,
    )


def _until(denied: Denied, now: int) -> int:
    """Seconds to the reset; a decision that was kept for a while must not repeat a count that has run down since."""
    if denied.resets_at:
        return max(1, -(-(denied.resets_at - now) // 1_000_000))
    return max(1, denied.retry_after_s)


def _used(denied: Denied, directory: Directory) -> str:
    _, _, period = split_budget_id(denied.budget_id)
    return (
        f"{budget_name(denied.budget_id, directory)} has used {dollars(denied.spent_nano_usd)} of its "
        f"{dollars(denied.limit_nano_usd)} {PERIODS.get(period, period)} budget"
    )


def _resets(at: int) -> str:
    return f"resets {datetime.fromtimestamp(at // 1_000_000, UTC):%Y-%m-%d %H:%M} UTC" if at else "it does not reset"


def _ask(contact: str) -> str:
    return f" Ask {contact} for an increase." if contact else ""


def clock(micros: int) -> str:
    """`14:05`, rounded up to the minute, so that nobody is told to retry too early."""
    return f"{datetime.fromtimestamp(-(-micros // 60_000_000) * 60, UTC):%H:%M}"


def split_budget_id(budget_id: str) -> tuple[str, str, str]:
    """`scope:scope_uid:period[:name]` → scope, uid, period."""
    scope, _, rest = budget_id.partition(":")
    uid, _, rest = rest.partition(":")
    return scope, uid, rest.partition(":")[0]


def budget_name(budget_id: str, directory: Directory) -> str:
    """`team 'payments'`; the bare scope where the directory does not know the uid any more."""
    scope, uid, _ = split_budget_id(budget_id)
    name = _provider_name(uid, directory) if scope == "provider_config" else directory.name(uid)
    word = SCOPES.get(scope, scope)
    return f"{word} '{name}'" if name else f"the {word or 'budget'}"


def _provider_name(uid: str, directory: Directory) -> str:
    """A key's budget for one provider is known by the provider's name. Only refusals come here: a scan will do."""
    for entity in directory.entities.values():
        if isinstance(entity, Key):
            for config in entity.providers:
                if config.uid == uid:
                    return directory.name(config.provider)
    return ""


def dollars(nano_usd: int, *, up: bool = False) -> str:
    """`$500.00`; below a dollar to the hundredth of a cent, since small budgets are told apart there."""
    digits, unit = (2, 10_000_000) if abs(nano_usd) >= 1_000_000_000 else (4, 100_000)
    parts = -(-nano_usd // unit) if up else nano_usd // unit
    sign, parts = ("-", -parts) if parts < 0 else ("", parts)
    whole, fraction = divmod(parts, 10**digits)
    text = f"{fraction:0{digits}d}"
    return f"{sign}${whole}.{text[:2]}{text[2:].rstrip('0')}"
