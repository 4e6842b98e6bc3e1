"""The temporary files beside the images that a publication copies into, and the room for them.

Each is locked while its process lives, so that others recognise a leftover.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from ota_server.model.refusal import Refused
from ota_server.system.files import named
from ota_server.system.locks import acquire, locked
from ota_server.system.new_files import hand_over
from ota_server.system.wished import do_without

PREFIX, SUFFIX = ".firmware_", ".new"
# Room that stays free for the journal and the server's private copies: a share of the disk, since a
# small one never has that much.
_MOST_RESERVED_BYTES, _RESERVED_SHARE = 64 * 1024 * 1024, 0.05


@contextmanager
def temporary_image(data_dir: Path, name: str) -> Iterator[BinaryIO]:
    """Make a file, which is deleted at the end unless the caller has renamed it.

    Args:
        name: what is made, as a part of its own name.

    Raises:
        Busy: another command takes too long.
        OSError: it cannot be made.
    """
    path = data_dir / "firmware" / f"{PREFIX}{name}.{os.getpid()}{SUFFIX}"
    try:
        with ExitStack() as opened:
            with locked(data_dir), named(path):
                # Buffered: an unbuffered write may take a part of a chunk, unnoticed.
                file = opened.enter_context(open(path, "xb"))
                hand_over(file.fileno(), path.parent)
                acquire(file.fileno())
            yield file
    finally:
        path.unlink(missing_ok=True)


def check_room(data_dir: Path, size: int, is_forced: bool) -> None:
    """Refuse a file that would fill the disk, unless that is forced.

    Raises:
        Refused: the message says how much room there is.
    """
    problem = room_problem(data_dir, size)
    if problem and not is_forced:
        raise Refused(f"{problem}; --force publishes it anyway")


def room_problem(data_dir: Path, size: int) -> str:
    """Return that a file of so many bytes would fill the disk, and what to do; "": it would not."""
    firmware = data_dir / "firmware"
    try:
        disk = shutil.disk_usage(firmware)
    except OSError as problem:
        do_without("statvfs", problem)
        return ""
    if disk.total == 0:  # so FUSE has it for a file system that does not say
        return ""
    kept = min(_MOST_RESERVED_BYTES, int(disk.total * _RESERVED_SHARE))
    if disk.free >= size + kept:
        return ""
    return (
        f"the disk would fill up: the image has {size} bytes, {disk.free} are free in "
        f"{firmware}, and {kept} of them are kept for the server; delete releases "
        "that are not in use by `release remove VERSION`"
    )
