"""The files of rollouts: plans, progress, checkpoints, and what the end of one changes. I/O.

Those that several write (stopped.json, targets.json, version.txt) are changed under `audit.locked`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.files import find, open_found, replace
from ota_server.follow import Position
from ota_server.plan import (
    Plan,
    Progress,
    format_plan,
    group_of_plan_name,
    parse_plan,
    parse_progress,
    plan_name,
    progress_name,
)
from ota_server.policy import STOPPED_NAME, TARGETS_NAME, BadPolicy, parse_stopped, parse_targets
from ota_server.release import NoVersion, meaning, parse_version_file, same_version

VERSION_NAME = "version.txt"
_MAX_BYTES = 64 * 1024 * 1024


class Checkpoint(NamedTuple):
    """Where the controller was: all that it needs to go on as if it had never ended.

    Attributes:
        id: of the plan.
        progress: how far the rollout was; None: its first wave was not open yet.
        position: in the journal, up to which records are folded into `fold`.
        alive_ms: when this was written.
        members: the devices that a way back concerns; None: it is no way back.
    """

    id: str
    progress: Progress | None
    position: Position | None
    alive_ms: int
    members: frozenset[str] | None
    fold: bytes


def groups_with_plan(data_dir: Path) -> list[str]:
    """Return for whom there is a plan; "" is the whole fleet."""
    names = sorted(os.listdir(data_dir / "version"))
    return [group for group in map(group_of_plan_name, names) if group is not None]


def read_plan(data_dir: Path, group: str) -> Plan | None:
    """Return the plan for a group, None if there is none.

    Raises:
        BadPolicy: it cannot be used; the message names the file.
        OSError: it cannot be read.
    """
    path = data_dir / "version" / plan_name(group)
    try:
        content = _read(path.parent, path.name)
        if content is None and os.path.lexists(path):
            raise BadPolicy("is no regular file in its folder")
        return None if content is None else parse_plan(content)
    except BadPolicy as problem:
        raise BadPolicy(
            f"{path} {problem}; mend it, or delete it: that ends the rollout, and who has its "
            "release gets the target again"
        ) from None


def write_plan(data_dir: Path, plan: Plan) -> None:
    """Replace the plan for its group."""
    replace(data_dir / "version" / plan_name(plan.group), format_plan(plan))


def read_progress(data_dir: Path, plan: Plan) -> Progress | None:
    """Return how far a rollout is; None where that is not on record."""
    content = _read(data_dir / "version", progress_name(plan.group))
    try:
        progress = None if content is None else parse_progress(content)
    except BadPolicy:
        return None  # the controller alone writes it, and writes it anew
    return progress if progress is not None and progress.id == plan.id else None


def write_progress(data_dir: Path, group: str, progress: Progress) -> None:
    """Replace the progress of the rollout to a group."""
    replace(data_dir / "version" / progress_name(group), format_plan(progress))


def read_checkpoint(log_dir: Path, plan: Plan) -> Checkpoint | None:
    """Return the checkpoint of a rollout; None where there is none that can be used."""
    content = _read(log_dir, _checkpoint_name(plan.group))
    head, newline, fold = (content or b"").partition(b"\n")
    if not newline:
        return None
    try:
        fields = json.loads(head)
        progress, position = fields["progress"], fields["position"]
        members = fields["members"]
        checkpoint = Checkpoint(
            fields["id"],
            None if progress is None else parse_progress(json.dumps(progress).encode("ascii")),
            None if position is None else Position(*position),
            int(fields["alive_ms"]),
            None if members is None else frozenset(members),
            fold,
        )
    except (KeyError, TypeError, ValueError):
        return None
    return checkpoint if checkpoint.id == plan.id else None


def write_checkpoint(log_dir: Path, group: str, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint of the rollout to a group."""
    members = checkpoint.members
    head = {
        "id": checkpoint.id,
        "progress": checkpoint.progress and checkpoint.progress._asdict(),
        "position": checkpoint.position,
        "alive_ms": checkpoint.alive_ms,
        "members": None if members is None else sorted(members),
    }
    content = json.dumps(head).encode("ascii") + b"\n" + checkpoint.fold
    replace(log_dir / _checkpoint_name(group), content)


def _checkpoint_name(group: str) -> str:
    return f"rollout_{group}.checkpoint" if group else "rollout.checkpoint"


def read_target(data_dir: Path) -> str | None:
    """Return what version.txt says; None: nothing that can be used."""
    try:
        content = _read(data_dir / "version", VERSION_NAME)
        return None if content is None else parse_version_file(content)[0]
    except (NoVersion, OSError):
        return None


def write_target(data_dir: Path, version: str) -> None:
    """Make a version the target of the fleet; the file ends as it ended before."""
    content = _read(data_dir / "version", VERSION_NAME) or b""
    try:
        end = parse_version_file(content)[1]
    except NoVersion:
        end = ""
    replace(data_dir / "version" / VERSION_NAME, f"{version}{end}".encode("ascii"))


def read_base(data_dir: Path, group: str) -> str | None:
    """Return the target of a group, or that of the fleet where it has none; None: none.

    Raises:
        BadPolicy: targets.json cannot be used.
        OSError: it cannot be read.
    """
    targets = read_group_targets(data_dir) if group else {}
    return targets[group] if group in targets else read_target(data_dir)


def read_group_targets(data_dir: Path) -> dict[str, str]:
    """Return the targets of the groups that have one of their own.

    Raises:
        BadPolicy: targets.json cannot be used.
        OSError: it cannot be read.
    """
    return parse_targets(_read(data_dir / "version", TARGETS_NAME) or b"{}")


def set_group_target(data_dir: Path, group: str, version: str) -> None:
    """Give a group a target of its own."""
    content = _read(data_dir / "version", TARGETS_NAME) or b"{}"
    targets = {**parse_targets(content), group: version}
    _write_json(data_dir / "version" / TARGETS_NAME, targets)


def clear_group_targets(data_dir: Path) -> None:
    """Let all groups have the target of the fleet."""
    if _read(data_dir / "version", TARGETS_NAME) is not None:
        _write_json(data_dir / "version" / TARGETS_NAME, {})


def read_stopped(data_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the releases that were stopped, as they stand in stopped.json.

    Raises:
        BadPolicy: it cannot be used.
        OSError: it cannot be read.
    """
    content = _read(data_dir / "version", STOPPED_NAME) or b"{}"
    try:
        parse_stopped(content)
    except BadPolicy as problem:
        raise BadPolicy(f"{data_dir / 'version' / STOPPED_NAME} {problem}; mend it") from None
    stopped: dict[str, dict[str, Any]] = json.loads(content.decode("utf-8-sig"))
    return stopped


def stopped_entry(stopped: Mapping[str, dict[str, Any]], version: str) -> dict[str, Any] | None:
    """Return what is on record of a release that was stopped; None: it was not."""
    return next((stopped[name] for name in stopped if same_version(name, version)), None)


def set_stopped(data_dir: Path, version: str, entry: Mapping[str, Any] | None) -> None:
    """Put a release among those that were stopped, or take it from them.

    Raises:
        BadPolicy: stopped.json cannot be used.
        OSError: it cannot be read or written.
    """
    before = read_stopped(data_dir)
    after: dict[str, Any] = {
        name: each for name, each in before.items() if meaning(name) != meaning(version)
    }
    if entry is not None:
        after[version] = dict(entry)
    if after != before:
        write_stopped(data_dir, after)


def write_stopped(data_dir: Path, stopped: Mapping[str, dict[str, Any]]) -> None:
    """Replace stopped.json."""
    _write_json(data_dir / "version" / STOPPED_NAME, stopped)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    replace(path, (json.dumps(content, indent=2) + "\n").encode("ascii"))


def _read(folder: Path, name: str) -> bytes | None:
    """Return what a file holds, None if there is none."""
    found = find(folder, name)
    if found is None:
        return None
    try:
        with open(open_found(found), "rb") as file:
            return file.read(_MAX_BYTES * 8)
    except FileNotFoundError:
        return None
