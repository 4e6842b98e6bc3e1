"""The garbage collector of a server that must not pause.

Nothing here makes cycles in the course of its work, so that counting references frees nearly all
there is. A full collection finds next to nothing, and looks at all connections for that: 17 ms with
ten thousand of them, in which nobody is answered.
"""

import gc

_EVERY_SECONDS = 60.0
# They are looked at in 2 ms.
_MAX_OBJECTS = 20_000
_NEVER = 2**31 - 1


def hold_back() -> None:
    """Have the collector leave alone what is there, and make no full collection by itself."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


class Collector:
    """Makes full collections at moments at which they are quick."""

    def __init__(self) -> None:
        self._due = 0.0

    def look_after(self, now_seconds: float) -> bool:
        """Collect once a minute, unless there is much to look at; return whether it did."""
        if now_seconds < self._due:
            return False
        self._due = now_seconds + _EVERY_SECONDS
        if len(gc.get_objects(generation=2)) > _MAX_OBJECTS:
            return False
        gc.collect()
        return True
