"""The doctor's judgement: from facts to findings. Pure; the facts are gathered in commands/doctor.py."""

from typing import Literal

import msgspec

Level = Literal["ok", "warn", "fail"]

DISK_FAIL_BYTES = 256 * 1024 * 1024  # below it the edge's spool and the broker soon refuse
DISK_WARN_BYTES = 2 * 1024 * 1024 * 1024
SKEW_WARN_MS = 500
SKEW_FAIL_MS = 5_000
BOOK_WARN_DAYS = 45
BOOK_FAIL_DAYS = 180


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line. todo: how to mend it; empty when all is well."""

    level: Level
    check: str
    says: str
    todo: str = ""


def ok(check: str, says: str) -> Finding:
    return Finding(level="ok", check=check, says=says)


def port(name: str, number: int, *, running: bool, free: bool, answers: bool) -> Finding:
    """A port must answer while `up` runs, and be free before it does."""
    check = f"port {name}"
    if running and not answers:
        return Finding(
            level="fail", check=check, says=f"{number} does not answer", todo="see `sluicegate status` and the logs"
        )
    if running:
        return ok(check, f"{number} answers")
    if not free:
        return Finding(
            level="warn", check=check, says=f"{number} is taken by another program",
            todo=f"stop that program or start with --{name}-port N",
        )  # fmt: skip
    return ok(check, f"{number} is free")


def broker_sync(sync_always: bool | None) -> Finding:
    """None: its monitor could not be asked."""
    check = "broker sync mode"
    if sync_always is None:
        return Finding(
            level="fail", check=check, says="the broker's monitor does not answer", todo="see DATA/logs/nats.log"
        )
    if not sync_always:
        return Finding(
            level="fail", check=check, says="the broker acknowledges before it has written: a power cut loses money",
            todo="set `jetstream { sync_interval: always }` in the broker's configuration",
        )  # fmt: skip
    return ok(check, "always: what is acknowledged is on disk")


def clock(neighbour: str, skew_ms: float | None) -> Finding:
    """skew_ms: their clock minus ours; None when they told no time."""
    check = f"clock against {neighbour}"
    if skew_ms is None:
        return Finding(level="warn", check=check, says="told no time", todo=f"see whether {neighbour} runs")
    size, says = abs(skew_ms), f"{skew_ms:+.0f} ms"
    if size < SKEW_WARN_MS:
        return ok(check, says)
    level: Level = "fail" if size >= SKEW_FAIL_MS else "warn"
    return Finding(
        level=level, check=check, says=says, todo="synchronise the clocks (NTP): budgets turn over by the clock"
    )


def credential(provider: str, reference: str, problem: str) -> Finding:
    """problem: why the reference cannot be resolved, "" when it can."""
    check = f"credential of {provider}"
    if not problem:
        return ok(check, f"{reference} can be resolved")
    return Finding(
        level="fail",
        check=check,
        says=f"{reference}: {problem}",
        todo="set it where `sluicegate up` is started, then start it again",
    )


def price_book(version: str, age_days: int) -> Finding:
    """age_days: since the book was made."""
    says = f"{version}, {age_days} days old"
    if age_days < BOOK_WARN_DAYS:
        return ok("price book", says)
    level: Level = "fail" if age_days >= BOOK_FAIL_DAYS else "warn"
    return Finding(
        level=level, check="price book", says=says, todo="upgrade sluicegate, or add `prices:` for what has changed"
    )


def disk(free_bytes: int) -> Finding:
    """Of the file system that holds the data directory."""
    says = f"{free_bytes / 2**30:.1f} GiB free"
    if free_bytes >= DISK_WARN_BYTES:
        return ok("disk", says)
    level: Level = "fail" if free_bytes < DISK_FAIL_BYTES else "warn"
    return Finding(
        level=level, check="disk", says=says, todo="make room: a full disk refuses requests, it never forgets"
    )


def modes(path: str, mode: int) -> Finding:
    """A secret's file is for its owner alone. mode: the permission bits."""
    if mode & 0o077:
        return Finding(
            level="fail",
            check="permissions",
            says=f"{path} can be read by others ({mode:04o})",
            todo=f"chmod go= {path}",
        )
    return ok("permissions", f"{path} is for its owner alone")


def keys(active: int) -> Finding:
    if not active:
        return Finding(
            level="warn", check="virtual keys", says="none is active", todo="make one: `sluicegate keys create`"
        )
    return ok("virtual keys", f"{active} active")


def exit_code(findings: list[Finding]) -> int:
    """1 when something must be mended."""
    return int(any(finding.level == "fail" for finding in findings))
