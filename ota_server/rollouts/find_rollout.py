"""Which rollouts there are, and which one an operator means. I/O."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import BadPolicy, Refused
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    RolloutWish,
    is_over,
    plan_name,
    progress_name,
    waits_for_person,
)
from ota_server.policy.rollout_text import after_halt
from ota_server.policy.targets import is_same_target, read_base
from ota_server.rollouts.files import groups_with_plan, read_plan, read_progress
from ota_server.system import clock
from ota_server.system.data_dir import existing_folder

# For so long `rollout status` shows a rollout that is over; after that `rollout history` has it.
_SHOWN_MS = 24 * 3600 * 1000


class RolloutOnFile(NamedTuple):
    """The last rollout to the fleet or to a group; `progress` None: it has not begun."""

    plan: RolloutPlan
    progress: RolloutProgress | None

    @property
    def is_on(self) -> bool:
        """Whether it goes on, or could."""
        return self.plan.wanted != RolloutWish.ABORT and not is_over(self.plan, self.progress)

    @property
    def is_done(self) -> bool:
        """Whether it has reached all."""
        return self.progress is not None and self.progress.state == RolloutState.DONE

    @property
    def is_halted(self) -> bool:
        """Whether it was halted."""
        return self.progress is not None and self.progress.state == RolloutState.HALTED


def all_rollouts(data_dir: Path) -> list[RolloutOnFile]:
    """Return the last rollout to the fleet and to each group, whether it is over or not.

    Raises:
        Refused: it is not a data directory.
        BadPolicy, OSError: a plan cannot be used or read.
    """
    existing_folder(data_dir, "version")
    plans = [read_plan(data_dir, group) for group in groups_with_plan(data_dir)]
    return [
        RolloutOnFile(plan, read_progress(data_dir, plan)) for plan in plans if plan is not None
    ]


def recent_rollouts(data_dir: Path, now_ms: int) -> list[RolloutOnFile]:
    """Return the rollouts that are on, and those that ended within a day.

    Raises:
        Refused, BadPolicy, OSError: as `all_rollouts`.
    """
    return [
        each
        for each in all_rollouts(data_dir)
        if each.is_on or now_ms - ended_ms(data_dir, each.plan, now_ms) < _SHOWN_MS
    ]


def ended_ms(data_dir: Path, plan: RolloutPlan, now_ms: int) -> int:
    """Return when a rollout that is over ended: when one of its two files was written last."""
    written_ms = 0
    for name in (plan_name(plan.group), progress_name(plan.group)):
        try:
            written_ms = max(written_ms, os.stat(data_dir / "version" / name).st_mtime_ns // 10**6)
        except OSError:
            continue
    return min(written_ms, now_ms)


def end_of(data_dir: Path, rollout: RolloutOnFile, now_ms: int) -> int | None:
    """Return when a rollout ended; None: it is on."""
    return None if rollout.is_on else ended_ms(data_dir, rollout.plan, now_ms)


def needs_person(data_dir: Path, rollout: RolloutOnFile) -> bool:
    """Return whether a rollout waits for a person, or was halted and nobody has answered that."""
    if rollout.is_halted:
        return not is_answered(data_dir, rollout)
    return waits_for_person(*rollout)


def is_answered(data_dir: Path, rollout: RolloutOnFile) -> bool:
    """Return whether a person has done something about a rollout that was halted or aborted.

    Devices have another target than when it began, or `abort --revert` found nothing to take back.
    """
    plan = rollout.plan
    if rollout.is_halted and plan.wanted == RolloutWish.ABORT:
        return True
    try:
        return not is_same_target(read_base(data_dir, plan.group), plan.instead_of)
    except (BadPolicy, OSError):
        return False


def find_rollout(data_dir: Path, group: str | None, or_over: bool = False) -> RolloutOnFile:
    """Return the rollout that an operator means.

    Args:
        group: whose; "" is the whole fleet; None: it is the one that is on.
        or_over: one that was halted or aborted will do, and is meant rather than an older one.

    Raises:
        Refused: there is none, or there are several.
        BadPolicy, OSError: a plan cannot be used or read.
    """
    now_ms = clock.now_ms()
    found = [each for each in all_rollouts(data_dir) if group in (None, each.plan.group)]
    found.sort(key=lambda each: ended_ms(data_dir, each.plan, now_ms))
    chosen = [each for each in found if each.is_on]
    if or_over:
        stopped = [each for each in found if not each.is_on and not each.is_done]
        chosen += [each for each in stopped if _is_open(data_dir, each, now_ms)]
        chosen = chosen or stopped or found[-1:]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        named = ", ".join(
            f"--group {plan.group or repr('')} ({plan.version})" for plan, _ in chosen
        )
        raise Refused(f"there are several rollouts; say which one: {named}")
    halted = [each for each in found if each.is_halted and not is_answered(data_dir, each)]
    last = halted or (found if group is not None or len(found) == 1 else [])
    if last:
        plan, progress = last[-1]
        raise Refused(f"the rollout of {plan.version} is over: {over_text(plan, progress)}")
    if group is not None:
        raise no_such_rollout(all_rollouts(data_dir), group)
    raise Refused("no rollout is on; `rollout start VERSION` begins one")


def _is_open(data_dir: Path, stopped: RolloutOnFile, now_ms: int) -> bool:
    """Return whether somebody may still want to do something about a rollout that did not end well.

    After a day it has to be named.
    """
    is_recent = now_ms - ended_ms(data_dir, stopped.plan, now_ms) < _SHOWN_MS
    return is_recent and not is_answered(data_dir, stopped)


def must_name_fleet(data_dir: Path) -> bool:
    """Return whether `rollout abort --revert` could mean the rollout to a group as well."""
    try:
        now_ms = clock.now_ms()
        return any(
            each.is_on or (not each.is_done and _is_open(data_dir, each, now_ms))
            for each in all_rollouts(data_dir)
            if each.plan.group
        )
    except (Refused, BadPolicy, OSError):
        return True


def no_such_rollout(found: Sequence[RolloutOnFile], group: str | None) -> Refused:
    """Return what to say where there is no rollout to a group; None: where there is none at all."""
    if group is None or not found:
        to_group = f" --group {group}" if group else ""
        return Refused(f"there is no rollout; `rollout start VERSION{to_group}` begins one")
    others = ", ".join(_whom(plan.group) for plan, _ in found)
    return Refused(f"no rollout {_whom(group)}; there is one {others}")


def _whom(group: str) -> str:
    return f"to group {group}" if group else "to the fleet"


def over_text(plan: RolloutPlan, progress: RolloutProgress | None) -> str:
    """Return how a rollout ended, and what to do about that."""
    is_aborted = plan.wanted == RolloutWish.ABORT or progress is None
    state = RolloutState.ABORTED if is_aborted or progress is None else progress.state
    reason = progress.reason if progress is not None and state == RolloutState.HALTED else ""
    another = f"{plan.command('start VERSION')} begins another one"
    if plan.is_revert:
        why = f" ({reason})" if reason else ""
        how = "is done" if state == RolloutState.DONE else f"was {state}{why}"
        return f"the revert {how}; {another}"
    if state == RolloutState.HALTED:
        return f"it was halted ({reason}). {after_halt(plan)}"
    if state == RolloutState.ABORTED:
        back = f", {plan.command('abort --revert')} goes back" if plan.has_way_back else ""
        return f"it was aborted; {another}{back}"
    return f"it is done; {another}"
