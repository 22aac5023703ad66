"""The spool's file format."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.edge.stores.credentials import Credentials, Unresolved
from services.edge.stores.segment import Segment, path_of, scan


def written(folder: Path, payloads: list[bytes]) -> int:
    """A new segment with these records; its number."""
    number = len(list(folder.iterdir()))
    segment = Segment(folder, number)
    for payload in payloads:
        segment.append([payload])
    os.close(segment.fd)
    return number


records = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(records, st.data())
def test_a_torn_end_loses_only_the_record_it_tears(tmp_path: Path, payloads: list[bytes], data: st.DataObject) -> None:
    number = written(tmp_path, payloads)
    path = path_of(tmp_path, number)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    found, torn = scan(tmp_path, number)
    good = [payload for _, payload in found]
    assert good == payloads[: len(good)]
    sizes = [len(payload) + 8 for payload in payloads]
    assert sum(sizes[: len(good)]) + torn == cut
    assert len(good) == len(payloads) or cut < sum(sizes[: len(good) + 1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(records, st.data())
def test_a_changed_byte_is_never_read_as_a_record(tmp_path: Path, payloads: list[bytes], data: st.DataObject) -> None:
    number = written(tmp_path, payloads)
    path = path_of(tmp_path, number)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(whole))
    good = [payload for _, payload in scan(tmp_path, number)[0]]
    assert good == payloads[: len(good)]
    assert len(good) < len(payloads)


def test_places_lead_back_to_the_payload(tmp_path: Path) -> None:
    number = written(tmp_path, [b"one", b"second"])
    data = path_of(tmp_path, number).read_bytes()
    for place, payload in scan(tmp_path, number)[0]:
        assert data[place.offset : place.offset + place.length] == payload


def test_a_record_that_does_not_fit_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment(tmp_path, 1)
    segment.append([b"good"])
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
    with pytest.raises(OSError) as caught:
        segment.append([b"short", b"does not fit"])
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    segment.append([b"next"])
    os.close(segment.fd)
    found, torn = scan(tmp_path, 1)
    assert ([payload for _, payload in found], torn) == ([b"good", b"next"], 0)


def test_credentials_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("sk-file\n")
    credentials = Credentials({"KEY": "sk-env", "LOGIN": "sk-ant-oat01-x", "BEARER": "Bearer abc", "EMPTY": ""})
    assert credentials.header("anthropic", "env:KEY") == (b"x-api-key", b"sk-env")
    assert credentials.header("anthropic", "env:LOGIN") == (b"authorization", b"Bearer sk-ant-oat01-x")
    assert credentials.header("anthropic", "env:BEARER") == (b"authorization", b"Bearer abc")
    assert credentials.header("anthropic", f"file:{file}") == (b"x-api-key", b"sk-file")
    file.write_text("sk-rotated")
    assert credentials.header("anthropic", f"file:{file}") == (b"x-api-key", b"sk-rotated")
    for bad in ("env:NONE", "env:EMPTY", f"file:{tmp_path}/none", "vault:x", "KEY"):
        with pytest.raises(Unresolved, match=bad.replace("/", ".")):
            credentials.header("anthropic", bad)


def test_a_secret_with_a_line_break_never_becomes_a_header() -> None:
    with pytest.raises(Unresolved) as caught:
        Credentials({"KEY": "sk\r\nx-evil: 1"}).header("anthropic", "env:KEY")
    assert "evil" not in str(caught.value)
