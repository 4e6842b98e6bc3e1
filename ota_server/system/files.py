"""Files that operators may change at any time: found, opened, read and replaced safely."""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import BadPolicy
from ota_server.system.new_files import FILE_MODE, hand_over, if_allowed, put_in_spare, sync_folder

# These errors say nothing about the file, which may be fine.
_TEMPORARY = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN))
_MAX_BYTES = 64 * 1024 * 1024


class Stamp(NamedTuple):
    """What shows that a file has not changed: equal stamps mean the same bytes."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class Found(NamedTuple):
    """A regular file: its path, with links resolved, and its stamp."""

    path: str
    stamp: Stamp


def is_temporary(problem: OSError) -> bool:
    """Return whether an error may go away by itself and says nothing about the file."""
    return problem.errno in _TEMPORARY


def is_full(problem: OSError) -> bool:
    """Return whether an error means that there is no room to write."""
    return problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file's status."""
    return Stamp(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def stamp_at(path: Path) -> Stamp | None:
    """Return the stamp of what is at a path; None: it cannot be looked at."""
    try:
        return stamp_of(path.stat())
    except OSError:
        return None


def is_of(status: os.stat_result, stamp: Stamp) -> bool:
    """Return whether a status has this stamp; cheaper than `stamp_of`."""
    return (
        status.st_mtime_ns == stamp.modified_ns
        and status.st_ctime_ns == stamp.changed_ns
        and status.st_ino == stamp.inode
        and status.st_size == stamp.size
        and status.st_dev == stamp.device
    )


def is_as_it_was(found: Found) -> bool:
    """Return whether a file is still as it was found. Cheap: the event loop asks in each turn."""
    try:
        return is_of(os.lstat(found.path), found.stamp)
    except OSError:
        return False


def find(folder: Path, name: str) -> Found | None:
    """Find a regular file in `folder`; return None if there is none.

    A link is followed only to a file below the same folder.

    Raises:
        OSError: the folder cannot be searched.
    """
    if "/" in name:
        return None
    path = os.path.join(folder, name)
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            path = os.path.realpath(path)
            if not path.startswith(os.path.realpath(folder) + os.sep):
                return None
            status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Found(path, stamp_of(status)) if stat.S_ISREG(status.st_mode) else None


def open_found(found: Found) -> int:
    """Open for reading what `find` found, and return its descriptor.

    If a link or a pipe has replaced it meanwhile, that is not followed or waited for; the caller
    compares stamps.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def sha256_of(found: Found) -> str:
    """Return the SHA-256 of a file in hex, at about a second for each GB.

    Raises:
        OSError: it cannot be read.
    """
    with open(open_found(found), "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unreadable_text(problem: OSError) -> str:
    """Return that a file cannot be read, why, and what to do, as the end of a sentence."""
    text = f"cannot be read: {problem.strerror}"
    is_denied = isinstance(problem, PermissionError) and problem.filename
    return f"{text} (`chmod a+r {problem.filename}`)" if is_denied else text


def open_regular(path: Path) -> int:
    """Open a file of our own for reading and return its descriptor; never wait for a pipe.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def replace(path: Path, content: bytes, *, is_stop: bool = False, mode: int = FILE_MODE) -> None:
    """Write a file so that readers see the old content or the new one, even after a power cut.

    Args:
        is_stop: it stops something bad, so on a full disk a spare file is used for it.
        mode: who may read it, as of chmod.

    Raises:
        OSError: it cannot be written; the old file is unchanged. It names the file.
    """
    try:
        _put(path, content, mode)
        sync_folder(path.parent)
    except OSError as problem:
        if is_stop and is_full(problem) and put_in_spare(path, content, mode):
            return
        if is_full(problem) or not isinstance(problem.filename, str):
            problem.filename = str(path)
        raise


def clear_unfinished(path: Path) -> None:
    """Delete what a process that was killed in `replace` has left, if nobody replaces it now."""
    _temporary_of(path).unlink(missing_ok=True)


def _temporary_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _put(path: Path, content: bytes, mode: int) -> None:
    temporary = _temporary_of(path)
    with suppress(FileNotFoundError):
        temporary.unlink()  # left by a process that was killed, perhaps another user's
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, mode), "wb") as file:
            hand_over(file.fileno(), path.parent, mode)
            file.write(content)
            file.flush()
            # This clock is finer than the kernel's, and that shows that this file was put in place
            # whole: `watched.is_being_written`.
            stamp_ns = time.time_ns()
            with if_allowed("a time stamp", path):
                os.utime(file.fileno(), ns=(stamp_ns, stamp_ns))
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def read(folder: Path, name: str) -> bytes:
    """Return what a file holds; b"" if it is missing.

    Raises:
        BadPolicy: its name belongs to something that is not a regular file.
        OSError: it cannot be read.
    """
    path = folder / name
    found = find(folder, name)
    if found is None:
        if os.path.lexists(path):
            raise BadPolicy(f"{path} is not a regular file in its folder; move it away")
        return b""
    with named(path), open(open_found(found), "rb") as file:
        return file.read()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the file in an error, and say what to do about it."""
    try:
        yield
    except BadPolicy as problem:
        if str(path) in str(problem):
            raise
        raise BadPolicy(f"{path} {problem}; fix it first") from problem
    except OSError as problem:
        # Calls on a descriptor name nothing, or its number.
        if not isinstance(problem.filename, str):
            problem.filename = str(path)
        raise


def read_if_there(folder: Path, name: str) -> bytes | None:
    """Return what a file holds, or None if it is missing."""
    found = find(folder, name)
    if found is None:
        return None
    try:
        with named(folder / name), open(open_found(found), "rb") as file:
            return file.read(_MAX_BYTES * 8)
    except FileNotFoundError:
        return None
