"""The temporary file beside the images that a publication copies into.

It is locked while its process lives, so that others recognise a leftover.
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
    """Make a file, which is deleted at the end unless the caller has renamed it.

    Raises:
        Busy: another command takes too long.
        OSError: it cannot be made.
    """
    path = data_dir / "firmware" / f"{_PREFIX}{version}.bin.{os.getpid()}{_SUFFIX}"
    with locked(data_dir):
        # Buffered: an unbuffered write may take a part of a chunk, which is not noticed here.
        file = open(path, "xb")  # noqa: SIM115
        acquire(file.fileno())
    try:
        with file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def clear_leftovers(firmware: Path) -> None:
    """Delete what killed publications left. The caller holds the lock."""
    for name in os.listdir(firmware):
        if not name.startswith(_PREFIX) or not name.endswith(_SUFFIX):
            continue
        found = find(firmware, name)
        with suppress(OSError):  # that of another user stays
            if found is not None:
                with open(found.path, "rb") as file:
                    if acquire(file.fileno()):  # one that still runs holds its lock
                        os.unlink(found.path)
