"""Detached signatures for devices: of the image that a device has begun, or would get."""

import hashlib
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from ota_server.device_port.downloads import TARGET_CACHING
from ota_server.device_port.image_reply import signature_reply
from ota_server.device_port.named_images import NAMED_CACHING
from ota_server.device_port.offers import NotOffered, Offers
from ota_server.device_port.resume import pinned_download
from ota_server.httpd import reply
from ota_server.httpd.reply import Peer, Reply
from ota_server.journal.device_table import DeviceTable
from ota_server.model.device import Device, Report
from ota_server.model.version import MAX_SIGNATURE_BYTES, meaning, signature_name
from ota_server.policy.files import PolicyFiles
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.image import Image
from ota_server.releases.store import NoImage, NotHashed, NotNow, Store
from ota_server.system.files import find, is_temporary, open_found
from ota_server.system.server_log import RateLimit
from ota_server.system.watched import has_writer

log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 60.0
_NOT_FOUND = "Signature not found."
_NOT_READY = "The image is not ready yet."


class NoSignature(Exception):
    """There is no signature beside the image: answer 404."""


class AlteredSignature(NoSignature):
    """The signature beside the image is not the published one: answer 404, and log it."""


class Signatures:
    """Answers requests for signatures. Safe for use by many threads; nothing is recorded here."""

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

    def respond(self, report: Report, peer: Peer, may_wait: bool) -> Reply:
        """Give the device the signature of the image that it has begun, or would get.

        Raises:
            NotHashed: an image has to be hashed first, and the caller may wait for that.
        """
        with self._fleet.lock:
            device = self._fleet.get(report.key)
            known = device.download if device else None
            under_way = known is not None and self._fleet.transfers.has(report.key, known.sha256)
        try:
            return self._answer(
                lambda: self._image(report, peer, device, under_way), peer, TARGET_CACHING, may_wait
            )
        except NoImage as problem:
            if self._limit.allows(str(problem), time.monotonic()):
                log.error("no signature for %s: %s", report.key, problem)
            return reply.text(HTTPStatus.NOT_FOUND, _NOT_FOUND)

    def respond_by_name(self, version: str, peer: Peer, may_wait: bool) -> Reply:
        """Give the signature of an image by its name.

        Raises:
            NotHashed: as `respond`.
        """
        try:
            return self._answer(lambda: self._store.image(version), peer, NAMED_CACHING, may_wait)
        except NoImage:
            return reply.text(HTTPStatus.NOT_FOUND, _NOT_FOUND)

    def _answer(
        self,
        find_image: Callable[[], Image],
        peer: Peer,
        caching: tuple[str, str],
        may_wait: bool,
    ) -> Reply:
        """Answer with the signature of an image; the caller answers for `NoImage`."""
        try:
            image = find_image()
            self._offers.check_image(image, peer)
            content = _read(self._store.firmware_dir, image.version)
            self._check(content, image.version)
        except NoTarget:
            return reply.later("No update now.", reply.AT_NEXT_POLL)
        except NotOffered as problem:
            return problem.answer("No update now.", self._clock_ms())
        except NotNow:
            return reply.later(_NOT_READY)
        except NotHashed:
            if may_wait:
                raise
            return reply.later(_NOT_READY)
        except AlteredSignature as problem:
            if self._limit.allows(str(problem), time.monotonic()):
                log.error("%s", problem)
            return reply.text(HTTPStatus.NOT_FOUND, _NOT_FOUND)
        except NoSignature:
            return reply.text(HTTPStatus.NOT_FOUND, _NOT_FOUND)
        return signature_reply(content, caching)

    def _check(self, content: bytes, version: str) -> None:
        manifest = self._policies.current().manifests.get(meaning(version))
        if manifest is None or manifest.signature_sha256 is None:
            return  # it was copied in by hand, or published by an old server
        if hashlib.sha256(content).hexdigest() != manifest.signature_sha256:
            raise AlteredSignature(
                f"{self._store.firmware_dir / signature_name(version)} is not the signature that "
                "was published, and is not served; publish the same build with its --signature"
            )

    def _image(self, report: Report, peer: Peer, device: Device | None, under_way: bool) -> Image:
        now_ms = self._clock_ms()
        if device is not None:
            running = self._policies.current().release_of(report.firmware_version)
            pinned = pinned_download(
                device.download, under_way, running, device.target_version, now_ms
            )
            if pinned is not None:
                return self._store.pinned_image(pinned)
        decision, _ = self._offers.decision_for(report, peer, now_ms)
        if decision.release is None:
            raise NotOffered(decision)
        return self._store.image(decision.release)


def _read(folder: Path, version: str) -> bytes:
    name = signature_name(version)
    try:
        found = find(folder, name)
        if found is not None and has_writer(found):
            raise NotNow(f"{folder / name} is being written")
        if found is None or not 0 < found.stamp.size <= MAX_SIGNATURE_BYTES:
            raise NoSignature(f"{folder / name} is missing, or cannot be a signature")
        with open(open_found(found), "rb", buffering=0) as file:
            return file.read(MAX_SIGNATURE_BYTES)
    except OSError as problem:
        if is_temporary(problem):
            raise NotNow(f"{folder / name}: {problem.strerror}") from problem
        raise NoSignature(f"{folder / name}: {problem.strerror}") from problem
