"""Admission: whether a device may be offered a release now, and whether it may download.

Another decision comes first: which release the device should have. This one is about when.
"""

import logging
import math
import time
from collections.abc import Callable
from http import HTTPStatus
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from ota_server.device_port.live_figures import SlotFigures
from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.window import Hours, Standing, Waiting
from ota_server.httpd import reply
from ota_server.httpd.reply import Reply
from ota_server.model.address import source_of
from ota_server.policy.reason import Cause
from ota_server.policy.situation import ServerState, no_slot, window_closed

log = logging.getLogger(__name__)

# A refused download should ask again after half a minute to one and a half, each device after a
# different time: an unused slot is free again after a minute.
_RETRY_SECONDS = (30, 60)
# A device that was offered a release just before the window closed may still fetch it.
_CLOSING_MS = 60_000
# Devices that poll once a day should have met any window by then.
_UNMET_SECONDS = 86400.0
_LOG_EVERY_SECONDS = 3600.0
# How many devices with a slot, and how many overdue ones, are named to other processes. About
# further devices these have to guess.
_MOST_LET_IN = 1000


class Refusal(NamedTuple):
    """Why a device may not download now, and when it may ask again."""

    cause: Cause
    retry_after_seconds: int

    @property
    def reply(self) -> Reply:
        """The reply to a request for the image."""
        retry_after = ("Retry-After", str(self.retry_after_seconds))
        return reply.text(HTTPStatus.TOO_MANY_REQUESTS, "No download now.", retry_after)


class Admission:
    """Lets devices in while slots are free and a window is open. Safe for use by many threads."""

    def __init__(
        self,
        slots: DownloadSlots | None,
        hours: Hours | None = None,
        overdue_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the limits: download slots, windows, or both.

        Args:
            overdue_seconds: a device that has waited this long for a window is let in.
        """
        self._slots = slots
        self._hours = hours
        self._waiting = Waiting(overdue_seconds)
        self._clock = clock
        self._lock = Lock()
        self._log_at = 0.0

    def offer(self, key: str, now_ms: int, address: str = "") -> Cause | None:
        """Return why a device is not offered a release now, or None: then it has a slot.

        Args:
            address: where it asks from; "" if unknown.
        """
        with self._lock:
            now = self._clock()
            if self._is_closed(key, now_ms, now):
                return window_closed(str(self._hours))
            if self._slots is None or self._slots.ask(key, now, _source(address)):
                return None
            return no_slot(self._slots.limit)

    def begin(
        self,
        key: str,
        now_ms: int,
        is_transfer: bool,
        is_new: bool,
        address: str = "",
        size: float = math.inf,
    ) -> Refusal | None:
        """Return why a device may not download now, or None: then it may, until `end`.

        Args:
            is_transfer: bytes will be sent; else this is a HEAD.
            is_new: the request does not continue a download that the device began a moment ago.
            address: as in `offer`.
            size: of the image, in bytes.
        """
        share = crc32(key.encode("ascii")) / 2**32
        with self._lock:
            now = self._clock()
            if is_new and self._is_closed(key, now_ms, now, _CLOSING_MS):
                assert self._hours is not None
                cause = window_closed(str(self._hours))
                return Refusal(cause, self._hours.retry_seconds(now_ms, share))
            if self._slots is None:
                return None
            source, slots = _source(address), self._slots
            if slots.begin(key, now, source, size) if is_transfer else slots.ask(key, now, source):
                return None
            cause = no_slot(self._slots.limit)
        least, spread = _RETRY_SECONDS
        return Refusal(cause, least + int(share * (spread + 1)))

    def end(self, key: str, is_last: bool) -> None:
        """Record that a transfer has ended; `is_last`: the device has the end of the image."""
        with self._lock:
            if self._slots is not None:
                self._slots.end(key, self._clock(), is_last)
            if is_last:
                self._waiting.end(key)

    def look_after(self) -> None:
        """Log once an hour how many devices never meet the windows."""
        now = self._clock()
        if self._hours is None or now < self._log_at:
            return
        self._log_at = now + _LOG_EVERY_SECONDS
        if unmet := self.unmet:
            log.warning(
                "%d devices have waited for the window %s for more than a day: they do not poll "
                "while it is open (--window-overdue lets such devices in)",
                unmet,
                self._hours,
            )

    @property
    def downloading(self) -> int:
        """How many devices with a slot download at this moment."""
        with self._lock:
            return 0 if self._slots is None else self._slots.downloading

    @property
    def slot_figures(self) -> SlotFigures | None:
        """How many slots there are, are used and are wanted; None: there is no limit."""
        with self._lock:
            slots = self._slots
            if slots is None:
                return None
            return SlotFigures(slots.limit, slots.downloading, slots.refused)

    @property
    def load(self) -> float:
        """How many devices were refused a slot, and still wait for one, for each slot."""
        with self._lock:
            return 0.0 if self._slots is None else self._slots.refused / self._slots.limit

    def standing(self, now_ms: int) -> Standing:
        """Return which devices it lets in, for operators."""
        hours = self._hours
        with self._lock:
            return Standing(
                None if self._slots is None else self._slots.limit,
                "" if hours is None else str(hours),
                hours is None or hours.are_open(now_ms),
                self._waiting.longer_than(_UNMET_SECONDS, self._clock()),
            )

    def add_to(self, state: ServerState, now_ms: int) -> ServerState:
        """Return the state of the server, completed with what makes devices wait."""
        hours, slots = self._hours, self._slots
        with self._lock:
            now = self._clock()
            holders = [] if slots is None else slots.holders(now)
            overdue = [] if hours is None else self._waiting.overdue(now, _MOST_LET_IN)
            is_full = slots is not None and not slots.has_free_slot(now)
            return state._replace(
                closed_window="" if hours is None or hours.are_open(now_ms) else str(hours),
                taken_slots=slots.limit if slots is not None and is_full else 0,
                let_in=frozenset((*holders[:_MOST_LET_IN], *overdue)),
            )

    @property
    def unmet(self) -> int:
        """How many devices have waited for a window for more than a day."""
        with self._lock:
            return self._waiting.longer_than(_UNMET_SECONDS, self._clock())

    def _is_closed(self, key: str, now_ms: int, now: float, late_ms: int = 0) -> bool:
        """Return whether a device has to wait for a window. The caller holds the lock."""
        hours = self._hours
        if hours is None:
            return False
        if hours.are_open(now_ms):
            self._waiting.end(key)
            return False
        if late_ms and hours.were_open(now_ms - late_ms):
            return False
        if self._slots is not None and self._slots.has(key, now):
            return False  # it may finish what it began, or was offered, while the window was open
        return not self._waiting.is_overdue(key, now)


def _source(address: str) -> int | None:
    return source_of(address) if address else None
