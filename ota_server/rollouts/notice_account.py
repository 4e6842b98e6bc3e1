"""What one receiver was told of a product, and what is to be told again. I/O by its record.

1. A state is told once; it is on record when the receiver has taken the notice.
2. What was not told is told again after a pause, as it stands then. The pause doubles with each
   failure, up to an hour, and is up to a fifth longer or shorter by chance, so that many servers do
   not come back at the same moment.
3. After three days of that a notice is given up, and counts as told.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

from ota_server.model.notice import Delivery
from ota_server.policy.rollout_plan import OVER, RolloutProgress
from ota_server.rollouts.notices import ALARMS
from ota_server.rollouts.told_record import JOURNAL, NoticeState, ToldRecord

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 3600.0
GIVE_UP_SECONDS = 3 * 86400.0
_JITTER = 0.2


class Teller(Protocol):
    """A receiver, as far as an account needs it.

    Attributes:
        key: names it in the names of files; "": it is the command.
        first_pause_seconds: before what was not told is told again.
    """

    name: str
    key: str
    first_pause_seconds: float

    def tell(
        self,
        notice: Mapping[str, Any],
        is_alarm: bool = False,
        when_ended: Callable[[Delivery], None] | None = None,
    ) -> bool:
        """Have a notice told, soon; return whether it will be."""


class _Attempt(NamedTuple):
    """An attempt to tell a state: the ids of its notices, and the event of the last one."""

    key: str
    state: NoticeState
    ids: tuple[str, ...]
    event: str


class NoticeAccount:
    """What one receiver was told. `_note` is called by the threads that tell, the rest by one.

    Attributes:
        seen: what it was told, or is being told.
    """

    def __init__(self, receiver: Teller, log_dir: Path) -> None:
        self._receiver = receiver
        self.seen: dict[str, NoticeState] = {}
        self._record = ToldRecord(log_dir, receiver.key)
        self._told: dict[str, NoticeState] = {}
        self._being_told: dict[str, _Attempt] = {}
        self._refused: set[str] = set()
        self._failed: set[str] = set()
        # Since when it fails over what, in monotonic seconds.
        self._failing_since: dict[str, tuple[tuple[str, ...], float]] = {}
        self._pause = receiver.first_pause_seconds
        self._wait_seconds = 0.0
        self._again_at: float | None = None
        # Held while the record is written.
        self._lock = Lock()

    def begin(self, there: Callable[[], dict[str, NoticeState]]) -> None:
        """Read what was told before; if nothing ever was, what is `there` now is no event."""
        told = self._record.read()
        if told is None:
            told = there()
            self._record.write(told)
        self._told, self.seen = told, dict(told)

    @property
    def waiting(self) -> int:
        """How many rollouts and other things it was not told the newest of."""
        return len({*self._being_told} | self._refused | self._failed)

    def tell(self, key: str, state: NoticeState, notices: list[dict[str, Any]]) -> bool:
        """Have notices of a state told; False: they are too much for now."""
        if not notices:
            self._refused.discard(key)
            self.seen[key] = state
            return True
        ids = tuple(notice["id"] for notice in notices)
        attempt = self._being_told[key] = _Attempt(key, state, ids, notices[-1]["event"])
        deliveries: list[Delivery] = []

        def note(delivery: Delivery) -> None:
            deliveries.append(delivery)
            if len(deliveries) == len(notices):
                # The state was told if each of its notices was.
                self._note(attempt, min(deliveries, key=lambda each: each.is_told))

        for notice in notices:
            if not self._receiver.tell(notice, notice["event"] in ALARMS, note):
                self._refused.add(key)
                self._being_told.pop(key, None)
                return False
        self._refused.discard(key)
        self.seen[key] = state
        return True

    def count_as_told(self, key: str, state: NoticeState) -> None:
        """Note that a state need not be told."""
        self.seen[key] = state
        with self._lock:
            self._note_told(key, state)

    def _note(self, attempt: _Attempt, delivery: Delivery) -> None:
        """Note what came of an attempt."""
        key = attempt.key
        with self._lock:
            is_newest = self._being_told.get(key) is attempt
            if is_newest:
                del self._being_told[key]
            if delivery.is_told:
                if is_newest:
                    self._failed.discard(key)
                self._pause, self._wait_seconds = self._receiver.first_pause_seconds, 0.0
                self._failing_since.pop(key, None)
                self._note_told(key, attempt.state)
                return
            ids, since = self._failing_since.get(key, ((), 0.0))
            if ids != attempt.ids:
                since = time.monotonic()
                self._failing_since[key] = attempt.ids, since
            if time.monotonic() - since < GIVE_UP_SECONDS:
                self._failed.add(key)
                self._wait_seconds = max(self._wait_seconds, delivery.wait_seconds)
                return
            said = "%s could not be told of %s for three days: given up"
            log.error(said, self._receiver.name, attempt.event)
            self._note_told(key, attempt.state)

    def _note_told(self, key: str, state: NoticeState) -> None:
        told = self._told.get(key)
        if (
            isinstance(told, RolloutProgress)
            and isinstance(state, RolloutProgress)
            and (told.id == state.id and told.state in OVER)
        ):
            return  # an alarm, which did not wait for this earlier step
        self._told[key] = state
        if key != JOURNAL:
            self._record.write(self._told)

    def forget_failed(self, now: float) -> None:
        """Have what was not told be told again, after a pause; `now` in monotonic seconds."""
        with self._lock:
            if self._failed and self._again_at is None:
                pause = self._pause * (1 + _JITTER * _chance())
                self._again_at = now + max(pause, self._wait_seconds)
                self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
                self._wait_seconds = 0.0
            if self._again_at is None or now < self._again_at:
                return
            self._again_at = None
            for key in self._failed:
                if key in self._told:
                    self.seen[key] = self._told[key]
                else:
                    self.seen.pop(key, None)
            self._failed.clear()

    def try_again_now(self) -> None:
        """Have what was not told be told again at the next look: the receiver can be reached."""
        with self._lock:
            self._again_at = 0.0 if self._failed else None
            self._wait_seconds = 0.0


def _chance() -> float:
    """Return a number from -1 to 1; the module `random` would take more memory."""
    return os.urandom(1)[0] / 127.5 - 1
