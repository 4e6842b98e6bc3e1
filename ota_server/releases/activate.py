"""The target of the whole fleet, changed by an operator: activated, or rolled back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.model.refusal import Refused
from ota_server.model.version import same_version
from ota_server.policy import audit
from ota_server.policy.policy import StoppedState
from ota_server.policy.targets import clear_group_targets, read_stopped, write_stopped, write_target
from ota_server.releases.inventory import (
    DataDirState,
    Release,
    ReportProgress,
    find_release,
    look_at,
    problem_with,
)
from ota_server.system.data_dir import log_dir
from ota_server.system.locks import locked


class Activated(NamedTuple):
    """A new target.

    Attributes:
        previous: the target before, which may be the same; None: there was no target.
        warning: for the operator; "": there is no warning.
        groups: the previous targets of groups that had another one.
    """

    version: str
    previous: str | None
    warning: str
    groups: Mapping[str, str]


def activate(data_dir: Path, version: str, progress: ReportProgress, is_forced: bool) -> Activated:
    """Make a release the target of the whole fleet, at once.

    Args:
        progress: is told how many bytes of the image are hashed.
        is_forced: even while a rollout to the fleet goes on.

    Raises:
        Refused: nothing was changed.
        Busy: another command takes too long.
        OSError: something cannot be read or written.
    """
    _check_image(data_dir, version, progress)
    with locked(data_dir):
        return _change(look_at(data_dir), version, "activate", is_forced)


def rollback(data_dir: Path, progress: ReportProgress, is_forced: bool) -> Activated:
    """Make the previous target, by the audit log, the target of the whole fleet.

    Raises:
        Refused, Busy, OSError: as `activate`.
    """
    version = _previous(look_at(data_dir))
    _check_image(data_dir, version, progress)
    with locked(data_dir):
        state = look_at(data_dir)
        if _previous(state) != version:
            raise Refused(f"another command changed the target to {state.target}; try again")
        return _change(state, version, "rollback", is_forced)


def _previous(state: DataDirState) -> str:
    if state.previous is None:
        raise Refused(
            f"the audit log has no target before {state.target or 'this one'}; "
            "choose one by `release activate VERSION`"
        )
    return state.previous


def _check_image(data_dir: Path, version: str, progress: ReportProgress) -> None:
    """Refuse an image that devices could not get. This takes long: call it without the lock."""
    release = _release(data_dir, version)
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


def _change(state: DataDirState, wanted: str, action: str, is_forced: bool) -> Activated:
    """Write the files. The caller holds the lock."""
    version = _release(state.data_dir, wanted).version
    if state.policy.is_withdrawn(version):
        lift = f"`release withdraw --undo {version}` undoes that"
        if action == "rollback":
            lift = f"`release activate VERSION` sets another target, {lift}"
        raise Refused(f"{version} was withdrawn; {lift}")
    warning = _rollout_warning(state, version, is_forced)
    targets = state.policy.group_targets
    groups = {group: each for group, each in targets.items() if not same_version(each, version)}
    stopped = read_stopped(state.data_dir)
    after = _still_stopped(stopped)
    done = Activated(version, state.target, warning, groups)
    if state.target == version and not targets and after == stopped:
        return done
    details = {"from": state.target, "to": version}
    audit.note(log_dir(state.data_dir), action, version, **details)
    # The target first: after a crash here, devices stay on what was stopped and do not go back to
    # the old target.
    try:
        write_target(state.data_dir, version)
    except OSError:
        # Otherwise `rollback` would go to a target that never was.
        audit.note(log_dir(state.data_dir), audit.NOT_DONE, version, of=action)
        raise
    if targets:
        clear_group_targets(state.data_dir)
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
