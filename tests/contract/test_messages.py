"""What is stored today must be read for ever."""

from pathlib import Path

import msgspec
import pytest

from shared.contracts import schemas
from shared.contracts.message import Decoder, Message, UnknownVersion, bundle, encode, unbundled
from tests.contract.samples import EXAMPLES, SAMPLES

BUS = list(SAMPLES)


def test_the_schemas_folder_is_what_the_contracts_say() -> None:
    written = {path.name: path.read_text() for path in Path("schemas").glob("*.schema.json")}
    assert written == schemas.render()


def test_every_bus_message_has_a_schema_and_a_sample() -> None:
    described = {name for name, kind in schemas.DOCUMENTS.items() if issubclass(kind, Message)}
    assert described <= set(SAMPLES)
    assert {type(message) for message in SAMPLES.values()} <= set(schemas.DOCUMENTS.values())


@pytest.mark.parametrize("name", sorted(BUS))
def test_a_recorded_example_decodes(name: str) -> None:
    recorded = (EXAMPLES / f"{name}.msgpack").read_bytes()
    decoded = Decoder(type(SAMPLES[name])).decode(recorded)
    assert decoded.v == 1
    assert type(decoded) is type(SAMPLES[name])


@pytest.mark.parametrize("name", sorted(BUS))
def test_a_message_survives_the_wire(name: str) -> None:
    assert Decoder(type(SAMPLES[name])).decode(encode(SAMPLES[name])) == SAMPLES[name]


@pytest.mark.parametrize("name", sorted(BUS))
def test_a_longer_message_of_a_newer_release_is_read(name: str) -> None:
    longer = [*msgspec.msgpack.decode(encode(SAMPLES[name])), "a field of tomorrow", 7]
    assert Decoder(type(SAMPLES[name])).decode(msgspec.msgpack.encode(longer)) == SAMPLES[name]


@pytest.mark.parametrize("name", sorted(BUS))
def test_an_unknown_major_version_is_refused(name: str) -> None:
    newer = [2, *msgspec.msgpack.decode(encode(SAMPLES[name]))[1:]]
    with pytest.raises(UnknownVersion):
        Decoder(type(SAMPLES[name])).decode(msgspec.msgpack.encode(newer))


def test_the_version_of_a_message_of_another_shape_is_named() -> None:
    with pytest.raises(UnknownVersion, match="version 2"):
        Decoder(type(SAMPLES["budget.withdraw"])).decode(msgspec.msgpack.encode([2, {"all": "new"}]))


@pytest.mark.parametrize("name", sorted(BUS))
@pytest.mark.parametrize("count", [1, 2, 15, 16, 300])
def test_a_bundle_holds_its_messages_in_their_order(name: str, count: int) -> None:
    messages = [encode(SAMPLES[name])] * (count - 1) + [encode(SAMPLES["budget.withdraw"])]
    assert unbundled(bundle(messages)) == messages


@pytest.mark.parametrize("name", sorted(BUS))
def test_a_reader_that_knows_no_bundles_refuses_one(name: str) -> None:
    with pytest.raises(UnknownVersion):
        Decoder(type(SAMPLES[name])).decode(bundle([encode(SAMPLES[name])] * 2))


def test_a_bundle_of_an_unknown_shape_is_no_message() -> None:
    with pytest.raises(msgspec.DecodeError):
        unbundled(msgspec.msgpack.encode([0, {"all": "new"}]))
