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
