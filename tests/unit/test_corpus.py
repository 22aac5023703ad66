"""Ledgers of releases replay for ever, to the balances that were told when they were written."""

from collections import Counter

import pytest

from services.budget.core.inspection import Inspection
from shared.contracts.ledger import Commit, Entry
from shared.contracts.message import Decoder
from tests import corpus

_commit = Decoder(Commit)


def test_there_is_a_ledger_to_replay() -> None:
    assert corpus.kept()


@pytest.mark.parametrize("name", corpus.kept())
def test_a_kept_ledger_replays_to_its_recorded_balances(name: str) -> None:
    kept, inspection, closings = corpus.read(name), Inspection(), Counter[str]()
    for seq, data in enumerate(kept.records, 1):
        commit = _commit.decode(data)
        inspection.feed(seq, data, commit)
        closings.update(event.kind for event in commit.events if isinstance(event, Entry))
    assert [check for check in inspection.checks() if check.state != "ok"] == []
    counters = inspection.state.counters
    for balance in kept.balances:
        counter = counters[balance.budget_id, balance.period_id]
        assert (counter.cost_nano_usd, counter.held_nano_usd) == (balance.spent_nano_usd, balance.held_nano_usd)
    assert dict(closings) == kept.closings
