"""The audit log: `log/audit.jsonl`, a line for each change that an operator made.

A change is made inside `noted`: its line is on the disk before it, and where it fails, a second
line says that it was not made.
"""

import errno
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ota_server.model.json_object import parse_object
from ota_server.model.timestamp import format_time
from ota_server.model.version import same_version
from ota_server.system import clock
from ota_server.system.files import named, open_regular
from ota_server.system.locks import LOCK_NAME
from ota_server.system.new_files import make_folder, make_spares, open_or_make, sync_folder

log = logging.getLogger(__name__)

FILE_NAME = "audit.jsonl"
# What a change of the fleet's target took from groups: their targets, by their names.
GROUP_TARGETS = "group_targets"
ADMIN_PORT = "admin port"
NOT_DONE = "not done"  # the change in the line before failed after that line was written
# Who acts through the operators' port; "": who runs this process does.
_acting: ContextVar[str] = ContextVar("acting", default="")


def _never(_problem: OSError) -> bool:
    return False


@contextmanager
def noted(
    log_dir: Path,
    action: str,
    what: str,
    may_miss: Callable[[OSError], bool] = _never,
    is_repeated: bool = False,
    /,
    **details: Any,
) -> Iterator[None]:
    """Put a change on record, which the caller makes inside of this, holding the lock.

    Args:
        may_miss: which errors of the audit log must not prevent the change: it stops something bad.
        is_repeated: a change that fails is tried again by itself, so its line is taken back.

    Raises:
        OSError: its line cannot be written; nothing was changed. It names the file.
    """
    begin, missed = -1, ""
    try:
        begin = note(log_dir, action, what, **details)
    except OSError as problem:
        if not may_miss(problem):
            raise
        missed = str(problem.strerror)
    try:
        yield
    except BaseException:
        if begin >= 0:
            _take_back(log_dir, begin, action, what, is_repeated)
        raise
    if missed:
        log.warning("%s is done, but is not in the audit log: %s", action, missed)


def _take_back(log_dir: Path, begin: int, action: str, what: str, is_repeated: bool) -> None:
    """Make the log say that the change was not made, whose line begins at a byte."""
    try:
        if not is_repeated:
            note(log_dir, NOT_DONE, what, of=action)
            return
    except OSError as problem:
        log.debug("%s cannot be said in the audit log: %s", NOT_DONE, problem)
    with suppress(OSError):
        descriptor = open_or_make(log_dir / FILE_NAME, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, begin)
        finally:
            os.close(descriptor)


def note(log_dir: Path, action: str, what: str, **details: Any) -> int:
    """Append one line, on the disk when this returns; return the byte at which it begins.

    Raises:
        OSError: it cannot be written. It names the file.
    """
    with named(log_dir / FILE_NAME):
        return append(log_dir / FILE_NAME, line_of(action, what, **details))


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Let an operator who came through the operators' port be the user of all that is done inside.

    Only in this thread: another one that is started inside does not inherit it.
    """
    before = _acting.set(name)
    try:
        yield
    finally:
        _acting.reset(before)


def line_of(action: str, what: str, **details: Any) -> bytes:
    """Return a line of the log, with who makes the change now."""
    line = {
        "time": format_time(clock.now_ms()),
        "user": user(),
        "host": socket.gethostname(),
        **({"through": ADMIN_PORT} if _acting.get() else {}),
        "action": action,
        "what": what,
        **{name: value for name, value in details.items() if value is not None},
    }
    return json.dumps(line).encode("ascii") + b"\n"


def prepare(data_dir: Path) -> None:
    """Create the files that all commands need, before the disk is full."""
    for path in (data_dir / "version" / LOCK_NAME, data_dir / "log" / FILE_NAME):
        with suppress(OSError):
            os.close(open_or_make(path, os.O_RDONLY))
    make_spares(data_dir / "version")


def append(path: Path, content: bytes) -> int:
    """Append a line to a file in log/, whole or not at all; it is on the disk when this returns.

    Returns:
        The byte at which it begins.

    Raises:
        OSError: it cannot be written.
    """
    make_folder(path.parent)
    descriptor = open_or_make(path, os.O_RDWR | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            content = b"\n" + content  # a power cut tore the last line
        try:
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, "no room for a whole line")
            os.fsync(descriptor)
            if not size:
                sync_folder(path.parent)
        except OSError:
            os.ftruncate(descriptor, size)  # a change that is not made is not on record
            raise
        return size
    finally:
        os.close(descriptor)


def user() -> str:
    """Return who acts: an operator of that port, or the user who runs this.

    Under sudo that is who called it.
    """
    if name := _acting.get():
        return name
    import getpass  # here, since the server does not need it

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def entries(log_dir: Path) -> list[dict[str, Any]]:
    """Return all entries of the log, as `each_entry`."""
    return [*each_entry(log_dir)]


def each_entry(log_dir: Path, name: str = FILE_NAME) -> Iterator[dict[str, Any]]:
    """Yield the entries of the log, the oldest first; lines that are not entries are left out.

    Args:
        name: of another file of the same kind: a JSON object a line, each with its `time`.

    Raises:
        OSError: it cannot be read.
    """
    try:
        descriptor = open_regular(log_dir / name)
    except FileNotFoundError:
        return
    with open(descriptor, "rb") as file:
        for line in file:
            try:
                entry = parse_object(line)
            except ValueError:
                continue
            if isinstance(entry.get("time"), str):
                yield entry


def done(log: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of changes that were made."""
    for entry, after in zip(log, (*log[1:], {}), strict=False):
        if NOT_DONE not in (entry.get("action"), after.get("action")):
            yield entry


def previous_target(log: Sequence[Mapping[str, Any]], current: str | None) -> str | None:
    """Return the target before the current one, or None if it is not on record.

    Two rollbacks go back two targets: a target that a rollback left does not count.

    Args:
        current: what version.txt says; an edit of it by hand is not on record.
    """
    way: list[str] = []
    for entry in done(log):
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


def targets_taken(entry: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the targets that groups lost by a change of the fleet's, by their names."""
    taken = entry.get(GROUP_TARGETS)
    return taken if isinstance(taken, dict) else {}
