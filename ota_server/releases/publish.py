"""Publishing: an image is checked, copied into `firmware/` and put on record.

Copying and hashing, which take long, are done on a temporary file without the operators' lock. The
renames are made under it, manifest first and image last: an image is never served without its
record, and what a crash leaves is never served.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ota_server.model.manifest import Manifest, format_manifest, manifest_name
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.model.version import image_name, signature_name, spellings
from ota_server.policy import audit
from ota_server.releases.header import HEAD_BYTES, ImageHeader, describe, read_header
from ota_server.releases.image import Digests
from ota_server.releases.inventory import (
    DataDirState,
    Release,
    ReportProgress,
    announce,
    digest_of_open,
    digests_of,
    find_release,
    header_of,
    look_at,
    release_at,
)
from ota_server.releases.publish_request import PublishRequest, check_against, check_request, doubts
from ota_server.releases.signature_check import check_signature, read_signature
from ota_server.releases.temporary import clear_leftovers, temporary_image
from ota_server.system.data_dir import log_dir
from ota_server.system.files import (
    Signature,
    open_regular,
    replace,
    sha256_of,
    signature_of,
    sync_folder,
)
from ota_server.system.locks import locked

# Room that must stay free: the journal and the server's private copies need some too.
RESERVE_BYTES = 64 * 1024 * 1024


class Published(NamedTuple):
    """What became of a request.

    Attributes:
        outcome: published; there (nothing was changed); recorded (the image was there without a
            usable manifest); restored (the image was there, but altered); updated (the image was
            there, and its record has changed).
        warnings: what would have been refused without force, and other warnings.
        checked_by: the tool that checked the signature; "": it was not checked.
        updated: what has changed in the record of an image that was there, in words.
    """

    manifest: Manifest
    outcome: str
    warnings: tuple[str, ...]
    checked_by: str
    updated: tuple[str, ...] = ()


def publish(
    data_dir: Path, request: PublishRequest, now_ms: int, progress: ReportProgress
) -> Published:
    """Publish an image.

    Args:
        progress: is told how many bytes of how many are copied.

    Raises:
        Refused: nothing was changed.
        Busy: another command takes too long.
        OSError: something cannot be read or written; the image is not served.
    """
    check_request(request)
    firmware = data_dir / "firmware"
    firmware.mkdir(parents=True, exist_ok=True)
    signature = None if request.signature is None else read_signature(Path(request.signature))
    with _opened(Path(request.source)) as source:
        header = read_header(os.pread(source.fileno(), HEAD_BYTES, 0))
        size = os.fstat(source.fileno()).st_size
        with locked(data_dir):
            clear_leftovers(firmware)
            state = look_at(data_dir)
        warnings = tuple(doubts(request, size, header, _target_header(state)))
        if warnings and not request.is_forced:
            raise Refused("; ".join(warnings) + "; --force publishes it anyway")
        if state.policy.is_withdrawn(version := request.version):
            warnings += (
                f"{version} is still withdrawn, and no device is offered it; "
                f"`release withdraw --undo {version}` undoes that",
            )
        job = _Job(data_dir, request, signature, header, now_ms)
        job.check(state)
        checked_by = job.check_signature(Path(request.source))
        if release_at(firmware, request.version).image is not None:
            manifest = job.manifest(digest_of_open(source, size, progress), size)
            outcome = job.settle(manifest)
            if outcome is not None:
                recorded = job.recorded or manifest
                return Published(recorded, outcome, warnings, checked_by, job.updated)
        manifest, outcome = job.copy(source, progress)
    return Published(job.recorded or manifest, outcome, warnings, checked_by, job.updated)


class _Job:
    """One request being carried out.

    Attributes:
        updated: what `settle` has changed in the record of an image that was there.
        recorded: its record then; None: as requested.
    """

    def __init__(
        self,
        data_dir: Path,
        request: PublishRequest,
        signature: bytes | None,
        header: ImageHeader | None,
        now_ms: int,
    ) -> None:
        self._data_dir = data_dir
        self._firmware = data_dir / "firmware"
        self._request = request
        self._signature = signature
        self._header = header
        self._now_ms = now_ms
        self._known: dict[Signature, str] = {}
        self.updated: tuple[str, ...] = ()
        self.recorded: Manifest | None = None

    def check(self, state: DataDirState) -> None:
        """Refuse what conflicts with other releases; the caller may hold the lock.

        Raises:
            Refused: the message says why.
        """
        request = self._request
        for spelling in spellings(request.version):
            if spelling != request.version and release_at(self._firmware, spelling).image:
                raise Refused(
                    f"{spelling} is there, and {request.version} would mean the same "
                    f"release; publish it as another version, or `release remove {spelling}` first"
                )
        check_against(request, state.policy)

    def check_signature(self, image: Path) -> str:
        """Check the signature if a key was given; return the name of the tool that did.

        Raises:
            Refused: it is not a signature of this image.
        """
        request = self._request
        if request.verify_key is None or request.signature is None:
            return ""
        return check_signature(image, Path(request.signature), Path(request.verify_key))

    def manifest(self, digests: Digests, size: int) -> Manifest:
        """Return the record of the image."""
        request = self._request
        return Manifest(
            version=request.version,
            sha256=digests.sha256,
            md5=digests.md5,
            size=size,
            time=format_time(self._now_ms),
            notes=request.notes,
            reports_as=request.reports_as,
            via=request.via,
            direct_from=request.direct_from,
            signature=None if self._signature is None else signature_name(request.version),
            image=None if self._header is None else describe(self._header),
            signature_sha256=self._signature_sha256,
        )

    @property
    def _signature_sha256(self) -> str | None:
        return None if self._signature is None else hashlib.sha256(self._signature).hexdigest()

    def _with_request(self, recorded: Manifest) -> Manifest:
        """Return the record of an image, updated by what the request says."""
        request = self._request
        merged = recorded._replace(
            notes=request.notes or recorded.notes,
            reports_as=request.reports_as or recorded.reports_as,
        )
        if request.via is not None and (request.via != recorded.via or request.direct_from):
            merged = merged._replace(via=request.via, direct_from=request.direct_from)
        if self._signature is not None:
            name, sha256 = signature_name(recorded.version), self._signature_sha256
            merged = merged._replace(signature=name, signature_sha256=sha256)
        return merged

    def _changes(self, release: Release, merged: Manifest) -> tuple[str, ...]:
        """Return what has to change in the record of an image that is there, in words."""
        assert release.manifest is not None
        recorded = release.manifest
        names = ("notes", "reports_as", "via", "direct_from")
        changed = [each for each in names if getattr(recorded, each) != getattr(merged, each)]
        if self._signature is not None:
            there = None if release.signature is None else sha256_of(release.signature)
            if there != self._signature_sha256 or recorded.signature_sha256 != there:
                changed.append("signature")
        return tuple(each.replace("_", "-") for each in changed)

    def copy(self, source: BinaryIO, progress: ReportProgress) -> tuple[Manifest, str]:
        """Copy the image to its place; return its record and the outcome."""
        before = signature_of(os.fstat(source.fileno()))
        free = shutil.disk_usage(self._firmware).free
        if free < before.size + RESERVE_BYTES:
            raise Refused(
                f"the disk would fill up: the image has {before.size} bytes, {free} are free in "
                f"{self._firmware}, and {RESERVE_BYTES} of them are kept; delete releases that are "
                "not in use by `release remove VERSION`"
            )
        with temporary_image(self._data_dir, self._request.version) as copy:
            digests = digest_of_open(source, before.size, progress, copy.write)
            if signature_of(os.fstat(source.fileno())) != before:
                raise Refused(f"{self._request.source} changed while it was read; try again")
            copy.flush()
            os.fsync(copy.fileno())
            # Check the copy: what was checked before may have been another file.
            self.check_signature(Path(copy.name))
            manifest = self.manifest(digests, before.size)
            return manifest, self.settle(manifest, Path(copy.name)) or "published"

    def settle(self, manifest: Manifest, copy: Path | None = None) -> str | None:
        """Put a hashed image on record and in its place, under the lock.

        Returns:
            The outcome. None: a copy is needed: there is no image, or an altered one.

        Raises:
            Refused: there is something else meanwhile.
        """
        release = release_at(self._firmware, manifest.version)
        if release.image is not None:
            # Before the lock is taken: this takes long, and `hold` must not wait.
            self._known[release.image.signature] = digests_of(release.image, _unseen).sha256
        with locked(self._data_dir):
            self.check(look_at(self._data_dir))
            release = release_at(self._firmware, manifest.version)
            if release.image is None:
                return None if copy is None else self._put(manifest, copy, "published")
            there = self._sha256_of(release)
            recorded = release.manifest.sha256 if release.manifest else there
            if recorded != manifest.sha256:
                raise Refused(
                    f"{manifest.version} is there with other bytes: their SHA-256 is {recorded}, "
                    f"that of {self._request.source} is {manifest.sha256}; give each build a "
                    "version of its own"
                )
            if release.manifest is None:
                return self._put(manifest, None, "recorded")
            merged = self._with_request(release.manifest)
            changed = self._changes(release, merged)
            if there != recorded and copy is None:
                return None
            self.updated, self.recorded = changed, merged
            if there != recorded:
                return self._put(merged, copy, "restored")
            return self._put(merged, None, "updated") if changed else "there"

    def _sha256_of(self, release: Release) -> str:
        assert release.image is not None
        known = self._known.get(release.image.signature)
        return known or digests_of(release.image, _unseen).sha256

    def _put(self, manifest: Manifest, copy: Path | None, outcome: str) -> str:
        """Write the files of a release, the image last. The caller holds the lock."""
        firmware, version = self._firmware, manifest.version
        details = {"via": manifest.via, "reports_as": manifest.reports_as}
        if self.updated:
            details["updated"] = ", ".join(self.updated)
        audit.note(
            log_dir(self._data_dir),
            "publish",
            version,
            outcome=outcome,
            sha256=manifest.sha256,
            size=manifest.size,
            **details,
        )
        for spelling in spellings(version):
            if spelling != version:
                _remove_record(firmware, spelling)  # without an image: left by a crash
        if outcome != "restored" or self.updated:
            replace(firmware / manifest_name(version), format_manifest(manifest))
            if self._signature is not None:
                replace(firmware / signature_name(version), self._signature)
            elif outcome == "published":
                (firmware / signature_name(version)).unlink(missing_ok=True)
        if copy is not None:
            sync_folder(firmware)
            os.replace(copy, firmware / image_name(version))
        sync_folder(firmware)
        announce(self._data_dir)
        return outcome


def _target_header(state: DataDirState) -> ImageHeader | None:
    target = None if state.target is None else find_release(state.firmware_dir, state.target)
    if target is None or target.image is None:
        return None
    return header_of(target.image)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open the image that is to be published."""
    try:
        descriptor = open_regular(path)
    except OSError as problem:
        is_other = path.exists() and not stat.S_ISREG(path.stat().st_mode)
        why = "is not a regular file" if is_other else f"cannot be read: {problem.strerror}"
        raise Refused(f"{path} {why}; give the file of a build") from problem
    with open(descriptor, "rb", buffering=0) as file:
        if not os.fstat(descriptor).st_size:
            raise Refused(f"{path} is empty; build it again")
        yield file


def _remove_record(firmware: Path, version: str) -> None:
    for name in (manifest_name(version), signature_name(version)):
        (firmware / name).unlink(missing_ok=True)


def _unseen(_done: int, _size: int) -> None:
    pass
