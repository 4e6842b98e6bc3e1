"""File locks: one command at a time changes files, one server runs on a data directory.

| lock of | file | held by | who waits, and how long |
|---|---|---|---|
| commands | version/.lock | a command, while it changes files | another command, 30 s |
| the server | log/.lock | a server, or for a moment a command | a server, 0.3 s |
| the controller | log/.controller.lock | a controller | another controller, 0.3 s |
| sessions | log/.sessions.lock | who signs in or out, for a moment | another one, 0.5 s or 30 s |
| a publication | firmware/.firmware_*.new | `release publish`, while it copies | nobody |
| a backup | .ota-backup-* beside its file | `backup`, while it copies | nobody |
| a restore | the data directory itself | `restore` | nobody |

The kernel releases a lock when the process that holds it ends, however it ends.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ota_server.system.data_dir import journal_dir, product_dir, product_names
from ota_server.system.new_files import make_folder, open_or_make

LOCK_NAME = ".lock"
EDIT_LOCK_SECONDS = 30.0
# A command that checks whether a server runs, or forgets a device, holds the lock for a moment.
_SERVER_LOCK_SECONDS = 0.3
_LOOK_SECONDS = 0.01


class Busy(Exception):
    """Another command has held the lock for too long."""


class InUse(Exception):
    """Another server holds the lock of this data directory."""


def acquire(descriptor: int, wait_seconds: float = 0.0, *, is_shared: bool = False) -> bool:
    """Lock an open file until it is closed; return whether that succeeded.

    Args:
        wait_seconds: how long to try while another process holds the lock.
        is_shared: others may hold it shared as well.

    Raises:
        OSError: the file system does not support locks.
    """
    operation = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    give_up_at = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                return False
        time.sleep(_LOOK_SECONDS)


@contextmanager
def locked(data_dir: Path, wait_seconds: float = EDIT_LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock for changing files in a data directory.

    Raises:
        Busy: another process still holds it after `wait_seconds`.
        OSError: the lock cannot be opened or locked.
    """
    with locked_by(data_dir / "version" / LOCK_NAME, wait_seconds):
        yield


@contextmanager
def locked_by(path: Path, wait_seconds: float) -> Iterator[None]:
    """Hold a lock by the path of its file, which is made where it is missing.

    Raises:
        Busy, OSError: as `locked`.
    """
    descriptor = _open_locked(path, wait_seconds)
    if descriptor is None:
        raise Busy(f"another command holds {path}; try again when it is done")
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_all(root: Path) -> Iterator[None]:
    """Hold the locks for changing files of all products of a data directory.

    Raises:
        Busy, OSError: as `locked`.
    """
    with ExitStack() as locks:
        for product in ("", *product_names(root)):
            locks.enter_context(locked(product_dir(root, product)))
        yield


def take_lock(path: Path) -> int:
    """Lock a file of a server, and make it if it is missing; return its descriptor.

    Raises:
        InUse: another process holds it.
        OSError: it cannot be opened or locked.
    """
    descriptor = _open_locked(path, _SERVER_LOCK_SECONDS)
    if descriptor is None:
        raise InUse(f"another server runs on {path.parent.parent}")
    return descriptor


def _open_locked(path: Path, wait_seconds: float) -> int | None:
    """Open a lock, and lock it; return its descriptor, or None while another process holds it."""
    make_folder(path.parent)
    try:
        descriptor = open_or_make(path, os.O_RDWR)
    except OSError as problem:
        # Another user made it, or the disk is read-only. A lock does not require write access. If
        # it cannot be made here, that error says more than that it is missing; where nothing can be
        # made, the folder will do.
        is_missing, is_fixed = not os.path.exists(path), problem.errno == errno.EROFS
        if not (is_fixed or isinstance(problem, PermissionError)) or (is_missing and not is_fixed):
            raise
        descriptor = os.open(path.parent if is_missing else path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if acquire(descriptor, wait_seconds):
            return descriptor
    except OSError as problem:
        os.close(descriptor)
        is_disk_bad = problem.errno == errno.EIO
        why = "" if is_disk_bad else ": its file system has no file locks; use a local disk"
        raise OSError(problem.errno, f"{problem.strerror}{why}", str(path)) from problem
    os.close(descriptor)
    return None


def is_served(log_dir: Path) -> bool:
    """Return whether a server runs on the data directory, by the lock of the journal.

    That takes the lock for a moment, shared; a server that starts meanwhile waits for it.

    Args:
        log_dir: of any product: one server serves all.
    """
    path = journal_dir(log_dir.parent) / LOCK_NAME
    try:
        # It may be a pipe: the owner of the folder must not make root wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not acquire(descriptor, is_shared=True)
    except OSError:
        return False  # no locks, so no server could start
    finally:
        os.close(descriptor)
