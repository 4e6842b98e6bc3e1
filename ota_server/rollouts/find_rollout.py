"""Which rollouts there are, and which one an operator means. I/O."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import Refused
from ota_server.policy.policy import RolloutState
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, RolloutWish, is_over
from ota_server.rollouts.files import groups_with_plan, read_plan, read_progress
from ota_server.system.data_dir import existing_folder


class RolloutOnFile(NamedTuple):
    """The last rollout to the fleet or to a group; `progress` None: it has not begun."""

    plan: RolloutPlan
    progress: RolloutProgress | None

    @property
    def is_on(self) -> bool:
        """Whether it goes on, or could."""
        return self.plan.wanted != RolloutWish.ABORT and not is_over(self.plan, self.progress)


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


def find_rollout(data_dir: Path, group: str | None, or_over: bool = False) -> RolloutOnFile:
    """Return the rollout that an operator means.

    Args:
        group: whose; "" is the whole fleet; None: it is the one that is on.
        or_over: one that is over will do.

    Raises:
        Refused: there is none, or there are several.
        BadPolicy, OSError: a plan cannot be used or read.
    """
    found = [each for each in all_rollouts(data_dir) if group in (None, each.plan.group)]
    open_ones = [each for each in found if each.is_on]
    chosen = open_ones or (found if or_over else [])
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        named = ", ".join(
            f"--group {plan.group or repr('')} ({plan.version})" for plan, _ in chosen
        )
        raise Refused(f"there are several rollouts; say which one: {named}")
    if (found and group is not None) or len(found) == 1:
        plan, progress = found[0]
        raise Refused(f"the rollout of {plan.version} is over: {over_text(plan, progress)}")
    if group is not None:
        raise no_such_rollout(all_rollouts(data_dir), group)
    raise Refused("no rollout is on; `rollout start VERSION` begins one")


def no_such_rollout(found: Sequence[RolloutOnFile], group: str | None) -> Refused:
    """Return what to say where there is no rollout to a group; None: where there is none at all."""
    if group is None or not found:
        return Refused("there is no rollout; `rollout start VERSION` begins one")
    others = ", ".join(_whom(plan.group) for plan, _ in found)
    return Refused(f"no rollout {_whom(group)}; there is one {others}")


def _whom(group: str) -> str:
    return f"to group {group}" if group else "to the fleet"


def over_text(plan: RolloutPlan, progress: RolloutProgress | None) -> str:
    """Return how a rollout ended, and what to do about that."""
    is_aborted = plan.wanted == RolloutWish.ABORT or progress is None
    state = RolloutState.ABORTED if is_aborted or progress is None else progress.state
    reason = progress.reason if progress is not None and state == RolloutState.HALTED else ""
    if plan.is_revert:
        why = f" ({reason})" if reason else ""
        how = "is done" if state == RolloutState.DONE else f"was {state}{why}"
        return f"the revert {how}; `rollout start VERSION` begins another rollout"
    if state == RolloutState.HALTED:
        return (
            f"it was halted ({reason}). {plan.version} is withdrawn: publish a fixed release under "
            "another version and roll that out, or go back by `rollout abort --revert`"
        )
    if state == RolloutState.ABORTED:
        return (
            "it was aborted; `rollout start` begins another one, `rollout abort --revert` goes back"
        )
    return "it is done; `rollout start` begins another one"
