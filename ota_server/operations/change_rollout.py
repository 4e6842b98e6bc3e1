"""What an operator does to a rollout that has begun, with its checks, and what came of it. I/O.

Each function takes the group of the rollout: "" is the fleet, None means the one that is on. Each
raises Refused, Busy, BadPolicy or OSError where nothing was changed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ota_server.model.quantity import count_of
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.operations.after_change import WRONG_FOLDER, hold_warning, no_server_warning
from ota_server.operations.start_rollout import refuse_development
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.policy.rollout_text import who_stays
from ota_server.releases.same_devices import check_way_back
from ota_server.rollouts import edits
from ota_server.rollouts.revert import check_revert, plan_revert
from ota_server.rollouts.revert import revert as begin_revert
from ota_server.system import clock


class RolloutChanged(NamedTuple):
    """What was done to a rollout.

    Attributes:
        text: what was done, in a sentence; commands in backticks.
        warnings: why devices may not notice it now.
    """

    text: str
    warnings: tuple[str, ...] = ()


class PlannedRevert(NamedTuple):
    """A revert before it begins.

    Attributes:
        plan: None: no device has to be taken back, and `text` says why.
        devices: how many are to be taken back.
        undone: the rollout that it undoes.
        is_on: that rollout is not over.
        is_elsewhere: the target has changed since, so no device is kept on the release.
    """

    plan: RolloutPlan | None
    devices: int
    text: str
    undone: RolloutPlan
    is_on: bool
    is_elsewhere: bool = False


def pause(data_dir: Path, group: str | None) -> RolloutChanged:
    """Have a rollout offer nothing new."""
    plan = edits.pause(data_dir, group)
    text = f"the rollout of {plan.version} is paused: no further devices are offered it"
    return RolloutChanged(text, _unless_empty(no_server_warning(data_dir, WRONG_FOLDER)))


def resume(data_dir: Path, group: str | None) -> RolloutChanged:
    """Have a paused rollout go on, whoever paused it."""
    plan = edits.resume(data_dir, group)
    text = f"the rollout of {plan.version} goes on, from {plan.instead_of or 'no target'}"
    return RolloutChanged(text, _why_unnoticed(data_dir))


def change(data_dir: Path, group: str | None, limits: Mapping[str, float]) -> RolloutChanged:
    """Give a rollout other limits while it goes on (`rollout_request.read_limits`)."""
    plan = edits.change(data_dir, group, limits)
    text = f"the rollout of {plan.version} goes on with {edits.limits_text(limits)}"
    return RolloutChanged(text, _unless_empty(no_server_warning(data_dir)))


def promote(data_dir: Path, group: str | None) -> RolloutChanged:
    """Open the next wave at once, or end the last one."""
    plan, wave = edits.promote(data_dir, group)
    if wave < plan.wave_count:
        text = f"wave {wave + 1} of {plan.wave_count} opens, {plan.percent(wave):g} %"
    else:
        text = f"wave {wave} is the last: the rollout ends without the devices that are missing"
    return RolloutChanged(text, _why_unnoticed(data_dir))


def abort(data_dir: Path, group: str | None) -> RolloutChanged:
    """End a rollout; devices that have the release stay on it."""
    plan = edits.abort(data_dir, group, format_time(clock.now_ms()))
    text = f"the rollout of {plan.version} is aborted; {who_stays(plan)}"
    return RolloutChanged(text, _unless_empty(no_server_warning(data_dir, WRONG_FOLDER)))


def preview_revert(data_dir: Path, group: str | None, is_forced: bool = False) -> PlannedRevert:
    """Return what a revert would do; nothing is changed. This reads the journal.

    Args:
        is_forced: also to an image for another chip or of another project.
    """
    now_ms = clock.now_ms()
    refuse_development(data_dir)
    plan, is_on, nothing = check_revert(data_dir, group)
    if nothing:
        return PlannedRevert(None, 0, nothing, plan, is_on, is_elsewhere=True)
    back, reached = plan_revert(data_dir, plan, now_ms, format_time(now_ms))
    devices = len(reached.stands) + reached.inactive
    if not devices:
        return PlannedRevert(None, 0, f"no device runs {plan.version}", plan, is_on)
    if not is_forced:
        check_way_back(data_dir, plan)
    text = f"{count_of(devices, 'device')} on {plan.version} to take back"
    return PlannedRevert(back, devices, text, plan, is_on)


def revert(data_dir: Path, group: str | None, is_forced: bool = False) -> RolloutChanged:
    """Take devices back from a rollout that is on, was aborted or was halted."""
    return revert_planned(data_dir, preview_revert(data_dir, group, is_forced))


def revert_planned(data_dir: Path, planned: PlannedRevert) -> RolloutChanged:
    """Begin the revert that `preview_revert` has returned.

    After a halt, which advises it, it is no failure that there is nothing to do.
    """
    back, undone = planned.plan, planned.undone
    if back is None:
        why = f"{planned.text}, so there is nothing to take back"
        if planned.is_on:
            raise Refused(f"{why}; {undone.command('abort')} alone ends it")
        if not planned.is_elsewhere:
            edits.close_halted(data_dir, undone)
        return RolloutChanged(f"{why}; it is over")
    begin_revert(data_dir, back, back.time)
    waves = ", ".join(f"{percent:g}" for percent in back.waves)
    text = f"they go back to {back.version} in waves of {waves} %; `rollout status` shows it"
    return RolloutChanged(text, _why_unnoticed(data_dir))


def _why_unnoticed(data_dir: Path) -> tuple[str, ...]:
    return _unless_empty(hold_warning(data_dir), no_server_warning(data_dir))


def _unless_empty(*texts: str) -> tuple[str, ...]:
    return tuple(filter(None, texts))
