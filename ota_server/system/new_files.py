"""New files and folders: who owns them, who can read them, and how they get to the disk. I/O.

What the server's user needs, it can use, also if root made it, or somebody with a strict umask.
Where the system refuses a part of that, the change is made without it: `wished` has the table.
Only what was made here is given away: root must not give away what a link leads to. Nor does root
write through a link that another user can make: it would write wherever that user wants.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ota_server.system.data_dir import product_at
from ota_server.system.wished import do_without

FILE_MODE, FOLDER_MODE = 0o644, 0o755
OWNER_ONLY = 0o600  # of what says who may do what
_REFUSALS = frozenset((errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))
# Made while there is room, for the changes that have to be possible when there is none: holding
# everything, pausing or aborting a rollout, withdrawing a release. An abort writes two files.
_SPARE_NAMES = (".spare_1", ".spare_2", ".spare_3")
_SPARE_BYTES = 16 * 1024
_OTHERS_WRITE = 0o022
_NOT_FOLLOWED = "it is a link that another user may have made, and root does not write through it"


@contextmanager
def if_allowed(name: str, path: Path) -> Iterator[None]:
    """Go on where the system refuses what the block does; other errors get the name of the file."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in _REFUSALS:
            problem.filename = str(path)
            raise
        do_without(name, problem)


def hand_over(descriptor: int, folder: Path, mode: int = FILE_MODE) -> None:
    """Let the server's user have a file or folder that was just made in a folder."""
    if os.geteuid() == 0:
        status = os.stat(folder)
        with if_allowed("chown", folder):
            os.chown(descriptor, status.st_uid, status.st_gid)
    with if_allowed("chmod", folder):
        os.chmod(descriptor, mode)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    One of a product is made only while the product is there: what still works on one that was
    removed must not bring it back, empty.

    Raises:
        OSError: it cannot be made.
    """
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    except FileNotFoundError:
        if os.path.isdir(path.parent) or product_at(path.parent):
            raise  # no folder can be made there, such as in /proc or in a folder that was deleted
        make_folder(path.parent)
        make_folder(path)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        hand_over(descriptor, path.parent, FOLDER_MODE)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def open_or_make(path: Path, flags: int) -> int:
    """Open a file of our own, and make it where it is missing; return its descriptor.

    Raises:
        OSError: it cannot be opened or made. It names the file or its folder.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC
    if os.geteuid():
        return _open_or_make(path, flags, path.parent)
    folder = _open_folder(path.parent)
    try:
        status = os.fstat(folder)
        if status.st_uid or status.st_mode & _OTHERS_WRITE:
            flags |= os.O_NOFOLLOW
        return _open_or_make(Path(path.name), flags, path.parent, folder)
    except OSError as problem:
        if problem.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise OSError(errno.ELOOP, _NOT_FOLLOWED, str(path)) from problem
        problem.filename = str(path)
        raise
    finally:
        os.close(folder)


def _open_or_make(
    path: Path, flags: int, folder: Path, folder_descriptor: int | None = None
) -> int:
    try:
        descriptor = os.open(path, flags | os.O_EXCL, FILE_MODE, dir_fd=folder_descriptor)
    except FileExistsError:
        return os.open(path, flags, FILE_MODE, dir_fd=folder_descriptor)
    hand_over(descriptor, folder)
    return descriptor


def _open_folder(folder: Path) -> int:
    """Open a folder as root: through a link only if root made it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if folder.is_symlink() and not os.lstat(folder).st_uid:
        return os.open(folder, flags)
    try:
        return os.open(folder, flags | os.O_NOFOLLOW)
    except NotADirectoryError as problem:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, _NOT_FOLLOWED, str(folder)) from problem
        raise


def renew_time(folder: Path) -> None:
    """Give a folder another time stamp, by which a server notices that something has changed.

    Two changes may fall into one tick of the kernel's clock.
    """
    with if_allowed("a time stamp", folder):
        stamp_ns = max(time.time_ns(), os.stat(folder).st_mtime_ns + 1)
        try:
            os.utime(folder, ns=(stamp_ns, stamp_ns))
        except PermissionError:
            os.utime(folder)  # of another user: only the time of the kernel can be set


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk. Raises OSError if that fails."""
    with if_allowed("fsync of a folder", folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_spares(folder: Path) -> None:
    """Make the spare files of a folder that are missing, as far as there is room."""
    with suppress(OSError):
        for name in _SPARE_NAMES:
            spare = folder / name
            if spare.exists() and spare.stat().st_size >= _SPARE_BYTES:
                continue
            with open(open_or_make(spare, os.O_WRONLY | os.O_NOFOLLOW), "wb") as file:
                file.write(b" " * _SPARE_BYTES)


def put_in_spare(path: Path, content: bytes, mode: int = FILE_MODE) -> bool:
    """Replace a file without room: write into a spare file, which then gets its name.

    Returns:
        Whether that succeeded; if not, nothing has changed.
    """
    for name in _SPARE_NAMES:
        spare = path.with_name(name)
        with suppress(OSError):
            descriptor = os.open(spare, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.write(descriptor, content) < len(content):
                    continue
                os.ftruncate(descriptor, len(content))
                if mode != FILE_MODE:
                    with if_allowed("chmod", spare):
                        os.chmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(spare, path)
            sync_folder(path.parent)
            make_spares(path.parent)  # what was replaced may have left room for one
            return True
    return False
