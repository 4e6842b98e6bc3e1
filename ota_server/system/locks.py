"""Locks on files: of the commands that change files, and of the one server of a data directory."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ota_server.system.files import give_to_owner

LOCK_NAME = ".lock"
_EDIT_LOCK_SECONDS = 30.0
_EDIT_LOOK_SECONDS = 0.02
# A command that looks whether a server runs, or forgets a device, holds the lock for a moment.
_SERVER_LOCK_SECONDS = 0.3
_SERVER_LOOK_SECONDS = 0.01


class Busy(Exception):
    """Another operator's command goes on for too long."""


@contextmanager
def locked(data_dir: Path, wait_seconds: float = _EDIT_LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of those who change files in a data directory: one at a time.

    Raises:
        Busy: another one has held it for as long as this may wait.
        OSError: the lock cannot be opened.
    """
    path = data_dir / "version" / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_lock(path)
    try:
        give_to_owner(descriptor, path.parent)
        _take(descriptor, path, wait_seconds)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:
        # Another user made it. To lock a file it needs not be written.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _take(descriptor: int, path: Path, wait_seconds: float) -> None:
    give_up_at = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise Busy(f"another command holds {path}; try again when it is done") from None
            time.sleep(_EDIT_LOOK_SECONDS)


class InUse(Exception):
    """Another server holds the lock of this data directory."""


def take_lock(path: Path) -> int:
    """Lock a file, made where it is missing; return the descriptor that holds the lock.

    Raises:
        InUse: another process holds it.
        OSError: it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    give_up_at = time.monotonic() + _SERVER_LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                os.close(descriptor)
                raise InUse(f"another server runs on {path.parent.parent}") from None
            time.sleep(_SERVER_LOOK_SECONDS)


def is_served(log_dir: Path) -> bool:
    """Say whether a server runs on the data directory: it holds the lock of the journal.

    To see that it is taken for a moment, and shared: a server that starts just then is refused.
    """
    try:
        descriptor = os.open(log_dir / ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
