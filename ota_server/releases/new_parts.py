"""The parts of a release that is being published, under names that are not served yet. I/O."""

import gzip
import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ota_server.model.image_header import ImageHeader
from ota_server.model.parts import Part, PartRecord
from ota_server.model.refusal import Refused
from ota_server.releases.build_file import header_in, opened
from ota_server.releases.image import digest
from ota_server.releases.publish_request import PublishRequest
from ota_server.releases.temporary import check_room, temporary_image
from ota_server.system.files import named

_CHUNK_BYTES = 1024 * 1024
# No ESP8266 has a larger flash than 16 MiB; what is larger was taken for an image of one.
_MOST_GZIP_BYTES = 16 * 1024 * 1024
# The only chip whose boot loader unpacks an image.
_GZIP_CHIP = "ESP8266"


class NewPart(NamedTuple):
    """A part that was made; `path` is its temporary file."""

    record: PartRecord
    path: Path


def make_parts(
    data_dir: Path,
    request: PublishRequest,
    image: BinaryIO,
    header: ImageHeader | None,
    temporaries: ExitStack,
) -> dict[Part, NewPart]:
    """Make the parts that a request asks for, and those that devices ask for by themselves.

    Args:
        image: the image of the release; `header`: what it says of itself.
        temporaries: deletes what was not moved to its place.

    Raises:
        Refused: one cannot be made; the message says why.
        Busy: another command takes too long.
        OSError: something cannot be read or written.
    """
    parts = {}
    if request.filesystem is not None:
        with opened(Path(request.filesystem)) as source:
            found = header_in(source)
            if found is not None and found.chip is not None and not request.is_forced:
                raise Refused(
                    f"{request.filesystem} is no image of a file system: it is firmware for "
                    f"{found.chip}; --force publishes it anyway"
                )
            parts[Part.FILESYSTEM] = _copy(data_dir, request, Part.FILESYSTEM, source, temporaries)
    size = os.fstat(image.fileno()).st_size
    if header is not None and header.chip == _GZIP_CHIP and size <= _MOST_GZIP_BYTES:
        parts[Part.GZIP] = _copy(data_dir, request, Part.GZIP, image, temporaries)
    return parts


def _copy(
    data_dir: Path, request: PublishRequest, part: Part, source: BinaryIO, temporaries: ExitStack
) -> NewPart:
    """Copy a file; for that part, compress it."""
    size = os.fstat(source.fileno()).st_size
    check_room(data_dir, size, request.is_forced)
    copy = temporaries.enter_context(temporary_image(data_dir, f"{request.version}.{part}"))
    with named(Path(copy.name)):
        offset = 0
        # No name and no time: the same image always becomes the same bytes.
        packed = gzip.GzipFile("", "wb", fileobj=copy, mtime=0) if part is Part.GZIP else None
        while chunk := os.pread(source.fileno(), _CHUNK_BYTES, offset):
            (packed or copy).write(chunk)
            offset += len(chunk)
        if packed is not None:
            packed.close()
        copy.flush()
        os.fsync(copy.fileno())
    with open(copy.name, "rb") as written:
        digests = digest(written.fileno(), lambda _: None)
        record = PartRecord(digests.sha256, digests.md5, os.fstat(written.fileno()).st_size)
    return NewPart(record, Path(copy.name))
