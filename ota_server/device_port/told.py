"""What a device is told of the release that it should run: documents, digests of the image.

A document is a check: the decision is the same as for `/version.txt`, and so is the record. A
digest says nothing of its release, so the image that follows within a minute is that one.
"""

from collections.abc import Callable
from http import HTTPStatus

from ota_server.device_port.caller import Caller
from ota_server.device_port.dialects import FOTA_PATH, OTHER, Family, NoUpdate
from ota_server.device_port.documents import (
    ESPHOME_PATH,
    MAX_URL,
    NO_FOTA_VERSION,
    NO_MD5,
    esphome_manifest,
    fota_document,
)
from ota_server.device_port.downloads import no_update
from ota_server.device_port.offers import NotOffered, Offers
from ota_server.device_port.promises import Promises
from ota_server.device_port.resume import recent_download
from ota_server.httpd import reply
from ota_server.httpd.http1 import Request, field_lines
from ota_server.httpd.reply import Peer, Reply
from ota_server.httpd.trusted_proxies import origin_of
from ota_server.journal.device_table import DeviceTable
from ota_server.journal.record import Scalar
from ota_server.model.device import Download, Report
from ota_server.model.identity import identity_of
from ota_server.model.image_header import HEAD_BYTES, read_header
from ota_server.model.version import UNKNOWN_VERSION, is_version, meaning
from ota_server.policy.files import PolicyFiles
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.image import Image
from ota_server.releases.store import NoImage, NotHashed, NotNow, Store

MD5_PATH, SHA256_PATH = b"/firmware.bin.md5", b"/firmware.bin.sha256"
# Where micropython-ota asks for the version; it does not say its own.
FILES_CHECK_PATH = b"/version"
TOLD_PATHS = frozenset((ESPHOME_PATH, FOTA_PATH, FILES_CHECK_PATH, MD5_PATH, SHA256_PATH))
_MOST_NOTES = 200
_JSON = field_lines((("Content-Type", "application/json"), ("Cache-Control", "no-store")))


class Telling:
    """Answers requests for documents and digests. Safe for use by many threads."""

    def __init__(
        self,
        product: str,
        store: Store,
        policies: PolicyFiles,
        offers: Offers,
        fleet: DeviceTable,
        promises: Promises,
        clock_ms: Callable[[], int],
    ) -> None:
        self._product = product
        self._store = store
        self._policies = policies
        self._offers = offers
        self._fleet = fleet
        self._promises = promises
        self._clock_ms = clock_ms

    def respond(self, request: Request, caller: Caller, peer: Peer, may_wait: bool) -> Reply:
        """Answer a device.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        is_digest = caller.path in (MD5_PATH, SHA256_PATH)
        if is_digest:
            return _answered(lambda: self._digest(caller, peer), may_wait, caller.family)
        return _answered(lambda: self._document(request, caller, peer), may_wait)

    def respond_to_anybody(
        self, request: Request, path: bytes, peer: Peer, may_wait: bool
    ) -> Reply:
        """Say what the fleet should run, to a client that is no known device. Not recorded.

        Raises:
            NotHashed: as `respond`.
        """

        def tell() -> Reply:
            version, _ = self._offers.for_anybody()
            image = self._image(version, peer)
            if path in (MD5_PATH, SHA256_PATH):
                return _digest_reply(path, image)
            place = f"firmware/firmware_{image.version}.bin"
            origin = origin_of(request, peer)
            return _document_reply(path, self._document_of(origin, path, version, image, place))

        return _answered(tell, may_wait)

    def _digest(self, caller: Caller, peer: Peer) -> Reply:
        """Give the digest of the image that a device has begun, or would get."""
        key, now_ms = caller.report.key, self._clock_ms()
        with self._fleet.lock:
            device = self._fleet.get(key)
            known = recent_download(device.download if device else None, now_ms)
            under_way = known is not None and self._fleet.transfers.has(key, known.sha256)
        if known is not None and under_way:
            image = self._store.pinned_image(known)
        else:
            decision, _ = self._offers.decision_for(caller.report, peer, now_ms, True)
            if decision.release is None:
                raise NotOffered(decision)
            image = self._store.image(decision.release)
        self._offers.check_image(image, peer)
        promised = Download(image.version, image.sha256, image.size, now_ms)
        running = self._offers.release_of(caller.report)
        self._promises.make(key, running, promised, now_ms)
        return _digest_reply(caller.path, image)

    def _document(self, request: Request, caller: Caller, peer: Peer) -> Reply:
        """Say which version a device should run; its own if that is no other one."""
        report, now_ms = caller.report, self._clock_ms()
        told, image = self._offered(report, peer, now_ms)
        if told is None:
            told = self._own(report)
            image = self._own_image(told, peer)
        origin = origin_of(request, peer)
        content = self._document_of(origin, caller.path, told, image, None, report)
        answer = _document_reply(caller.path, content)
        details: dict[str, Scalar] = {} if content else {"status": answer.status.value}
        answer.needs_record = bool(self._policies.latest.rollouts)
        version = told or report.firmware_version
        self._fleet.check(report, version, peer.address, now_ms, details)
        return answer

    def _offered(self, report: Report, peer: Peer, now_ms: int) -> tuple[str | None, Image | None]:
        """Return another version than the device runs, and its image; None: it is offered none."""
        try:
            decision, _ = self._offers.offer(report, peer, now_ms)
        except NoTarget:
            return None, None
        if decision.release is None or decision.version == report.firmware_version:
            return None, None
        return decision.version, self._image(decision.release, peer)

    def _own_image(self, version: str | None, peer: Peer) -> Image | None:
        try:
            return self._image(version, peer) if version and is_version(version) else None
        except NoImage:
            return None

    def _image(self, release: str, peer: Peer) -> Image:
        image = self._store.image(release)
        self._offers.check_image(image, peer)
        return image

    def _own(self, report: Report) -> str | None:
        """Return what a device runs, or else what it was given last; None: that is not known."""
        if report.firmware_version != UNKNOWN_VERSION:
            return report.firmware_version
        with self._fleet.lock:
            device = self._fleet.get(report.key)
        return None if device is None or device.download is None else device.download.version

    def _document_of(
        self,
        origin: str,
        path: bytes,
        told: str | None,
        image: Image | None,
        place: str | None,
        report: Report | None = None,
    ) -> str | None:
        """Return a document; None: there is nothing that it could say.

        Args:
            origin: the scheme and host by which the client asks; "": it does not say.
            place: the path of the image for anybody; None: it is for the device of `report`.
        """
        if path == FILES_CHECK_PATH:
            return told
        version = told if image is None else image.version
        name = f"firmware_{version}.bin" if version and is_version(version) else "firmware.bin"
        if path == ESPHOME_PATH:
            if told is None:
                return None
            header = None if image is None else read_header(image.read(0, HEAD_BYTES))
            manifest = self._policies.latest.manifests.get(meaning(version or ""))
            md5 = NO_MD5 if image is None else image.md5
            notes = "" if manifest is None else manifest.notes[:_MOST_NOTES]
            kind = self._product or "firmware"
            return esphome_manifest(kind, told, place or name, md5, header, notes)
        if place is None and report is not None:
            reported = report.firmware_version
            runs = reported if is_version(reported) else UNKNOWN_VERSION
            place = f"d/{identity_of(report.key)}/{runs}/{name}"
        url = "/".join(filter(None, (origin, self._product, place)))
        if not origin or len(url) > MAX_URL:
            return None
        return fota_document(self._product or "default", told or NO_FOTA_VERSION, url)


def _answered(tell: Callable[[], Reply], may_wait: bool, family: Family = OTHER) -> Reply:
    """Return an answer, or what is said where there is none.

    Args:
        family: whose word for "no update" is understood in the place of this answer.
    """
    try:
        return tell()
    except NoImage:
        return reply.text(HTTPStatus.NOT_FOUND, "Firmware version not found.")
    except (NoTarget, NotOffered):
        has_word = family.no_update is not NoUpdate.NONE
        none = reply.later("No update now.", reply.AT_NEXT_POLL)
        return no_update(family) if has_word else none
    except NotHashed:
        if may_wait:
            raise
        return reply.later("The image is not ready yet.")
    except NotNow:
        return reply.later("The image is not ready yet.")


def _digest_reply(path: bytes, image: Image) -> Reply:
    return reply.text(HTTPStatus.OK, image.md5 if path == MD5_PATH else image.sha256)


def _document_reply(path: bytes, content: str | None) -> Reply:
    if content is None:
        return reply.later("No update now.", reply.AT_NEXT_POLL)
    if path == FILES_CHECK_PATH:
        return reply.text(HTTPStatus.OK, content)
    body = content.encode("ascii")
    return Reply(HTTPStatus.OK, _JSON, body, content_length=len(body))
