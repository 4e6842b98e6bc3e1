"""The waves of a rollout to come: made, checked, and what is wrong with them in words. I/O.

It reads nothing itself; what it is given was found in the journal (`rollouts.preview`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from ota_server.evaluation.poll_history import SLOW_SOAKS
from ota_server.evaluation.proposal import propose_waves
from ota_server.model.quantity import count_of, format_duration
from ota_server.model.refusal import Refused
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.rollouts.preview import ReachedDevices

_A_DAY = "on record for a day"
_WHAT_TO_DO = "count new devices too (--count-new) if you know these, or wait for a day"
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
    kinds = {stand: is_slow(plan, interval_ms) for stand, interval_ms in intervals_ms.items()}
    return propose_waves([(stand, kinds.get(stand)) for stand in found.counting_stands()])


def is_slow(plan: RolloutPlan, interval_ms: float) -> bool:
    """Return whether a device that polls so often is a slow poller."""
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


def count_warnings(plan: RolloutPlan, counting: Sequence[int]) -> Iterator[str]:
    """Yield that most of the devices that a wave adds do not count, for each such wave."""
    for wave, count in enumerate(counting):
        if count * 2 < plan.counted[wave]:
            yield (
                f"of the {plan.counted[wave]} devices that wave {wave + 1} adds, {count} are "
                f"{_A_DAY}, and it is judged by them alone: {_WHAT_TO_DO}"
            )


def unseen_warning(found: ReachedDevices) -> str:
    """Return that devices report no version; "": all do."""
    if not found.unseen:
        return ""
    is_one, devices = found.unseen == 1, count_of(len(found.stands), "device")
    report, their = ("reports", "its") if is_one else ("report", "their")
    return (
        f"{found.unseen} of the {devices} {report} no version: {their} updates cannot be seen; "
        "put the version into the URL, see docs/devices"
    )


def soak_warning(plan: RolloutPlan, intervals_ms: Mapping[float, float]) -> str:
    """Return that half of the devices or more do not poll within the soak; "": they do."""
    usual = median(intervals_ms.values()) / 1000 if intervals_ms else 0.0
    if usual <= plan.soak_seconds:
        return ""
    unit = next((unit for unit in _UNITS if usual >= 2 * unit), 1)
    longer = format_duration((math.floor(usual / unit) + 1) * unit)
    what = (
        f"the soak of {format_duration(plan.soak_seconds)} is shorter than the "
        f"{format_duration(max(round(usual / unit), 1) * unit)} that half of the devices wait, "
        "or more, between two checks"
    )
    if is_slow(plan, usual * 1000):
        return f"{what}: each wave takes longer than that"
    return (
        f"{what}: of the devices that the release bricks, few are noticed in it. "
        f"{plan.command(f'change --soak {longer}')} gives them time"
    )
