"""How findings become results, and what is known of the client's words."""

from services.cli.conformance import report
from services.cli.conformance.checklist import ITEMS
from services.cli.conformance.recordings import Vocabulary, known_vocabulary, recorded
from services.cli.conformance.results import Finding, Report, Status, verdict


def result(*statuses: Status, item: int = 4) -> str:
    found = [Finding(item=item, check=str(n), status=status, evidence=f"e{n}") for n, status in enumerate(statuses)]
    return verdict(ITEMS[item], found).result


def test_an_item_is_passed_only_when_all_of_it_was_looked_at() -> None:
    assert result("passed", "passed") == "passed"
    assert result("passed", "not run") == "partly"
    assert result("not run", "not run") == "not run"
    assert result() == "not run"


def test_one_failed_check_fails_its_item() -> None:
    assert result("passed", "failed", "not run") == "failed"
    assert result("not offered", "failed") == "failed"


def test_what_a_gateway_does_not_offer_is_never_passed() -> None:
    assert result("not offered") == "not offered"


def whole(must: Status, should: Status) -> Report:
    items = tuple(
        verdict(ITEMS[number], [Finding(item=number, check="c", status=status, evidence="a | b")])
        for number, status in ((4, must), (30, should))
    )
    return Report(at="2026-11-21T00:00:00Z", program="sluicegate", base_url="http://g", clients=(), items=items)


def test_a_must_decides_and_strictly_everything_does() -> None:
    assert (whole("failed", "passed").failed, whole("passed", "failed").failed) == (True, False)
    assert (whole("passed", "passed").spotless, whole("passed", "failed").spotless) == (True, False)
    assert (whole("passed", "not offered").spotless, whole("not run", "passed").spotless) == (True, False)


def test_evidence_cannot_break_a_table() -> None:
    assert r"| passed | a \| b |" in report.markdown(whole("passed", "passed"))


def test_a_beta_a_body_key_and_a_header_that_nobody_knows_are_noticed() -> None:
    heard, recording = Vocabulary(), recorded("02-first-turn-197")
    heard.hear(recording.headers, {"model": "m", "messages": []})
    assert heard.beyond(known_vocabulary()).empty
    heard.hear([("anthropic-beta", "effort-2025-11-24, time-travel-2031"), ("X-New", "1")], {"dream": True})
    new = heard.beyond(known_vocabulary())
    assert (new.betas, new.body_keys, new.headers) == ({"time-travel-2031"}, {"dream"}, {"x-new"})
