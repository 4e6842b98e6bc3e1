"""What devices should run: the only reader and writer of the files of targets. I/O.

These are version.txt (the fleet), targets.json (groups) and stopped.json (withdrawn and aborted
releases). The image of a version is found here as well, by one rule for all callers.
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.model.json_object import format_object, parse_object
from ota_server.model.refusal import BadPolicy, Refused
from ota_server.model.version import (
    MAX_VERSION_FILE_BYTES,
    NoVersion,
    image_name,
    meaning,
    parse_version_file,
    same_version,
    spellings,
    version_of_image_name,
)
from ota_server.policy.parse import parse_stopped, parse_targets
from ota_server.policy.policy import STOPPED_NAME, TARGETS_NAME, StoppedState
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.system.files import Found, find, is_of, open_found, read_if_there, replace

log = logging.getLogger(__name__)
VERSION_NAME = "version.txt"


class VersionFile(NamedTuple):
    """What version.txt says.

    Attributes:
        version: None: the file cannot be used.
        end: the end of the file, a newline or nothing; every reply of the version ends the same.
        problem: what is wrong with the file; "": nothing.
        is_there: something of that name exists.
    """

    version: str | None
    end: str = ""
    problem: str = ""
    is_there: bool = True


def read_version_file(data_dir: Path) -> VersionFile:
    """Return what version.txt says.

    Raises:
        OSError: it cannot be read.
    """
    found = find(data_dir / "version", VERSION_NAME)
    return no_version_file(data_dir) if found is None else read_found_version(found)[0]


def no_version_file(data_dir: Path) -> VersionFile:
    """Return what to say if version.txt is not a regular file in its folder."""
    if os.path.lexists(data_dir / "version" / VERSION_NAME):
        return VersionFile(None, problem="is not a regular file in its folder")
    return VersionFile(None, problem="is missing", is_there=False)


def read_found_version(found: Found) -> tuple[VersionFile, bool]:
    """Return what the found version.txt says, and whether it is still the same file.

    Raises:
        OSError: it cannot be read.
    """
    with open(open_found(found), "rb", buffering=0) as file:
        is_same = is_of(os.fstat(file.fileno()), found.stamp)
        content = file.read(MAX_VERSION_FILE_BYTES + 1)
    try:
        return VersionFile(*parse_version_file(content)), is_same
    except NoVersion as problem:
        end = "\n" if content.endswith(b"\n") else ""
        return VersionFile(None, end, str(problem)), is_same


def read_target(data_dir: Path) -> str | None:
    """Return the version in version.txt, or None if it cannot be used."""
    try:
        return read_version_file(data_dir).version
    except OSError:
        return None


def write_target(data_dir: Path, version: str) -> None:
    """Make a version the target of the fleet; the file ends as it ended before."""
    end = read_version_file(data_dir).end
    replace(data_dir / "version" / VERSION_NAME, f"{version}{end}".encode("ascii"))


def find_image(
    firmware_dir: Path, version: str, look: Callable[[Path, str], Found | None] = find
) -> tuple[str, Found] | None:
    """Return the name and the file of the image of a version, or None if there is no such image.

    That is the image of exactly this name, else the one whose name is equal in meaning. If the file
    of the exact name is empty, there is no image: it may be about to be written.

    Args:
        look: finds a file in a folder by its name.

    Raises:
        OSError: as `look`.
    """
    for name in map(image_name, spellings(version)):
        found = look(firmware_dir, name)
        if found is not None:
            return (name, found) if found.stamp.size else None
    return None


def release_here(data_dir: Path, version: str) -> str:
    """Return `version` as its image spells it.

    Raises:
        Refused: there is no such image, or it was withdrawn.
        BadPolicy, OSError: a file cannot be used or read.
    """
    image = find_image(data_dir / "firmware", version)
    if image is None:
        path = data_dir / "firmware" / image_name(version)
        raise Refused(
            f"{version} is not a release here: there is no {path}; publish it first, or give "
            "another one: `release list` shows all"
        )
    entry = stopped_entry(read_stopped(data_dir), version)
    if entry is not None and entry.get("state") == StoppedState.WITHDRAWN:
        reason = f" ({entry['reason']})" if entry.get("reason") else ""
        raise Refused(
            f"{version} was withdrawn{reason}, and no device may have it; give another release, or "
            "publish a fixed one under another version"
        )
    return version_of_image_name(image[0]) or version


def read_base(data_dir: Path, group: str) -> str | None:
    """Return the target of a group, or of the fleet if the group has none; None: there is none.

    Raises:
        BadPolicy: targets.json cannot be used.
        OSError: it cannot be read.
    """
    targets = read_group_targets(data_dir) if group else {}
    return targets[group] if group in targets else read_target(data_dir)


def read_group_targets(data_dir: Path) -> dict[str, str]:
    """Return the targets of the groups that have their own.

    Raises:
        BadPolicy: targets.json cannot be used.
        OSError: it cannot be read.
    """
    return parse_targets(read_if_there(data_dir / "version", TARGETS_NAME) or b"{}")


def set_group_target(data_dir: Path, group: str, version: str) -> None:
    """Give a group a target of its own."""
    write_group_targets(data_dir, {**read_group_targets(data_dir), group: version})


def write_group_targets(data_dir: Path, targets: Mapping[str, str]) -> None:
    """Give these groups a target of their own, and all others that of the fleet."""
    if targets != read_group_targets(data_dir):
        replace(data_dir / "version" / TARGETS_NAME, format_object(targets))


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
        raise BadPolicy(f"{data_dir / 'version' / STOPPED_NAME} {problem}; fix it") from None
    return parse_object(content)


def stopped_entry(stopped: Mapping[str, dict[str, Any]], version: str) -> dict[str, Any] | None:
    """Return the entry of a release that was stopped, or None if it was not."""
    return next((stopped[name] for name in stopped if same_version(name, version)), None)


def set_stopped(data_dir: Path, version: str, entry: Mapping[str, Any] | None) -> None:
    """Set the entry of a release that was stopped, or remove it.

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
    replace(data_dir / "version" / STOPPED_NAME, format_object(stopped), is_stop=True)


def is_same_target(one: str | None, other: str | None) -> bool:
    """Return whether two targets are the same, by meaning; None: there is no target."""
    if one is None or other is None:
        return one is other
    return same_version(one, other)


def targets_before(data_dir: Path, plan: RolloutPlan) -> dict[str, object]:
    """Return the targets before a rollout, of the fleet and of groups, for stopped.json."""
    try:
        groups = read_group_targets(data_dir)
    except (BadPolicy, OSError) as problem:
        # That must not keep a bad release going. No device is offered anything meanwhile.
        log.error("the targets of groups cannot be read: %s", problem)
        groups = {}
    if not plan.group:
        return {"instead_of": plan.instead_of, "group_targets": groups}
    if plan.group in groups and plan.instead_of is not None:
        groups[plan.group] = plan.instead_of
    return {"instead_of": read_target(data_dir), "group_targets": groups}
