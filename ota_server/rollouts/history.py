"""Rollouts that are over, in `log/rollouts.jsonl`: a line for each, with the devices that failed.

The controller writes a line when a rollout ends, and a command when another one takes its place
before that. A line that cannot be written keeps no rollout from ending. I/O.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.evaluation.device_case import BAD
from ota_server.model.device import DAY_MS, Device
from ota_server.model.identity import name_of
from ota_server.model.json_object import parse_object
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy import audit
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import OVER, RolloutPlan, RolloutProgress
from ota_server.rollouts.files import ENDED_NAME, read_checkpoint, read_plan, read_progress
from ota_server.rollouts.find_rollout import (
    RolloutOnFile,
    all_rollouts,
    ended_ms,
    recent_rollouts,
)
from ota_server.rollouts.outcome_list import QUIET, ListedDevice, devices_by_checkpoint
from ota_server.system.data_dir import log_dir
from ota_server.system.files import open_regular, replace

log = logging.getLogger(__name__)

# A line is some 750 KB at most.
_MOST_DEVICES = 5000
# Beyond this the oldest lines lose their devices, down to half of it.
_MOST_BYTES = 16 * 1024 * 1024


class EndedRollout(NamedTuple):
    """A rollout that is over.

    Attributes:
        state: halted, done or aborted.
        reason: why, in words; "": because it was through.
        wave: that was open last, counted from 1; 0: none was.
        counts: how many devices were in which state.
        devices: those that were not updated, the worst first; None: they are not on record.
        more: how many further ones there were.
        note: what the operator wrote of it when it began.
    """

    id: str
    version: str
    group: str
    start_time: str
    end_time: str
    state: str
    reason: str = ""
    instead_of: str | None = None
    reverts: str | None = None
    wave: int = 0
    waves: int = 0
    counts: Mapping[str, int] = {}
    devices: tuple[ListedDevice, ...] | None = None
    more: int = 0
    note: str = ""


def note_end(
    data_dir: Path,
    plan: RolloutPlan,
    progress: RolloutProgress | None,
    devices: Sequence[ListedDevice] | None,
    now_ms: int,
) -> None:
    """Put a rollout that ends on record, unless that cannot be written."""
    entry = _ended(plan, progress, devices, format_time(now_ms))
    fields = {"time": entry.end_time, **entry._asdict()}
    if entry.devices is not None:
        fields["devices"] = [device._asdict() for device in entry.devices]
    path = log_dir(data_dir) / ENDED_NAME
    try:
        if audit.append(path, json.dumps(fields).encode("ascii") + b"\n") > _MOST_BYTES:
            with open(open_regular(path), "rb") as file:
                content = file.read()
            replace(path, _shortened(content))
    except OSError as problem:
        log.warning("the rollout of %s is not in %s: %s", plan.version, ENDED_NAME, problem)


def _shortened(content: bytes) -> bytes:
    """Return lines without the devices of the oldest rollouts."""
    lines, room = content.splitlines(keepends=True), _MOST_BYTES // 2
    for number in reversed(range(len(lines))):
        room -= len(lines[number])
        if room < 0:
            with suppress(ValueError):
                fields = {**parse_object(lines[number]), "devices": None, "more": 0}
                lines[number] = json.dumps(fields).encode("ascii") + b"\n"
    return b"".join(lines)


def note_replaced(data_dir: Path, group: str, now_ms: int) -> None:
    """Put the last rollout to a group on record, if that can be, before another takes its place."""
    try:
        plan = read_plan(data_dir, group)
        if plan is None or any(entry.id == plan.id for entry in _noted(data_dir)):
            return
        each = RolloutOnFile(plan, read_progress(data_dir, plan))
        now_ms = ended_ms(data_dir, plan, now_ms)
        note_end(data_dir, *each, devices_if_known(data_dir, each, now_ms), now_ms)
    except (BadPolicy, OSError) as problem:
        log.warning("the rollout before this one is not in %s: %s", ENDED_NAME, problem)


def devices_if_known(
    data_dir: Path, each: RolloutOnFile, now_ms: int
) -> Sequence[ListedDevice] | None:
    """Return the devices of a rollout that is over, by its checkpoint; None without one."""
    try:
        if read_checkpoint(log_dir(data_dir), each.plan) is None:
            return None
        return devices_by_checkpoint(data_dir, each, now_ms)
    except (OSError, ValueError) as problem:
        log.warning(
            "the devices of the rollout of %s are not known: %s", each.plan.version, problem
        )
        return None


def judged_by_rollouts(data_dir: Path, now_ms: int) -> Callable[[str, Device], str]:
    """Return what says how the rollouts of the last day count a device that did badly, or may have.

    It takes a key and the device, and returns the value of a `DeviceState`; "": it did not, or the
    files of the rollout cannot be used. Nobody waits any more for a device that had the image when
    its rollout ended, and has said nothing since: it is undecided for a time, then silent. That
    stays so after another rollout or a revert has taken its place: a dead device is never well.
    """
    found = judged_devices(data_dir, now_ms)

    def state_of(key: str, device: Device) -> str:
        listed = found.get(name_of(key)) if found else None
        return "" if listed is None else listed.state_now(device, now_ms)

    return state_of


def judged_devices(data_dir: Path, now_ms: int) -> dict[str, ListedDevice]:
    """Return the devices that `judged_by_rollouts` knows, by their names.

    Of a rollout that is on that reads what is new in the journal, and all that is on record.
    """
    found: dict[str, ListedDevice] = {}
    try:
        recent = recent_rollouts(data_dir, now_ms)
        ids = {each.plan.id for each in recent}
        noted = {
            entry.id: entry
            for entry in _noted(data_dir)
            if entry.id in ids or now_ms - parse_time(entry.end_time) < DAY_MS
        }
    except (Refused, BadPolicy, OSError):
        noted, recent = {}, []
    for entry in noted.values():
        if now_ms - parse_time(entry.end_time) < DAY_MS:
            quiet = (each for each in entry.devices or () if each.state in QUIET)
            found |= {device.mac: device for device in quiet}
    for each in recent:
        counts = {} if each.progress is None else each.progress.counts
        states = BAD if each.is_on else (*BAD, *QUIET)
        if any(counts.get(state) for state in states):
            entry_devices = noted[each.plan.id].devices if each.plan.id in noted else None
            devices = entry_devices or devices_if_known(data_dir, each, now_ms) or ()
            found |= {device.mac: device for device in devices if device.state in states}
    return found


def _ended(
    plan: RolloutPlan,
    progress: RolloutProgress | None,
    devices: Sequence[ListedDevice] | None,
    end_time: str,
) -> EndedRollout:
    state, reason = RolloutState.ABORTED, "aborted by an operator"
    if progress is not None and progress.state in OVER:
        state, reason = progress.state, progress.reason
    return EndedRollout(
        plan.id,
        plan.version,
        plan.group,
        plan.time,
        end_time,
        str(state),
        reason,
        plan.instead_of,
        plan.reverts,
        0 if progress is None else progress.wave + 1,
        plan.wave_count,
        {} if progress is None else dict(progress.counts),
        None if devices is None else tuple(devices[:_MOST_DEVICES]),
        0 if devices is None else max(len(devices) - _MOST_DEVICES, 0),
        plan.note,
    )


def ended_rollouts(data_dir: Path, now_ms: int) -> list[EndedRollout]:
    """Return the rollouts that are over, the newest last.

    Raises:
        Refused: it is not a data directory.
        BadPolicy, OSError: a file cannot be used or read.
    """
    found = {entry.id: entry for entry in _noted(data_dir)}
    for each in all_rollouts(data_dir):
        if not each.is_on and each.plan.id not in found:
            end_time = format_time(ended_ms(data_dir, each.plan, now_ms))
            found[each.plan.id] = _ended(*each, None, end_time)
    ended = (_as_of(each, now_ms) for each in found.values())
    return sorted(ended, key=lambda entry: (entry.end_time, entry.start_time))


def _as_of(entry: EndedRollout, now_ms: int) -> EndedRollout:
    """Return a rollout whose times by a clock that was ahead count as now."""
    end_ms = min(parse_time(entry.end_time), now_ms)
    start_ms = min(parse_time(entry.start_time), end_ms)
    return entry._replace(start_time=format_time(start_ms), end_time=format_time(end_ms))


def _noted(data_dir: Path) -> Iterator[EndedRollout]:
    for fields in audit.each_entry(log_dir(data_dir), ENDED_NAME):
        if (entry := _parsed(fields)) is not None:
            yield entry


def _parsed(fields: dict[str, Any]) -> EndedRollout | None:
    """Return an entry, or None where a line that was edited cannot be used."""
    known = {name: fields[name] for name in EndedRollout._fields if name in fields}
    try:
        if known.get("devices") is not None:
            known["devices"] = tuple(ListedDevice(**each) for each in known["devices"])
        entry = EndedRollout(**known)
        parse_time(entry.start_time)
        parse_time(entry.end_time)
        texts = (entry.id, entry.version, entry.group, entry.state, entry.reason, entry.note)
        numbers = (entry.wave, entry.waves, entry.more, *entry.counts.values())
    except (AttributeError, TypeError, ValueError):
        return None
    is_right = all(type(text) is str for text in texts)
    return entry if is_right and all(type(number) is int for number in numbers) else None
