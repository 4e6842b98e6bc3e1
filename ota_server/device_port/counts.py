"""What the server counts of its answers, for metrics: requests and rejections.

Nothing here grows with devices or with what they send: routes, statuses and reasons are fixed sets.
Common checks are counted in the turns of the drivers (`httpd/turn_counts.py`), transfers beside the
device table (`journal/transfers.py`).
"""

from enum import StrEnum
from http import HTTPStatus
from threading import Lock

from ota_server.device_port.asked_for import asked_for
from ota_server.device_port.checks import CHECK_PATH
from ota_server.device_port.told import TOLD_PATHS


class CountedRoute(StrEnum):
    """What a request asks for; never its path, of which there are too many.

    FILE is one file of a release; DOCUMENT what says something about the image: its signature, its
    digests, the manifests of some families.
    """

    CHECK = "version.txt"
    IMAGE = "firmware.bin"
    FILE = "file"
    DOCUMENT = "document"
    NAMED_IMAGE = "named_image"
    DDI = "ddi"
    HEALTH = "healthz"
    OTHER = "other"
    MALFORMED = "malformed"


class RejectReason(StrEnum):
    """Why a request was rejected, and put on the list of rejected ones."""

    UNIDENTIFIED = "unidentified"
    NOT_FOUND = "not_found"
    BODY = "body"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    NOT_SUPPORTED = "not_supported"
    TOO_SLOW = "too_slow"
    BUSY = "busy"


_REASONS = {
    HTTPStatus.UNAUTHORIZED: RejectReason.UNIDENTIFIED,
    HTTPStatus.NOT_FOUND: RejectReason.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: RejectReason.BODY,
    HTTPStatus.REQUEST_URI_TOO_LONG: RejectReason.TOO_LARGE,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: RejectReason.TOO_LARGE,
    HTTPStatus.NOT_IMPLEMENTED: RejectReason.NOT_SUPPORTED,
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: RejectReason.NOT_SUPPORTED,
    HTTPStatus.REQUEST_TIMEOUT: RejectReason.TOO_SLOW,
    HTTPStatus.SERVICE_UNAVAILABLE: RejectReason.BUSY,
}


def reason_of(status: HTTPStatus) -> RejectReason:
    """Return why a request was rejected that was answered so."""
    return _REASONS.get(status, RejectReason.MALFORMED)


def route_of(path: bytes, status: HTTPStatus) -> CountedRoute:
    """Return what a path within a product asks for.

    Args:
        status: of the answer: only what was found is a file of a release, since any path could be
            one.
    """
    if path.startswith(b"/d/"):  # with identity and version in it
        path = b"/" + path.split(b"/", 4)[-1]
    if path == CHECK_PATH:
        return CountedRoute.CHECK
    if path.startswith(b"/firmware/firmware_"):
        return CountedRoute.NAMED_IMAGE
    if path in TOLD_PATHS or path == b"/firmware.bin.sig":
        return CountedRoute.DOCUMENT
    asked = asked_for(path)
    if asked is None or (asked.path and status is HTTPStatus.NOT_FOUND):
        return CountedRoute.OTHER
    return CountedRoute.FILE if asked.path else CountedRoute.IMAGE


class RequestCounts:
    """Counts answers, but for quick ones. Safe for use by many threads.

    Attributes:
        requests: by route and status.
        rejected: by reason.
        quick_failures: how many quick answers were a bug; they are in `requests` too.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.requests: dict[tuple[CountedRoute, int], int] = {}
        self.rejected = dict.fromkeys(RejectReason, 0)
        self.quick_failures = 0

    def answered(self, route: CountedRoute, status: HTTPStatus) -> None:
        """Count an answer."""
        key = route, status.value
        with self._lock:
            self.requests[key] = self.requests.get(key, 0) + 1

    def copied(self) -> dict[tuple[CountedRoute, int], int]:
        """Return `requests` as they are now."""
        with self._lock:
            return dict(self.requests)

    def failed_quickly(self) -> None:
        """Count a common check that was answered 500."""
        self.answered(CountedRoute.CHECK, HTTPStatus.INTERNAL_SERVER_ERROR)
        with self._lock:
            self.quick_failures += 1

    def rejects(self, status: HTTPStatus) -> None:
        """Count a request that is rejected by this status."""
        with self._lock:
            self.rejected[reason_of(status)] += 1
