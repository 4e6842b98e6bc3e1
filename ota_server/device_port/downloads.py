"""Images for devices: which bytes a request gets."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

from ota_server.device_port.asked_for import AskedFor
from ota_server.device_port.caller import Caller
from ota_server.device_port.dialects import HAWKBIT, Family, NoUpdate
from ota_server.device_port.download_records import DownloadPlan, DownloadRecords, Piece
from ota_server.device_port.image_reply import (
    conditional_reply,
    file_reply,
    ranges_of,
)
from ota_server.device_port.offers import NotOffered, Offers
from ota_server.device_port.promises import Promises
from ota_server.device_port.resume import begun_download, continued_download, recent_download
from ota_server.httpd import byterange, reply
from ota_server.httpd.byterange import RangeSpec
from ota_server.httpd.http1 import Request, field_lines
from ota_server.httpd.reply import Peer, Reply
from ota_server.journal.device_table import DeviceTable
from ota_server.model.device import (
    Device,
    Download,
    Report,
    goes_on,
)
from ota_server.model.identity import product_of
from ota_server.model.parts import Part
from ota_server.model.updater import without_space
from ota_server.model.version import entity_tag, meaning, same_version
from ota_server.policy.decision import Decision
from ota_server.policy.files import PolicyFiles
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.image import Image
from ota_server.releases.store import NoImage, NotHashed, NotNow, Store
from ota_server.system.hints import hints
from ota_server.system.server_log import RateLimit

log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 60.0
_NOT_FOUND = "Firmware version not found."
_NOT_READY = "The image is not ready yet."

TARGET_CACHING = ("Cache-Control", "private, no-cache, no-transform")
_TARGET_CACHING = field_lines((TARGET_CACHING,))
_IMAGE = AskedFor()


class NoFile(NoImage):
    """No release that concerns the device has such a file: there is no such path."""


class Downloads:
    """Answers requests for images. Safe for use by many threads.

    Attributes:
        promises: the images of which devices have the digest already.
    """

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
        self.promises = Promises()
        self._records = DownloadRecords(fleet, policies, offers, clock_ms)

    def respond(
        self,
        request: Request,
        caller: Caller,
        peer: Peer,
        may_wait: bool,
        asked: AskedFor = _IMAGE,
    ) -> Reply:
        """Give the device what it wants of the release that it began, or of its target.

        Where it asks for nothing else, this is its check too, and recorded as one.

        The answer is planned without the lock, since planning looks at files. If another request of
        the device has begun another download meanwhile, it is planned again.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
            NoFile: no release that concerns the device has such a file.
        """
        fleet, report = self._fleet, caller.report
        while True:
            with fleet.lock:
                row, before = fleet.row(report.key), fleet.get(report.key)
                known = before.download if before else None
                under_way = known is not None and fleet.transfers.has(report.key, known.sha256)
            plan = self._plan(request, caller, asked, peer, before, under_way, may_wait)
            with fleet.lock:
                if fleet.row(report.key) is not row:
                    before = fleet.get(report.key)
                if known == (before.download if before else None):
                    plan = self._admitted(request, caller, peer, plan)
                    try:
                        if plan.is_check:
                            before = self._records.check(report, peer, before, plan)
                        if plan.image is not None or not plan.is_check:
                            self._records.begin(request, report, peer, before, plan)
                    except Exception:
                        # Its end will not be called: no transfer has begun.
                        admission, is_get = self._offers.admission, request.method == "GET"
                        if admission is not None and plan.takes_slot and is_get:
                            admission.end(report.key, False)
                        raise
                    return plan.reply

    def _admitted(
        self, request: Request, caller: Caller, peer: Peer, plan: DownloadPlan
    ) -> DownloadPlan:
        """Return the plan, or another one if its device may not download now.

        Call it just before the record: a slot that is taken here is released at its end.
        """
        admission, report = self._offers.admission, caller.report
        if admission is None or plan.image is None or (plan.is_file and not plan.is_new):
            return plan
        refusal = admission.begin(
            report.key,
            self._clock_ms(),
            request.method == "GET" and not plan.is_file,
            plan.is_new,
            peer.address,
            plan.image.size,
        )
        if refusal is None:
            return plan
        if caller.family is HAWKBIT:
            return plan._replace(has_slot=False)  # its poll let it in; refused, its update fails
        told = report.firmware_version if plan.is_new else plan.target_version
        if plan.is_check and caller.family.no_update is not NoUpdate.NONE:
            return DownloadPlan(no_update(caller.family), told, is_check=True)
        return DownloadPlan(refusal.reply, told)

    def _plan(
        self,
        request: Request,
        caller: Caller,
        asked: AskedFor,
        peer: Peer,
        device: Device | None,
        under_way: bool,
        may_wait: bool,
    ) -> DownloadPlan:
        report, family = caller.report, caller.family
        try:
            return self._plan_image(request, caller, asked, peer, device, under_way)
        except NoTarget:
            self._refuse_file(asked)
            if family.no_update is not NoUpdate.NONE:
                return DownloadPlan(no_update(family), None, is_check=True)
            answer = reply.later("No target version.", reply.AT_NEXT_POLL)
        except NotNow:
            answer = reply.later(_NOT_READY)
        except NotHashed:
            if may_wait:
                raise
            answer = reply.later(_NOT_READY)
        except NotOffered as problem:
            self._refuse_file(asked)
            if family.no_update is not NoUpdate.NONE:
                return DownloadPlan(no_update(family), report.firmware_version, is_check=True)
            answer = problem.answer(f"No update now: {problem}.", self._clock_ms())
            return DownloadPlan(answer, problem.decision.version)
        except NoFile:
            raise
        except NoImage as problem:
            self._refuse_file(asked)
            if self._limit.allows(str(problem), time.monotonic()):
                said = hints.paste(str(problem), product_of(report.key))
                log.error("no image for %s: %s", report.key, said)
            answer = reply.text(HTTPStatus.NOT_FOUND, _NOT_FOUND)
        return DownloadPlan(answer, device.target_version if device else None)

    def _refuse_file(self, asked: AskedFor) -> None:
        """Refuse what can only be a file of a release, where none has such a file."""
        manifests = self._policies.latest.manifests.values()
        if asked.path and not any(
            asked.is_in(each.version, {file.path for file in each.files}) for each in manifests
        ):
            raise NoFile(asked.path)

    def _plan_image(
        self,
        request: Request,
        caller: Caller,
        asked: AskedFor,
        peer: Peer,
        device: Device | None,
        under_way: bool,
    ) -> DownloadPlan:
        report, now_ms = caller.report, self._clock_ms()
        asks_by_this = caller.family.no_update is not NoUpdate.NONE or bool(asked.path)
        ranges = () if asked.path or asked.is_compressed else ranges_of(request)
        known = device.download if device else None
        honoured = known is None or _fits_if_range(request, entity_tag(known.sha256))
        continued = asked.pinned
        if continued is not None:
            honoured = True
        elif known is not None:
            begun = continued_download(known, under_way, ranges, honoured, now_ms)
            if not ranges and (asked.version or asked.path):
                begun = recent_download(known, now_ms)
            continued = _still_wanted(begun, asked, report, asks_by_this)
            if continued is not None and byterange.from_byte_zero(ranges) and not under_way:
                self._keep_from_looping(report, continued, now_ms)
        image = None if continued is None else self._store.pinned_image(continued)
        if image is not None and not asked.is_in(image.version, image.files):
            continued = image = None
        if continued is not None and image is not None:
            version, target_version = continued.version, device.target_version if device else None
        else:
            decision = self._decide(caller, asked, peer, now_ms, asks_by_this)
            version, image = self._image_of(decision.release or "", report, now_ms)
            target_version = decision.version
        self._offers.check_image(image, peer)
        if not honoured or not _fits_if_range(request, image.etag):
            ranges = ()
        answer, piece = self._answer(request, image, ranges, asked)
        if caller.family.wants_sha256 and answer.parts and piece is None:
            answer.fields += field_lines((("x-SHA256", image.sha256),))
        is_own_file = asked.path and continued is None and _runs(report, version)
        if is_own_file or not answer.parts:
            return DownloadPlan(answer, target_version, is_check=bool(is_own_file))
        # Its time stays that of the decision where no Range says that it goes on.
        download = None if ranges or asked.pinned is not None else continued
        if download is None:
            download = begun_download(device, version, image.sha256, image.size, now_ms)
        is_new = continued is None and not goes_on(known, image.sha256, under_way, now_ms)
        is_check = asks_by_this and continued is None and asked.path in ("", piece and piece.name)
        return DownloadPlan(answer, target_version, image, download, is_new, is_check, piece)

    def _image_of(self, release: str, report: Report, now_ms: int) -> tuple[str, Image]:
        """Return a release that was decided on; or that of which the device has the digest."""
        promised = self.promises.of(report.key, self._offers.release_of(report), now_ms)
        if promised is not None:
            with suppress(NoImage):
                return promised.version, self._store.pinned_image(promised)
        return release, self._store.image(release)

    def _decide(
        self, caller: Caller, asked: AskedFor, peer: Peer, now_ms: int, asks_by_this: bool
    ) -> Decision:
        """Return the decision for a device that may have what it wants.

        A device that asks for files one by one compares them with its own, so that it gets those
        again if it should not have others.

        Raises:
            NotOffered, NoTarget, NotHashed: as `Offers.decision_for`.
        """
        report, policy = caller.report, self._policies.current()
        if asked.is_compressed:  # how much room that takes, the updater knows
            report = report._replace(updater=without_space(report.updater))
        decision, _ = self._offers.decision_for(report, peer, now_ms, not asks_by_this)
        is_current = asks_by_this and decision.version == report.firmware_version
        if asked.path and (is_current or decision.release is None):
            running = policy.release_of(report.firmware_version)
            has_image = meaning(running) in policy.images
            decision = decision._replace(release=running if has_image else None)
        elif is_current:
            raise NotOffered(decision)
        if decision.release is None or not asked.is_of(decision.release):
            raise NotOffered(decision)
        return decision

    def _answer(
        self, request: Request, image: Image, ranges: tuple[RangeSpec, ...], asked: AskedFor
    ) -> tuple[Reply, Piece | None]:
        """Return the reply with what is wanted of an image, and what of it that stands for."""
        if asked.path:
            path = asked.file_in(image.version, image.files)
            if path is None:
                raise NoFile(asked.path)
            file = image.files[path]
            return file_reply(image, file, TARGET_CACHING), Piece(path, file.first, file.end)
        if asked.is_compressed:
            packed = self._store.part(image.version, Part.GZIP)
            self._offers.check_part(packed, Part.GZIP)
            answer = conditional_reply(request, packed, (), None, TARGET_CACHING)
            return answer, Piece(Part.GZIP.value, None, image.size)
        return conditional_reply(request, image, ranges, None, TARGET_CACHING), None

    def _keep_from_looping(self, report: Report, download: Download, now_ms: int) -> None:
        cause = self._offers.why_wait(report.key, download, download.version, now_ms)
        if cause is not None:
            raise NotOffered(Decision(report.firmware_version, cause, None))


def _still_wanted(
    begun: Download | None, asked: AskedFor, report: Report, asks_by_this: bool
) -> Download | None:
    """Return the download that a request continues; None if it wants another one by now."""
    if begun is None or not asked.is_of(begun.version):
        return None
    has_installed = asks_by_this and _runs(report, begun.version)  # it asks again
    return None if has_installed else begun


def _runs(report: Report, version: str) -> bool:
    return same_version(report.firmware_version, version)


def no_update(family: Family) -> Reply:
    """Return what tells a device of a family that there is no update for it now."""
    status = HTTPStatus(family.no_update.value)
    if status is HTTPStatus.NOT_FOUND:
        return reply.text(status, "No update now.")
    return Reply(status, _TARGET_CACHING, content_length=None)


def _fits_if_range(request: Request, etag: str) -> bool:
    # Dates are ignored: going back to an older file must not continue the newer one.
    return byterange.if_range_matches(request.get(b"if-range"), etag, None, 0)
