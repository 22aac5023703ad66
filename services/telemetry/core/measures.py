"""Records as measurements: tokens and seconds of each attempt, by the conventions' names and dimensions."""

import msgspec

from services.telemetry.core.attributes import Attributes, kept
from services.telemetry.core.spans import INPUT, OUTPUT, Address, error_type, model, operation, tokens
from shared import telemetry
from shared.contracts.pricing import UsagePriced

TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)


class Instrument(msgspec.Struct, frozen=True):
    """A histogram. The bounds of its buckets are the conventions', seconds go on to where long answers end."""

    unit: str
    description: str
    bounds: tuple[float, ...]


INSTRUMENTS = {
    telemetry.GEN_AI_CLIENT_TOKEN_USAGE: Instrument("{token}", "Tokens of one attempt.", TOKENS),
    telemetry.GEN_AI_CLIENT_OPERATION_DURATION: Instrument("s", "From the request to a provider to its end.", SECONDS),
    telemetry.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK: Instrument("s", "Until a stream's first byte.", SECONDS),
}


class Measurement(msgspec.Struct, frozen=True):
    """One value for the histogram of this name."""

    name: str
    value: float
    attributes: Attributes


def measurements(priced: UsagePriced, server: Address | None = None) -> tuple[Measurement, ...]:
    """None of an attempt that was not sent. Attributes are models, names of providers and errors: nobody's uid."""
    usage = priced.usage
    if not usage.sent_at:
        return ()
    common = kept(
        {
            telemetry.GEN_AI_OPERATION_NAME: operation(usage),
            telemetry.GEN_AI_PROVIDER_NAME: usage.upstream_format,
            telemetry.GEN_AI_REQUEST_MODEL: model(usage),
            telemetry.GEN_AI_RESPONSE_MODEL: usage.response_model,
            telemetry.SERVER_ADDRESS: server.host if server else "",
        }
    )
    seconds = max(0, usage.closed_at - usage.sent_at) / 1_000_000
    failed = kept({telemetry.ERROR_TYPE: error_type(usage)})
    found = [Measurement(telemetry.GEN_AI_CLIENT_OPERATION_DURATION, seconds, common | failed)]
    if usage.stream and usage.ttft_ms >= 0:
        first = usage.ttft_ms / 1_000
        found.append(Measurement(telemetry.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK, first, common))
    for kind, meters in (("input", INPUT), ("output", OUTPUT)):
        if usage.lines:
            counted = common | {telemetry.GEN_AI_TOKEN_TYPE: kind}
            found.append(Measurement(telemetry.GEN_AI_CLIENT_TOKEN_USAGE, tokens(usage, meters), counted))
    return tuple(found)
