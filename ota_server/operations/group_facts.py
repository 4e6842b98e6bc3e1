"""The groups and the pins of a product, for commands, pages and the API. I/O."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time
from ota_server.policy import edits
from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.parse import parse_group, parse_pins, parse_targets
from ota_server.policy.policy import PINS_NAME, TARGETS_NAME, Pin, is_group_name
from ota_server.policy.text import Who
from ota_server.system.files import named, read


class GroupFacts(NamedTuple):
    """A group.

    Attributes:
        macs: the names of its devices, in the order of its file.
        pin: None: it is not pinned.
        target: None: it has that of the fleet.
    """

    name: str
    macs: list[str]
    pin: Pin | None
    target: str | None


def groups_of(version_dir: Path, problems: list[str]) -> Iterator[GroupFacts]:
    """Yield the groups whose list can be read, in alphabetical order.

    Args:
        problems: gets what is wrong with files.
    """
    pins, targets = _decided(version_dir, problems)
    folder = version_dir / GROUPS_FOLDER
    if os.path.lexists(folder) and not folder.is_dir():
        problems.append(
            f"{folder} is not a folder; move it away, and `group add NAME MAC` makes it"
        )
    for file_name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        name = file_name.removesuffix(GROUP_SUFFIX)
        if name == file_name or not is_group_name(name):
            continue
        try:
            yield GroupFacts(name, members(folder / file_name), pins.get(name), targets.get(name))
        except BadPolicy as problem:
            problems.append(str(problem))


def group_of(version_dir: Path, name: str) -> GroupFacts:
    """Return a group.

    Raises:
        Refused: there is none of this name.
        BadPolicy, OSError: its file cannot be used or read.
    """
    edits.check_group(version_dir.parent, name)
    pins, targets = _decided(version_dir, [])
    macs = members(edits.group_path(version_dir, name))
    return GroupFacts(name, macs, pins.get(name), targets.get(name))


def members(path: Path) -> list[str]:
    """Return the names of the devices in the file of a group, each once.

    Raises:
        BadPolicy, OSError: it cannot be used or read.
    """
    with named(path):
        return list(dict.fromkeys(parse_group(read(path.parent, path.name))))


def fields_of_group(group: GroupFacts) -> dict[str, Any]:
    """Return a group for programs."""
    until_ms = group.pin.until_ms if group.pin else None
    return {
        "group": group.name,
        "devices": len(group.macs),
        "pin": group.pin.version if group.pin else None,
        "pin_until": None if until_ms is None else format_time(until_ms),
        "target_version": group.target,
    }


def pins_of(version_dir: Path) -> list[tuple[Who, Pin]]:
    """Return all pins, those of groups first.

    Raises:
        BadPolicy, OSError: their file cannot be used or read.
    """
    with named(version_dir / PINS_NAME):
        content = read(version_dir, PINS_NAME)
        devices, groups = parse_pins(content) if content else ({}, {})
    return [
        *((Who("groups", name), pin) for name, pin in sorted(groups.items())),
        *((Who("devices", name), pin) for name, pin in sorted(devices.items())),
    ]


def _decided(version_dir: Path, problems: list[str]) -> tuple[dict[str, Pin], dict[str, str]]:
    """Return the pins and the targets of groups; no entries where the files cannot be used."""
    pins: dict[str, Pin] = {}
    targets: dict[str, str] = {}
    try:
        with named(version_dir / PINS_NAME):
            content = read(version_dir, PINS_NAME)
            pins = parse_pins(content)[1] if content else {}
        with named(version_dir / TARGETS_NAME):
            content = read(version_dir, TARGETS_NAME)
            targets = parse_targets(content) if content else {}
    except BadPolicy as problem:
        problems.append(str(problem))
    return pins, targets
