"""What stands beside the firmware of a release: a file system's image, Tasmota's smaller images.

A device gets it by the same decision as the firmware. It is no update of the device, which goes on
to run what it runs: the records of it, `part`, count for no rollout and no loop breaker. Nor does
the version in such a request say what the device runs, since sketches give the version of their
file system there. A device that says the release's own version has that already.
"""

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from ota_server.device_port.asked_for import AskedFor
from ota_server.device_port.caller import FIRMWARE_MODES, Caller
from ota_server.device_port.dialects import NoUpdate
from ota_server.device_port.downloads import TARGET_CACHING, no_update
from ota_server.device_port.image_reply import conditional_reply
from ota_server.device_port.offers import NotOffered, Offers
from ota_server.httpd import reply
from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import Peer, Reply, Transfer
from ota_server.journal.device_table import DeviceTable
from ota_server.journal.record import Scalar
from ota_server.journal.transfers import end_of_transfer
from ota_server.model.device import Device, Report, asked_for_image, reported
from ota_server.model.parts import Part
from ota_server.model.updater import without_space
from ota_server.model.version import UNKNOWN_VERSION, same_version
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.image import Image
from ota_server.releases.store import Altered, NoImage, NotHashed, NotNow, Store
from ota_server.system.server_log import RateLimit

log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 60.0


class PartTransfer(Transfer):
    """A reply with a part that is being sent, for the record of its end."""

    image: Image
    __slots__ = ("_beside", "began_at", "details", "key")

    def __init__(
        self, beside: "Beside", key: str, image: Image, details: dict[str, Scalar]
    ) -> None:
        super().__init__(image)
        self._beside = beside
        self.key = key
        self.details = details
        self.began_at = time.monotonic()

    def end(self, bytes_sent: int, complete: bool) -> None:
        """Record its end."""
        self._beside.finish(self, bytes_sent, complete)


class _Found(NamedTuple):
    """The answer to a request, and what is sent; None: nothing."""

    reply: Reply
    image: Image | None = None


class Beside:
    """Answers requests for what stands beside the firmware. Safe for use by many threads."""

    def __init__(
        self, store: Store, offers: Offers, fleet: DeviceTable, clock_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._offers = offers
        self._fleet = fleet
        self._clock_ms = clock_ms
        self._limit = RateLimit(_LOG_EVERY_SECONDS)

    def respond(
        self, request: Request, caller: Caller, asked: AskedFor, peer: Peer, may_wait: bool
    ) -> Reply:
        """Give a device a part of the release that it should run.

        Raises:
            NotHashed: it has to be hashed first, and the caller may wait for that.
        """
        fleet, key = self._fleet, caller.report.key
        with fleet.lock:
            before = fleet.get(key)
        running = UNKNOWN_VERSION if before is None else before.firmware_version
        report = Report(key, running, caller.report.updater)
        answer, image = self._find(request, caller, asked, report, peer, may_wait)
        is_sent = image is not None and request.method == "GET" and bool(answer.parts)
        if image is not None and is_sent and self._offers.admission is not None:
            now_ms, size = self._clock_ms(), image.size
            refusal = self._offers.admission.begin(key, now_ms, True, True, peer.address, size)
            if refusal is not None:
                is_sent, answer = False, self._none(caller, asked) or refusal.reply
        details: dict[str, Scalar] = {"file": _name(asked), "status": answer.status.value}
        try:
            self._record(report, peer, details)
        except Exception:
            if is_sent and self._offers.admission is not None:
                self._offers.admission.end(key, False)  # its end will not be called
            raise
        if image is not None and is_sent:
            answer.transfer = PartTransfer(self, key, image, details)
            with fleet.lock:
                fleet.transfers.count_begin()
        return answer

    def _record(self, report: Report, peer: Peer, details: dict[str, Scalar]) -> None:
        fleet, key = self._fleet, report.key
        with fleet.lock:
            before, now_ms = fleet.get(key), self._clock_ms()
            if before is None:
                device = asked_for_image(None, report, None, peer.address, now_ms, None)
            else:
                known = report._replace(firmware_version=before.firmware_version)
                device = reported(before, known, peer.address, now_ms)
            fleet.record("part", key, device, details)

    def finish(self, transfer: PartTransfer, bytes_sent: int, complete: bool) -> None:
        """Record the end of a transfer, as `Transfer.end` says."""
        fleet, image = self._fleet, transfer.image
        details = transfer.details | {
            "bytes_sent": bytes_sent,
            "complete": complete,
            "duration_seconds": round(time.monotonic() - transfer.began_at, 3),
            "release_version": image.version,
            "release_sha256": image.sha256,
        }
        with fleet.lock:
            fleet.transfers.count_end(end_of_transfer(complete, has_end=True), bytes_sent)
            device: Device | None = fleet.get(transfer.key)
            if device is not None:  # the table has room for it
                device = device._replace(time_ms=self._clock_ms())
                fleet.record("part", transfer.key, device, details)
        if self._offers.admission is not None:
            self._offers.admission.end(transfer.key, complete)

    def _find(
        self,
        request: Request,
        caller: Caller,
        asked: AskedFor,
        report: Report,
        peer: Peer,
        may_wait: bool,
    ) -> _Found:
        none = self._none(caller, asked)
        try:
            image = self._image(caller, asked, report, peer)
        except (NoTarget, NotOffered):
            return _Found(none or reply.later("No update now.", reply.AT_NEXT_POLL))
        except NoImage as problem:
            if isinstance(problem, Altered) and self._limit.allows(str(problem), time.monotonic()):
                log.error("%s", problem)
            return _Found(none or reply.text(HTTPStatus.NOT_FOUND, "Not Found"))
        except NotHashed:
            if may_wait:
                raise
            return _Found(reply.later("The image is not ready yet."))
        except NotNow:
            return _Found(reply.later("The image is not ready yet."))
        return _Found(conditional_reply(request, image, (), None, TARGET_CACHING), image)

    def _none(self, caller: Caller, asked: AskedFor) -> Reply | None:
        """Return what says that there is nothing now; None: this family has no such word."""
        if asked.other or caller.family.no_update is NoUpdate.NONE:
            return None  # Tasmota's later tries end at an error alone
        return no_update(caller.family)

    def _image(self, caller: Caller, asked: AskedFor, report: Report, peer: Peer) -> Image:
        # What room the firmware would need does not matter here.
        plain = report._replace(updater=without_space(report.updater))
        decision, _ = self._offers.decision_for(plain, peer, self._clock_ms(), True)
        release = decision.release
        running = self._offers.release_of(caller.report)
        if release is None or same_version(running, release):
            raise NotOffered(decision)
        part = Part.FILESYSTEM
        if asked.other:
            image = self._store.image(release + asked.other)
            self._offers.check_image(image, peer)
            if not asked.is_compressed:
                return image
            part, release = Part.GZIP, image.version
        image = self._store.part(release, part)
        self._offers.check_part(image, part)
        return image


def _name(asked: AskedFor) -> str:
    return asked.other.removeprefix("-") or Part.FILESYSTEM.value


def is_beside(caller: Caller, asked: AskedFor) -> bool:
    """Return whether a device asks for something else than the firmware that it should run."""
    return bool(asked.other) or caller.mode not in FIRMWARE_MODES
