"""Changes of many devices of one product at once: what one would do, and doing it. I/O.

The same checks as for one device; one lock, one line in the audit log, and one file that is
replaced: a process that is killed leaves all of it or nothing.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.journal.replay import replay
from ota_server.model.identity import name_of, number_of, product_of
from ota_server.model.quantity import count_of
from ota_server.model.refusal import Refused
from ota_server.operations import device_warnings
from ota_server.operations.after_change import hold_warning
from ota_server.operations.typed_values import (
    BadFields,
    from_switch,
    from_text,
    parse_choice,
    parse_end_time,
    parse_group_name,
    parse_label,
    parse_version,
    read_fields,
)
from ota_server.policy import edits, labels, many_devices
from ota_server.policy.forget_device import forget_many
from ota_server.policy.parse import parse_group
from ota_server.policy.policy import PINS_NAME, Pin
from ota_server.policy.targets import release_here
from ota_server.releases.inventory import get_release
from ota_server.releases.remarks import remarks
from ota_server.releases.same_devices import check_members, check_pins, left_out_of
from ota_server.system.data_dir import existing_folder, journal_dir, product_at
from ota_server.system.files import named, read

# Of a file that a server reads whole when it changes. A group may have a million members.
MOST_DEVICES, MOST_MEMBERS = 100_000, 1_000_000


class BulkAction(StrEnum):
    """What can be done to many devices, as forms and JSON name it."""

    PIN = "pin"
    UNPIN = "unpin"
    RETRY = "retry"
    LABEL = "label"
    FORGET = "forget"
    ADD = "group add"
    REMOVE = "group remove"


@dataclass(frozen=True)
class BulkChange:
    """What is to be done to devices; what an action does not need is left out.

    Attributes:
        version: to pin them to.
        until_ms: when the pin ends; None: never.
        group: to add them to or to remove them from; it is made if there is none.
        label: to give them all; "": they are to have none.
        is_forced: also if they get an image for another chip or of another project than they run.
    """

    action: BulkAction
    version: str = ""
    until_ms: int | None = None
    group: str = ""
    label: str = ""
    is_forced: bool = False


class BulkPreview(NamedTuple):
    """How many devices a change would reach.

    Attributes:
        named: how many different ones were named: the sum of the next two.
        changing: how many it changes.
        already: how many are so already, or are not on record and so cannot be forgotten.
        not_on_record: how many of those that were named are not on record.
        warnings: what an operator should know before it is done.
    """

    named: int
    changing: int
    already: int
    not_on_record: int
    warnings: tuple[str, ...] = ()


class BulkDone(NamedTuple):
    """What was done.

    Attributes:
        changed, already: how many devices were changed, and how many were so already.
        is_done: False: the running server does the rest in a moment.
    """

    changed: int
    already: int
    is_done: bool = True


class _Devices(NamedTuple):
    """The devices of a change; `names` are those of `keys`, in their order, each once."""

    data_dir: Path
    keys: Sequence[str]
    names: Sequence[str]


def read_change(fields: Mapping[str, object]) -> BulkChange:
    """Return the change in the fields of a form or of JSON, by the names of `BulkChange`.

    `until` is the end of a pin, as text. Empty fields count as left out, except for a label.

    Raises:
        BadFields: it cannot be used; it says which fields are wrong.
    """
    given = {name: value for name, value in fields.items() if value != "" or name == "label"}
    values = read_fields(given, _READERS)
    if "action" not in values:
        raise BadFields({"action": f"say what to do: {', '.join(BulkAction)}"})
    action = BulkAction(values.pop("action"))
    needed = _NEEDED.get(action)
    if needed is not None and needed not in values:
        raise BadFields({needed: f"{action} needs it"})
    if "until" in values:
        values["until_ms"] = values.pop("until")
    return BulkChange(action, **values)


def preview(
    data_dir: Path, change: BulkChange, keys: Sequence[str], known: Container[str] | None = None
) -> BulkPreview:
    """Return how many devices a change would reach; nothing is changed.

    Args:
        keys: the devices (`model.identity`), all of the product of the data directory.
        known: the keys on record; None: look into the journal, which takes seconds for a large
            fleet.

    Raises:
        Refused: it would be refused; the message says why.
        BadPolicy, OSError: a file cannot be used or read.
    """
    devices = _checked(data_dir, change, keys)
    if known is None:
        unknown = _not_on_record(devices)
    else:
        unknown = [key for key in devices.keys if key not in known]
    named_ones = len(devices.keys)
    if change.action is BulkAction.FORGET:
        changing = named_ones - len(unknown)
    else:
        changing = _LOOKS[change.action](devices, change)
    warnings = tuple(_warnings(devices, change, len(unknown)))
    return BulkPreview(named_ones, changing, named_ones - changing, len(unknown), warnings)


def apply(data_dir: Path, change: BulkChange, keys: Sequence[str]) -> BulkDone:
    """Change devices, all or none.

    Raises:
        Refused, BadPolicy, Busy, OSError: nothing was changed.
    """
    devices = _checked(data_dir, change, keys)
    names, is_done = devices.names, True
    match change.action:
        case BulkAction.PIN:
            changed = many_devices.pin_devices(data_dir, names, change.version, change.until_ms)
        case BulkAction.UNPIN:
            changed = many_devices.unpin_devices(data_dir, names)
        case BulkAction.RETRY:
            many_devices.retry_devices(data_dir, names)
            changed = [*names]
        case BulkAction.LABEL:
            changed = many_devices.label_devices(data_dir, names, change.label)
        case BulkAction.FORGET:
            changed, is_done = forget_many(data_dir, devices.keys)
        case BulkAction.ADD:
            changed = [*edits.add_members(data_dir, change.group, names).changed]
        case BulkAction.REMOVE:
            changed = [*edits.remove_members(data_dir, change.group, names).changed]
    return BulkDone(len(changed), len(names) - len(changed), is_done)


def _checked(data_dir: Path, change: BulkChange, keys: Sequence[str]) -> _Devices:
    """Return the devices of a change that may be made.

    Raises:
        Refused: it may not be.
        BadPolicy, OSError: a file cannot be used or read.
    """
    existing_folder(data_dir, "version")
    keys = list(dict.fromkeys(keys))
    product = product_at(data_dir)
    if not keys:
        raise Refused("no device was named")
    if others := [key for key in keys if product_of(key) != product]:
        whose = f"the product {product}" if product else "the default product"
        raise Refused(f"{others[0]} is not a device of {whose}; change those of one at a time")
    is_list = change.action in (BulkAction.ADD, BulkAction.REMOVE)
    most = MOST_MEMBERS if is_list else MOST_DEVICES
    if len(keys) > most:
        raise Refused(
            f"{count_of(len(keys), 'device')} are too many for {change.action} at once: {most:,} "
            "at most. For more give them a group, and pin that or roll out to it"
        )
    devices = _Devices(data_dir, keys, [name_of(key) for key in keys])
    if change.action is BulkAction.PIN:
        edits.check_end(change.until_ms)
        release_here(data_dir, change.version)
    if change.action is BulkAction.REMOVE:
        edits.check_group(data_dir, change.group)
    if not change.is_forced:
        _check_images(devices, change)
    return devices


def _check_images(devices: _Devices, change: BulkChange) -> None:
    """Refuse what would give devices an image for others than they are."""
    data_dir, names = devices.data_dir, devices.names
    match change.action:
        case BulkAction.PIN:
            check_pins(data_dir, names, Pin(change.version, None))
        case BulkAction.UNPIN:
            check_pins(data_dir, names, None)
        case BulkAction.ADD | BulkAction.REMOVE:
            check_members(data_dir, change.group, names, change.action is BulkAction.ADD)


def _not_on_record(devices: _Devices) -> list[str]:
    logs = journal_dir(devices.data_dir)
    if not logs.is_dir():
        return [*devices.keys]
    found = replay(logs)
    found.close()
    return [key for key in devices.keys if number_of(key) not in found.locations]


# How many devices a change would change


def _pins_changing(devices: _Devices, change: BulkChange) -> int:
    pin = None
    if change.action is BulkAction.PIN:
        pin = Pin(release_here(devices.data_dir, change.version), change.until_ms)
    folder = devices.data_dir / "version"
    with named(folder / PINS_NAME):
        content = read(folder, PINS_NAME)
        return len(many_devices.pins_to_change(content, devices.names, pin))


def _all_changing(devices: _Devices, _: BulkChange) -> int:
    return len(devices.names)


def _labels_changing(devices: _Devices, change: BulkChange) -> int:
    known = labels.read_labels(devices.data_dir)
    return sum(known.get(name, "") != change.label for name in devices.names)


def _members_changing(devices: _Devices, change: BulkChange) -> int:
    path = edits.group_path(devices.data_dir / "version", change.group)
    with named(path):
        there = {*parse_group(read(path.parent, path.name))} if path.parent.is_dir() else set()
    is_adding = change.action is BulkAction.ADD
    return sum((name in there) != is_adding for name in devices.names)


_LOOKS: Mapping[BulkAction, Callable[[_Devices, BulkChange], int]] = {
    BulkAction.PIN: _pins_changing,
    BulkAction.UNPIN: _pins_changing,
    BulkAction.RETRY: _all_changing,
    BulkAction.LABEL: _labels_changing,
    BulkAction.ADD: _members_changing,
    BulkAction.REMOVE: _members_changing,
}


def _warnings(devices: _Devices, change: BulkChange, unknown: int) -> Iterator[str]:
    if unknown and change.action is not BulkAction.FORGET:
        are = "is" if unknown == 1 else "are"
        yield f"{count_of(unknown, 'device')} of these {are} not on record"
    if change.action is BulkAction.FORGET:
        yield from device_warnings.still_named(devices.data_dir, devices.keys)
    if change.action is BulkAction.LABEL and change.label and len(devices.names) > 1:
        yield f"{change.label} cannot stand for a MAC address then: several devices are called that"
    elif change.action is BulkAction.LABEL:
        yield from device_warnings.same_label(devices.data_dir, devices.names[0], change.label)
    if change.action is not BulkAction.PIN:
        return
    version = release_here(devices.data_dir, change.version)
    yield from remarks(devices.data_dir, get_release(devices.data_dir, version))
    texts = (left_out_of(devices.data_dir, devices.names, version), hold_warning(devices.data_dir))
    yield from filter(None, texts)


def _label(text: str) -> str:
    return parse_label(text.strip())


_READERS: dict[str, Callable[[object], Any]] = {
    "action": from_text(parse_choice(*BulkAction)),
    "version": from_text(parse_version),
    "until": from_text(parse_end_time),
    "group": from_text(parse_group_name),
    "label": from_text(_label),
    "is_forced": from_switch,
}
_NEEDED = {
    BulkAction.PIN: "version",
    BulkAction.LABEL: "label",
    BulkAction.ADD: "group",
    BulkAction.REMOVE: "group",
}
