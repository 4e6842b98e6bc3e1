"""Images for devices: which bytes a request gets, and the records of its begin and its end."""

import logging
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from ota_server.device_port.image_reply import conditional_reply, has_end_of, range_start_of
from ota_server.device_port.offers import Offers
from ota_server.device_port.resume import continued_download
from ota_server.httpd import byterange, reply
from ota_server.httpd.byterange import RangeSpec
from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer, Reply, Transfer
from ota_server.journal.device_table import DeviceTable
from ota_server.journal.record import Scalar
from ota_server.model.device import (
    Device,
    Download,
    Report,
    asked_for_image,
    goes_on,
    previous_version,
    ran_for_a_day,
)
from ota_server.model.version import entity_tag
from ota_server.policy.decision import Decision
from ota_server.policy.explain import in_words
from ota_server.policy.files import PolicyFiles
from ota_server.policy.loop_breaker import fetched
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.image import Image
from ota_server.releases.store import Altered, NoImage, NotHashed, NotNow, Store
from ota_server.system.server_log import RateLimit

log = logging.getLogger(__name__)

_SHA256_QUERY = re.compile(rb"(?:.*&)?sha256=([0-9A-Fa-f]{64})(?:&.*)?")
_LOG_EVERY_SECONDS = 60.0
_NOT_FOUND = "Firmware version not found."
_NOT_READY = "The image is not ready yet."

TARGET_CACHING = ("Cache-Control", "private, no-cache, no-transform")
NAMED_CACHING = ("Cache-Control", "no-cache, no-transform")
_HASH_CACHING = ("Cache-Control", "public, max-age=31536000, immutable, no-transform")


class NotOffered(Exception):
    """The device may not have an image now: answer 503."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(in_words(decision.cause))
        self.decision = decision


class DeviceTransfer(Transfer):
    """A reply to /firmware.bin that is being sent, for the record of its end.

    Attributes:
        began_at: in seconds of the monotonic clock.
        has_end: it contains the last byte of the image.
    """

    image: Image
    __slots__ = ("_downloads", "began_at", "has_end", "mac", "range_start", "status")

    def __init__(
        self,
        downloads: "Downloads",
        mac: str,
        image: Image,
        status: int,
        range_start: int | None,
        has_end: bool,
    ) -> None:
        super().__init__(image)
        self._downloads = downloads
        self.mac = mac
        self.status = status
        self.range_start = range_start
        self.has_end = has_end
        self.began_at = time.monotonic()

    def end(self, bytes_sent: int, complete: bool) -> None:
        """Record its end."""
        self._downloads.finish(self, bytes_sent, complete)


class _Plan(NamedTuple):
    """An answer to /firmware.bin before it is recorded; without an image it sends no bytes.

    `is_new`: it does not continue a download that its device has begun.
    """

    reply: Reply
    target_version: str | None
    image: Image | None = None
    download: Download | None = None
    is_new: bool = True


class Downloads:
    """Answers requests for images. Safe for use by many threads."""

    def __init__(
        self,
        store: Store,
        policies: PolicyFiles,
        offers: Offers,
        fleet: DeviceTable,
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._policies = policies
        self._offers = offers
        self._fleet = fleet
        self._clock_ms = clock_ms
        self._limit = RateLimit(_LOG_EVERY_SECONDS)

    def respond(self, request: Request, report: Report, peer: Peer, may_wait: bool) -> Reply:
        """Give the device the image that it began, or that of its target.

        The answer is planned without the lock, since planning looks at files. If another request of
        the device has begun another download meanwhile, it is planned again.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        fleet = self._fleet
        while True:
            with fleet.lock:
                row, before = fleet.row(report.mac), fleet.get(report.mac)
                known = before.download if before else None
                under_way = known is not None and fleet.transfers.has(report.mac, known.sha256)
            plan = self._plan(request, report, peer, before, under_way, may_wait)
            with fleet.lock:
                if fleet.row(report.mac) is not row:
                    before = fleet.get(report.mac)
                if known == (before.download if before else None):
                    plan = self._admitted(request, report, peer, plan)
                    self._record(request, report, peer, before, plan)
                    return plan.reply

    def respond_by_name(self, request: Request, version: str, peer: Peer, may_wait: bool) -> Reply:
        """Give an image by its name, to caches or an operator's curl. Nothing is recorded.

        Raises:
            NotHashed: as `respond`.
        """
        try:
            image = self._store.image(version)
            self._offers.check_image(image, peer)
        except NoImage as problem:
            # Missing images are not logged: anybody can ask for any name.
            if isinstance(problem, Altered) and self._limit.allows(str(problem), time.monotonic()):
                log.error("no image by its name for %s: %s", peer.address, problem)
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
        modified_seconds = min(image.modified_seconds, self._clock_ms() // 1000)
        ranges = _ranges(request)
        if not self._if_range_matches(request, image.etag, modified_seconds):
            ranges = ()
        caching = _HASH_CACHING if is_right else NAMED_CACHING
        return conditional_reply(request, image, ranges, modified_seconds, caching)

    def finish(self, transfer: DeviceTransfer, bytes_sent: int, complete: bool) -> None:
        """Record the end of a download.

        Args:
            bytes_sent: the bytes of the body that the device's side has acknowledged.
            complete: it has acknowledged the whole reply, and did not reset the connection after.
        """
        fleet = self._fleet
        details: dict[str, Scalar] = {
            "status": transfer.status,
            "bytes_sent": bytes_sent,
            "complete": complete,
            "duration_seconds": round(time.monotonic() - transfer.began_at, 3),
            "release_version": transfer.image.version,
            "release_sha256": transfer.image.sha256,
        }
        if transfer.range_start is not None:
            details["range_start"] = transfer.range_start
        with fleet.lock:
            fleet.transfers.end(transfer.mac, transfer.image.sha256)
            device = fleet.get(transfer.mac)
            if device is not None:  # the table has room for it
                now_ms, download = self._clock_ms(), device.download
                if download is not None and download.sha256 == transfer.image.sha256:
                    download = fetched(download, bytes_sent, complete, now_ms)
                device = device._replace(time_ms=now_ms, download=download)
                fleet.record("download", transfer.mac, device, details)
        if self._offers.admission is not None:
            self._offers.admission.end(transfer.mac, complete and transfer.has_end)

    def _admitted(self, request: Request, report: Report, peer: Peer, plan: _Plan) -> _Plan:
        """Return the plan, or another one if its device may not download now.

        Call it just before the record: a slot that is taken here is released in `finish`.
        """
        admission = self._offers.admission
        if admission is None or plan.image is None:
            return plan
        refusal = admission.begin(
            report.mac, self._clock_ms(), request.method == "GET", plan.is_new, peer.address
        )
        if refusal is None:
            return plan
        told = report.firmware_version if plan.is_new else plan.target_version
        return _Plan(refusal.reply, told)

    def _plan(
        self,
        request: Request,
        report: Report,
        peer: Peer,
        device: Device | None,
        under_way: bool,
        may_wait: bool,
    ) -> _Plan:
        try:
            return self._plan_image(request, report, peer, device, under_way)
        except NoTarget:
            answer = reply.later("No target version.")
        except NotNow:
            answer = reply.later(_NOT_READY)
        except NotHashed:
            if may_wait:
                raise
            answer = reply.later(_NOT_READY)
        except NotOffered as problem:
            answer = reply.later(f"No update now: {problem}.")
            return _Plan(answer, problem.decision.version)
        except NoImage as problem:
            if self._limit.allows(str(problem), time.monotonic()):
                log.error("no image for %s: %s", report.mac, problem)
            answer = reply.text(HTTPStatus.NOT_FOUND, _NOT_FOUND)
        return _Plan(answer, device.target_version if device else None)

    def _plan_image(
        self, request: Request, report: Report, peer: Peer, device: Device | None, under_way: bool
    ) -> _Plan:
        now_ms = self._clock_ms()
        ranges = _ranges(request)
        known = device.download if device else None
        honoured = known is None or self._if_range_matches(request, entity_tag(known.sha256))
        continued = continued_download(known, under_way, ranges, honoured, now_ms)
        if continued is not None and byterange.from_byte_zero(ranges) and not under_way:
            self._keep_from_looping(report, continued, now_ms)
        if continued is not None:
            image = self._store.pinned_image(continued)
            self._offers.check_image(image, peer)
            version, target_version = continued.version, device.target_version if device else None
        else:
            decision, _ = self._offers.decide(report, peer, now_ms, for_image=True)
            if decision.release is None:
                raise NotOffered(decision)
            version, target_version = decision.release, decision.version
            image = self._store.image(version)
            self._offers.check_image(image, peer)
        if not honoured or not self._if_range_matches(request, image.etag):
            ranges = ()
        answer = conditional_reply(request, image, ranges, None, TARGET_CACHING)
        if not answer.parts:
            return _Plan(answer, target_version)
        download = _begun(device, version, image, now_ms)
        is_new = continued is None and not goes_on(known, image.sha256, under_way, now_ms)
        return _Plan(answer, target_version, image, download, is_new)

    def _keep_from_looping(self, report: Report, download: Download, now_ms: int) -> None:
        cause = self._offers.why_wait(report.mac, download, download.version, now_ms)
        if cause is not None:
            raise NotOffered(Decision(report.firmware_version, cause, None))

    def _record(
        self, request: Request, report: Report, peer: Peer, before: Device | None, plan: _Plan
    ) -> None:
        """Queue the record of an answer. The caller holds the fleet's lock."""
        now_ms = self._clock_ms()
        device = asked_for_image(
            before, report, plan.target_version, peer.address, now_ms, plan.download
        )
        details: dict[str, Scalar] = {"status": plan.reply.status.value}
        details |= previous_version(before, report)
        if plan.image is None:
            details |= {"bytes_sent": 0, "complete": False, "duration_seconds": 0}
            self._fleet.record("download", report.mac, device, details)
            return
        range_start = range_start_of(plan.reply)
        if range_start is not None:
            details["range_start"] = range_start
        if request.method == "HEAD":
            details["method"] = "HEAD"
        self._fleet.record("begin", report.mac, device, details)
        plan.reply.needs_record = bool(self._policies.latest.rollouts)
        if request.method == "GET":
            self._fleet.transfers.begin(report.mac, plan.image.sha256)
            plan.reply.transfer = DeviceTransfer(
                self,
                report.mac,
                plan.image,
                plan.reply.status.value,
                range_start,
                has_end_of(plan.image, plan.reply),
            )

    def _if_range_matches(
        self, request: Request, etag: str, modified_seconds: int | None = None
    ) -> bool:
        return byterange.if_range_matches(
            request.get(b"if-range"), etag, modified_seconds, self._clock_ms() // 1000
        )


def _begun(device: Device | None, version: str, image: Image, now_ms: int) -> Download:
    """Return the download that a request begins or continues; attempts at one image are kept."""
    known = device.download if device is not None else None
    if device is None or known is None or known.sha256 != image.sha256:
        return Download(version, image.sha256, image.size, now_ms)
    if ran_for_a_day(device, now_ms):
        return Download(version, image.sha256, image.size, now_ms)
    return known._replace(version=version, request_ms=now_ms)


def _ranges(request: Request) -> tuple[RangeSpec, ...]:
    # RFC 9110 section 14.2: only a GET can have a Range.
    return byterange.parse_ranges(request.get(b"range")) if request.method == "GET" else ()
