"""How often one thing may be said in the server's log: a flood of requests is no flood of lines."""

from collections import OrderedDict
from threading import Lock

_KEPT = 1000


class RateLimit:
    """Allows each key once in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._allowed_at: OrderedDict[str, float] = OrderedDict()

    def allows(self, key: str, now_seconds: float) -> bool:
        """Say whether `key` may be said now. With more keys than are kept the oldest may again."""
        with self._lock:
            last = self._allowed_at.get(key)
            if last is not None and 0 <= now_seconds - last < self._seconds:
                return False
            self._allowed_at[key] = now_seconds
            self._allowed_at.move_to_end(key)
            if len(self._allowed_at) > _KEPT:
                self._allowed_at.popitem(last=False)
            return True


class Budget:
    """Allows so many in `seconds`, whatever they are."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._lock = Lock()
        self._began_at = -seconds
        self._used = 0

    def allows(self, now_seconds: float) -> bool:
        """Say whether one more is within the budget, and count it."""
        with self._lock:
            if now_seconds - self._began_at >= self._seconds:
                self._began_at, self._used = now_seconds, 0
            self._used += 1
            return self._used <= self._most
