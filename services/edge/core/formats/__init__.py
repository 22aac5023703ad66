"""The client format: how a client's API says what every gateway has to say. Anthropic is the first."""

from typing import Protocol

from services.edge.core.formats.answer import Answer
from services.edge.core.formats.anthropic import Anthropic
from services.edge.core.meter import Tail
from services.edge.core.refusals import Refusal

__all__ = ["FORMATS", "Answer", "Anthropic", "ClientFormat"]


class ClientFormat(Protocol):
    """One client API."""

    @property
    def name(self) -> str: ...

    def render(self, refusal: Refusal, request_id: str) -> Answer:
        """A refusal before anything of an answer has gone out."""

    def error_type(self, refusal: Refusal) -> str:
        """What `render` calls it, for the request log."""

    def ping(self) -> bytes:
        """Sent between two events (never inside one: see `Tail.at_boundary`) when upstream is silent."""

    def ending(self, tail: Tail, error_type: str, message: str, request_id: str) -> bytes:
        """What makes a well-formed end of a stream that stops here, whatever the last byte was."""


FORMATS: dict[str, ClientFormat] = {"anthropic": Anthropic()}
"""By `Match.client_format`."""
