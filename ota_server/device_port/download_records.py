"""The records of downloads: their begin, their end, and checks that are requests for the image."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from ota_server.device_port.homes import Homes
from ota_server.device_port.image_reply import has_end_of, range_start_of
from ota_server.device_port.offers import Offers
from ota_server.httpd.http1 import Request
from ota_server.httpd.reply import ImageSpan, Peer, Reply, Transfer
from ota_server.journal.device_table import DeviceTable
from ota_server.journal.record import Scalar
from ota_server.journal.transfers import end_of_transfer
from ota_server.model.device import (
    Device,
    Download,
    Report,
    asked_for_image,
    checked,
    previous_version,
)
from ota_server.policy.files import PolicyFiles
from ota_server.policy.loop_breaker import fetched
from ota_server.releases.image import Image


class Piece(NamedTuple):
    """A part of an image that a reply stands for, though its body has other bytes.

    That is one file of an archive, with its entry, or the image that was compressed.

    Attributes:
        name: what is sent, for the record.
        start: None: all of the image.
    """

    name: str
    start: int | None
    stop: int

    @property
    def details(self) -> dict[str, Scalar]:
        """What the record of a reply with it has."""
        return {"file": self.name, "range_stop": self.stop}


class DownloadPlan(NamedTuple):
    """An answer to /firmware.bin before it is recorded; without an image it sends no bytes.

    Attributes:
        is_new: it does not continue a download that its device has begun.
        is_check: it is the answer to a device that asks in this way for what it should run.
        piece: which part of the image the reply stands for; None: the bytes that it has.
        has_slot: it holds a download slot while it is sent.
    """

    reply: Reply
    target_version: str | None
    image: Image | None = None
    download: Download | None = None
    is_new: bool = True
    is_check: bool = False
    piece: Piece | None = None
    has_slot: bool = True

    @property
    def is_file(self) -> bool:
        """Whether the reply is one of many small ones, which need no slot while they are sent."""
        return self.piece is not None and self.piece.start is not None

    @property
    def takes_slot(self) -> bool:
        """Whether it has to end the slot that it got."""
        return self.image is not None and self.has_slot and not self.is_file

    @property
    def range_start(self) -> int | None:
        """The position in the image from which the reply has it; None: it is a whole one."""
        return range_start_of(self.reply) if self.piece is None else self.piece.start

    @property
    def has_end(self) -> bool:
        """Whether the reply has the end of the image."""
        if self.image is None or self.piece is None:
            return self.image is not None and has_end_of(self.image, self.reply)
        return self.piece.stop == self.image.size


class Coverage(NamedTuple):
    """What of an image a reply covers.

    Attributes:
        range_start: as in a `DownloadPlan`, and so are the others.
        has_end: it contains the last byte of the image.
    """

    status: int
    range_start: int | None
    has_end: bool
    takes_slot: bool
    piece: Piece | None


# Nearly all downloads of a fleet are whole ones: ten thousand at once share what is equal in them.
_coverage = lru_cache(maxsize=256)(Coverage)


class DeviceTransfer(Transfer):
    """A reply to /firmware.bin that is being sent, for the record of its end.

    Attributes:
        began_at: in seconds of the monotonic clock.
        is_own: it goes to where the device checks: others may use its name.
        pin: the image of the release, whatever of it is sent.
    """

    image: Image
    __slots__ = ("_records", "began_at", "coverage", "is_own", "key", "pin")

    def __init__(
        self,
        records: "DownloadRecords",
        key: str,
        plan: DownloadPlan,
        pin: Image,
        is_own: bool,
    ) -> None:
        sent = next(part.image for part in plan.reply.parts if isinstance(part, ImageSpan))
        super().__init__(sent)
        self.is_own = is_own
        self._records = records
        self.key = key
        self.pin = pin
        self.coverage = _coverage(
            plan.reply.status.value, plan.range_start, plan.has_end, plan.takes_slot, plan.piece
        )
        self.began_at = time.monotonic()

    def end(self, bytes_sent: int, complete: bool) -> None:
        """Record its end."""
        self._records.finish(self, bytes_sent, complete)


class DownloadRecords:
    """Records downloads. Safe for use by many threads."""

    def __init__(
        self,
        fleet: DeviceTable,
        policies: PolicyFiles,
        offers: Offers,
        clock_ms: Callable[[], int],
    ) -> None:
        self._fleet = fleet
        self._policies = policies
        self._offers = offers
        self._clock_ms = clock_ms
        self._homes = Homes()

    def check(
        self, report: Report, peer: Peer, before: Device | None, plan: DownloadPlan
    ) -> Device:
        """Queue the record of a check; return the device after it. The caller holds the lock."""
        device = checked(before, report, plan.target_version, peer.address, self._clock_ms())
        self._fleet.record("check", report.key, device, previous_version(before, report))
        return device

    def begin(
        self,
        request: Request,
        report: Report,
        peer: Peer,
        before: Device | None,
        plan: DownloadPlan,
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
            self._fleet.record("download", report.key, device, details)
            return
        if plan.range_start is not None:
            details["range_start"] = plan.range_start
        if plan.piece is not None:
            details |= plan.piece.details
        if request.method == "HEAD":
            details["method"] = "HEAD"
        self._fleet.record("begin", report.key, device, details)
        plan.reply.needs_record = bool(self._policies.latest.rollouts)
        if request.method == "GET":
            self._fleet.transfers.begin(report.key, plan.image.sha256)
            is_own = self._homes.is_home(report.key, before, peer.address)
            plan.reply.transfer = DeviceTransfer(self, report.key, plan, plan.image, is_own)
            self._fleet.transfers.count_begin()

    def finish(self, transfer: DeviceTransfer, bytes_sent: int, complete: bool) -> None:
        """Record the end of a download.

        Args:
            bytes_sent: the bytes of the body that the device's side has acknowledged.
            complete: it has acknowledged the whole reply, and did not reset the connection after.
        """
        fleet = self._fleet
        details: dict[str, Scalar] = {
            "status": transfer.coverage.status,
            "bytes_sent": bytes_sent,
            "complete": complete,
            "duration_seconds": round(time.monotonic() - transfer.began_at, 3),
            "release_version": transfer.pin.version,
            "release_sha256": transfer.pin.sha256,
        }
        coverage, counted = transfer.coverage, bytes_sent
        piece = coverage.piece
        if coverage.range_start is not None:
            details["range_start"] = coverage.range_start
        if piece is not None:
            details |= piece.details
            counted = piece.stop - (piece.start or 0) if complete else 0
        with fleet.lock:
            fleet.transfers.end(transfer.key, transfer.pin.sha256)
            fleet.transfers.count_end(end_of_transfer(complete, coverage.has_end), bytes_sent)
            device = fleet.get(transfer.key)
            if device is not None:  # the table has room for it
                now_ms, download = self._clock_ms(), device.download
                is_same = download is not None and download.sha256 == transfer.pin.sha256
                if download is not None and is_same and transfer.is_own:
                    retry_ms = self._policies.latest.retries.get(transfer.key)
                    download = fetched(download, counted, complete, now_ms, retry_ms)
                device = device._replace(time_ms=now_ms, download=download)
                fleet.record("download", transfer.key, device, details)
        if self._offers.admission is not None and coverage.takes_slot:
            self._offers.admission.end(transfer.key, complete and coverage.has_end)
