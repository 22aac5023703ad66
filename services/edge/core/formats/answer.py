"""What a client format makes of a refusal."""

import msgspec

from services.edge.core.headers import Headers


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer of ours. headers: all but Content-Length, Date and Connection, which the connection adds."""

    status: int
    headers: Headers
    body: bytes
