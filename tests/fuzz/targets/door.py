"""Credentials. Only the whole secret opens, whatever stands around it, and it stands in one of two headers."""

import re

from services.edge.core import door
from services.edge.core.headers import index
from services.edge.core.refusals import Refusal
from services.edge.handlers.request import Limits, Request, RequestReader
from shared.contracts.config import ConfigChanged
from shared.directory import Directory
from shared.errors import Rejected
from tests.fixtures.organisation import SECRET, entities

NOW = 1_000_000
DIRECTORY = Directory()
DIRECTORY.apply(ConfigChanged(config_rev=1, at=NOW, actor="test", puts=entities("http://provider.test")))
_BEARER = re.compile(rb"\s*bearer \s*(\S.*?)\s*", re.IGNORECASE | re.DOTALL)


def check(data: bytes) -> None:
    """data: lines of headers."""
    found = list[Request]()
    reader = RequestReader(Limits(), lambda head: None, found.append)
    try:
        reader.feed(b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n")
    except Rejected:
        return
    for request in found[:1]:
        headers = request.head.headers
        entered = door.enter(index(headers), DIRECTORY, NOW)
        assert isinstance(entered, Refusal) is (secret_in(headers) != SECRET.encode())
        if isinstance(entered, Refusal):
            assert SECRET not in entered.message


def secret_in(headers: list[tuple[bytes, bytes]]) -> bytes:
    authorization = b", ".join(value for name, value in headers if name.lower() == b"authorization")
    if found := _BEARER.fullmatch(authorization):
        return found[1]
    return b", ".join(value for name, value in headers if name.lower() == b"x-api-key").strip()
