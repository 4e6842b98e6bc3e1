"""A rollout before it begins: its waves are made, checked and shown. I/O."""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import median

from ota_server.commands.common import warn
from ota_server.evaluation.poll_history import SLOW_SOAKS
from ota_server.evaluation.proposal import propose_waves
from ota_server.model.quantity import count_of, format_duration
from ota_server.model.refusal import Refused
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.rollouts.preview import ReachedDevices

_A_DAY = "on record for a day"
_WHAT_TO_DO = "give --count-new if you know these devices, or wait for a day"
# An interval is shown in the first unit of which it has at least two.
_UNITS = (86400, 3600, 60, 1)


def with_waves(
    plan: RolloutPlan,
    typed: tuple[float, ...] | None,
    found: ReachedDevices,
    intervals_ms: Mapping[float, float],
) -> RolloutPlan:
    """Return the plan with its waves, and with how many devices each of them adds.

    Args:
        typed: the waves that the operator gave; None: use those that fit.
        intervals_ms: how often devices of a sample poll, by where they stand.

    Raises:
        Refused: there is no device to roll out to, or a wave would show nothing.
    """
    if not found.stands:
        whose = f"the group {plan.group}" if plan.group else "the fleet"
        # For a group, not what would give it to the whole fleet.
        at_once = f"`release activate {plan.version}` makes it the target without a rollout"
        if plan.group:
            at_once = f"`pin {plan.group} {plan.version}` gives it to the group without a rollout"
        raise Refused(
            f"no device of {whose} was heard from within a week, so there is none to roll out to. "
            f"{at_once}"
        )
    if not any(found.counts):
        raise Refused(
            f"no device is {_A_DAY} yet, so none counts and no wave would go on: {_WHAT_TO_DO}"
        )
    proposed = _proposed(plan, found, intervals_ms)
    plan = plan._replace(waves=typed or proposed)
    plan = plan._replace(counted=found.added(plan))
    if plan.first_group is not None and not plan.counted[0]:
        raise Refused(
            f"the first wave, {plan.first_group}, holds no active device; leave --first-group out"
        )
    if typed is not None and not all(plan.counted):
        raise Refused(_empty_text(plan, proposed))
    if reason := _uncounted_text(plan, found.counting(plan), proposed):
        raise Refused(reason)
    return plan


def _proposed(
    plan: RolloutPlan, found: ReachedDevices, intervals_ms: Mapping[float, float]
) -> tuple[float, ...]:
    """Return waves that fit the devices that count: the first wave has to hold some of them."""
    kinds = {stand: _is_slow(plan, interval_ms) for stand, interval_ms in intervals_ms.items()}
    return propose_waves([(stand, kinds.get(stand)) for stand in found.counting_stands()])


def _is_slow(plan: RolloutPlan, interval_ms: float) -> bool:
    return 0 < SLOW_SOAKS * plan.soak_seconds * 1000 < interval_ms


def _empty_text(plan: RolloutPlan, proposed: Sequence[float]) -> str:
    """Return the message for a typed wave that holds no device."""
    if plan.first_group is not None and not any(plan.counted[1:]):
        return (
            f"the first wave, {plan.first_group}, holds all active devices and the others none; "
            "leave --first-group out"
        )
    empty = plan.counted.index(0)
    return (
        f"wave {empty + 1} ({plan.percent(empty):g} %) adds no active device, so it would "
        f"show nothing; {_better(plan, plan.counted, proposed)}"
    )


def _uncounted_text(plan: RolloutPlan, counting: Sequence[int], proposed: Sequence[float]) -> str:
    """Return the message for a wave of which no device counts; "" if there is no such wave."""
    pairs = enumerate(zip(plan.counted, counting, strict=True))
    wave, added = next(((at, pair[0]) for at, pair in pairs if pair[0] and not pair[1]), (0, 0))
    if not added:
        return ""
    is_first_group = plan.first_group is not None and wave == 0
    whom = plan.first_group if is_first_group else f"{plan.percent(wave):g} %"
    better = "leave --first-group out" if is_first_group else _better(plan, counting, proposed)
    ways = ", or ".join(filter(None, (better, _WHAT_TO_DO)))
    return (
        f"wave {wave + 1} ({whom}) adds {count_of(added, 'active device')}, none of them "
        f"{_A_DAY}, so none counts and the wave would not go on: {ways}"
    )


def _better(plan: RolloutPlan, counts: Sequence[int], proposed: Sequence[float]) -> str:
    """Return which waves to give instead of the typed ones; "": there are no better ones.

    Args:
        counts: how many devices each wave adds, or how many of these count; some are 0.
    """
    counts = counts[plan.first_group is not None :]
    kept = [percent for percent, count in zip(plan.waves, counts, strict=True) if count]
    kept = [*kept[:-1], 100.0]  # the last wave is all of the devices
    if len(kept) > 1 and tuple(kept) != plan.waves:
        return f"try --waves {','.join(f'{percent:g}' for percent in kept)}"
    if tuple(proposed) == plan.waves:
        return ""
    waves = ", ".join(f"{percent:.4g}" for percent in proposed)
    return f"leave --waves out, for waves of {waves} %, which fit"


# What is shown


def print_left_alone(groups: Collection[tuple[str, str, int]]) -> None:
    """Show the groups that a rollout leaves alone, each with its target and its devices."""
    for group, target, members in groups:
        print(
            f"left alone because it has its own target: group {group} ({target}, "
            f"{count_of(members, 'device')}); --groups-too includes it"
        )


def print_waves(plan: RolloutPlan, found: ReachedDevices, is_typed: bool) -> None:
    """Show how many devices each wave adds, and warn where most of them do not count."""
    devices = len(found.stands)
    if not is_typed:
        print(f"waves that fit {count_of(devices, 'active device')} (--waves sets others)")
    total = 0
    for wave, count in enumerate(plan.counted):
        total += count
        percent = plan.percent(wave)
        shown = f"{percent:g}" if is_typed else f"{percent:.4g}"
        whom = f"{shown} %" if percent else f"{plan.first_group}"
        print(f"wave {wave + 1}  {whom:>6}  {count:>7} more, {total} in all")
    if found.inactive:
        print(f"not heard from for a week, and not counted: {found.inactive}")
    if new := devices - sum(found.counts):
        print(f"known for less than a day, and not counted without --count-new: {new}")
    if any(count < plan.min_devices for count in plan.counted):
        print(f"in a wave with fewer than {plan.min_devices} devices, all have to update")
    for wave, count in enumerate(found.counting(plan)):
        if count * 2 < plan.counted[wave]:
            warn(
                f"of the {plan.counted[wave]} devices that wave {wave + 1} adds, {count} are "
                f"{_A_DAY}, and it is judged by them alone: {_WHAT_TO_DO}"
            )


def print_slow_pollers(plan: RolloutPlan, intervals_ms: Mapping[float, float]) -> None:
    """Show how many devices are slow pollers."""
    known = len(intervals_ms)
    slow = sum(_is_slow(plan, interval_ms) for interval_ms in intervals_ms.values())
    if known > 100:
        known, slow = 100, round(slow * 100 / known)
    if slow:
        longest = format_duration(SLOW_SOAKS * plan.soak_seconds)
        print(
            f"{slow} of {known} devices are slow pollers, which wait for more than {longest} "
            f"({SLOW_SOAKS} soaks) between two checks: waves wait for some of them too"
        )


def warn_of_unseen(found: ReachedDevices) -> None:
    """Warn if devices report no version."""
    if found.unseen:
        is_one, devices = found.unseen == 1, count_of(len(found.stands), "device")
        report, their = ("reports", "its") if is_one else ("report", "their")
        warn(
            f"{found.unseen} of the {devices} {report} no version: {their} updates cannot be seen; "
            "put the version into the URL, see docs/devices"
        )


def warn_of_soak(plan: RolloutPlan, intervals_ms: Mapping[float, float]) -> None:
    """Warn if half of the devices or more do not poll within the soak."""
    usual = median(intervals_ms.values()) / 1000 if intervals_ms else 0.0
    if usual <= plan.soak_seconds:
        return
    unit = next((unit for unit in _UNITS if usual >= 2 * unit), 1)
    longer = format_duration((math.floor(usual / unit) + 1) * unit)
    what = (
        f"the soak of {format_duration(plan.soak_seconds)} is shorter than the "
        f"{format_duration(max(round(usual / unit), 1) * unit)} that half of the devices wait, "
        "or more, between two checks"
    )
    if _is_slow(plan, usual * 1000):
        warn(f"{what}: each wave takes longer than that")
    else:
        warn(
            f"{what}: of the devices that the release bricks, few are noticed in it. "
            f"{plan.command(f'change --soak {longer}')} gives them time"
        )
