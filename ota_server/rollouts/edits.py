"""What operators' commands change of rollouts: the audit log first, then the plan. I/O."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ota_server.model.quantity import format_duration
from ota_server.model.refusal import Refused
from ota_server.policy import audit, edits
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import RolloutState, StoppedState
from ota_server.policy.rollout_plan import (
    NOT_BEGUN,
    RolloutPlan,
    RolloutWish,
)
from ota_server.policy.targets import (
    VERSION_NAME,
    find_image,
    is_same_target,
    read_base,
    read_group_targets,
    read_stopped,
    read_version_file,
    release_here,
    set_stopped,
    stopped_entry,
    targets_before,
)
from ota_server.rollouts.ending import image_problem
from ota_server.rollouts.files import read_plan, read_progress, write_plan
from ota_server.rollouts.find_rollout import RolloutOnFile, find_rollout
from ota_server.rollouts.history import note_replaced
from ota_server.system import clock
from ota_server.system.data_dir import access_problem, existing_folder, log_dir
from ota_server.system.files import is_full

# These are done even where a full disk keeps them out of the audit log.
_STOPS = ("rollout pause", "rollout abort")
# What a person calls the limits of a plan.
LIMITS = {"soak_seconds": "soak", "grace_seconds": "apply grace", "max_failures": "max. failures"}


def check_start(data_dir: Path, plan: RolloutPlan) -> str | None:
    """Return the target that a rollout begins from.

    Raises:
        Refused: it may not begin.
        BadPolicy, OSError: a file cannot be used or read.
    """
    existing_folder(data_dir, "version")
    version_file = read_version_file(data_dir)
    problem = version_file.problem
    if problem and version_file.is_there:
        # What makes another target moves the whole fleet: nothing to advise for a group.
        other = "" if plan.group else ", or make another target by `release activate VERSION`"
        path = data_dir / "version" / VERSION_NAME
        raise Refused(f"{path} {problem}; fix it{other}, then begin")
    release_here(data_dir, plan.version)
    for group in filter(None, (plan.group, plan.first_group)):
        edits.check_group(data_dir, group)
    _check_first_group(data_dir, plan)
    base = read_base(data_dir, plan.group)
    if is_same_target(base, plan.version):
        whose = f"group {plan.group}" if plan.group else "fleet"
        raise Refused(f"{plan.version} is the target of the {whose} already: nothing to roll out")
    before = read_plan(data_dir, plan.group)
    if before and RolloutOnFile(before, read_progress(data_dir, before)).is_on:
        whom = f" to {plan.group}" if plan.group else ""
        raise Refused(
            f"a rollout of {before.version}{whom} is on; `rollout status` shows it, "
            f"{plan.command('abort')} ends it"
        )
    return base


def _check_first_group(data_dir: Path, plan: RolloutPlan) -> None:
    """Check that the rollout does not leave the devices of its first wave alone.

    Raises:
        Refused: it does.
        BadPolicy, OSError: targets.json cannot be used or read.
    """
    if plan.first_group is None or plan.group or plan.groups_too:
        return
    target = read_group_targets(data_dir).get(plan.first_group)
    if target is not None:
        raise Refused(
            f"group {plan.first_group} has a target of its own, {target}, so a rollout to the "
            "fleet leaves it alone: give --groups-too to reach such groups, or roll out to it "
            f"first, by --group {plan.first_group}"
        )


def start(data_dir: Path, plan: RolloutPlan) -> RolloutPlan:
    """Begin a rollout; return its plan.

    Raises:
        Refused, Busy, BadPolicy, OSError: it does not begin.
    """
    with edits.changing(data_dir):
        plan = plan._replace(instead_of=check_start(data_dir, plan))
        waves = ",".join(f"{percent:g}" for percent in plan.waves)
        with noted(data_dir, "rollout start", plan, to=plan.version, waves=waves):
            note_replaced(data_dir, plan.group, clock.now_ms())
            write_plan(data_dir, plan)
        # Devices that have it from a rollout that was aborted belong to this one now.
        set_stopped(data_dir, plan.version, None)
    return plan


def pause(data_dir: Path, group: str | None) -> RolloutPlan:
    """Have a rollout offer nothing new.

    Raises:
        Refused, Busy, BadPolicy, OSError: it stays as it is.
    """
    with edits.changing(data_dir):
        plan, progress = find_rollout(data_dir, group)
        if plan.wanted == RolloutWish.PAUSE:
            raise Refused(f"it is paused already; {plan.command('resume')} goes on")
        moved = {
            "from": NOT_BEGUN if progress is None else progress.state,
            "to": RolloutState.PAUSED,
        }
        return _change(data_dir, "rollout pause", plan, moved, wanted=RolloutWish.PAUSE)


def resume(data_dir: Path, group: str | None) -> RolloutPlan:
    """Have a paused rollout go on, whoever paused it, from the target as it is now.

    Raises:
        Refused, Busy, BadPolicy, OSError: it stays as it is.
    """
    plan, _ = find_rollout(data_dir, group)
    _check_image(data_dir, plan.version)  # it takes long: not under the lock
    with edits.changing(data_dir):
        plan, progress = find_rollout(data_dir, group)
        is_paused = progress is not None and progress.state == RolloutState.PAUSED
        if plan.wanted != RolloutWish.PAUSE and not is_paused:
            raise Refused("it is not paused; `rollout status` shows it")
        if plan.wanted != RolloutWish.PAUSE and progress is not None and progress.lifts:
            raise Refused(f"it would pause again: {progress.reason}")
        base = read_base(data_dir, plan.group)
        if not plan.is_revert and is_same_target(base, plan.version):
            base = plan.instead_of  # it is the target already; a revert goes to the one before that
        number = plan.resumed + 1
        moved = {"from": RolloutState.PAUSED, "to": RolloutState.RUNNING}
        changes = {"wanted": RolloutWish.RUN, "resumed": number, "instead_of": base}
        return _change(data_dir, "rollout resume", plan, moved, **changes)


def _check_image(data_dir: Path, version: str) -> None:
    """Refuse to go on with an image that the server could not send as it was published.

    Raises:
        Refused: the message says what to do.
    """
    policy = PolicyFiles(data_dir).current()
    problem = image_problem(data_dir / "firmware", version, policy)
    image = None if problem else find_image(data_dir / "firmware", version)
    if image is not None:
        problem = access_problem(data_dir, image[1].path)
    if problem:
        raise Refused(f"it would pause again: {problem}")


def change(data_dir: Path, group: str | None, limits: Mapping[str, float]) -> RolloutPlan:
    """Give a rollout that goes on other limits, by their names in the plan.

    Raises:
        Refused, Busy, BadPolicy, OSError: it stays as it is.
    """
    with edits.changing(data_dir):
        plan, _ = find_rollout(data_dir, group)
        before = {name: getattr(plan, name) for name in limits}
        if before == limits:
            raise Refused(f"it is so already: {limits_text(limits)}")
        moved = {"from": limits_text(before), "to": limits_text(limits)}
        return _change(data_dir, "rollout change", plan, moved, **limits)


def limits_text(limits: Mapping[str, float]) -> str:
    """Return limits in words, by their names in the plan."""
    return ", ".join(
        f"{LIMITS[name]} {f'{limit:g} %' if name == 'max_failures' else format_duration(limit)}"
        for name, limit in limits.items()
    )


def promote(data_dir: Path, group: str | None) -> tuple[RolloutPlan, int]:
    """Open the next wave at once; return the plan and that wave, counted from 0.

    In the last wave it ends the rollout, which would wait for ever for a device that is unplugged.
    The number that is returned is then one more than there are waves.

    Raises:
        Refused, Busy, BadPolicy, OSError: it stays as it is.
    """
    with edits.changing(data_dir):
        plan, progress = find_rollout(data_dir, group)
        if progress is None:
            raise Refused("it has not begun yet: a server has to run on the data directory")
        if plan.wanted == RolloutWish.PAUSE and not progress.asks:
            raise Refused(f"it is paused; {plan.command('resume')} first")
        wave = progress.wave + 1
        is_last = wave >= plan.wave_count
        if is_last and plan.promoted >= plan.wave_count:
            raise Refused(
                "the rollout ends already without devices that are missing; `rollout status` shows "
                "it"
            )
        moved = {"from": f"wave {wave}", "to": "end" if is_last else f"wave {wave + 1}"}
        return _change(
            data_dir, "rollout promote", plan, moved, promoted=wave, wanted=RolloutWish.RUN
        ), wave


def abort(data_dir: Path, group: str | None, now: str) -> RolloutPlan:
    """End a rollout; devices that have the release stay on it.

    Raises:
        Refused, Busy, BadPolicy, OSError: it goes on.
    """
    with edits.changing(data_dir):
        plan, _ = find_rollout(data_dir, group)
        return write_abort(data_dir, plan, now)


def write_abort(data_dir: Path, plan: RolloutPlan, now: str) -> RolloutPlan:
    """Write that a rollout is aborted, under the lock of `policy.edits.changing`."""
    with noted(data_dir, "rollout abort", plan):
        # Before the plan: in between no device is to be taken back. A revert keeps what it has.
        entry = stopped_entry(read_stopped(data_dir), plan.version)
        if entry is None and not plan.is_revert:
            entry = {"state": StoppedState.ABORTED, **targets_before(data_dir, plan), "time": now}
            set_stopped(data_dir, plan.version, entry)
        plan = plan._replace(wanted=RolloutWish.ABORT)
        write_plan(data_dir, plan)
    return plan


def close_halted(data_dir: Path, plan: RolloutPlan) -> None:
    """Record that a rollout that was halted left nothing to take back: nobody need be told of it.

    Raises:
        Busy, BadPolicy, OSError: that is not done.
    """
    with edits.changing(data_dir):
        now, progress = find_rollout(data_dir, plan.group, or_over=True)
        is_halted = progress is not None and progress.state == RolloutState.HALTED
        if is_halted and now.id == plan.id and now.wanted != RolloutWish.ABORT:
            moved = {"from": RolloutState.HALTED, "to": RolloutState.ABORTED}
            _change(data_dir, "rollout abort", plan, moved, wanted=RolloutWish.ABORT)


def _change(
    data_dir: Path, action: str, plan: RolloutPlan, moved: Mapping[str, str], **changes: Any
) -> RolloutPlan:
    """Write a plan again. `moved`: from what to what, for the audit log."""
    with noted(data_dir, action, plan, **moved):
        plan = plan._replace(**changes)
        write_plan(data_dir, plan)
    return plan


def noted(
    data_dir: Path, action: str, plan: RolloutPlan, **details: str | None
) -> AbstractContextManager[None]:
    """Put on record what an operator does to a rollout: see `audit.noted`."""
    more: Mapping[str, str | None] = {
        "group": plan.group or None,
        "rollout": plan.id,
        "from": plan.reverts or plan.instead_of,
        **details,
    }
    logs = log_dir(data_dir)
    if action in _STOPS:
        return audit.noted(logs, action, plan.version, is_full, **more)
    return audit.noted(logs, action, plan.version, **more)
