"""Changes to the files of the policy, one at a time: first the audit log, then the file itself.

At the end the time stamp of `version/` is moved, so a running server notices at its next look.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import BadPolicy, Refused
from ota_server.policy import audit
from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.hold import current_hold
from ota_server.policy.parse import parse_pins
from ota_server.policy.policy import HOLD_NAME, PINS_NAME, RETRIES_NAME, Pin
from ota_server.policy.targets import release_here
from ota_server.policy.text import (
    Hold,
    Who,
    hold_content,
    time_text,
    with_members,
    with_pin,
    with_retry,
    without_members,
    without_pin,
)
from ota_server.system import clock
from ota_server.system.data_dir import existing_folder, log_dir
from ota_server.system.files import is_full, named, read, replace
from ota_server.system.locks import EDIT_LOCK_SECONDS, LOCK_NAME, locked
from ota_server.system.new_files import (
    make_folder,
    make_spares,
    open_or_make,
    renew_time,
    sync_folder,
)

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
    check_end(until_ms)
    with changing(data_dir) as version_dir:
        release = release_here(data_dir, version)
        if who.kind == "groups":
            _content_of_group(version_dir, who.name)
        content = read(version_dir, PINS_NAME)
        before = _pin_of(version_dir, content, who)
        with named(version_dir / PINS_NAME):
            after = with_pin(content, who, release, until_ms)
        change = _from_to(before, Pin(release, until_ms))
        with audit.noted(log_dir(data_dir), "pin", str(who), **change):
            replace(version_dir / PINS_NAME, after)
    return release


def check_end(until_ms: int | None) -> None:
    """Check when a pin is to end; None: never.

    Raises:
        Refused: that is past.
    """
    if until_ms is not None and until_ms <= clock.now_ms():
        raise Refused(f"{time_text(until_ms)} is past; give a time in the future")


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
        with audit.noted(log_dir(data_dir), "unpin", str(who), **_from_to(before, None)):
            replace(version_dir / PINS_NAME, without_pin(content, who))
    return before


def add_members(data_dir: Path, group: str, macs: Sequence[str]) -> Change:
    """Add devices to a group; the group is created if there is none.

    Raises:
        BadPolicy, Busy, OSError: as `changing`.
    """
    with changing(data_dir) as version_dir:
        path = group_path(version_dir, group)
        if os.path.lexists(path.parent) and not path.parent.is_dir():
            raise BadPolicy(
                f"{path.parent} is not a folder; move it away, and `group add NAME MAC` makes it"
            )
        content = read(path.parent, path.name)
        with named(path):
            after, added = with_members(content, macs)
        if added or not path.exists():
            with audit.noted(log_dir(data_dir), "group add", group, **listed("to", added)):
                make_folder(path.parent)
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
            with audit.noted(log_dir(data_dir), "group remove", group, **listed("from", removed)):
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
        with audit.noted(log_dir(data_dir), "retry", mac):
            replace(version_dir / RETRIES_NAME, after)


def hold(
    data_dir: Path, reason: str, what: str = "everything", wait_seconds: float = EDIT_LOCK_SECONDS
) -> Hold | None:
    """Stop offering anything to any device of a product, even on a full disk.

    A hold that is on already keeps its record, unless another reason is given.

    Args:
        what: is held, for the audit log; "": the change is on record elsewhere.

    Returns:
        The hold that was on before; None: nothing was on hold.

    Raises:
        Refused, Busy, OSError: as `changing`.
    """
    try:
        with changing(data_dir, wait_seconds) as version_dir:
            before = current_hold(data_dir)
            if before is None or (reason and reason != before.reason):
                with _noted(data_dir, "hold", what, reason=reason or None):
                    _write_hold(version_dir, hold_content(reason, audit.user(), clock.now_ms()))
    except OSError as problem:
        if not is_full(problem):
            raise
        before = current_hold(data_dir)
        _hold_without_room(data_dir / "version")
    return before


def _write_hold(version_dir: Path, content: bytes) -> None:
    try:
        replace(version_dir / HOLD_NAME, content, is_stop=True)
    except OSError as problem:
        if not is_full(problem):
            raise
        _hold_without_room(version_dir)


def _hold_without_room(version_dir: Path) -> None:
    """Hold everything by an empty file, or by a second name of one: that needs hardly any room.

    Raises:
        Refused: not even that can be done.
    """
    path = version_dir / HOLD_NAME
    what = "stays as it was"
    if not os.path.lexists(path):
        what = "says neither why nor since when"
        try:
            os.close(open_or_make(path, os.O_RDONLY))
        except OSError:
            try:
                os.link(version_dir / LOCK_NAME, path)
            except OSError as problem:
                raise Refused(
                    f"{path}: {problem.strerror}: nothing is on hold; stop the server, or make room"
                ) from problem
    with suppress(OSError):
        sync_folder(version_dir)
        renew_time(version_dir)
    log.warning("the disk is full: %s %s", HOLD_NAME, what)


def unhold(
    data_dir: Path, what: str = "everything", wait_seconds: float = EDIT_LOCK_SECONDS
) -> None:
    """End the hold of a product: devices are offered what they should run again.

    Args:
        what: as `hold`.

    Raises:
        Refused: nothing is on hold.
        Busy, OSError: as `changing`.
    """
    with changing(data_dir, wait_seconds) as version_dir:
        path = version_dir / HOLD_NAME
        if not os.path.lexists(path):
            is_not = "nothing is" if what in ("", "everything") else f"the {what} is not"
            raise Refused(f"{is_not} on hold; `why MAC` shows what a device gets, and why")
        with _noted(data_dir, "unhold", what):
            path.unlink()
        sync_folder(version_dir)


def _noted(
    data_dir: Path, action: str, what: str, reason: str | None = None
) -> AbstractContextManager[None]:
    if not what:
        return nullcontext()
    return audit.noted(log_dir(data_dir), action, what, is_full, reason=reason)


@contextmanager
def changing(data_dir: Path, wait_seconds: float = EDIT_LOCK_SECONDS) -> Iterator[Path]:
    """Hold the lock while files in `version/`, which is yielded, are changed; then tell servers.

    Raises:
        Refused: it is not a data directory.
        BadPolicy: a file cannot be used and was not overwritten; the message says which one.
        Busy: another command takes too long.
        OSError: a file cannot be read or written.
    """
    version_dir = existing_folder(data_dir, "version")
    with locked(data_dir, wait_seconds):
        yield version_dir
        renew_time(version_dir)
        make_spares(version_dir)


def group_path(version_dir: Path, group: str) -> Path:
    """Return the file that lists a group."""
    return version_dir / GROUPS_FOLDER / f"{group}{GROUP_SUFFIX}"


def check_group(data_dir: Path, group: str) -> None:
    """Check that there is a group.

    Raises:
        Refused: there is none.
    """
    if not os.path.lexists(group_path(data_dir / "version", group)):
        raise Refused(
            f"there is no group {group}; `group list` shows all, `group add {group} MAC` makes one"
        )


def _content_of_group(version_dir: Path, group: str) -> bytes:
    check_group(version_dir.parent, group)
    path = group_path(version_dir, group)
    return read(path.parent, path.name)


def _pin_of(version_dir: Path, content: bytes, who: Who) -> Pin | None:
    if not content:
        return None
    with named(version_dir / PINS_NAME):
        devices, groups = parse_pins(content)
    return (devices if who.kind == "devices" else groups).get(who.name)


def _from_to(before: Pin | None, after: Pin | None) -> dict[str, str | None]:
    return {"from": pin_text(before), "to": pin_text(after)}


def pin_text(pin: Pin | None) -> str | None:
    """Return a pin as the audit log has it; None: there is none."""
    if pin is None:
        return None
    return pin.version if pin.until_ms is None else f"{pin.version} until {time_text(pin.until_ms)}"


def listed(side: str, macs: Sequence[str]) -> dict[str, object]:
    """Return the devices of a change as the audit log has them: how many, and the first ones."""
    text = macs[0] if len(macs) == 1 else f"{len(macs)} devices"
    return {side: text, "macs": list(macs[:_MOST_MACS_ON_RECORD]), "count": len(macs)}
