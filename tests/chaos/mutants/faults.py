"""The faults. Each is made before its service is imported or begins, in that process alone."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROCESS = Path(__file__).with_name("process.py")


def break_rule(mutant: str, service: str) -> None:
    """In this process, and where it is the supervisor in all that it starts."""
    if service == "cli":
        _hand_on(mutant)
    FAULTS[mutant](service)


def _hand_on(mutant: str) -> None:
    """The supervisor starts its services as mutants too."""
    from services.cli.supervisor.program import Service  # noqa: PLC0415  # after the path is set, only where needed

    def command(self: Service) -> list[str]:
        return [sys.executable, "-P", str(PROCESS), mutant, self.kind]

    setattr(Service, "command", command)  # noqa: B010  # mypy forbids to assign to a method


def broker_sync(service: str) -> None:
    """The broker acknowledges before it writes to disk."""
    if service == "budget":
        os.environ["BUDGET_ALLOW_UNSYNCED_BROKER"] = "true"
    if service != "cli":
        return
    from services.cli.supervisor.program import Broker  # noqa: PLC0415  # as above

    prepare = Broker.prepare

    def unsynced(self: Broker) -> None:
        prepare(self)
        written = self._config.read_text()
        self._config.write_text(written.replace("sync_interval: always", "sync_interval: 2m"))

    setattr(Broker, "prepare", unsynced)  # noqa: B010  # as above


def spool_sync(service: str) -> None:
    """The edge says that its spool is on disk, and has not asked the disk."""
    if service == "edge":
        setattr(os, "fdatasync", lambda _: None)  # noqa: B010  # as above


def message_ids(service: str) -> None:
    """What is published again is stored again."""
    _without_header("Nats-Msg-Id")


def fence(service: str) -> None:
    """Whoever writes is the owner. The lease on the shard, a hint that would often tell in time, says nothing either."""
    _without_header("Nats-Expected-Last-Subject-Sequence")
    if service == "budget":
        from services.budget.lease import Lease  # noqa: PLC0415  # as above

        async def blind(self: Lease, owned: object) -> None:
            """Writes nothing, and so is never contradicted."""

        setattr(Lease, "write", blind)  # noqa: B010  # as above


def _without_header(name: str) -> None:
    from shared.bus.connection import Bus  # noqa: PLC0415  # as above

    question: Callable[..., Any] = Bus._question

    def without(self: Bus, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Any:
        kept = {key: value for key, value in (headers or {}).items() if key != name}
        return question(self, subject, data, kept or None)

    setattr(Bus, "_question", without)  # noqa: B010  # as above


def resume_position(service: str) -> None:
    """The owner goes on after what was delivered to it, which the broker remembers, not after what is in its ledger."""
    if service != "budget":
        return
    from nats.js import JetStreamContext  # noqa: PLC0415  # as above
    from nats.js.api import ConsumerConfig, DeliverPolicy  # noqa: PLC0415  # as above

    add_consumer: Callable[..., Any] = JetStreamContext.add_consumer

    async def remembered(self: JetStreamContext, stream: str, config: ConsumerConfig, **more: Any) -> Any:
        if stream.endswith("PRICED"):
            config.durable_name, config.mem_storage = "remembered", False
            config.deliver_policy, config.opt_start_seq = DeliverPolicy.ALL, None
        return await add_consumer(self, stream, config, **more)

    setattr(JetStreamContext, "add_consumer", remembered)  # noqa: B010  # as above


FAULTS: dict[str, Callable[[str], None]] = {
    fault.__name__: fault for fault in (broker_sync, spool_sync, message_ids, fence, resume_position)
}
