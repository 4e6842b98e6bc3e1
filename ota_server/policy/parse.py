"""The files of the policy in `version/`, read from bytes into values. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ota_server.model.device import parse_mac
from ota_server.model.json_object import parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import parse_time
from ota_server.model.version import is_version, meaning
from ota_server.policy.policy import Pin, Stopped, StoppedState, is_group_name

_STOPPED_STATES = tuple(StoppedState)
_Value = TypeVar("_Value")


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
            raise BadPolicy(f"{name} occurs twice")
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
