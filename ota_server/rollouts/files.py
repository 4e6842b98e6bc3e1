"""The files of rollouts: plans, progress and checkpoints, each with one writer. I/O."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from ota_server.journal.follow import Position
from ota_server.model.json_object import format_object, parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    RolloutWish,
    format_plan,
    group_of_plan_name,
    parse_plan,
    parse_progress,
    plan_name,
    progress_name,
)
from ota_server.system.files import open_regular, read_if_there, replace

ENDED_NAME = "rollouts.jsonl"


class Checkpoint(NamedTuple):
    """Where the controller was: all that it needs to go on as if it had never ended.

    Attributes:
        id: of the plan.
        progress: how far the rollout was; None: its first wave was not open yet.
        position: in the journal, up to which records are folded into `fold`.
        alive_ms: when this was written.
        members: the devices that a revert is for; None: it is not a revert.
        completion_unknown: as `ServerFacts` said, for those who only read.
    """

    id: str
    progress: RolloutProgress | None
    position: Position | None
    alive_ms: int
    members: frozenset[str] | None
    fold: bytes
    completion_unknown: bool = False


def groups_with_plan(data_dir: Path) -> list[str]:
    """Return the groups for which there is a plan; "" is the whole fleet."""
    names = sorted(os.listdir(data_dir / "version"))
    return [group for group in map(group_of_plan_name, names) if group is not None]


def devices_command(data_dir: Path, group: str, version: str = "") -> str:
    """Return the command that lists the devices of the last rollout to a group, and no others.

    Args:
        version: of the last rollout of this one.

    Raises:
        OSError: `version/` cannot be read.
    """
    option = f" --group {group or repr('')}" if groups_with_plan(data_dir) != [""] else ""
    return f"`rollout devices{f' {version}' * bool(version)}{option}`"


def read_plan(data_dir: Path, group: str) -> RolloutPlan | None:
    """Return the plan for a group, or None if there is no such file.

    Raises:
        BadPolicy: it cannot be used; the message names the file.
        OSError: it cannot be read.
    """
    path = data_dir / "version" / plan_name(group)
    try:
        content = read_if_there(path.parent, path.name)
        if content is None and os.path.lexists(path):
            raise BadPolicy("is not a regular file in its folder")
        return None if content is None else parse_plan(content)
    except BadPolicy as problem:
        raise BadPolicy(
            f"{path} {problem}; fix it, or delete it: that ends the rollout, and devices that "
            "have its release get the target again"
        ) from None


def write_plan(data_dir: Path, plan: RolloutPlan) -> None:
    """Replace the plan for its group."""
    path, is_stop = data_dir / "version" / plan_name(plan.group), plan.wanted != RolloutWish.RUN
    replace(path, format_plan(plan), is_stop=is_stop)


def read_progress(data_dir: Path, plan: RolloutPlan) -> RolloutProgress | None:
    """Return how far a rollout is; None where that is not on record."""
    content = read_if_there(data_dir / "version", progress_name(plan.group))
    try:
        progress = None if content is None else parse_progress(content)
    except BadPolicy:
        return None  # the controller alone writes it, and will write it again
    return progress if progress is not None and plan.has(progress) else None


def write_progress(data_dir: Path, group: str, progress: RolloutProgress) -> None:
    """Replace the progress of the rollout to a group."""
    replace(data_dir / "version" / progress_name(group), format_plan(progress))


def read_end(log_dir: Path, rollout_id: str) -> tuple[RolloutPlan, RolloutProgress] | None:
    """Return how a rollout ended whose files another one has now; None if that is not on record.

    Of the plan only what the line of its end holds is as it was, and no device is named.
    """
    mark, found = json.dumps(rollout_id).encode("ascii"), None
    try:
        with open(open_regular(log_dir / ENDED_NAME), "rb") as file:
            for line in file:  # of half a megabyte at most; there may be hundreds
                if mark in line and (end := _parsed_end(line)) and end[1].id == rollout_id:
                    found = end
    except OSError:
        return found
    return found


def _parsed_end(line: bytes) -> tuple[RolloutPlan, RolloutProgress] | None:
    try:
        entry = parse_object(line)
        times, waves = (entry["start_time"], entry["end_time"]), entry["waves"]
        plan = RolloutPlan(
            entry["id"], entry["version"], entry["group"], (100.0,) * waves, times[0], None
        )
        fields = {"wave_time": times[1], "wave": max(entry["wave"] - 1, 0)}
        fields |= {name: entry[name] for name in ("id", "state", "reason", "counts")}
        return plan, parse_progress(format_object(fields))
    except (BadPolicy, KeyError, TypeError, ValueError):
        return None  # a line that was edited


def read_checkpoint(log_dir: Path, plan: RolloutPlan) -> Checkpoint | None:
    """Return the checkpoint of a rollout, or None if there is none that can be used."""
    content = read_if_there(log_dir, _checkpoint_name(plan.group))
    head, newline, fold = (content or b"").partition(b"\n")
    if not newline:
        return None
    try:
        fields = parse_object(head)
        progress, position = fields["progress"], fields["position"]
        members = fields["members"]
        checkpoint = Checkpoint(
            fields["id"],
            None if progress is None else parse_progress(json.dumps(progress).encode("ascii")),
            None if position is None else Position(*position),
            int(fields["alive_ms"]),
            None if members is None else frozenset(members),
            fold,
            fields.get("completion_unknown") is True,
        )
    except (KeyError, TypeError, ValueError):
        return None
    is_right = checkpoint.id == plan.id and (
        checkpoint.progress is None or plan.has(checkpoint.progress)
    )
    return checkpoint if is_right else None


def write_checkpoint(log_dir: Path, group: str, checkpoint: Checkpoint) -> int:
    """Replace the checkpoint of the rollout to a group; return how many bytes it has."""
    members = checkpoint.members
    head = {
        "id": checkpoint.id,
        "progress": checkpoint.progress and checkpoint.progress._asdict(),
        "position": checkpoint.position,
        "alive_ms": checkpoint.alive_ms,
        "members": None if members is None else sorted(members),
        "completion_unknown": checkpoint.completion_unknown,
    }
    content = json.dumps(head).encode("ascii") + b"\n" + checkpoint.fold
    replace(log_dir / _checkpoint_name(group), content)
    return len(content)


def _checkpoint_name(group: str) -> str:
    return f"rollout_{group}.checkpoint" if group else "rollout.checkpoint"
