"""Images for clients that need not say who they are: by name, or for anybody. Not recorded."""

import logging
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from ota_server.device_port.checks import CHECK_PATH, IMAGE_PATH
from ota_server.device_port.image_reply import conditional_reply, ranges_of
from ota_server.device_port.offers import NotOffered, Offers
from ota_server.httpd import byterange, reply
from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer, Reply
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.store import Altered, NoImage, NotHashed, NotNow, Store
from ota_server.system.hints import hints
from ota_server.system.server_log import RateLimit

log = logging.getLogger(__name__)

_SHA256_QUERY = re.compile(rb"(?:.*&)?sha256=([0-9A-Fa-f]{64})(?:&.*)?")
_LOG_EVERY_SECONDS = 60.0
# Reproducible builds give all files one time, mostly the first second of 1970, or of 1980 in a ZIP
# archive: two builds have the same, so that it is no validator.
_FIRST_TOLD_SECONDS = 11 * 366 * 86400
_NOT_FOUND = "Firmware version not found."
_NOT_READY = "The image is not ready yet."

NAMED_CACHING = ("Cache-Control", "no-cache, no-transform")
_HASH_CACHING = ("Cache-Control", "public, max-age=31536000, immutable, no-transform")


class NamedImages:
    """Answers requests for images by name. Safe for use by many threads."""

    def __init__(self, store: Store, offers: Offers, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._offers = offers
        self._clock_ms = clock_ms
        self._limit = RateLimit(_LOG_EVERY_SECONDS)

    def respond_to_anybody(
        self, request: Request, path: bytes, peer: Peer, may_wait: bool
    ) -> Reply:
        """Give what the fleet should run, or its image, to a client that is no known device.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        if path not in (CHECK_PATH, IMAGE_PATH):
            return reply.text(HTTPStatus.NOT_FOUND, "Not Found")
        try:
            version, end = self._offers.for_anybody()
        except (NoTarget, NotOffered):
            return reply.later("No update now.")
        if path == CHECK_PATH:
            return reply.text(HTTPStatus.OK, version + end)
        return self.respond(request, version, peer, may_wait)

    def respond(self, request: Request, version: str, peer: Peer, may_wait: bool) -> Reply:
        """Give the image of a version, to caches or an operator's curl.

        Raises:
            NotHashed: it has to be hashed first, and the caller may wait for that.
        """
        try:
            image = self._store.image(version)
            self._offers.check_image(image, peer)
        except NoImage as problem:
            # Missing images are not logged: anybody can ask for any name.
            if isinstance(problem, Altered) and self._limit.allows(str(problem), time.monotonic()):
                said = hints.paste(str(problem))
                log.error("no image by its name for %s: %s", peer.address, said)
            return reply.text(HTTPStatus.NOT_FOUND, _NOT_FOUND)
        except NotNow:
            return reply.later(_NOT_READY)
        except NotHashed:
            if may_wait:
                raise
            return reply.later(_NOT_READY)
        asked = _SHA256_QUERY.fullmatch(request.query)
        is_right = asked is not None and asked[1].decode("ascii").lower() == image.sha256
        # RFC 9110 section 8.8.2.1: never later than the reply, whatever clock the file has it from.
        told_seconds = min(image.modified_seconds, self._clock_ms() // 1000)
        modified_seconds = told_seconds if told_seconds >= _FIRST_TOLD_SECONDS else None
        ranges = ranges_of(request)
        if not byterange.if_range_matches(
            request.get(b"if-range"), image.etag, modified_seconds, self._clock_ms() // 1000
        ):
            ranges = ()
        caching = _HASH_CACHING if is_right else NAMED_CACHING
        return conditional_reply(request, image, ranges, modified_seconds, caching)
