"""Changes to the files of the policy, one at a time: first the audit log, then the file itself.

At the end the time stamp of `version/` is moved, so a running server notices at its next look.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import BadPolicy, Refused
from ota_server.policy import audit
from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.parse import parse_pins
from ota_server.policy.policy import HOLD_NAME, PINS_NAME, RETRIES_NAME, Pin
from ota_server.policy.targets import release_here
from ota_server.policy.text import (
    Hold,
    Who,
    hold_content,
    parse_hold,
    time_text,
    with_members,
    with_pin,
    with_retry,
    without_members,
    without_pin,
)
from ota_server.system import clock
from ota_server.system.data_dir import existing_folder, log_dir
from ota_server.system.files import give_to_owner, is_full, named, read, replace, sync_folder
from ota_server.system.locks import locked

log = logging.getLogger(__name__)

# The most MACs that the audit log lists for one change; of more it has the number.
_MOST_MACS_ON_RECORD = 1000


class Change(NamedTuple):
    """A change to a group: the MACs that were added or removed, and all that were named."""

    changed: Sequence[str]
    named: Sequence[str]


def pin(data_dir: Path, who: Who, version: str, until_ms: int | None) -> str:
    """Pin a device or a group to a release; return the version as its image is named.

    Args:
        until_ms: when the pin ends; None: never.

    Raises:
        Refused: there is no such release or group, the release was withdrawn, or the end is past.
        BadPolicy, Busy, OSError: as `changing`.
    """
    if until_ms is not None and until_ms <= clock.now_ms():
        raise Refused(f"{time_text(until_ms)} is past; give a time in the future")
    with changing(data_dir) as version_dir:
        release = release_here(data_dir, version)
        if who.kind == "groups":
            _content_of_group(version_dir, who.name)
        content = read(version_dir, PINS_NAME)
        before = _pin_of(version_dir, content, who)
        with named(version_dir / PINS_NAME):
            after = with_pin(content, who, release, until_ms)
        change = _from_to(before, Pin(release, until_ms))
        audit.note(log_dir(data_dir), "pin", str(who), **change)
        replace(version_dir / PINS_NAME, after)
    return release


def unpin(data_dir: Path, who: Who) -> Pin:
    """End the pin of a device or a group; return what it was.

    Raises:
        Refused: there is no pin.
        BadPolicy, Busy, OSError: as `changing`.
    """
    with changing(data_dir) as version_dir:
        content = read(version_dir, PINS_NAME)
        before = _pin_of(version_dir, content, who)
        if before is None:
            raise Refused(f"{who} is not pinned; `why MAC` shows what a device gets, and why")
        audit.note(log_dir(data_dir), "unpin", str(who), **_from_to(before, None))
        replace(version_dir / PINS_NAME, without_pin(content, who))
    return before


def add_members(data_dir: Path, group: str, macs: Sequence[str]) -> Change:
    """Add devices to a group; the group is created if there is none.

    Raises:
        BadPolicy, Busy, OSError: as `changing`.
    """
    with changing(data_dir) as version_dir:
        path = group_path(version_dir, group)
        if not path.parent.is_dir():
            if os.path.lexists(path.parent):
                raise BadPolicy(
                    f"{path.parent} is not a folder; move it away, and `group add` creates one"
                )
            path.parent.mkdir(mode=0o755)
            give_to_owner(path.parent, version_dir)
            sync_folder(version_dir)
        content = read(path.parent, path.name)
        with named(path):
            after, added = with_members(content, macs)
        if added or not path.exists():
            audit.note(log_dir(data_dir), "group add", group, **_listed("to", added))
            replace(path, after)
    return Change(added, macs)


def remove_members(data_dir: Path, group: str, macs: Sequence[str]) -> Change:
    """Remove devices from a group; the group stays, even if it is empty then.

    Raises:
        Refused: there is no such group.
        BadPolicy, Busy, OSError: as `changing`.
    """
    with changing(data_dir) as version_dir:
        path = group_path(version_dir, group)
        content = _content_of_group(version_dir, group)
        with named(path):
            after, removed = without_members(content, macs)
        if removed:
            audit.note(log_dir(data_dir), "group remove", group, **_listed("from", removed))
            replace(path, after)
    return Change(removed, macs)


def retry(data_dir: Path, mac: str) -> None:
    """Let a device fetch again what it has fetched too often.

    Raises:
        BadPolicy, Busy, OSError: as `changing`.
    """
    with changing(data_dir) as version_dir:
        content = read(version_dir, RETRIES_NAME)
        with named(version_dir / RETRIES_NAME):
            after = with_retry(content, mac, clock.now_ms())
        audit.note(log_dir(data_dir), "retry", mac)
        replace(version_dir / RETRIES_NAME, after)


def hold(data_dir: Path, reason: str) -> Hold | None:
    """Stop offering anything to any device, even on a full disk.

    A hold that is on already keeps its record, unless another reason is given.

    Returns:
        The hold that was on before; None: nothing was on hold.

    Raises:
        Refused, Busy, OSError: as `changing`.
    """
    try:
        with changing(data_dir) as version_dir:
            before = current_hold(data_dir)
            if before is None or (reason and reason != before.reason):
                audit.note_if_room(log_dir(data_dir), "hold", "everything", reason=reason or None)
                now_ms = clock.now_ms()
                replace(version_dir / HOLD_NAME, hold_content(reason, audit.user(), now_ms))
    except OSError as problem:
        if not is_full(problem):
            raise
        before = current_hold(data_dir)
        _hold_without_room(data_dir / "version")
    return before


def _hold_without_room(version_dir: Path) -> None:
    """Hold everything by an empty file: a name needs hardly any room."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(version_dir / HOLD_NAME, flags, 0o644)
    try:
        give_to_owner(descriptor, version_dir)
    finally:
        os.close(descriptor)
    with suppress(OSError):
        sync_folder(version_dir)
    _move_stamp(version_dir)
    log.warning("the disk is full: %s says neither why nor since when", HOLD_NAME)


def unhold(data_dir: Path) -> None:
    """End the hold: devices are offered what they should run again.

    Raises:
        Refused: nothing is on hold.
        Busy, OSError: as `changing`.
    """
    with changing(data_dir) as version_dir:
        path = version_dir / HOLD_NAME
        if not os.path.lexists(path):
            raise Refused("nothing is on hold; `why MAC` shows what a device gets, and why")
        audit.note(log_dir(data_dir), "unhold", "everything")
        path.unlink()
        sync_folder(version_dir)


def current_hold(data_dir: Path) -> Hold | None:
    """Return what is on record of the hold; None: nothing is on hold."""
    folder = data_dir / "version"
    if not os.path.lexists(folder / HOLD_NAME):
        return None
    try:
        return parse_hold(read(folder, HOLD_NAME))
    except (OSError, BadPolicy):
        return Hold()


def reason_of_hold(data_dir: Path) -> str:
    """Return why everything is on hold; "" if it is not, or no reason is on record."""
    held = current_hold(data_dir)
    return "" if held is None else held.reason


@contextmanager
def changing(data_dir: Path) -> Iterator[Path]:
    """Hold the lock while files in `version/`, which is yielded, are changed; then tell servers.

    Raises:
        Refused: it is not a data directory.
        BadPolicy: a file cannot be used and was not overwritten; the message says which one.
        Busy: another command takes too long.
        OSError: a file cannot be read or written.
    """
    version_dir = existing_folder(data_dir, "version")
    with locked(data_dir):
        yield version_dir
        _move_stamp(version_dir)


def _move_stamp(folder: Path) -> None:
    """Give a folder a new time stamp: two changes may fall into one tick of the clock."""
    stamp_ns = max(time.time_ns(), os.stat(folder).st_mtime_ns + 1)
    try:
        os.utime(folder, ns=(stamp_ns, stamp_ns))
    except PermissionError:
        os.utime(folder)  # of another user: only the time of the kernel can be set


def group_path(version_dir: Path, group: str) -> Path:
    """Return the file that lists a group."""
    return version_dir / GROUPS_FOLDER / f"{group}{GROUP_SUFFIX}"


def _content_of_group(version_dir: Path, group: str) -> bytes:
    path = group_path(version_dir, group)
    if not os.path.lexists(path):
        raise Refused(f"there is no group {group}; `group list` shows all, `group add` creates one")
    return read(path.parent, path.name)


def _pin_of(version_dir: Path, content: bytes, who: Who) -> Pin | None:
    if not content:
        return None
    with named(version_dir / PINS_NAME):
        devices, groups = parse_pins(content)
    return (devices if who.kind == "devices" else groups).get(who.name)


def _from_to(before: Pin | None, after: Pin | None) -> dict[str, str | None]:
    return {"from": _pin_text(before), "to": _pin_text(after)}


def _pin_text(pin: Pin | None) -> str | None:
    if pin is None:
        return None
    return pin.version if pin.until_ms is None else f"{pin.version} until {time_text(pin.until_ms)}"


def _listed(side: str, macs: Sequence[str]) -> dict[str, object]:
    text = macs[0] if len(macs) == 1 else f"{len(macs)} devices"
    return {side: text, "macs": list(macs[:_MOST_MACS_ON_RECORD]), "count": len(macs)}
