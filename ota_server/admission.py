"""Admission: whether a device may be offered a release now, and whether it may download.

Behind the decision which release a device should have: this is about when.
"""

import time
from collections.abc import Callable
from http import HTTPStatus
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from ota_server import reply
from ota_server.places import Places
from ota_server.reply import Reply

# A download without a place comes again after a half to one and a half minutes, each device after
# another time: a place that nobody uses is free again after one.
_RETRY_SECONDS = (30, 60)


class Refusal(NamedTuple):
    """Why a device may not download now, and when it may ask again."""

    reason: str
    retry_after_seconds: int

    @property
    def reply(self) -> Reply:
        """What a request for the image is answered."""
        retry_after = ("Retry-After", str(self.retry_after_seconds))
        return reply.text(HTTPStatus.TOO_MANY_REQUESTS, "No download now.", retry_after)


class Admission:
    """Lets devices in while there are places. Safe for use by many threads."""

    def __init__(self, places: Places, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = places
        self._clock = clock
        self._lock = Lock()

    def offer(self, mac: str) -> str:
        """Return why a device is not told of a release now; "": it is, and has its place."""
        with self._lock:
            has_place = self._places.ask(mac, self._clock())
        return "" if has_place else self._all_taken

    def begin(self, mac: str, is_transfer: bool) -> Refusal | None:
        """Return why a device may not download now; None: it may, until `end`.

        Args:
            is_transfer: bytes will be sent; else it only asks what there is.
        """
        with self._lock:
            ask = self._places.begin if is_transfer else self._places.ask
            if ask(mac, self._clock()):
                return None
        least, spread = _RETRY_SECONDS
        return Refusal(self._all_taken, least + crc32(mac.encode("ascii")) % (spread + 1))

    def end(self, mac: str, is_last: bool) -> None:
        """Note that a transfer has ended; with `is_last` the device has the end of the image."""
        with self._lock:
            self._places.end(mac, self._clock(), is_last)

    @property
    def downloading(self) -> int:
        """How many devices download at this moment."""
        with self._lock:
            return self._places.downloading

    @property
    def _all_taken(self) -> str:
        return f"all {self._places.limit} places for downloads are taken; it comes again"
