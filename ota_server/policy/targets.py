"""What devices should run: the one place that reads and writes the files of targets.

These are version.txt (the fleet), targets.json (groups) and stopped.json (halted releases).
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ota_server.model.json_object import parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.model.version import NoVersion, meaning, parse_version_file, same_version
from ota_server.policy.policy import STOPPED_NAME, TARGETS_NAME, parse_stopped, parse_targets
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.system.files import read_if_there, replace

log = logging.getLogger(__name__)
VERSION_NAME = "version.txt"


def read_target(data_dir: Path) -> str | None:
    """Return what version.txt says; None: nothing that can be used."""
    try:
        content = read_version_file(data_dir)
    except (NoVersion, OSError):
        return None
    return None if content is None else content[0]


def read_version_file(data_dir: Path) -> tuple[str, str] | None:
    """Return the version in version.txt and what ends it; None where there is no such file.

    Raises:
        NoVersion: it holds none; the message says why.
        OSError: it cannot be read.
    """
    content = read_if_there(data_dir / "version", VERSION_NAME)
    return None if content is None else parse_version_file(content)


def write_target(data_dir: Path, version: str) -> None:
    """Make a version the target of the fleet; the file ends as it ended before."""
    content = read_if_there(data_dir / "version", VERSION_NAME) or b""
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
    return parse_targets(read_if_there(data_dir / "version", TARGETS_NAME) or b"{}")


def set_group_target(data_dir: Path, group: str, version: str) -> None:
    """Give a group a target of its own."""
    content = read_if_there(data_dir / "version", TARGETS_NAME) or b"{}"
    targets = {**parse_targets(content), group: version}
    _write_json(data_dir / "version" / TARGETS_NAME, targets)


def clear_group_targets(data_dir: Path) -> None:
    """Let all groups have the target of the fleet."""
    if read_if_there(data_dir / "version", TARGETS_NAME) is not None:
        _write_json(data_dir / "version" / TARGETS_NAME, {})


def read_stopped(data_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the releases that were stopped, as they stand in stopped.json.

    Raises:
        BadPolicy: it cannot be used.
        OSError: it cannot be read.
    """
    content = read_if_there(data_dir / "version", STOPPED_NAME) or b"{}"
    try:
        parse_stopped(content)
    except BadPolicy as problem:
        raise BadPolicy(f"{data_dir / 'version' / STOPPED_NAME} {problem}; mend it") from None
    return parse_object(content)


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


def is_same_target(one: str | None, other: str | None) -> bool:
    """Say whether two targets are the same, by meaning; None: there is none."""
    if one is None or other is None:
        return one is other
    return same_version(one, other)


def targets_before(data_dir: Path, plan: RolloutPlan) -> dict[str, object]:
    """Return what was the target before a rollout, of the fleet and of groups, for stopped.json."""
    try:
        groups = read_group_targets(data_dir)
    except (BadPolicy, OSError) as problem:
        # It must not keep a bad release going; nobody is offered anything while that is so.
        log.error("the targets of groups cannot be read: %s", problem)
        groups = {}
    if not plan.group:
        return {"instead_of": plan.instead_of, "group_targets": groups}
    if plan.group in groups and plan.instead_of is not None:
        groups[plan.group] = plan.instead_of
    return {"instead_of": read_target(data_dir), "group_targets": groups}
