"""What an image says of itself, and what `publish` would say to it; nothing is changed. I/O."""

import os
from pathlib import Path
from typing import NamedTuple

from ota_server.model.image_header import ImageHeader, describe
from ota_server.model.manifest import Manifest
from ota_server.model.refusal import Misused, Refused
from ota_server.model.timestamp import format_time
from ota_server.releases.build_file import header_in, opened
from ota_server.releases.image_doubts import (
    check_others,
    image_doubts,
    other_bytes_text,
    same_bytes_text,
)
from ota_server.releases.inventory import (
    DataDirState,
    ReportProgress,
    digest_of_open,
    look_at,
    release_at,
    same_bytes,
)
from ota_server.releases.publish_request import PublishRequest, check_request, version_said
from ota_server.releases.temporary import check_room
from ota_server.system import clock
from ota_server.system.data_dir import existing_folder
from ota_server.system.files import sha256_of


class ImageReport(NamedTuple):
    """An image before it is published.

    Attributes:
        image: what it says of itself, in words; None: it is of an unknown format.
        said_version: the version that it says it is; None: it says none.
        version: what it would be published as; None: none is given, and `version_problem` says why
            what it says will not do.
        refused: why it would be refused in any case.
        doubts: why it would be refused unless that is forced.
        remarks: what else an operator should know.
        same_as: the other releases with the same bytes.
        is_there: it is published already under this version, with these bytes.
    """

    size: int
    sha256: str
    image: str | None
    chip: str | None
    project: str | None
    said_version: str | None
    version: str | None
    version_problem: str = ""
    refused: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    same_as: tuple[str, ...] = ()
    is_there: bool = False


def inspect(
    data_dir: Path,
    path: Path,
    version: str | None = None,
    name: str = "",
    progress: ReportProgress = lambda _done, _size: None,
) -> ImageReport:
    """Look at the file of an image as `publish` would.

    Args:
        version: to publish it as; None: what it says.
        name: what the operator calls the file; "": its path.
        progress: is told how many bytes of how many are hashed.

    Raises:
        Refused: it cannot be an image, or it is not a data directory.
        BadPolicy, OSError: a file cannot be used or read.
    """
    existing_folder(data_dir, "firmware")
    with opened(path) as file:
        header = header_in(file)
        size = os.fstat(file.fileno()).st_size
        digests = digest_of_open(file, size, progress)
    report = ImageReport(
        size,
        digests.sha256,
        None if header is None else describe(header),
        None if header is None else header.chip,
        None if header is None else header.project,
        None if header is None else header.version,
        version,
    )
    if version is None:
        try:
            version = version_said(header)
        except Misused as problem:
            report = report._replace(version_problem=str(problem))
        report = report._replace(version=version)
    state, now_ms = look_at(data_dir), clock.now_ms()
    # Without a name only other releases can be compared, under one that no release can have.
    manifest = Manifest(version or "", digests.sha256, digests.md5, size, format_time(now_ms))
    others = same_bytes(data_dir, manifest)
    if others:
        text = same_bytes_text(version or "this image", others, state.policy)
        report = report._replace(same_as=tuple(others), remarks=(text,))
    if version is None:
        return report
    request = PublishRequest(name or str(path), version)
    return _compared(report, request, header, state, now_ms)


def _compared(
    report: ImageReport,
    request: PublishRequest,
    header: ImageHeader | None,
    state: DataDirState,
    now_ms: int,
) -> ImageReport:
    """Return a report with what speaks against the image under its version."""
    refused: list[str] = []
    try:
        check_request(request)
        check_others(request, state, now_ms)
    except Refused as problem:
        return report._replace(refused=(str(problem),))
    there = release_at(state.firmware_dir, request.version)
    if there.image is not None:
        recorded = there.manifest.sha256 if there.manifest else sha256_of(there.image)
        if recorded == report.sha256:
            report = report._replace(is_there=there.manifest is not None)
        else:
            refused.append(other_bytes_text(request.version, recorded, report.sha256))
    found = image_doubts(request, report.size, header, state)
    doubts = [*found.refused]
    if there.image is None:
        try:
            check_room(state.data_dir, report.size, is_forced=False)
        except Refused as problem:
            doubts.append(str(problem))
    remarks = (*found.remarks, *report.remarks)
    return report._replace(refused=tuple(refused), doubts=tuple(doubts), remarks=remarks)
