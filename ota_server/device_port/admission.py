"""Admission: whether a device may be offered a release now, and whether it may download.

Behind the decision which release a device should have: this is about when.
"""

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.window import Hours, Standing, Waiting
from ota_server.httpd import reply
from ota_server.httpd.reply import Reply
from ota_server.model.address import source_of
from ota_server.policy.reason import Cause
from ota_server.policy.situation import ServerState, no_slot, window_closed

log = logging.getLogger(__name__)

# A download without a slot comes again after a half to one and a half minutes, each device after
# another time: a slot that nobody uses is free again after one.
_RETRY_SECONDS = (30, 60)
# Who was told of a release just before the windows closed may still fetch it.
_CLOSING_MS = 60_000
# Devices that poll once a day have met any window by then.
_UNMET_SECONDS = 86400.0
_SAY_SECONDS = 3600.0
# Of each kind, for other processes that ask whom it lets in; of more devices they have to guess.
_MOST_LET_IN = 1000


class Refusal(NamedTuple):
    """Why a device may not download now, and when it may ask again."""

    cause: Cause
    retry_after_seconds: int

    @property
    def reply(self) -> Reply:
        """What a request for the image is answered."""
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
        """Take what limits it: download slots, windows, or both.

        Args:
            overdue_seconds: a device that has waited for a window for so long is let in.
        """
        self._slots = slots
        self._hours = hours
        self._waiting = Waiting(overdue_seconds)
        self._clock = clock
        self._lock = Lock()
        self._say_at = 0.0

    def offer(self, mac: str, now_ms: int, address: str = "") -> Cause | None:
        """Return why a device is not told of a release now; None: it is, and has its slot.

        Args:
            address: where it asks from; "": nobody knows.
        """
        with self._lock:
            now = self._clock()
            if self._is_closed(mac, now_ms, now):
                return window_closed(str(self._hours))
            if self._slots is None or self._slots.ask(mac, now, _source(address)):
                return None
            return no_slot(self._slots.limit)

    def begin(
        self, mac: str, now_ms: int, is_transfer: bool, is_new: bool, address: str = ""
    ) -> Refusal | None:
        """Return why a device may not download now; None: it may, until `end`.

        Args:
            is_transfer: bytes will be sent; else it only asks what there is.
            is_new: it does not go on with a download that it began a moment ago.
            address: as that of `offer`.
        """
        share = crc32(mac.encode("ascii")) / 2**32
        with self._lock:
            now = self._clock()
            if is_new and self._is_closed(mac, now_ms, now, _CLOSING_MS):
                assert self._hours is not None
                cause = window_closed(str(self._hours))
                return Refusal(cause, self._hours.retry_seconds(now_ms, share))
            if self._slots is None:
                return None
            ask = self._slots.begin if is_transfer else self._slots.ask
            if ask(mac, now, _source(address)):
                return None
            cause = no_slot(self._slots.limit)
        least, spread = _RETRY_SECONDS
        return Refusal(cause, least + int(share * (spread + 1)))

    def end(self, mac: str, is_last: bool) -> None:
        """Note that a transfer has ended; with `is_last` the device has the end of the image."""
        with self._lock:
            if self._slots is not None:
                self._slots.end(mac, self._clock(), is_last)
            if is_last:
                self._waiting.end(mac)

    def look_after(self) -> None:
        """Say now and then how many devices never meet the windows."""
        now = self._clock()
        if self._hours is None or now < self._say_at:
            return
        self._say_at = now + _SAY_SECONDS
        if unmet := self.unmet:
            log.warning(
                "%d devices have waited for the window %s for more than a day: their polls do not "
                "meet it (--window-overdue lets such devices in)",
                unmet,
                self._hours,
            )

    @property
    def downloading(self) -> int:
        """How many devices with a slot download at this moment."""
        with self._lock:
            return 0 if self._slots is None else self._slots.downloading

    def standing(self, now_ms: int) -> Standing:
        """Return whom it lets in, for operators."""
        hours = self._hours
        with self._lock:
            return Standing(
                None if self._slots is None else self._slots.limit,
                "" if hours is None else str(hours),
                hours is None or hours.are_open(now_ms),
                self._waiting.longer_than(_UNMET_SECONDS, self._clock()),
            )

    def who_waits(self, state: ServerState, now_ms: int) -> ServerState:
        """Return the state of the server with who has to wait for a window or for a slot."""
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

    def _is_closed(self, mac: str, now_ms: int, now: float, late_ms: int = 0) -> bool:
        """Say whether a device has to wait for a window. The caller holds the lock."""
        hours = self._hours
        if hours is None:
            return False
        if hours.are_open(now_ms):
            self._waiting.end(mac)
            return False
        if late_ms and hours.were_open(now_ms - late_ms):
            return False
        if self._slots is not None and self._slots.has(mac, now):
            return False  # what it began, or was told of, in the window goes on
        return not self._waiting.is_overdue(mac, now)


def _source(address: str) -> int | None:
    return source_of(address) if address else None
