"""The kinds of failure that are told apart; anything else is our bug."""


class Rejected(Exception):
    """The caller can mend it; `message` is safe to show. status: the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Unavailable(Exception):
    """A neighbour is down or slow; try again."""

    def __init__(self, neighbour: str, retry_after_s: int = 1) -> None:
        super().__init__(f"{neighbour} is unavailable")
        self.neighbour = neighbour
        self.retry_after_s = retry_after_s


class Overtaken(Exception):
    """Another writer was first: an expected sequence did not hold."""
