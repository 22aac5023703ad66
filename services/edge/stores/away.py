"""For how long a neighbour has been away."""

from collections.abc import Callable


class Away:
    """As far as anybody has looked: the time begins with the first look that does not find it there."""

    def __init__(self, there: Callable[[], bool], now: Callable[[], float]) -> None:
        self._there, self._now = there, now
        self._since: float | None = None

    def seconds(self) -> float:
        """0 while it is there."""
        if self._there():
            self._since = None
            return 0.0
        if self._since is None:
            self._since = self._now()
        return self._now() - self._since
