"""The files of the policy in `version/`, read from bytes into values. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from ota_server.model.identity import key_of_name, parse_name
from ota_server.model.json_object import parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import parse_time
from ota_server.model.version import is_version, meaning
from ota_server.policy.policy import Pin, Stopped, StoppedState, is_group_name

_STOPPED_STATES = tuple(StoppedState)
_Value = TypeVar("_Value")


def parse_pins(content: bytes) -> tuple[dict[str, Pin], dict[str, Pin]]:
    """Return the pins of devices, by name, and of groups.

    Raises:
        BadPolicy: they cannot be read.
    """
    fields = _object(content)
    devices = _distinct((_device(name), _pin(value)) for name, value in _items(fields, "devices"))
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
    """Return when `retry` was run for a device, in milliseconds, by name.

    Raises:
        BadPolicy: they cannot be read.
    """
    try:
        return {_device(name): parse_time(value) for name, value in _object(content).items()}
    except (TypeError, ValueError) as problem:
        raise BadPolicy(f"a value is not a time: {problem}") from None


def parse_group(content: bytes) -> list[str]:
    """Return the devices of a group, by name: one a line, without blanks and what follows a #.

    Raises:
        BadPolicy: a line is not a MAC address.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadPolicy("is not UTF-8") from None
    names = []
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        name = parse_name(entry)
        if name is None:
            raise BadPolicy(f"line {number} is not a MAC address: {entry[:40]!r}")
        names.append(name)
    return names


def by_key(product: str, by_name: Mapping[str, _Value]) -> Mapping[str, _Value]:
    """Return a table of devices by their keys, given one by their names."""
    return {key_of_name(product, name): value for name, value in by_name.items()}


def groups_by_key(product: str, members: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return the groups of each device by its key, in alphabetical order.

    Args:
        members: of each group, by their names.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for group in sorted(members):
        alone = (group,)
        for name in members[group]:
            # A MAC address of the default product is its own key; a list may have a million.
            key = (
                name
                if not product and name[2:3] == ":" != name[3:4]
                else key_of_name(product, name)
            )
            before = groups.get(key)
            if before is None:
                groups[key] = alone
            elif before[-1] != group:
                groups[key] = (*before, group)
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
    version, until = value.get("version"), value.get("until")
    try:
        return _same_pin(version, until)
    except TypeError:  # one of them cannot be hashed: it is no text
        return _same_pin.__wrapped__(version, until)


# Of a hundred thousand devices that are pinned, most have the same pin: one value for all.
@lru_cache(maxsize=1024)
def _same_pin(version: object, until: Any) -> Pin:
    try:
        until_ms = None if until is None else parse_time(until)
    except (TypeError, ValueError, OverflowError) as problem:
        raise BadPolicy(f"until is not a time: {problem}") from None
    return Pin(_version(version), until_ms)


def _checked(value: object, is_right: Callable[[str], bool], what: str) -> str:
    if not isinstance(value, str) or not is_right(value):
        raise BadPolicy(f"{value!r:.40} is not a {what}")
    return value


def _version(value: object) -> str:
    return _checked(value, is_version, "version")


def _group(value: object) -> str:
    return _checked(value, is_group_name, "group's name")


def _device(value: str) -> str:
    name = parse_name(value)
    if name is None:
        raise BadPolicy(f"{value[:40]!r} is not a MAC address")
    return name
