"""Publishing: an image is checked, copied into `firmware/` with its parts, and put on record.

Copying and hashing, which take long, are done on a temporary file without the operators' lock. The
renames are made under it, manifest first and image last: an image is never served without its
record, and what a crash leaves is never served.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ota_server.model.manifest import Manifest, format_manifest, manifest_name
from ota_server.model.parts import Part, part_name
from ota_server.model.refusal import Refused
from ota_server.model.version import image_name, signature_name, spellings
from ota_server.policy import audit
from ota_server.releases.build_file import header_in, opened_source
from ota_server.releases.image_doubts import check_others, image_doubts, other_bytes_text
from ota_server.releases.inventory import (
    DataDirState,
    Release,
    ReportProgress,
    announce,
    digest_of_open,
    digests_of,
    look_at,
    release_at,
)
from ota_server.releases.leftovers import clear_leftovers, remove_record
from ota_server.releases.new_parts import make_parts
from ota_server.releases.publish_record import NewRecord
from ota_server.releases.publish_request import (
    PublishRequest,
    check_request,
    is_in_spite_of_chip,
)
from ota_server.releases.signature_check import check_signature, read_signature
from ota_server.releases.temporary import check_room, temporary_image
from ota_server.system.data_dir import log_dir
from ota_server.system.files import Stamp, named, replace, stamp_of
from ota_server.system.locks import locked
from ota_server.system.new_files import make_folder, sync_folder


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
    make_folder(firmware)
    signature = None if request.signature is None else read_signature(Path(request.signature))
    with ExitStack() as stack:
        source, files = stack.enter_context(opened_source(request))
        header = header_in(source)
        size = os.fstat(source.fileno()).st_size
        with locked(data_dir):
            clear_leftovers(firmware)
            state = look_at(data_dir)
        found = image_doubts(request, size, header, state)
        warnings = found.refused
        if warnings and not request.is_forced:
            raise Refused("; ".join(warnings) + "; --force publishes it anyway")
        warnings += found.remarks
        record = NewRecord(request, now_ms, header, signature, files)
        record = record._replace(any_chip=is_in_spite_of_chip(request, header, found.target))
        job = _Job(data_dir, record, now_ms)
        job.check(state)
        checked_by = job.check_signature(Path(request.source))
        parts = make_parts(data_dir, request, source, header, stack)
        job.record = job.record._replace(parts=parts)
        if release_at(firmware, request.version).image is not None:
            manifest = job.record.manifest(digest_of_open(source, size, progress), size)
            outcome = job.settle(manifest)
            if outcome is not None:
                recorded = job.recorded or manifest
                return Published(recorded, outcome, warnings, checked_by, job.updated)
        manifest, outcome = job.copy(source, progress)
    return Published(job.recorded or manifest, outcome, warnings, checked_by, job.updated)


class _Job:
    """One request being carried out.

    Attributes:
        record: what it puts on record.
        updated: what `settle` has changed in the record of an image that was there.
        recorded: its record then; None: as requested.
    """

    def __init__(self, data_dir: Path, record: NewRecord, now_ms: int) -> None:
        self._data_dir = data_dir
        self._firmware = data_dir / "firmware"
        self._request = record.request
        self._now_ms = now_ms
        self._known: dict[Stamp, str] = {}
        self.record = record
        self.updated: tuple[str, ...] = ()
        self.recorded: Manifest | None = None

    def check(self, state: DataDirState) -> None:
        """Refuse what conflicts with other releases; the caller may hold the lock.

        Raises:
            Refused: the message says why.
        """
        check_others(self._request, state, self._now_ms)

    def check_signature(self, image: Path) -> str:
        """Check the signature if a key was given; return the name of the tool that did.

        Raises:
            Refused: it is not a signature of this image.
        """
        request = self._request
        if request.verify_key is None or request.signature is None:
            return ""
        return check_signature(image, Path(request.signature), Path(request.verify_key))

    def copy(self, source: BinaryIO, progress: ReportProgress) -> tuple[Manifest, str]:
        """Copy the image to its place; return its record and the outcome."""
        before = stamp_of(os.fstat(source.fileno()))
        check_room(self._data_dir, before.size, self._request.is_forced)
        with temporary_image(self._data_dir, f"{self._request.version}.bin") as copy:

            def write(chunk: bytes) -> None:
                with named(Path(copy.name)):
                    copy.write(chunk)

            digests = digest_of_open(source, before.size, progress, write)
            if stamp_of(os.fstat(source.fileno())) != before:
                raise Refused(f"{self._request.source} changed while it was read; try again")
            with named(Path(copy.name)):
                copy.flush()
                os.fsync(copy.fileno())
            # Check the copy: what was checked before may have been another file.
            self.check_signature(Path(copy.name))
            manifest = self.record.manifest(digests, before.size)
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
            self._known[release.image.stamp] = digests_of(release.image, _unseen).sha256
        with locked(self._data_dir):
            self.check(look_at(self._data_dir))
            release = release_at(self._firmware, manifest.version)
            if release.image is None:
                return None if copy is None else self._put(manifest, copy, "published")
            there = self._sha256_of(release)
            recorded = release.manifest.sha256 if release.manifest else there
            if recorded != manifest.sha256:
                raise Refused(other_bytes_text(manifest.version, recorded, manifest.sha256))
            if release.manifest is None:
                return self._put(manifest, None, "recorded")
            merged = self.record.merged_with(release.manifest)
            changed = self.record.changes(release, merged)
            if there != recorded and copy is None:
                return None
            self.updated, self.recorded = changed, merged
            if there != recorded:
                return self._put(merged, copy, "restored")
            return self._put(merged, None, "updated") if changed else "there"

    def _sha256_of(self, release: Release) -> str:
        assert release.image is not None
        known = self._known.get(release.image.stamp)
        return known or digests_of(release.image, _unseen).sha256

    def _put(self, manifest: Manifest, copy: Path | None, outcome: str) -> str:
        """Write the files of a release, the image last. The caller holds the lock."""
        version = manifest.version
        details = {"via": manifest.via, "reports_as": manifest.reports_as}
        if self.updated:
            details["updated"] = ", ".join(self.updated)
        with audit.noted(
            log_dir(self._data_dir),
            "publish",
            version,
            outcome=outcome,
            sha256=manifest.sha256,
            size=manifest.size,
            **details,
        ):
            self._write_files(manifest, copy, outcome)
        announce(self._data_dir)
        return outcome

    def _write_files(self, manifest: Manifest, copy: Path | None, outcome: str) -> None:
        firmware, version = self._firmware, manifest.version
        for spelling in spellings(version):
            if spelling != version:
                remove_record(firmware, spelling)  # without an image: left by a crash
        if outcome != "restored" or self.updated:
            replace(firmware / manifest_name(version), format_manifest(manifest))
            if self.record.signature is not None:
                replace(firmware / signature_name(version), self.record.signature)
            elif outcome == "published":
                (firmware / signature_name(version)).unlink(missing_ok=True)
            for part in Part:
                path = firmware / part_name(part, version)
                if part in self.record.parts:
                    os.replace(self.record.parts[part].path, path)
                elif outcome == "published":
                    path.unlink(missing_ok=True)
        if copy is not None:
            sync_folder(firmware)
            os.replace(copy, firmware / image_name(version))
        sync_folder(firmware)


def _unseen(_done: int, _size: int) -> None:
    pass
