"""What a release can hold besides its image, and how that is called. Pure.

A release of several files, such as one for MicroPython, has a tar archive of them as its image.
"""

import re
from enum import StrEnum
from typing import NamedTuple

from ota_server.model.version import image_name

MAX_FILES = 200
# All of them together. No board that takes files has a larger flash.
MAX_FILES_BYTES = 64 * 1024 * 1024
# What the oldest form of tar has room for.
MAX_FILE_PATH = 100
FILE_PATH_RULE = (
    f"1 to {MAX_FILE_PATH} of A-Z a-z 0-9 . _ - and /, each name in it beginning with a letter, a "
    "digit or _"
)
_FILE_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]*(?:/[A-Za-z0-9_][A-Za-z0-9._\-]*)*")
# Paths that the server answers itself: documents, images by other names, hawkBit's API.
_TAKEN_FILE = re.compile(
    r"(?:version|version\.txt|manifest\.json|esp32fota\.json|healthz|firmware\.bin.*"
    r"|firmware(?:_[A-Za-z0-9][A-Za-z0-9._+\-]{0,63})?(?:-minimal|-safeboot)?\.bin(?:\.gz)?"
    r"|(?:firmware|d)/.*|[A-Za-z0-9_\-]{1,32}/controller/v1/.*)"
)
_PART_NAME = re.compile(
    r"(?:filesystem_(?P<filesystem>[A-Za-z0-9][A-Za-z0-9._+\-]{0,63})\.bin"
    r"|firmware_(?P<gzip>[A-Za-z0-9][A-Za-z0-9._+\-]{0,63})\.bin\.gz)"
)


class Part(StrEnum):
    """A file beside the image: the image of a file system, or the image compressed by gzip."""

    FILESYSTEM = "filesystem"
    GZIP = "gzip"


class PartRecord(NamedTuple):
    """What is on record about a part; digests in hex, the size in bytes."""

    sha256: str
    md5: str
    size: int


class FileRecord(NamedTuple):
    """What is on record about a file of a release of several."""

    path: str
    sha256: str
    size: int


def part_name(part: Part, version: str) -> str:
    """Return the name of the file in `firmware/` that holds a part of `version`."""
    return f"filesystem_{version}.bin" if part is Part.FILESYSTEM else f"{image_name(version)}.gz"


def version_of_part_name(name: str) -> str | None:
    """Return the version in the file name of a part, or None if it is not such a name."""
    match = _PART_NAME.fullmatch(name)
    return match[match.lastgroup or ""] if match else None


def is_file_path(path: str) -> bool:
    """Return whether a file of a release can have this path; `FILE_PATH_RULE` has the rule."""
    return len(path) <= MAX_FILE_PATH and _FILE_PATH.fullmatch(path) is not None


def is_taken_path(path: str) -> bool:
    """Return whether the server answers this path itself, so that no file can have it."""
    return _TAKEN_FILE.fullmatch(path) is not None
