"""What a publication puts on record, and what that changes in a record that is there. I/O."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ota_server.model.image_header import ImageHeader, describe
from ota_server.model.manifest import Manifest
from ota_server.model.parts import FileRecord, Part
from ota_server.model.timestamp import format_time
from ota_server.model.version import signature_name
from ota_server.releases.image import Digests
from ota_server.releases.inventory import Release
from ota_server.releases.new_parts import NewPart
from ota_server.releases.publish_request import PublishRequest
from ota_server.system.files import sha256_of


class NewRecord(NamedTuple):
    """What a request puts on record about an image.

    Attributes:
        header: what the image says of itself.
        signature: the content of its file.
        any_chip: as in a `Manifest`.
        files: what the image is an archive of.
    """

    request: PublishRequest
    now_ms: int
    header: ImageHeader | None
    signature: bytes | None
    files: tuple[FileRecord, ...]
    parts: Mapping[Part, NewPart] = MappingProxyType({})
    any_chip: bool = False

    def manifest(self, digests: Digests, size: int) -> Manifest:
        """Return the record of an image that was not there."""
        request = self.request
        manifest = Manifest(
            version=request.version,
            sha256=digests.sha256,
            md5=digests.md5,
            size=size,
            time=format_time(self.now_ms),
            notes=request.notes,
            reports_as=request.reports_as,
            via=request.via,
            direct_from=request.direct_from,
            image=None if self.header is None else describe(self.header),
            reported_hashes=digests.reported,
            chip=None if self.header is None else self.header.chip,
            any_chip=self.any_chip,
        )
        return self._with_files(manifest)

    def merged_with(self, recorded: Manifest) -> Manifest:
        """Return the record of an image that was there, updated by what the request says."""
        request = self.request
        merged = recorded._replace(
            notes=request.notes or recorded.notes,
            reports_as=request.reports_as or recorded.reports_as,
            any_chip=self.any_chip or recorded.any_chip,
        )
        if request.via is not None and (request.via != recorded.via or request.direct_from):
            merged = merged._replace(via=request.via, direct_from=request.direct_from)
        return self._with_files(merged)

    def _with_files(self, manifest: Manifest) -> Manifest:
        """Return a record with the files that come with the image, or are in it."""
        if self.signature is not None:
            name = signature_name(manifest.version)
            manifest = manifest._replace(signature=name, signature_sha256=self._signature_sha256)
        records = {part: new.record for part, new in self.parts.items()}
        return manifest._replace(
            filesystem=records.get(Part.FILESYSTEM, manifest.filesystem),
            gzip=records.get(Part.GZIP, manifest.gzip),
            files=self.files or manifest.files,
        )

    @property
    def _signature_sha256(self) -> str | None:
        return None if self.signature is None else hashlib.sha256(self.signature).hexdigest()

    def changes(self, release: Release, merged: Manifest) -> tuple[str, ...]:
        """Return what has to change in the record of an image that is there, in words."""
        assert release.manifest is not None
        recorded = release.manifest
        names = ("notes", "reports_as", "via", "direct_from", "files", "any_chip")
        changed = [each for each in names if getattr(recorded, each) != getattr(merged, each)]
        if self.signature is not None:
            there = None if release.signature is None else sha256_of(release.signature)
            if there != self._signature_sha256 or recorded.signature_sha256 != there:
                changed.append("signature")
        for part, new in self.parts.items():
            found = release.parts.get(part)
            sha256 = None if found is None else sha256_of(found)
            if new.record != recorded.part(part) or new.record.sha256 != sha256:
                changed.append(part.value)
        return tuple(each.replace("_", "-") for each in changed)
