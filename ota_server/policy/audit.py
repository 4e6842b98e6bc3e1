"""The audit log: `log/audit.jsonl`, a line for each change that an operator made."""

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ota_server.model.timestamp import format_time
from ota_server.model.version import same_version
from ota_server.system import clock
from ota_server.system.files import give_to_owner, is_full, open_regular, sync_folder
from ota_server.system.locks import LOCK_NAME

log = logging.getLogger(__name__)

FILE_NAME = "audit.jsonl"
NOT_DONE = "not done"  # the change in the line before failed after that line was written


def note(log_dir: Path, action: str, what: str, **details: Any) -> None:
    """Append one line, on the disk when this returns. The caller holds the lock.

    It is written before the change itself, so every change is on record.

    Raises:
        OSError: it cannot be written; then nothing should be changed. It names the file.
    """
    line = {
        "time": format_time(clock.now_ms()),
        "user": user(),
        "host": socket.gethostname(),
        "action": action,
        "what": what,
        **{name: value for name, value in details.items() if value is not None},
    }
    try:
        _append(log_dir, json.dumps(line).encode("ascii") + b"\n")
    except OSError as problem:
        problem.filename = problem.filename or str(log_dir / FILE_NAME)
        raise


def note_if_room(log_dir: Path, action: str, what: str, **details: Any) -> None:
    """Do as `note`, for a change that stops something bad: a full disk must not prevent it.

    Raises:
        OSError: it cannot be written for another reason than a full disk.
    """
    try:
        note(log_dir, action, what, **details)
    except OSError as problem:
        if not is_full(problem):
            raise
        log.warning("%s is done, but is not in the audit log: the disk is full", action)


def prepare(data_dir: Path) -> None:
    """Create the files that all commands need, before the disk is full."""
    for path in (data_dir / "version" / LOCK_NAME, data_dir / "log" / FILE_NAME):
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o644)
            try:
                give_to_owner(descriptor, path.parent)
            finally:
                os.close(descriptor)


def _append(log_dir: Path, content: bytes) -> None:
    log_dir.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(log_dir / FILE_NAME, flags, 0o644)
    try:
        give_to_owner(descriptor, log_dir)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            content = b"\n" + content  # a power cut tore the last line
        written = os.write(descriptor, content)
        if written < len(content):
            os.ftruncate(descriptor, size)
            raise OSError(28, "no room for a whole line", str(log_dir / FILE_NAME))
        os.fsync(descriptor)
        if not size:
            sync_folder(log_dir)
    finally:
        os.close(descriptor)


def user() -> str:
    """Return the user who runs this; under sudo, the one who called it."""
    import getpass  # here, since the server does not need it

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def entries(log_dir: Path) -> list[dict[str, Any]]:
    """Return all entries of the log, the oldest first; lines that are not entries are left out.

    Raises:
        OSError: it cannot be read.
    """
    try:
        descriptor = open_regular(log_dir / FILE_NAME)
    except FileNotFoundError:
        return []
    found = []
    with open(descriptor, "rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("time"), str):
                found.append(entry)
    return found


def _done(log: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of changes that were made."""
    for entry, after in zip(log, (*log[1:], {}), strict=False):
        if after.get("action") != NOT_DONE:
            yield entry


def previous_target(log: Sequence[Mapping[str, Any]], current: str | None) -> str | None:
    """Return the target before the current one, or None if it is not on record.

    Two rollbacks go back two targets: a target that a rollback left does not count.

    Args:
        current: what version.txt says; an edit of it by hand is not on record.
    """
    way: list[str] = []
    for entry in _done(log):
        before, after = entry.get("from"), entry.get("to")
        if entry.get("action") not in ("activate", "rollback") or not isinstance(after, str):
            continue
        if isinstance(before, str) and not (way and same_version(way[-1], before)):
            way.append(before)
        if entry["action"] == "rollback":
            while len(way) > 1 and not same_version(way[-1], after):
                way.pop()
        if not way or not same_version(way[-1], after):
            way.append(after)
    while way and current is not None and same_version(way[-1], current):
        way.pop()
    return way[-1] if way else None
