"""Images for clients that need not say who they are: by name, or for anybody. Not recorded."""

import logging
import re
import time
from collections.abc import Callable
from http import HTTPStatus

from ota_server.device_port.asked_for import AskedFor, asked_for
from ota_server.device_port.caller import FIRMWARE_MODES, Caller
from ota_server.device_port.checks import CHECK_PATH
from ota_server.device_port.dialects import NoUpdate
from ota_server.device_port.downloads import no_update
from ota_server.device_port.image_reply import conditional_reply, file_reply, ranges_of
from ota_server.device_port.offers import NotOffered, Offers
from ota_server.httpd import byterange, reply
from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer, Reply
from ota_server.model.version import same_version
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
        self, request: Request, caller: Caller, peer: Peer, may_wait: bool
    ) -> Reply:
        """Give what the fleet should run, or its image, to a client that is no known device.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        asked = asked_for(caller.path)
        is_image = asked is not None and not asked.is_compressed and not asked.other
        if not (is_image and caller.mode in FIRMWARE_MODES) and caller.path != CHECK_PATH:
            return reply.text(HTTPStatus.NOT_FOUND, "Not Found")
        says_none = caller.family.no_update is not NoUpdate.NONE
        try:
            version, end = self._offers.for_anybody()
        except (NoTarget, NotOffered):
            return no_update(caller.family) if says_none else reply.later("No update now.")
        if caller.path == CHECK_PATH:
            return reply.text(HTTPStatus.OK, version + end)
        if says_none and same_version(self._offers.release_of(caller.report), version):
            return no_update(caller.family)
        return self.respond(request, version, peer, may_wait, asked)

    def respond(
        self,
        request: Request,
        version: str,
        peer: Peer,
        may_wait: bool,
        asked: AskedFor | None = None,
    ) -> Reply:
        """Give the image of a version, to caches or an operator's curl.

        Args:
            asked: which image or file of it is wanted; None: the image.

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
        if asked is not None and not asked.is_of(image.version):
            return reply.text(HTTPStatus.NOT_FOUND, _NOT_FOUND)
        if asked is not None and asked.path:
            path = asked.file_in(image.version, image.files)
            if path is None:
                return reply.text(HTTPStatus.NOT_FOUND, "Not Found")
            return file_reply(image, image.files[path], NAMED_CACHING)
        wanted = _SHA256_QUERY.fullmatch(request.query)
        is_right = wanted is not None and wanted[1].decode("ascii").lower() == image.sha256
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
