"""A rollout before it begins: whom it would reach, and its start, by the same request. I/O."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ota_server.device_port.admission_status import read_server_state
from ota_server.evaluation.poll_history import SLOW_SOAKS
from ota_server.model.quantity import count_of, format_duration
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.operations.after_change import hold_warning, no_server_warning
from ota_server.operations.rollout_request import RolloutRequest
from ota_server.operations.rollout_waves import (
    count_warnings,
    is_slow,
    soak_warning,
    unseen_warning,
    with_waves,
)
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.policy.targets import release_here
from ota_server.releases.inventory import get_release
from ota_server.releases.remarks import remarks
from ota_server.releases.same_devices import check_devices
from ota_server.rollouts import edits
from ota_server.rollouts.audience import groups_left_alone, pins_of, scope_of
from ota_server.rollouts.preview import ReachedDevices, find_reached, intervals_ms
from ota_server.system.data_dir import journal_dir, log_dir

# Of so many devices the share of slow pollers is told, not their number.
_MOST_COUNTED = 100


class GroupLeftAlone(NamedTuple):
    """A group that a rollout leaves alone, since it has a target of its own."""

    name: str
    target: str
    devices: int


class WavePreview(NamedTuple):
    """One wave of a rollout to come.

    Attributes:
        percent: up to which devices are in it; 0: it is that of the first group.
        first_group: None: it is not that of a first group.
        added: how many active devices it adds.
        total: how many it has with those of the waves before it.
        counting: how many of those that it adds count as evidence.
    """

    percent: float
    first_group: str | None
    added: int
    total: int
    counting: int


class RolloutPreview(NamedTuple):
    """What a rollout would be, if it began now.

    Attributes:
        plan: as it would be written; `instead_of` is the target that it begins from.
        has_own_waves: its waves were given, and not made to fit.
        devices: how many active devices it reaches.
        inactive: how many others it reaches, which were not heard from for a week.
        new: how many of the active ones do not count, since they are known for less than a day.
        left_alone: the groups that it does not come to.
        slow_pollers: how many of how many devices of a sample are slow; of more than 100 it is
            percent.
        warnings: what an operator should know before it begins.
    """

    plan: RolloutPlan
    has_own_waves: bool
    waves: tuple[WavePreview, ...]
    devices: int
    inactive: int
    new: int
    left_alone: tuple[GroupLeftAlone, ...]
    slow_pollers: tuple[int, int]
    warnings: tuple[str, ...]

    @property
    def small_waves_text(self) -> str:
        """What is asked of waves with few devices; "": none has few."""
        least = self.plan.min_devices
        is_small = any(wave.added < least for wave in self.waves)
        return f"in a wave with fewer than {least} devices, all have to update" * is_small

    @property
    def slow_pollers_text(self) -> str:
        """How many devices are slow pollers; "": none is."""
        slow, known = self.slow_pollers
        if not slow:
            return ""
        longest = format_duration(SLOW_SOAKS * self.plan.soak_seconds)
        return (
            f"{slow} of {known} devices are slow pollers, which wait for more than {longest} "
            f"({SLOW_SOAKS} soaks) between two checks: waves wait for some of them too"
        )

    @property
    def waits_for(self) -> tuple[str, ...]:
        """What each wave waits for before the next one opens, and what ends that, in sentences."""
        plan = self.plan
        soak = format_duration(plan.soak_seconds)
        longest = format_duration(plan.wave_timeout_seconds)
        texts = (
            f"the next wave opens when enough devices have updated and have run it well for {soak}",
            self.small_waves_text,
            self.slow_pollers_text,
            f"if more than {plan.max_failures:g} % fail or fall silent, the release is withdrawn",
            f"a wave that takes longer than {longest} pauses the rollout",
        )
        return tuple(filter(None, texts))


class StartedRollout(NamedTuple):
    """A rollout that has begun; `warnings` are why devices may not get it now."""

    plan: RolloutPlan
    warnings: tuple[str, ...]


class NoSuchDevices(Refused):
    """A rollout would reach nobody, or a wave would show nothing.

    Attributes:
        left_alone: the groups that it would not come to.
    """

    def __init__(self, text: str, left_alone: tuple[GroupLeftAlone, ...]) -> None:
        super().__init__(text)
        self.left_alone = left_alone


def preview(data_dir: Path, request: RolloutRequest, now_ms: int) -> RolloutPreview:
    """Return what a rollout would be; nothing is changed.

    For a large fleet this takes seconds, since it reads the journal.

    Raises:
        NoSuchDevices: it would reach nobody, or a wave would show nothing.
        Refused: it may not begin; the message says why.
        BadPolicy, OSError: a file cannot be used or read.
    """
    plan = request.plan(secrets.token_hex(6), format_time(now_ms))
    refuse_development(data_dir)
    base = edits.check_start(data_dir, plan)
    plan = plan._replace(version=release_here(data_dir, plan.version), instead_of=base)
    is_mixed = check_devices(
        data_dir, plan.version, plan.group, plan.groups_too, is_forced=request.is_forced
    )
    plan = plan._replace(is_mixed=is_mixed)
    server = read_server_state(log_dir(data_dir))
    policy = PolicyFiles(data_dir, server.keeps_ungrouped).current()
    left_alone = tuple(GroupLeftAlone(*each) for each in groups_left_alone(plan, policy))
    logs = journal_dir(data_dir)
    found = find_reached(logs, plan, scope_of(plan, policy, None, now_ms), now_ms)
    try:
        if not found.stands and (pins := pins_of(policy, plan.group, now_ms)):
            raise Refused(
                f"the devices of group {plan.group} are pinned, and a pin comes before a rollout: "
                f"`unpin {pins[0]}` first{f', and {len(pins) - 1} more' * (len(pins) > 1)}"
            )
        intervals = intervals_ms(logs, found, now_ms)
        plan = with_waves(plan, request.waves, found, intervals)
    except Refused as problem:
        raise NoSuchDevices(str(problem), left_alone) from None
    return previewed(plan, found, intervals, request.waves is not None, left_alone)


def previewed(
    plan: RolloutPlan,
    found: ReachedDevices,
    intervals: Mapping[float, float],
    has_own_waves: bool,
    left_alone: tuple[GroupLeftAlone, ...] = (),
) -> RolloutPreview:
    """Return the preview of a plan with its waves.

    Args:
        intervals: how often devices of a sample poll, in ms, by where they stand.
    """
    counting, total, waves = found.counting(plan), 0, []
    for number, added in enumerate(plan.counted):
        total += added
        percent = plan.percent(number)
        first_group = None if percent else plan.first_group
        waves.append(WavePreview(percent, first_group, added, total, counting[number]))
    warnings = (*count_warnings(plan, counting), soak_warning(plan, intervals))
    return RolloutPreview(
        plan,
        has_own_waves,
        tuple(waves),
        len(found.stands),
        found.inactive,
        len(found.stands) - sum(found.counts),
        left_alone,
        _slow_pollers(plan, intervals),
        tuple(filter(None, (*warnings, unseen_warning(found)))),
    )


def _slow_pollers(plan: RolloutPlan, intervals: Mapping[float, float]) -> tuple[int, int]:
    known = len(intervals)
    slow = sum(is_slow(plan, interval_ms) for interval_ms in intervals.values())
    if known > _MOST_COUNTED:
        known, slow = _MOST_COUNTED, round(slow * _MOST_COUNTED / known)
    return slow, known


def start(data_dir: Path, request: RolloutRequest, now_ms: int) -> StartedRollout:
    """Begin a rollout, after the checks of `preview`.

    To begin what a preview has shown, give its waves in the request: the fleet may have changed.

    Raises:
        NoSuchDevices, Refused, Busy, BadPolicy, OSError: as `preview`; it does not begin.
    """
    return start_previewed(data_dir, preview(data_dir, request, now_ms))


def start_previewed(data_dir: Path, shown: RolloutPreview) -> StartedRollout:
    """Begin the rollout that a preview has shown.

    Raises:
        Refused, Busy, BadPolicy, OSError: it does not begin.
    """
    plan = edits.start(data_dir, shown.plan)
    warnings = (
        *remarks(data_dir, get_release(data_dir, plan.version)),
        hold_warning(data_dir),
        no_server_warning(data_dir),
    )
    return StartedRollout(plan, tuple(filter(None, warnings)))


def refuse_development(data_dir: Path) -> None:
    """Refuse a rollout while the server runs with --development.

    Raises:
        Refused: it does.
    """
    if read_server_state(log_dir(data_dir)).is_development:
        raise Refused(
            "the server runs with --development, and would not stop a device that fetches a bad "
            "release again and again; start it without that, then begin the rollout"
        )


def left_alone_text(group: GroupLeftAlone) -> str:
    """Return that a rollout leaves a group alone, in a sentence."""
    return (
        f"left alone because it has its own target: group {group.name} ({group.target}, "
        f"{count_of(group.devices, 'device')}); --groups-too includes it"
    )
