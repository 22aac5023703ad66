"""One full sample per bus message. `python -m tests.contract.samples` records those that have no example yet.

A recorded example is never written again: it stands for what old releases have stored.
"""

from pathlib import Path

from shared.contracts import audit, budget, config, edge, leases, ledger, pricing
from shared.contracts.attribution import Charge, Principal
from shared.contracts.message import Message, encode
from shared.contracts.streams import Position

EXAMPLES = Path(__file__).parent / "examples"

ORG, CUSTOMER, TEAM, KEY, PROVIDER, RID = (f"01KAJ9Z6J0000000000000000{letter}" for letter in "ABCDEF")
AT = 1_795_251_600_000_000
PRINCIPAL = Principal(org=ORG, customer=CUSTOMER, team=TEAM, key=KEY, tags={"cost_center": "4711"})
CHARGES = (Charge(budget_id=f"key:{KEY}:month", period_id="2026-11-01T00:00:00+00:00[UTC]"),)
LINES = (
    edge.Line(meter="input", quantity=3, model="claude-sonnet-4-5"),
    edge.Line(meter="cache_write_5m", quantity=12_304, model="claude-sonnet-4-5"),
    edge.Line(meter="output", quantity=550, model="claude-sonnet-4-5"),
)
USAGE = edge.UsageRecorded(
    rid=RID,
    request_id="req_1",
    attempt=1,
    kind="settled",
    shard="0",
    edge="01KAJ9Z6J0000000000000000G",
    epoch=1,
    spool_seq=1,
    principal=PRINCIPAL,
    charges=CHARGES,
    config_rev=1,
    held_nano_usd=60_000_000,
    admitted_at=AT,
    sent_at=AT + 1_000,
    closed_at=AT + 900_000,
    ttft_ms=210,
    duration_ms=900,
    provider=PROVIDER,
    request_model="claude-sonnet-4-5",
    canonical_model="claude-sonnet-4-5",
    wire_model="claude-sonnet-4-5",
    response_model="claude-sonnet-4-5",
    stream=True,
    body_digest=bytes(32),
    lines=LINES,
    provider_usage=b'{"input_tokens":3}',
    status=200,
    stop_reason="end_turn",
)
PRICED = pricing.UsagePriced(
    usage=USAGE,
    lines=tuple(
        pricing.PricedLine(line=line, rate_id="card", list_pico_usd=p, cost_pico_usd=p, charge_pico_usd=p)
        for line, p in zip(LINES, (9_000_000, 46_140_000_000, 8_250_000_000), strict=True)
    ),
    list_nano_usd=54_399_000,
    cost_nano_usd=54_399_000,
    charge_nano_usd=54_399_000,
    price_version="2026-11-21",
    usage_at=Position(log_id="L", seq=1),
)
DENIED = budget.Denied(
    budget_id=f"key:{KEY}:month",
    reason="spent",
    limit_nano_usd=500_000_000,
    spent_nano_usd=490_000_000,
    held_nano_usd=0,
    need_nano_usd=20_000_000,
    input_bound=4_000,
    resets_at=AT,
    retry_after_s=845_300,
    contact="platform@acme.example",
    owner_epoch=1,
)
GRANTED = budget.Granted(
    held_input_tokens=4_000,
    held_output_tokens=64_000,
    held_nano_usd=60_000_000,
    charges=CHARGES,
    at_cap="cut",
    remaining_nano_usd=1,
    standings=(
        budget.Standing(
            budget_id=f"key:{KEY}:month", period="month", utilization_ppm=760_000, surpassed_ppm=750_000, resets_at=AT
        ),
    ),
    admitted_at=AT,
    owner_epoch=1,
)
BALANCE = budget.Balance(
    budget_id=f"key:{KEY}:month",
    scope="key",
    scope_uid=KEY,
    period="month",
    period_id="2026-11-01T00:00:00+00:00[UTC]",
    mode="hard",
    limit_nano_usd=500_000_000,
    spent_nano_usd=1,
    held_nano_usd=2,
    resets_at=AT,
)
RULE = config.BudgetRule(id=f"key:{KEY}:month", limit_nano_usd=500_000_000, period="month")
HELD = ledger.Held(
    rid=RID,
    request_id="req_1",
    attempt=1,
    edge="e",
    epoch=1,
    config_rev=1,
    principal=PRINCIPAL,
    charges=CHARGES,
    provider=PROVIDER,
    model="claude-sonnet-4-5",
    nano_usd=60_000_000,
    input_nano_usd=15_000_000,
    input_tokens=4_000,
    output_tokens=3_000,
    stream=True,
    at_cap="cut",
    admitted_at=AT,
)
ENTRY = ledger.Entry(
    event_id=f"{RID}:0",
    kind="settled",
    corrects="",
    admitted_at=AT,
    booked_at=AT,
    charges=CHARGES,
    usage=PRICED,
    held_nano_usd=60_000_000,
)
EVENTS = (
    ledger.EpochBegan(owner_epoch=1, at=AT),
    ledger.LimitsApplied(config_rev=1, at=AT),
    HELD,
    ledger.Extended(rid=RID, n=1, nano_usd=1, output_tokens=1, at=AT),
    ledger.TruedUp(rid=RID, input_nano_usd=1, at=AT),
    ledger.Withdrawn(rid=RID, at=AT),
    ledger.Spent(rid=RID, budget_id="b", key=KEY, session="s", agent="", body_digest=b"", until=AT),
    ledger.Decided(scope=f"key:{KEY}", state="block", version=1, budget_id="b", at=AT),
    ledger.Lapsed(grant=RID, budget_id="b", period_id="total", used_nano_usd=1, at=AT),
    ledger.Departed(org="01ORG", move=7, to="1", uids=("01ORG", KEY), whole=True, at=AT),
    ledger.Arrived(org="01ORG", move=8, source="1", after=0, pieces=1, data=b"\x80", whole=True, at=AT),
    ledger.HandedOver(org="01ORG", move=7, at=AT),
    ledger.PassedOn(rid=RID, to="1", at=AT),
    ENTRY,
)

RESERVE = budget.Reserve(
    rid=RID,
    request_id="req_1",
    attempt=1,
    edge="e",
    epoch=1,
    config_rev=1,
    principal=PRINCIPAL,
    provider=PROVIDER,
    model="claude-sonnet-4-5",
    max_tokens=64_000,
    bounds=(budget.Bound(meter="text_bytes", quantity=76_372),),
    input_bytes=76_372,
    stream=True,
)
TERMS = leases.Terms(
    nano_usd=2_000_000_000,
    until=AT + 300_000_000,
    charges=CHARGES,
    at_cap="cut",
    input_pico_usd=3_750_000,
    output_pico_usd=15_000_000,
    tokens_per_100_bytes=60,
)
SAMPLES: dict[str, Message] = {
    "usage.recorded": USAGE,
    "request.completed": edge.RequestCompleted(
        request_id="req_1", edge="e", epoch=1, spool_seq=1, principal=PRINCIPAL, verdict="admitted", attempts=(RID,)
    ),
    "edge.status": edge.EdgeStatus(edge="e", epoch=1, at=AT, live=(RID,)),
    "edge.decision.ack": edge.DecisionAck(edge="e", version=1),
    "budget.reserve": RESERVE,
    "budget.verdict": budget.Verdict(rid=RID, answer=GRANTED),
    "budget.verdict.denied": budget.Verdict(rid=RID, answer=DENIED),
    "budget.verdict.queued": budget.Verdict(rid=RID, answer=budget.Queued(ahead=1, owner_epoch=1)),
    "budget.withdraw": budget.Withdraw(rid=RID, edge="e", epoch=1),
    "budget.extend": budget.Extend(rid=RID, n=1, output_tokens=2_000),
    "budget.cut": budget.Cut(rid=RID, budget_id="b", principal=PRINCIPAL),
    "budget.done": budget.Done(rid=RID, owner_epoch=1),
    "budget.trueup": budget.TrueUp(rid=RID, input_tokens=12_307, nano_usd=46_149_000),
    "budget.balances.asked": budget.BalancesAsked(org=ORG),
    "budget.balances": budget.Balances(items=(BALANCE,), total=1, config_rev=1, owner_epoch=1),
    "budget.luggage.asked": budget.LuggageAsked(org="01ORG", move=7, after=0),
    "budget.luggage": budget.LuggagePart(org="01ORG", move=7, after=0, pieces=1, data=b"\x80", whole=True),
    "budget.changed": budget.Changed(balance=BALANCE, threshold_ppm=800_000, at=AT),
    "budget.acknowledged.asked": budget.AcknowledgedAsked(),
    "budget.acknowledged": budget.Acknowledged(config_rev=3, decision_version=7, owner_epoch=2, lagging=("01EDGE",)),
    "budget.owned": budget.ShardOwned(shard="0", replica="budget-2", incarnation=RID, owner_epoch=7),
    "budget.lease": leases.LeaseAsked(lease=RID, like=RESERVE, attempts=20),
    "budget.lease.answered": leases.LeaseAnswered(lease=RID, owner_epoch=1, terms=TERMS),
    "budget.draw": leases.Drawn(
        lease=RID,
        draws=(
            leases.Draw(
                ask=RESERVE,
                admitted_at=AT,
                nano_usd=1_100_000_000,
                input_nano_usd=140_000_000,
                input_tokens=46_826,
                output_tokens=64_000,
            ),
        ),
    ),
    "budget.return": leases.Returning(lease=RID, edge="e", epoch=1),
    "edge.decision": budget.Decision(scope=f"key:{KEY}", state="block", version=1, owner_epoch=1, denied=DENIED),
    "ledger.commit": ledger.Commit(
        shard="0", owner_epoch=1, at=AT, digest=bytes(32), priced=Position(log_id="L", seq=1), events=EVENTS
    ),
    "usage.priced": PRICED,
    "prices.book": pricing.PriceBookPublished(version="2026-11-21", book=b"{}"),
    "audit.append": audit.AuditPage(
        chain_id="0",
        seq=1,
        prev=bytes(32),
        at=AT,
        read={"LEDGER": Position(log_id="L", seq=1)},
        entries=(
            audit.AuditEntry(
                at=AT, action="admitted", subject=f"rid:{RID}", actor=f"key:{KEY}", source="LEDGER", source_seq=1
            ),
        ),
    ),
    "config.changed": config.ConfigChanged(
        config_rev=1,
        at=AT,
        actor="admin",
        puts=(
            config.Org(uid=ORG, id="default"),
            config.Customer(uid=CUSTOMER, org=ORG, id="acme"),
            config.Team(uid=TEAM, org=ORG, customer=CUSTOMER, id="platform"),
            config.Key(
                uid=KEY,
                org=ORG,
                customer=CUSTOMER,
                team=TEAM,
                id="dev-asha",
                secrets=(config.Secret(id="s", hash=bytes(32), hint="vk-abc"),),
                budgets=(RULE,),
                providers=(config.ProviderConfig(uid=RID, provider=PROVIDER),),
            ),
            config.Provider(
                uid=PROVIDER,
                org=ORG,
                name="anthropic",
                kind="anthropic",
                base_url="https://api.anthropic.com",
                credentials=(config.Credential(id="main", ref="env:ANTHROPIC_API_KEY"),),
            ),
            config.PriceOverride(uid=RID, org=ORG, models=("claude-*",), percent_ppm=-120_000),
            config.Grant(uid=RID, org=ORG, budget_id=RULE.id, nano_usd=1, granted_at=AT, actor="admin"),
        ),
    ),
}


def main() -> None:
    EXAMPLES.mkdir(exist_ok=True)
    for name, message in SAMPLES.items():
        path = EXAMPLES / f"{name}.msgpack"
        if not path.exists():
            path.write_bytes(encode(message))


if __name__ == "__main__":
    main()
