"""How many requests of each key run at this worker, so that one key cannot take every connection and all memory."""


class Crowd:
    """most: of one key at once; 0 is no limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._running: dict[str, int] = {}

    def enter(self, key: str) -> bool:
        """Count one more, unless there are as many as may be. Each one that entered leaves."""
        running = self._running.get(key, 0)
        if 0 < self.most <= running:
            return False
        self._running[key] = running + 1
        return True

    def leave(self, key: str) -> None:
        left = self._running[key] - 1
        if left:
            self._running[key] = left
        else:
            del self._running[key]  # keys come and go; what is remembered is bounded by what runs
