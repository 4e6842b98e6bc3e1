"""Deleting a group by an operator's command, unless something would then move its devices. I/O."""

import os
from pathlib import Path

from ota_server.model.json_object import format_object
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.policy import audit, edits
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import TARGETS_NAME
from ota_server.policy.targets import read_group_targets
from ota_server.system.data_dir import log_dir
from ota_server.system.files import replace


def delete_group(data_dir: Path, group: str, is_forced: bool) -> str | None:
    """Delete a group; its devices stay on record.

    Args:
        is_forced: even if it has a target of its own, which its devices then lose.

    Returns:
        The target that it had; None: that of the fleet.

    Raises:
        Refused: there is no such group, or it is in use.
        BadPolicy, Busy, OSError: as `edits.changing`.
    """
    with edits.changing(data_dir) as version_dir:
        path = edits.group_path(version_dir, group)
        if not os.path.lexists(path):
            raise Refused(f"there is no group {group}; `group list` shows all")
        _check_unused(data_dir, group)
        targets = dict(read_group_targets(data_dir))
        target = targets.pop(group, None)
        if target is not None and not is_forced:
            raise Refused(
                f"the target of group {group} is {target}, and its devices would get that of the "
                "fleet; --force deletes it all the same"
            )
        with audit.noted(log_dir(data_dir), "group delete", group, **{"from": target}):
            # The list first: a target without a group moves nobody.
            path.unlink()
            if target is not None:
                replace(version_dir / TARGETS_NAME, format_object(targets))
    return target


def _check_unused(data_dir: Path, group: str) -> None:
    policy = PolicyFiles(data_dir).current()
    if policy.problem:
        raise BadPolicy(policy.problem)
    if group in policy.group_pins:
        raise Refused(f"group {group} is pinned; `unpin {group}` first")
    for whose, rollout in policy.rollouts.items():
        if group in (whose, rollout.first_group):
            raise Refused(
                f"the rollout of {rollout.version} to {whose or 'the fleet'} needs group {group}; "
                f"wait for its end, or end it by `rollout abort{f' --group {whose}' * bool(whose)}`"
            )
