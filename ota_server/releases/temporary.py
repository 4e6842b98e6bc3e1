"""The file beside the images that a publication copies into, until it gets the name of an image.

It is locked for as long as the process lives that made it, so that others know a leftover.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ota_server.system.files import find
from ota_server.system.locks import acquire, locked

_PREFIX, _SUFFIX = ".firmware_", ".new"


@contextmanager
def temporary_image(data_dir: Path, version: str) -> Iterator[BinaryIO]:
    """Make a file; where the caller does not rename it, it is deleted at the end.

    Raises:
        Busy: another command goes on for too long.
        OSError: it cannot be made.
    """
    path = data_dir / "firmware" / f"{_PREFIX}{version}.bin.{os.getpid()}{_SUFFIX}"
    with locked(data_dir):
        # Buffered: an unbuffered write may take a part of a chunk, and says so to nobody here.
        file = open(path, "xb")  # noqa: SIM115
        acquire(file.fileno())
    try:
        with file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def clear_leftovers(firmware: Path) -> None:
    """Delete what publications left that were killed. The caller holds the lock."""
    for name in os.listdir(firmware):
        if not name.startswith(_PREFIX) or not name.endswith(_SUFFIX):
            continue
        found = find(firmware, name)
        with suppress(OSError):  # one of another user is not ours
            if found is not None:
                with open(found.path, "rb") as file:
                    if acquire(file.fileno()):  # one that goes on holds its lock
                        os.unlink(found.path)
