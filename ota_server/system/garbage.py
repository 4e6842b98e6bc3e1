"""The garbage collector of a server that must not pause.

The server's work makes no cycles, so that counting references frees nearly everything. A full
collection finds almost nothing, but looks at all connections: with ten thousand of them nobody is
answered for 17 ms.
"""

import gc

_EVERY_SECONDS = 60.0
# So many take 2 ms.
_MAX_OBJECTS = 20_000
_NEVER = 2**31 - 1


def hold_back() -> None:
    """Stop full collections, and keep what exists now out of all others."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


class Collector:
    """Makes full collections while they are quick."""

    def __init__(self) -> None:
        self._due = 0.0

    def look_after(self, now_seconds: float) -> bool:
        """Collect once a minute, unless there are many objects; return whether it did."""
        if now_seconds < self._due:
            return False
        self._due = now_seconds + _EVERY_SECONDS
        if len(gc.get_objects(generation=2)) > _MAX_OBJECTS:
            return False
        gc.collect()
        return True
