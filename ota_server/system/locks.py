"""File locks: one command at a time changes files, one server runs on a data directory.

| lock of | file | held by | who waits, and how long |
|---|---|---|---|
| commands | version/.lock | a command, while it changes files | another command, 30 s |
| the server | log/.lock | a server, or for a moment a command | a server, 0.3 s |
| the controller | log/.controller.lock | a controller | another controller, 0.3 s |
| a publication | firmware/.firmware_*.new | `release publish`, while it copies | nobody |

The kernel releases a lock when the process that holds it ends, however it ends.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ota_server.system.files import give_to_owner

LOCK_NAME = ".lock"
_EDIT_LOCK_SECONDS = 30.0
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
def locked(data_dir: Path, wait_seconds: float = _EDIT_LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock for changing files in a data directory.

    Raises:
        Busy: another process still holds it after `wait_seconds`.
        OSError: the lock cannot be opened.
    """
    path = data_dir / "version" / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:
        # Another user made it. Locking a file does not require write access.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        give_to_owner(descriptor, path.parent)
        if not acquire(descriptor, wait_seconds):
            raise Busy(f"another command holds {path}; try again when it is done")
        yield
    finally:
        os.close(descriptor)


def take_lock(path: Path) -> int:
    """Lock a file of a server, and make it if it is missing; return its descriptor.

    Raises:
        InUse: another process holds it.
        OSError: it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if not acquire(descriptor, _SERVER_LOCK_SECONDS):
        os.close(descriptor)
        raise InUse(f"another server runs on {path.parent.parent}")
    return descriptor


def is_served(log_dir: Path) -> bool:
    """Return whether a server runs on the data directory, by the lock of the journal.

    That takes the lock for a moment, shared; a server that starts meanwhile waits for it.
    """
    try:
        descriptor = os.open(log_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not acquire(descriptor, is_shared=True)
    finally:
        os.close(descriptor)
