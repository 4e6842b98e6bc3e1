"""The target of the whole fleet, changed by an operator: activated, or rolled back."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.model.refusal import Refused
from ota_server.model.version import same_version
from ota_server.policy import audit
from ota_server.policy.edits import group_path
from ota_server.policy.policy import StoppedState
from ota_server.policy.targets import (
    find_image,
    read_stopped,
    write_group_targets,
    write_stopped,
    write_target,
)
from ota_server.releases.inventory import (
    DataDirState,
    Release,
    ReportProgress,
    find_release,
    look_at,
    problem_with,
)
from ota_server.releases.remarks import remarks
from ota_server.releases.same_devices import check_devices, check_groups
from ota_server.system.data_dir import access_problem, log_dir
from ota_server.system.locks import locked


class Activated(NamedTuple):
    """A new target.

    Attributes:
        previous: the target before, which may be the same; None: there was no target.
        warning: for the operator; "": there is no warning.
        groups: the previous targets of groups that had another one.
        restored: the targets that groups have again.
    """

    version: str
    previous: str | None
    warning: str
    groups: Mapping[str, str]
    restored: Mapping[str, str]


def activate(data_dir: Path, version: str, progress: ReportProgress, is_forced: bool) -> Activated:
    """Make a release the target of the whole fleet, at once.

    Args:
        progress: is told how many bytes of the image are hashed.
        is_forced: even while a rollout to the fleet goes on, even if the image is for another chip
            or of another project than that of the target, or that of a group, and even if it looks
            as if the server could not read it.

    Raises:
        Refused: nothing was changed.
        Busy: another command takes too long.
        OSError: something cannot be read or written.
    """
    _check_image(data_dir, version, progress, is_forced)
    with locked(data_dir):
        if not is_forced:
            check_devices(data_dir, version, has_groups=True)
        return _change(look_at(data_dir), version, "activate", is_forced)


def rollback(data_dir: Path, progress: ReportProgress, is_forced: bool) -> Activated:
    """Make the previous target, by the audit log, the target of the whole fleet.

    It is what devices ran before, so it is not compared with the target. Groups have the targets
    again that the activation took from them.

    Args:
        is_forced: even while a rollout to the fleet goes on, and even if a group would lose a
            target for other devices.

    Raises:
        Refused, Busy, OSError: as `activate`.
    """
    version = _previous(look_at(data_dir))
    _check_image(data_dir, version, progress, is_forced)
    with locked(data_dir):
        state = look_at(data_dir)
        if _previous(state) != version:
            raise Refused(f"another command changed the target to {state.target}; try again")
        restored, lost = _group_targets_before(state, version)
        if not is_forced:
            groups = state.policy.group_targets
            check_groups(data_dir, version, [each for each in groups if each not in restored])
        return _change(state, version, "rollback", is_forced, restored, lost)


def _group_targets_before(state: DataDirState, version: str) -> tuple[dict[str, str], list[str]]:
    """Return the targets that groups get back, and warnings of those that are gone."""
    restored, lost = {}, []
    wanted = version, state.target
    way = [*audit.done(audit.entries(log_dir(state.data_dir)))]
    made = (each for each in reversed(way) if (each.get("from"), each.get("to")) == wanted)
    for group, target in audit.targets_taken(next(made, {})).items():
        if not os.path.lexists(group_path(state.data_dir / "version", group)):
            continue
        is_withdrawn = state.policy.is_withdrawn(target)
        if not is_withdrawn and find_image(state.firmware_dir, target) is not None:
            restored[group] = target
            continue
        why = "was withdrawn" if is_withdrawn else "has no image any longer"
        lost.append(
            f"group {group} stays without a target of its own: {target}, which it had, {why}; its "
            f"devices get {version}"
        )
    return restored, lost


def _previous(state: DataDirState) -> str:
    if state.previous is None:
        raise Refused(
            f"the audit log has no target before {state.target or 'this one'}; "
            "choose one by `release activate VERSION`"
        )
    return state.previous


def _check_image(data_dir: Path, version: str, progress: ReportProgress, is_forced: bool) -> None:
    """Refuse an image that devices could not get. This takes long: call it without the lock."""
    release = _release(data_dir, version)
    problem = "" if release.image is None else access_problem(data_dir, release.image.path)
    if problem and not is_forced:  # owner and mode are not all that there is
        raise Refused(f"{release.version} cannot be offered: {problem}, then try again")
    if release.manifest is None and not release.problem:
        return  # copied in by hand: there is nothing to compare it with
    problem = problem_with(release, progress)
    if problem:
        raise Refused(
            f"{release.version} cannot be offered: {problem}; publish the same build again "
            "to restore it"
        )


def _release(data_dir: Path, version: str) -> Release:
    release = find_release(data_dir / "firmware", version)
    if release is None or release.image is None:
        raise Refused(
            f"there is no image of {version}; `release publish FILE --version {version}` adds "
            "one, `release list` shows what there is"
        )
    return release


def _change(
    state: DataDirState,
    wanted: str,
    action: str,
    is_forced: bool,
    restored: Mapping[str, str] = {},
    lost: Sequence[str] = (),
) -> Activated:
    """Write the files. The caller holds the lock."""
    release = _release(state.data_dir, wanted)
    version = release.version
    if state.policy.is_withdrawn(version):
        lift = f"`release withdraw --undo {version}` undoes that"
        if action == "rollback":
            lift = f"`release activate VERSION` sets another target, {lift}"
        raise Refused(f"{version} was withdrawn; {lift}")
    found = _rollout_warning(state, version, is_forced), *lost, *remarks(state.data_dir, release)
    targets = state.policy.group_targets
    taken = {group: each for group, each in targets.items() if group not in restored}
    groups = {group: each for group, each in taken.items() if not same_version(each, version)}
    stopped = read_stopped(state.data_dir)
    after = _still_stopped(stopped)
    done = Activated(version, state.target, "; ".join(filter(None, found)), groups, restored)
    if state.target == version and not targets and after == stopped:
        return done
    details = {"from": state.target, "to": version, audit.GROUP_TARGETS: taken or None}
    # The target first: after a crash here, devices stay on what was stopped and do not go back to
    # the old target.
    with audit.noted(log_dir(state.data_dir), action, version, **details):
        # Those that groups have again before that: till then they have the one that is left.
        write_group_targets(state.data_dir, {**targets, **restored})
        write_target(state.data_dir, version)
    write_group_targets(state.data_dir, restored)
    if after != stopped:
        write_stopped(state.data_dir, after)
    return done


def _rollout_warning(state: DataDirState, version: str, is_forced: bool) -> str:
    """Return a warning of a rollout to the fleet that goes on; "": there is no rollout.

    Raises:
        Refused: there is a rollout, and the change is not forced.
    """
    rollout = state.policy.rollouts.get("")
    if rollout is None:
        return ""
    if is_forced:
        return f"the rollout of {rollout.version} is still there: `rollout abort` ends it"
    if same_version(rollout.version, version):
        raise Refused(
            f"a rollout of {version} to the fleet is going on and will end by itself; "
            f"`rollout abort`, then `release activate {version}`, makes it the target at once"
        )
    raise Refused(
        f"a rollout of {rollout.version} to the fleet is going on; end it by "
        "`rollout abort` first, or change the target with --force, which pauses the rollout"
    )


def _still_stopped(stopped: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what stays stopped when devices on stopped releases go to the new target."""
    after = {}
    for name, entry in stopped.items():
        if entry["state"] != StoppedState.ABORTED:
            # Its devices stay on it only while it is itself the target.
            after[name] = {**entry, "instead_of": name}
            after[name].pop("group_targets", None)
    return after
