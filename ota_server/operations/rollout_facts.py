"""How rollouts are: facts for commands, pages and the API. I/O."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ota_server.device_port.admission_status import read_standing
from ota_server.device_port.window import Standing
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.model.timestamp import format_time, parse_time
from ota_server.operations.rollout_words import (
    WaveFacts,
    advice_lines,
    counted,
    remarks_of,
    state_of,
    title_of,
    waves_of,
)
from ota_server.policy.hold import current_hold
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, RolloutWish
from ota_server.policy.text import Hold
from ota_server.rollouts.files import read_plan, read_progress
from ota_server.rollouts.find_rollout import (
    RolloutOnFile,
    all_rollouts,
    end_of,
    needs_person,
    no_such_rollout,
    recent_rollouts,
)
from ota_server.rollouts.history import EndedRollout, ended_rollouts
from ota_server.rollouts.keeper import is_attended
from ota_server.rollouts.revert import check_revert
from ota_server.system.data_dir import log_dir
from ota_server.system.locks import is_served


class RolloutScene(NamedTuple):
    """What is around the rollouts of a data directory.

    Attributes:
        is_served: a server runs.
        standing: which devices it lets in; None: none runs.
        is_attended: the controller looks after rollouts, or no server runs.
        held: None: nothing is on hold.
    """

    is_served: bool
    standing: Standing | None
    is_attended: bool
    held: Hold | None


class RolloutDetail(NamedTuple):
    """A rollout that is on, or the last one to the fleet or to a group.

    Attributes:
        progress: None: it has not begun.
        title: what it is called, in words.
        state: in one word: waiting, running, resuming, paused, halted, aborted or done.
        needs_person: it waits for one, or was halted and nobody has answered that.
        advice: why it is as it is, what it waits for, what to do; commands in backticks.
        limits: in words; "": it is over, or has not begun.
        warnings: what may make its counts wrong.
        remarks: what else is to be said of its devices.
        end_time: None: it is on.
        can: what an operator may do now: pause, resume, change, promote, abort, revert.
    """

    plan: RolloutPlan
    progress: RolloutProgress | None
    title: str
    state: str
    is_on: bool
    needs_person: bool
    advice: tuple[str, ...]
    limits: str
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]
    waves: tuple[WaveFacts, ...]
    end_time: str | None
    can: tuple[str, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many devices of the open waves are in which state."""
        return {} if self.progress is None else self.progress.counts


class RolloutEnd(NamedTuple):
    """A rollout that is over.

    Attributes:
        whom: to whom it was, in words.
        came: how far it came, in words.
        reverts: the release that it took devices back from; None: it was not a revert.
        unwell: how many devices that were not updated are on record; None: they are not.
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
    reverts: str | None = None
    unwell: int | None = None


def look_around(data_dir: Path, now_ms: int) -> RolloutScene:
    """Return what is around the rollouts of a data directory.

    Raises:
        OSError: a file cannot be read.
    """
    logs = log_dir(data_dir)
    served = is_served(logs)
    return RolloutScene(
        served,
        read_standing(logs) if served else None,
        not served or is_attended(logs, now_ms),
        current_hold(data_dir),
    )


def rollouts_shown(data_dir: Path, group: str | None, now_ms: int) -> list[RolloutOnFile]:
    """Return the rollouts that are on, and those that ended within a day.

    Args:
        group: to whom; "" is the fleet; None: to all.

    Raises:
        Refused: there never was one, to that group.
        BadPolicy, OSError: a file cannot be used or read.
    """
    found = all_rollouts(data_dir)
    if not any(group in (None, each.plan.group) for each in found):
        raise no_such_rollout(found, group)
    recent = recent_rollouts(data_dir, now_ms)
    return [each for each in recent if group in (None, each.plan.group)]


def current_rollouts(data_dir: Path, now_ms: int) -> list[RolloutDetail]:
    """Return the rollouts that are on, and those that ended within a day.

    Raises:
        Refused, BadPolicy, OSError: a file cannot be used or read.
    """
    scene = look_around(data_dir, now_ms)
    return [_detail(data_dir, each, scene, now_ms) for each in recent_rollouts(data_dir, now_ms)]


def rollout_of(data_dir: Path, group: str, now_ms: int) -> RolloutDetail | None:
    """Return the last rollout to a group, "" for the fleet; None: there never was one.

    Raises:
        BadPolicy, OSError: a file cannot be used or read.
    """
    plan = read_plan(data_dir, group)
    if plan is None:
        return None
    on_file = RolloutOnFile(plan, read_progress(data_dir, plan))
    return _detail(data_dir, on_file, look_around(data_dir, now_ms), now_ms)


def _detail(
    data_dir: Path, rollout: RolloutOnFile, scene: RolloutScene, now_ms: int
) -> RolloutDetail:
    plan, progress = rollout
    ended_ms = end_of(data_dir, rollout, now_ms)
    said = remarks_of(plan, progress, "", scene.standing)
    return RolloutDetail(
        plan,
        progress,
        title_of(plan.version, plan.group, plan.reverts),
        state_of(plan, progress),
        rollout.is_on,
        needs_person(data_dir, rollout),
        tuple(advice_lines(plan, progress, *scene)),
        said.limits,
        said.warnings,
        said.others,
        waves_of(plan, progress),
        None if ended_ms is None else format_time(ended_ms),
        tuple(_can(data_dir, rollout)),
    )


def _can(data_dir: Path, rollout: RolloutOnFile) -> Iterator[str]:
    """Yield what an operator may do about a rollout; `change_rollout` checks again."""
    plan, progress = rollout
    if rollout.is_on:
        is_stopped = plan.wanted == RolloutWish.PAUSE
        is_paused = progress is not None and progress.state == RolloutState.PAUSED
        if not is_stopped:
            yield "pause"
        if is_stopped or (is_paused and progress is not None and not progress.lifts):
            yield "resume"
        yield "change"
        if progress is not None and (not is_stopped or progress.asks):
            yield "promote"
        yield "abort"
    try:
        # One that is over is meant only while there is no other one.
        found = check_revert(data_dir, plan.group)
        if found.plan.id == plan.id and not found.nothing:
            yield "revert"
    except (Refused, BadPolicy, OSError):
        return


def ended(
    data_dir: Path, now_ms: int, group: str | None = None, limit: int | None = None
) -> list[RolloutEnd]:
    """Return the rollouts that are over, the newest first.

    Args:
        group: to whom; "" is the fleet; None: to all.
        limit: the newest so many.

    Raises:
        Refused, BadPolicy, OSError: a file cannot be used or read.
    """
    found = [each for each in ended_rollouts(data_dir, now_ms) if group in (None, each.group)]
    return [end_facts(each) for each in reversed(found[-(limit or 0) :])]


def end_facts(entry: EndedRollout) -> RolloutEnd:
    """Return a rollout that is over, with what came of it in words."""
    waves = f"wave {entry.wave} of {entry.waves}" if entry.wave else "no wave was open"
    return RolloutEnd(
        entry.id,
        entry.version,
        entry.group,
        _whom(entry),
        entry.start_time,
        entry.end_time,
        duration_seconds(entry),
        entry.state,
        entry.reason,
        ", ".join(filter(None, (waves, counted(entry.counts)))),
        entry.note,
        entry.counts,
        entry.reverts,
        None if entry.devices is None else len(entry.devices) + entry.more,
    )


def duration_seconds(entry: EndedRollout) -> float:
    """Return how long a rollout took."""
    return max(parse_time(entry.end_time) - parse_time(entry.start_time), 0) / 1000


def _whom(entry: EndedRollout) -> str:
    whom = f"the group {entry.group}" if entry.group else "the fleet"
    return f"a revert from {entry.reverts} for {whom}" if entry.reverts else f"to {whom}"
