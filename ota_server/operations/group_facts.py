"""The groups of a product, with what is decided for each, and the pins of devices. I/O."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ota_server.model.refusal import BadPolicy, Refused
from ota_server.policy import edits
from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.parse import parse_group, parse_pins, parse_targets
from ota_server.policy.policy import PINS_NAME, TARGETS_NAME, Pin, is_group_name
from ota_server.system.data_dir import existing_folder
from ota_server.system.files import named, read

# A longer file of pins is not read to find out whether it has one: groups alone fill none.
_MOST_WITHOUT_PINS = 65536


class GroupFacts(NamedTuple):
    """A group.

    Attributes:
        macs: the names of its devices (`model.identity`), in the order of the file.
        pin, target: None: it has none of its own.
    """

    name: str
    macs: tuple[str, ...]
    pin: Pin | None
    target: str | None


class AllGroups(NamedTuple):
    """The groups whose lists can be read, in alphabetical order, and what is wrong with others."""

    groups: tuple[GroupFacts, ...]
    problems: tuple[str, ...]


def list_groups(data_dir: Path) -> AllGroups:
    """Return all groups.

    Raises:
        Refused: it is not a data directory.
        OSError: a file cannot be read.
    """
    version_dir = existing_folder(data_dir, "version")
    problems: list[str] = []
    return AllGroups(tuple(_groups(version_dir, problems)), tuple(problems))


def members_on_file(data_dir: Path, group: str) -> list[str]:
    """Return the names of the devices of a group, each once.

    Raises:
        Refused: there is no such group.
        BadPolicy, OSError: its file cannot be used or read.
    """
    version_dir = existing_folder(data_dir, "version")
    edits.check_group(data_dir, group)
    return _members(edits.group_path(version_dir, group))


def device_pins(data_dir: Path) -> dict[str, Pin]:
    """Return the pins of devices, by their names; of groups, `list_groups` has them.

    Raises:
        Refused: it is not a data directory.
        BadPolicy, OSError: the file of pins cannot be used or read.
    """
    version_dir = existing_folder(data_dir, "version")
    with named(version_dir / PINS_NAME):
        content = read(version_dir, PINS_NAME)
        return parse_pins(content)[0] if content else {}


def has_device_pins(data_dir: Path) -> bool:
    """Return whether a device is pinned by itself; True too where the file cannot be used."""
    try:
        if os.path.getsize(data_dir / "version" / PINS_NAME) > _MOST_WITHOUT_PINS:
            return True
        return bool(device_pins(data_dir))
    except FileNotFoundError:
        return False
    except (Refused, BadPolicy, OSError):
        return True


def is_pinned_alone(data_dir: Path, name: str) -> bool:
    """Return whether a device has a pin of its own; True too where the file cannot be used."""
    try:
        return name in device_pins(data_dir)
    except (Refused, BadPolicy, OSError):
        return True


def _groups(version_dir: Path, problems: list[str]) -> Iterator[GroupFacts]:
    """Yield the groups whose list can be read, in alphabetical order."""
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
            macs = tuple(_members(folder / file_name))
        except BadPolicy as problem:
            problems.append(str(problem))
            continue
        yield GroupFacts(name, macs, pins.get(name), targets.get(name))


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


def _members(path: Path) -> list[str]:
    with named(path):
        return list(dict.fromkeys(parse_group(read(path.parent, path.name))))
