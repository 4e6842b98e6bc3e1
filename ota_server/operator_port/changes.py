"""What changes while operators look on: told to all open streams, kept for those that come back.

A change says what to look at again, not how it is. Safe for use by many threads. No I/O.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from threading import Condition
from typing import Any, NamedTuple

# A page that was away for longer looks at everything again.
_MOST_KEPT = 1000
MOST_STREAMS = 32
# Of what something has changed. `all`: whoever hears it looks at everything again.
KINDS = ("devices", "rollouts", "releases", "hold", "audit", "rejected", "all")


class SiteChange(NamedTuple):
    """Something that has changed.

    Attributes:
        id: rises; also over a restart of the process, since it begins with the time.
        kind: of what, one of `KINDS`.
    """

    id: int
    kind: str
    fields: Mapping[str, Any]


class Changes:
    """The newest changes, and who waits for the next one."""

    def __init__(self, now_ms: int) -> None:
        """Begin with ids that no process before this one has used."""
        self._last = now_ms * 1000
        self._kept: deque[SiteChange] = deque(maxlen=_MOST_KEPT)
        self._changed = Condition()
        self._streams = 0
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether there will be no further changes."""
        return self._is_closed

    def close(self) -> None:
        """Tell everybody who waits that there will be no further changes."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def last_id(self) -> int:
        """The id of the newest change."""
        return self._last

    def note(self, kind: str, **fields: Any) -> None:
        """Tell everybody who waits."""
        with self._changed:
            self._last += 1
            self._kept.append(SiteChange(self._last, kind, fields))
            self._changed.notify_all()

    def after(self, last_id: int, seconds: float) -> Sequence[SiteChange]:
        """Return the changes after one, the oldest first; wait for one, `seconds` at most.

        Where it is not known what came after it, that is one change of `all`.
        """
        with self._changed:
            if self._last == last_id and not self._is_closed:
                self._changed.wait(seconds)
            if self._last == last_id:
                return ()
            oldest = self._kept[0].id if self._kept else self._last + 1
            if not oldest - 1 <= last_id < self._last:
                return (SiteChange(self._last, "all", {}),)
            return tuple(each for each in self._kept if each.id > last_id)

    def begin_stream(self) -> bool:
        """Return whether there is room for one more stream, and take it."""
        with self._changed:
            has_room = self._streams < MOST_STREAMS
            self._streams += has_room
            return has_room

    def end_stream(self) -> None:
        """Give back the room that a stream took."""
        with self._changed:
            self._streams -= 1
