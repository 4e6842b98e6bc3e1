"""What operators' commands change of rollouts: on record first, then the plan itself. I/O."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ota_server.model.refusal import Refused
from ota_server.model.version import image_name, spellings
from ota_server.policy import audit, edits
from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.policy import RolloutState, StoppedState
from ota_server.policy.rollout_plan import (
    NOT_BEGUN,
    RolloutPlan,
    RolloutProgress,
    RolloutWish,
    is_over,
)
from ota_server.policy.targets import (
    VERSION_NAME,
    is_same_target,
    read_base,
    read_group_targets,
    read_stopped,
    set_stopped,
    stopped_entry,
    targets_before,
)
from ota_server.releases.inventory import target_problem
from ota_server.rollouts.files import groups_with_plan, read_plan, read_progress, write_plan
from ota_server.system.data_dir import log_dir
from ota_server.system.files import find

# What a full disk must not keep from being done.
_STOPS = ("rollout pause", "rollout abort")

Found = tuple[RolloutPlan, RolloutProgress | None]


def all_rollouts(data_dir: Path) -> list[Found]:
    """Return the last rollout to the fleet and to each group, whether it is over or not.

    Raises:
        Refused: it is no data directory.
        BadPolicy, OSError: a plan cannot be used or read.
    """
    try:
        groups = groups_with_plan(data_dir)
    except FileNotFoundError:
        raise Refused(f"no version/ in {data_dir}; is --data-dir right?") from None
    plans = [read_plan(data_dir, group) for group in groups]
    return [(plan, read_progress(data_dir, plan)) for plan in plans if plan is not None]


def is_on(plan: RolloutPlan, progress: RolloutProgress | None) -> bool:
    """Say whether a rollout goes on, or could."""
    return plan.wanted != RolloutWish.ABORT and not is_over(plan, progress)


def the_rollout(data_dir: Path, group: str | None, or_over: bool = False) -> Found:
    """Return the rollout that an operator means.

    Args:
        group: whose; "" is the whole fleet; None: it is the one that is on.
        or_over: one that is over will do.

    Raises:
        Refused: there is none, or there are several.
        BadPolicy, OSError: a plan cannot be used or read.
    """
    found = [each for each in all_rollouts(data_dir) if group is None or each[0].group == group]
    open_ones = [each for each in found if is_on(*each)]
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
        raise none_there(all_rollouts(data_dir), group)
    raise Refused("no rollout is on; `rollout start VERSION` begins one")


def none_there(found: Sequence[Found], group: str | None) -> Refused:
    """Return what to say where there is no rollout to a group; None: none at all."""
    if group is None or not found:
        return Refused("there is no rollout; `rollout start VERSION` begins one")
    others = ", ".join(_whom(plan.group) for plan, _ in found)
    return Refused(f"no rollout {_whom(group)}; there is one {others}")


def _whom(group: str) -> str:
    return f"to group {group}" if group else "to the fleet"


def over_text(plan: RolloutPlan, progress: RolloutProgress | None) -> str:
    """Return how a rollout ended, and what to do about that."""
    state = (
        RolloutState.ABORTED
        if plan.wanted == RolloutWish.ABORT or progress is None
        else progress.state
    )
    if plan.is_revert:
        why = (
            f" ({progress.reason})" if progress is not None and state == RolloutState.HALTED else ""
        )
        how = "is done" if state == RolloutState.DONE else f"was {state}{why}"
        return f"the way back {how}; `rollout start VERSION` begins another rollout"
    if state == RolloutState.HALTED and progress is not None:
        return (
            f"it was halted ({progress.reason}). {plan.version} is withdrawn: publish a mended "
            "release under another version and roll that out, or go back by "
            "`rollout abort --revert`"
        )
    if state == RolloutState.ABORTED:
        return (
            "it was aborted; `rollout start` begins another one, `rollout abort --revert` goes back"
        )
    return "it is done; `rollout start` begins another one"


def release_here(data_dir: Path, version: str) -> str:
    """Return the version that means `version` as its image is named.

    Raises:
        Refused: there is no such image, or it was withdrawn.
    """
    firmware_dir = data_dir / "firmware"
    for spelling in spellings(version):
        found = find(firmware_dir, image_name(spelling))
        if found is not None and found.signature.size:
            break
    else:
        path = firmware_dir / image_name(version)
        raise Refused(f"{version} is no release here: there is no {path}; publish it first")
    entry = stopped_entry(read_stopped(data_dir), version)
    if entry is not None and entry.get("state") == StoppedState.WITHDRAWN:
        reason = f" ({entry['reason']})" if entry.get("reason") else ""
        raise Refused(
            f"{version} was withdrawn{reason}; publish a mended release, and roll that out"
        )
    return spelling


def check_start(data_dir: Path, plan: RolloutPlan) -> str | None:
    """Return the target that a rollout begins from.

    Raises:
        Refused: it may not begin.
        BadPolicy, OSError: a file cannot be used or read.
    """
    if not (data_dir / "version").is_dir():
        raise Refused(f"no version/ in {data_dir}; is --data-dir right?")
    problem = target_problem(data_dir)
    if problem:
        raise Refused(
            f"{data_dir / 'version' / VERSION_NAME} {problem}; mend it, or make another target by "
            "`release activate VERSION`, then begin"
        )
    release_here(data_dir, plan.version)
    for group in filter(None, (plan.group, plan.first_group)):
        if not os.path.lexists(data_dir / "version" / GROUPS_FOLDER / f"{group}{GROUP_SUFFIX}"):
            raise Refused(f"there is no group {group}; `group add {group} MAC` makes one")
    _check_first_group(data_dir, plan)
    base = read_base(data_dir, plan.group)
    if is_same_target(base, plan.version):
        whose = f"group {plan.group}" if plan.group else "fleet"
        raise Refused(f"{plan.version} is the target of the {whose} already: nothing to roll out")
    before = read_plan(data_dir, plan.group)
    if before is not None and is_on(before, read_progress(data_dir, before)):
        whom = f" to {plan.group}" if plan.group else ""
        raise Refused(
            f"a rollout of {before.version}{whom} is on; `rollout status` shows it, "
            "`rollout abort` ends it"
        )
    return base


def _check_first_group(data_dir: Path, plan: RolloutPlan) -> None:
    """Refuse a first wave that the rollout would leave alone.

    Raises:
        Refused: it would.
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
        _note(data_dir, "rollout start", plan, to=plan.version, waves=waves)
        write_plan(data_dir, plan)
        # Who has it from a rollout that was aborted belongs to this one now.
        set_stopped(data_dir, plan.version, None)
    return plan


def pause(data_dir: Path, group: str | None) -> RolloutPlan:
    """Have a rollout offer nothing new.

    Raises:
        Refused, Busy, BadPolicy, OSError: it stays as it is.
    """
    with edits.changing(data_dir):
        plan, progress = the_rollout(data_dir, group)
        if plan.wanted == RolloutWish.PAUSE:
            raise Refused("it is paused already; `rollout resume` goes on")
        moved = {
            "from": NOT_BEGUN if progress is None else progress.state,
            "to": RolloutState.PAUSED,
        }
        return _change(data_dir, "rollout pause", plan, moved, wanted=RolloutWish.PAUSE)


def resume(data_dir: Path, group: str | None) -> RolloutPlan:
    """Have a rollout go on that was paused, by whomever, from the target as it is now.

    Raises:
        Refused, Busy, BadPolicy, OSError: it stays as it is.
    """
    with edits.changing(data_dir):
        plan, progress = the_rollout(data_dir, group)
        is_paused = progress is not None and progress.state == RolloutState.PAUSED
        if plan.wanted != RolloutWish.PAUSE and not is_paused:
            raise Refused("it is not paused; `rollout status` shows it")
        if plan.wanted != RolloutWish.PAUSE and progress is not None and progress.lifts:
            raise Refused(f"it would pause again: {progress.reason}")
        base = read_base(data_dir, plan.group)
        if not plan.is_revert and is_same_target(base, plan.version):
            base = plan.instead_of  # it is the target already; back is to the one before that
        number = plan.resumed + 1
        moved = {"from": RolloutState.PAUSED, "to": RolloutState.RUNNING}
        changes = {"wanted": RolloutWish.RUN, "resumed": number, "instead_of": base}
        return _change(data_dir, "rollout resume", plan, moved, **changes)


def promote(data_dir: Path, group: str | None) -> tuple[RolloutPlan, int]:
    """Open the next wave at once; return the plan and that wave, counted from 0.

    In the last wave it ends the rollout: one device that is unplugged would have it wait for ever.
    The wave that is returned is then one that the plan does not have.

    Raises:
        Refused, Busy, BadPolicy, OSError: it stays as it is.
    """
    with edits.changing(data_dir):
        plan, progress = the_rollout(data_dir, group)
        if progress is None:
            raise Refused("it has not begun yet: a server has to run on the data directory")
        if plan.wanted == RolloutWish.PAUSE and not progress.asks:
            raise Refused("it is paused; `rollout resume` first")
        wave = progress.wave + 1
        is_last = wave >= plan.wave_count
        if is_last and plan.promoted >= plan.wave_count:
            raise Refused(
                "the rollout ends already without those that are missing; `rollout status` shows it"
            )
        if is_last and not progress.asks:
            raise Refused(_last_wave_text(plan))
        moved = {"from": f"wave {wave}", "to": "end" if is_last else f"wave {wave + 1}"}
        return _change(
            data_dir, "rollout promote", plan, moved, promoted=wave, wanted=RolloutWish.RUN
        ), wave


def _last_wave_text(plan: RolloutPlan) -> str:
    text = "its last wave is open, and no device is missing that it could end without"
    if plan.group or plan.is_revert:
        return text
    return (
        f"{text}; `rollout abort`, then `release activate {plan.version}`, makes it the target at "
        "once"
    )


def abort(data_dir: Path, group: str | None, now: str) -> RolloutPlan:
    """End a rollout; who has the release stays on it.

    Raises:
        Refused, Busy, BadPolicy, OSError: it goes on.
    """
    with edits.changing(data_dir):
        plan, _ = the_rollout(data_dir, group)
        return _abort(data_dir, plan, now)


def _abort(data_dir: Path, plan: RolloutPlan, now: str) -> RolloutPlan:
    _note(data_dir, "rollout abort", plan)
    # Before the plan: between the two nobody is to be taken back. A way back keeps what it has.
    entry = stopped_entry(read_stopped(data_dir), plan.version)
    if entry is None and not plan.is_revert:
        entry = {"state": StoppedState.ABORTED, **targets_before(data_dir, plan), "time": now}
        set_stopped(data_dir, plan.version, entry)
    plan = plan._replace(wanted=RolloutWish.ABORT)
    write_plan(data_dir, plan)
    return plan


def check_revert(data_dir: Path, group: str | None) -> tuple[RolloutPlan, bool]:
    """Return the plan that a way back would undo, and whether its rollout is still on.

    Raises:
        Refused: there is no way back.
        BadPolicy, OSError: a file cannot be used or read.
    """
    plan, progress = the_rollout(data_dir, group, or_over=True)
    if plan.is_revert:
        raise Refused(
            "this is a way back already; abort it without --revert, and roll out what you want"
        )
    if progress is not None and progress.state == RolloutState.DONE:
        raise Refused("it is done; `release rollback` goes back to the target before it")
    if plan.instead_of is None:
        raise Refused("there was no target when it began; roll out the release that you want")
    base = read_base(data_dir, plan.group)
    if is_same_target(plan.instead_of, plan.version) or is_same_target(base, plan.version):
        if plan.group:
            raise Refused(
                f"{plan.version} is the target itself; roll out to {plan.group} the release that "
                "you want"
            )
        raise Refused(
            f"{plan.version} is the target itself; `release rollback` goes back to the target "
            "before it, `release activate VERSION` to any other"
        )
    if not is_same_target(base, plan.instead_of):
        raise Refused(
            f"the target is {base or 'nothing'} by now, not {plan.instead_of}: nobody is kept on "
            f"{plan.version}, all get that one"
        )
    release_here(data_dir, plan.instead_of)
    return plan, is_on(plan, progress)


def revert(data_dir: Path, way_back: RolloutPlan, now: str) -> RolloutPlan:
    """Abort a rollout where it is on, and begin the way back from it.

    Raises:
        Refused, Busy, BadPolicy, OSError: that is not done.
    """
    with edits.changing(data_dir):
        plan, is_still_on = check_revert(data_dir, way_back.group)
        if plan.version != way_back.reverts:
            raise Refused("another rollout has begun meanwhile; `rollout status` shows it")
        if is_still_on:
            _abort(data_dir, plan, now)
        _note(data_dir, "rollout revert", way_back, to=way_back.version)
        write_plan(data_dir, way_back)
    return way_back


def _change(
    data_dir: Path, action: str, plan: RolloutPlan, moved: Mapping[str, str], **changes: Any
) -> RolloutPlan:
    """Write a plan anew. `moved`: from what to what, for the audit log."""
    _note(data_dir, action, plan, **moved)
    plan = plan._replace(**changes)
    write_plan(data_dir, plan)
    return plan


def _note(data_dir: Path, action: str, plan: RolloutPlan, **details: str | None) -> None:
    more: Mapping[str, str | None] = {
        "group": plan.group or None,
        "rollout": plan.id,
        "from": plan.reverts or plan.instead_of,
        **details,
    }
    note = audit.note_if_room if action in _STOPS else audit.note
    note(log_dir(data_dir), action, plan.version, **more)
