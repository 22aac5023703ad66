"""The checks by theme; importing this hangs all of them on the checklist."""

from services.cli.conformance.checks import (  # noqa: F401  # imported for what they hang on the checklist
    accounts,
    client_refused,
    client_screen,
    credentials,
    extras,
    forwarding,
    metering,
    records,
    refusals,
    streaming,
    with_client,
)
