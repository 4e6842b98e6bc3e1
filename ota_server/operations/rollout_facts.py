"""How rollouts are: facts for commands, pages and the API. I/O."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.rollouts.outcome_list import ListedDevice


class WaveFacts(NamedTuple):
    """One wave of a rollout.

    Attributes:
        percent: up to which devices are in it; 0: it is that of the first group.
        first_group: None: it is not that of a first group.
        state: to come, not opened, open, done, or passed: not all were updated.
        since: when it opened, for the open one; "": not on record.
        counts: how many devices are in which state, those of the waves before it included.
        updated, devices: how much of its bar is full.
    """

    percent: float
    first_group: str | None
    state: str
    since: str
    counts: Mapping[str, int]
    updated: int
    devices: int


class RolloutDetail(NamedTuple):
    """A rollout that is on, or the last one to the fleet or to a group.

    Attributes:
        title: what it is called, in words.
        state: in one word: waiting, running, resuming, paused, halted, aborted or done.
        lines: what `rollout status` says besides the waves, in sentences; commands in backticks.
        end_time: None: it is on.
        can: what an operator may do now: pause, resume, change, promote, abort, revert.
    """

    plan: RolloutPlan
    title: str
    state: str
    is_on: bool
    needs_person: bool
    reason: str
    waiting: str
    to_do: str
    lines: tuple[str, ...]
    waves: tuple[WaveFacts, ...]
    counts: Mapping[str, int]
    end_time: str | None
    can: tuple[str, ...]


class RolloutDevices(NamedTuple):
    """The devices of a rollout that are not updated, the worst first, each with its reason.

    Attributes:
        title: what it is called, and how far it is, in words.
        devices: None: they are not on record.
        more: how many further ones there were, which are not on record.
    """

    title: str
    devices: tuple[ListedDevice, ...] | None
    more: int


class RolloutEnd(NamedTuple):
    """A rollout that is over.

    Attributes:
        whom: to whom it was, in words.
        came: how far it came, in words.
    """

    id: str
    version: str
    group: str
    whom: str
    start_time: str
    end_time: str
    duration_seconds: float
    state: str
    reason: str
    came: str
    note: str
    counts: Mapping[str, int]


def current_rollouts(data_dir: Path, now_ms: int) -> list[RolloutDetail]:
    """Return the rollouts that are on, and those that ended within a day.

    Raises:
        Refused, BadPolicy, OSError: a file cannot be used or read.
    """
    raise NotImplementedError


def rollout_of(data_dir: Path, group: str, now_ms: int) -> RolloutDetail | None:
    """Return the last rollout to a group, "" for the fleet; None: there never was one.

    Raises:
        Refused, BadPolicy, OSError: a file cannot be used or read.
    """
    raise NotImplementedError


def devices_of(data_dir: Path, rollout_id: str, now_ms: int) -> RolloutDevices:
    """Return the devices of a rollout that are not updated, by its id; also when it is over.

    Raises:
        Refused: there was no such rollout.
        BadPolicy, OSError: a file cannot be used or read.
    """
    raise NotImplementedError


def ended(data_dir: Path, now_ms: int, group: str | None = None) -> list[RolloutEnd]:
    """Return the rollouts that are over, the newest first.

    Raises:
        Refused, BadPolicy, OSError: a file cannot be used or read.
    """
    raise NotImplementedError
