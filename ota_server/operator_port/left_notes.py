"""Warnings of an action, until the page that follows it shows them. Safe for many threads. No I/O.

An action of a page answers with a redirect, which says nothing. So what it warns of waits here for
the next page that the same session opens at that path, and is shown once: a reload is the page as
it is. Nothing grows: an operator has one note, and of many the newest are kept.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple

from ota_server.operator_port.authoriser import Operator

_MOST_KEPT = 100
# A browser follows at once; a note must not turn up when somebody comes back to the page later.
_SECONDS = 60.0
_Key = tuple[str, str]


class _LeftNote(NamedTuple):
    path: str
    texts: tuple[str, ...]
    at: float


class LeftNotes:
    """What actions have left to be shown."""

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._now_seconds = now_seconds
        self._notes: OrderedDict[_Key, _LeftNote] = OrderedDict()
        self._lock = Lock()

    def leave(self, operator: Operator, path: str, texts: Sequence[str]) -> None:
        """Keep what an action of an operator warns of for the page at a path."""
        with self._lock:
            self._notes.pop(_key(operator), None)
            if texts:
                note = _LeftNote(path, tuple(texts), self._now_seconds())
                self._notes[_key(operator)] = note
            while len(self._notes) > _MOST_KEPT:
                self._notes.popitem(last=False)

    def take(self, operator: Operator, path: str) -> tuple[str, ...]:
        """Return what was left for the page at a path, and keep it no longer."""
        with self._lock:
            note = self._notes.get(_key(operator))
            if note is None or note.path != path:
                return ()
            del self._notes[_key(operator)]
        return note.texts if self._now_seconds() - note.at < _SECONDS else ()


def _key(operator: Operator) -> _Key:
    """Return whose note it is: two sessions of one name have one each."""
    return operator.name, operator.form_token
