"""What a run finds: one finding for each check, folded into one result for each item of the checklist."""

from collections.abc import Iterable
from typing import Literal

import msgspec

Level = Literal["MUST", "SHOULD"]
Status = Literal["passed", "failed", "not run", "not offered"]
Result = Literal["passed", "partly", "failed", "not run", "not offered"]


class Broken(Exception):
    """The gateway does not do what the check asks of it; the message is the evidence."""


class NotOffered(Exception):
    """The gateway, or this version of the client, does not have what the check is about; the message says how it shows."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item of the checklist."""

    number: int
    level: Level
    title: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check of one item. check: a sentence; client: the version of the real client that it ran with, if any."""

    item: int
    check: str
    status: Status
    evidence: str
    seconds: float = 0.0
    client: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found for one item."""

    item: int
    level: Level
    title: str
    result: Result
    evidence: str
    checks: tuple[Finding, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. base_url: of the gateway, without a key; clients: versions of the real client that ran."""

    at: str
    program: str
    base_url: str
    clients: tuple[str, ...]
    items: tuple[Verdict, ...]

    @property
    def failed(self) -> bool:
        """Whether a MUST is not kept."""
        return any(verdict.level == "MUST" and verdict.result == "failed" for verdict in self.items)

    @property
    def spotless(self) -> bool:
        """Whether every item was looked at in full and is kept, but for what is not offered at all."""
        return all(verdict.result in ("passed", "not offered") for verdict in self.items)


def expect(condition: object, otherwise: str) -> None:
    """Raises Broken."""
    if not condition:
        raise Broken(otherwise)


def verdict(item: Item, findings: Iterable[Finding]) -> Verdict:
    """One failed check fails its item. An item is passed only when all its checks ran: what was not seen is said."""
    found = tuple(findings)
    failed = [finding for finding in found if finding.status == "failed"]
    passed = [finding for finding in found if finding.status == "passed"]
    absent = [finding for finding in found if finding.status == "not offered"]
    missing = [finding for finding in found if finding.status == "not run"]
    result: Result = "partly" if missing else "passed"
    if failed:
        result = "failed"
    elif not passed:
        result = "not offered" if absent else "not run"
    told = _each(failed or passed or absent)
    if missing and not failed:
        told += [f"not run: {reason}" for reason in dict.fromkeys(finding.evidence for finding in missing)]
    return Verdict(
        item=item.number,
        level=item.level,
        title=item.title,
        result=result,
        evidence="; ".join(told) or "nothing to look at",
        checks=found,
    )


def _each(findings: list[Finding]) -> list[str]:
    return [f"{finding.evidence} [{finding.client}]" if finding.client else finding.evidence for finding in findings]
