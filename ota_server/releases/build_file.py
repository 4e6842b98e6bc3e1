"""The file or folder of a build that an operator names, before it is published. I/O."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ota_server.model.esp_size import esp_size
from ota_server.model.image_header import DAMAGED, HEAD_BYTES, ImageHeader, read_header
from ota_server.model.parts import FileRecord
from ota_server.model.refusal import Misused, Refused
from ota_server.releases.pack_folder import pack
from ota_server.releases.publish_request import PublishRequest, version_said
from ota_server.system.files import named, open_regular


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open the file of a build.

    Raises:
        Refused: it cannot be an image; the message says why.
    """
    try:
        descriptor = open_regular(path)
    except OSError as problem:
        is_other = path.exists() and not stat.S_ISREG(path.stat().st_mode)
        why = "is not a regular file" if is_other else f"cannot be read: {problem.strerror}"
        raise Refused(f"{path} {why}; give the file of a build") from problem
    with named(path), open(descriptor, "rb", buffering=0) as file:
        if not os.fstat(descriptor).st_size:
            raise Refused(f"{path} is empty; build it again")
        yield file


@contextmanager
def opened_source(request: PublishRequest) -> Iterator[tuple[BinaryIO, tuple[FileRecord, ...]]]:
    """Open an image, or make one of the files in a folder; with the files that it is made of.

    Raises:
        Refused: as `opened`, or as `pack`.
    """
    path = Path(request.source)
    if not path.is_dir():
        with opened(path) as source:
            yield source, ()
        return
    if request.signature is not None:
        raise Refused("--signature is for the file of an image, not for a folder; leave it out")
    with tempfile.TemporaryFile() as archive:
        files = pack(path, archive)
        yield archive, files


def header_in(file: BinaryIO) -> ImageHeader | None:
    """Return what an open image says of itself; None: nothing."""

    def read(offset: int, length: int) -> bytes:
        return os.pread(file.fileno(), length, offset)

    header = read_header(read(0, HEAD_BYTES))
    if header is None or header.chip is None or not header.format.startswith("ESP"):
        return header
    return header._replace(
        least_size=None if DAMAGED in header.format else esp_size(read, header.chip)
    )


def version_in(path: Path) -> str:
    """Return the version that an image says it has.

    Raises:
        Misused: it says none that can name a release.
        Refused: as `opened`.
    """
    if path.is_dir():
        raise Misused("a folder does not say which version it is; give --version VERSION")
    with opened(path) as file:
        return version_said(header_in(file))
