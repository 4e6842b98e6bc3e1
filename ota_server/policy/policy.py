"""Policy: what operators have decided, read from the files in `version/`. Pure.

One value holds all of it, made again when a file has changed; `decision` asks it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from ota_server.model.device import parse_mac
from ota_server.model.json_object import parse_object
from ota_server.model.manifest import Manifest
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import parse_time
from ota_server.model.version import is_version, meaning

HOLD_NAME = "hold.json"
PINS_NAME = "pins.json"
TARGETS_NAME = "targets.json"
STOPPED_NAME = "stopped.json"
RETRIES_NAME = "retries.json"
_Value = TypeVar("_Value")
_GROUP_NAME = re.compile(r"[a-z][a-z0-9_\-]{0,31}")


class Pin(NamedTuple):
    """A release that a device or a group stays on, until `until_ms`; None: for ever."""

    version: str
    until_ms: int | None


class StoppedState(StrEnum):
    """Why devices are no longer offered a release, as in stopped.json."""

    WITHDRAWN = "withdrawn"
    ABORTED = "aborted"


_STOPPED_STATES = tuple(StoppedState)


class Stopped(NamedTuple):
    """A release that was withdrawn, or whose rollout was aborted.

    Devices that run it stay on it until their target differs from what it was when the release was
    stopped: `instead_of`, the fleet's target, or their group's, if it had its own. None: until the
    stop is lifted.
    """

    version: str
    is_withdrawn: bool
    instead_of: str | None
    group_targets: Mapping[str, str] = {}


class RolloutState(StrEnum):
    """The state of a rollout; `rollout_plan` shows what leads from one to another."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    DONE = "done"
    ABORTED = "aborted"


class Rollout(NamedTuple):
    """A rollout, as decisions need it.

    Attributes:
        state: running, or paused: then no further devices are offered it.
        percent: of the fleet or the group, by `cohort_percent`.
        first_group: its members are in every wave; None: there is no first group.
        held_unknown: what a device that is held back is told if its version is not a known
            release: keep (its own) or target.
        groups_too: the fleet's rollout includes groups that have their own target.
        reverts: the release that it leads back from; None: it is not a revert.
    """

    version: str
    state: RolloutState
    percent: float
    first_group: str | None = None
    held_unknown: str = "keep"
    groups_too: bool = False
    reverts: str | None = None


class Policy(NamedTuple):
    """All that operators have decided; keys of versions are their meanings.

    Attributes:
        problem: a file that could not be read at the start: no device is offered anything.
        pins: by MAC.
        group_targets: the targets of groups that have their own.
        groups: the groups of a MAC, in alphabetical order.
        rollouts: by group; "" is the whole fleet.
        manifests: of published releases.
        unusable: releases whose manifest cannot be read, and why.
        images: releases that have an image.
        aliases: the version of a release by what its devices report.
        retries: when an operator ran `retry` for a device, by MAC, in ms.
    """

    problem: str = ""
    is_held: bool = False
    pins: Mapping[str, Pin] = {}
    group_pins: Mapping[str, Pin] = {}
    group_targets: Mapping[str, str] = {}
    stopped: Mapping[str, Stopped] = {}
    groups: Mapping[str, tuple[str, ...]] = {}
    rollouts: Mapping[str, Rollout] = {}
    manifests: Mapping[str, Manifest] = {}
    unusable: Mapping[str, str] = {}
    images: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = {}
    retries: Mapping[str, int] = {}
    is_plain: bool = True

    def release_of(self, reported: str) -> str:
        """Return the version of the release that a device runs, by what it reports."""
        return self.aliases.get(reported, reported)

    def is_withdrawn(self, version: str) -> bool:
        """Return whether a version was withdrawn."""
        stopped = self.stopped.get(meaning(version)) if self.stopped else None
        return stopped is not None and stopped.is_withdrawn


def is_group_name(text: str) -> bool:
    """Return whether `text` may name a group: a letter, then up to 31 of a-z 0-9 _ -."""
    return _GROUP_NAME.fullmatch(text) is not None


def make_policy(
    *,
    problem: str = "",
    is_held: bool = False,
    pins: tuple[Mapping[str, Pin], Mapping[str, Pin]] = ({}, {}),
    group_targets: Mapping[str, str] | None = None,
    stopped: Mapping[str, Stopped] | None = None,
    groups: Mapping[str, tuple[str, ...]] | None = None,
    rollouts: Mapping[str, Rollout] | None = None,
    manifests: Mapping[str, Manifest] | None = None,
    unusable: Mapping[str, str] | None = None,
    images: frozenset[str] = frozenset(),
    retries: Mapping[str, int] | None = None,
) -> Policy:
    """Put a policy together from what the files hold."""
    manifests = manifests or {}
    aliases = {each.reports_as: each.version for each in manifests.values() if each.reports_as}
    has_stepping_stones = any(manifest.via for manifest in manifests.values())
    decided = (problem, is_held, *pins, group_targets, stopped, rollouts, unusable)
    return Policy(
        problem=problem,
        is_held=is_held,
        pins=pins[0],
        group_pins=pins[1],
        group_targets=group_targets or {},
        stopped=stopped or {},
        groups=groups or {},
        rollouts=rollouts or {},
        manifests=manifests,
        unusable=unusable or {},
        images=images,
        aliases=aliases,
        retries=retries or {},
        is_plain=not any((*decided, aliases, has_stepping_stones)),
    )


def parse_pins(content: bytes) -> tuple[dict[str, Pin], dict[str, Pin]]:
    """Return the pins of devices, by MAC, and of groups.

    Raises:
        BadPolicy: they cannot be read.
    """
    fields = _object(content)
    devices = _distinct((_mac(name), _pin(value)) for name, value in _items(fields, "devices"))
    groups = _distinct((_group(name), _pin(value)) for name, value in _items(fields, "groups"))
    return devices, groups


def parse_targets(content: bytes) -> dict[str, str]:
    """Return the targets of groups.

    Raises:
        BadPolicy: they cannot be read.
    """
    return {_group(name): _version(value) for name, value in _object(content).items()}


def parse_stopped(content: bytes) -> dict[str, Stopped]:
    """Return the releases that were stopped, by meaning.

    Raises:
        BadPolicy: they cannot be read.
    """
    return _distinct(_stopped(name, value) for name, value in _object(content).items())


def _stopped(name: str, value: object) -> tuple[str, Stopped]:
    if not isinstance(value, dict) or value.get("state") not in _STOPPED_STATES:
        raise BadPolicy(f"{name[:40]!r} is neither withdrawn nor aborted")
    instead_of = value.get("instead_of")
    if instead_of is not None:
        _version(instead_of)
    groups = {_group(group): _version(each) for group, each in _items(value, "group_targets")}
    stopped = Stopped(name, value["state"] == StoppedState.WITHDRAWN, instead_of, groups)
    return meaning(_version(name)), stopped


def parse_retries(content: bytes) -> dict[str, int]:
    """Return when `retry` was run for a device, in milliseconds, by MAC.

    Raises:
        BadPolicy: they cannot be read.
    """
    try:
        return {_mac(name): parse_time(value) for name, value in _object(content).items()}
    except (TypeError, ValueError) as problem:
        raise BadPolicy(f"a value is not a time: {problem}") from None


def parse_group(content: bytes) -> list[str]:
    """Return the MACs of a group: one a line, without blank lines and what follows a #.

    Raises:
        BadPolicy: a line is not a MAC address.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadPolicy("is not UTF-8") from None
    macs = []
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        mac = parse_mac(entry)
        if mac is None:
            raise BadPolicy(f"line {number} is not a MAC address: {entry[:40]!r}")
        macs.append(mac)
    return macs


def groups_by_mac(members: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return the groups of each MAC, in alphabetical order."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in sorted(members):
        alone = (name,)
        for mac in members[name]:
            before = groups.get(mac)
            if before is None:
                groups[mac] = alone
            elif before[-1] != name:
                groups[mac] = (*before, name)
    return groups


def _object(content: bytes) -> dict[str, Any]:
    try:
        return parse_object(content)
    except ValueError as problem:
        raise BadPolicy(str(problem)) from None


def _distinct(pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    """Return a table; refuse two spellings of one name, since either could be meant."""
    table: dict[str, _Value] = {}
    for name, value in pairs:
        if name in table:
            raise BadPolicy(f"{name} is given twice")
        table[name] = value
    return table


def _items(fields: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    value = fields.get(name, {})
    if not isinstance(value, dict):
        raise BadPolicy(f"{name} is not a JSON object")
    yield from value.items()


def _pin(value: object) -> Pin:
    if not isinstance(value, dict):
        raise BadPolicy(f"a pin is not a JSON object: {value!r:.40}")
    until = value.get("until")
    try:
        until_ms = None if until is None else parse_time(until)
    except (TypeError, ValueError, OverflowError) as problem:
        raise BadPolicy(f"until is not a time: {problem}") from None
    return Pin(_version(value.get("version")), until_ms)


def _checked(value: object, is_right: Callable[[str], bool], what: str) -> str:
    if not isinstance(value, str) or not is_right(value):
        raise BadPolicy(f"{value!r:.40} is not a {what}")
    return value


def _version(value: object) -> str:
    return _checked(value, is_version, "version")


def _group(value: object) -> str:
    return _checked(value, is_group_name, "group's name")


def _mac(value: str) -> str:
    mac = parse_mac(value)
    if mac is None:
        raise BadPolicy(f"{value[:40]!r} is not a MAC address")
    return mac
