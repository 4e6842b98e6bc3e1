"""The devices of a rollout that did not do well, by name and with their reason. I/O."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ota_server.device_port.admission_status import read_standing
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import ago, format_second, parse_time
from ota_server.model.version import same_version
from ota_server.operations.rollout_listing import (
    ListedGroup,
    LiveRollouts,
    grouped,
    in_order,
    live_groups,
)
from ota_server.operations.rollout_words import state_of, title_of, window_lines
from ota_server.rollouts.files import devices_command
from ota_server.rollouts.find_rollout import RolloutOnFile, all_rollouts, find_rollout
from ota_server.rollouts.history import EndedRollout, devices_if_known, ended_rollouts
from ota_server.rollouts.outcome_list import ListedDevice, as_of_now, devices_by_checkpoint
from ota_server.system.data_dir import log_dir
from ota_server.system.locks import is_served


class RolloutDevices(NamedTuple):
    """The devices of a rollout that are not updated, the worst first, each with its reason.

    Attributes:
        headline: what it is called and how far it is, in lines; commands in backticks.
        more: how many further ones there were, which are not on record.
    """

    headline: str
    devices: Sequence[ListedDevice]
    more: int = 0


class GroupedDevices(NamedTuple):
    """The same devices by state and reason.

    Attributes:
        as_of_ms: when they were so.
    """

    headline: str
    groups: Sequence[ListedGroup]
    more: int
    as_of_ms: int


def devices_of(
    data_dir: Path, rollout_id: str, now_ms: int, live: LiveRollouts | None = None
) -> RolloutDevices:
    """Return the devices of a rollout by its id, whether it is on or over.

    Args:
        live: what this process knows of those that are on; None: nothing, so that for one of them
            the journal is read from where the controller was last.

    Raises:
        Refused: there was no such rollout, or its devices are not on record.
        BadPolicy, OSError: a file cannot be used or read.
    """
    rollout = _current_of(data_dir, rollout_id)
    if rollout is None:
        return _of_ended_id(data_dir, rollout_id, now_ms)
    if live is None:
        return _of_current(data_dir, rollout, now_ms)
    groups, _ = live_groups(data_dir, rollout, now_ms, None, live)
    return RolloutDevices(_headline(data_dir, rollout), in_order(data_dir, groups))


def groups_of(
    data_dir: Path, rollout_id: str, now_ms: int, most: int, live: LiveRollouts
) -> GroupedDevices:
    """Return the devices of a rollout by its id, as `devices_of`, of each reason the first ones.

    Args:
        most: of each reason.
    """
    rollout = _current_of(data_dir, rollout_id)
    if rollout is None:
        found = _of_ended_id(data_dir, rollout_id, now_ms)
        return GroupedDevices(found.headline, grouped(found.devices, most), found.more, now_ms)
    groups, as_of_ms = live_groups(data_dir, rollout, now_ms, most, live)
    return GroupedDevices(_headline(data_dir, rollout), groups, 0, as_of_ms)


def _current_of(data_dir: Path, rollout_id: str) -> RolloutOnFile | None:
    """Return a rollout that is on, by its id."""
    on = (each for each in all_rollouts(data_dir) if each.is_on)
    return next((each for each in on if each.plan.id == rollout_id), None)


def _of_ended_id(data_dir: Path, rollout_id: str, now_ms: int) -> RolloutDevices:
    for entry in ended_rollouts(data_dir, now_ms):
        if entry.id == rollout_id:
            return _of_ended(data_dir, entry, all_rollouts(data_dir), now_ms)
    raise Refused("there was no such rollout; `rollout history` lists them")


def find_devices(
    data_dir: Path, version: str | None, group: str | None, now_ms: int
) -> RolloutDevices:
    """Return the devices of the rollout that is meant: the one that is on, else the last one.

    Args:
        version: of that release alone; None: of any.
        group: to that group alone, "" is the fleet; None: to any.

    Raises:
        Refused: there is none, or several are on.
        BadPolicy, OSError: a file cannot be used or read.
    """
    found = [
        each
        for each in all_rollouts(data_dir)
        if _is_meant(each.plan.version, each.plan.group, version, group)
    ]
    on = [each for each in found if each.is_on]
    if len(on) > 1:
        find_rollout(data_dir, group)  # it says which ones there are
    if on:
        return _of_current(data_dir, on[0], now_ms)
    ended = [
        each
        for each in ended_rollouts(data_dir, now_ms)
        if _is_meant(each.version, each.group, version, group)
    ]
    if not ended:
        raise Refused("there was no such rollout; `rollout history` lists them")
    return _of_ended(data_dir, ended[-1], found, now_ms)


def _is_meant(of: str, to: str, version: str | None, group: str | None) -> bool:
    return (version is None or same_version(of, version)) and group in (None, to)


def _of_current(data_dir: Path, rollout: RolloutOnFile, now_ms: int) -> RolloutDevices:
    devices = devices_by_checkpoint(data_dir, rollout, now_ms)
    return RolloutDevices(_headline(data_dir, rollout), devices)


def _of_ended(
    data_dir: Path, entry: EndedRollout, on_file: Sequence[RolloutOnFile], now_ms: int
) -> RolloutDevices:
    """Return the devices of a rollout that is over."""
    devices, more = entry.devices, entry.more
    if devices is None:
        last = next((each for each in on_file if each.plan.id == entry.id), None)
        known = None if last is None else devices_if_known(data_dir, last, now_ms)
        devices = None if known is None else tuple(known)
    title = title_of(entry.version, entry.group, entry.reverts)
    as_of = f"as of {format_second(parse_time(entry.end_time))}, when it ended"
    headline = f"{title}: {entry.state}; {as_of} ({ago(entry.end_time, now_ms)})"
    if entry.reverts:
        before = devices_command(data_dir, entry.group, entry.reverts)
        headline += f"\n{before} has those of the rollout before it"
    if devices is None:
        raise Refused(f"{headline}; its devices are not on record".replace("\n", "; "))
    return RolloutDevices(headline, as_of_now(devices, data_dir, now_ms), more)


def _headline(data_dir: Path, rollout: RolloutOnFile) -> str:
    plan, progress = rollout
    where = "" if progress is None else f", wave {progress.wave + 1} of {plan.wave_count}"
    title = title_of(plan.version, plan.group, plan.reverts)
    logs = log_dir(data_dir)
    closed = window_lines(read_standing(logs) if is_served(logs) else None)
    return "\n".join([f"{title}: {state_of(plan, progress)}{where}", *closed])
