"""Groups, pins and labels by the API. I/O."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from ota_server.httpd.reply import Reply
from ota_server.model.refusal import BadPolicy
from ota_server.operations import device_warnings
from ota_server.operations.after_change import hold_warning
from ota_server.operations.bulk_edits import BulkAction, BulkChange
from ota_server.operations.group_facts import GroupFacts, device_pins, list_groups
from ota_server.operations.typed_values import parse_end_time
from ota_server.operator_port.api_device_changes import OnRecord, changed_fields
from ota_server.operator_port.api_devices import LINK, PAGING, key_in_path, next_link, time_or_none
from ota_server.operator_port.api_operation import (
    FORCE,
    Body,
    Given,
    Operation,
    QueryField,
    Success,
    in_time,
    nothing,
    reply,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import product_field
from ota_server.operator_port.list_place import part_after
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.site import DEFAULT, NotHere, Site
from ota_server.policy import edits
from ota_server.policy.delete_group import delete_group
from ota_server.policy.labels import read_labels
from ota_server.policy.policy import Pin
from ota_server.policy.text import Who
from ota_server.releases.same_devices import check_pin

_MOST_LISTED = 500
_Item = TypeVar("_Item")
OF_PRODUCT = QueryField(
    "product", reference("ProductName"), "Of this product alone; of all if nothing is said."
)


def products_asked(site: Site, given: Given) -> Iterator[tuple[str, Path]]:
    """Yield the products that a list is of, as paths name them, with their folders.

    Raises:
        NotHere: there is none of this name.
    """
    said = given.query.get("product")
    names = map(product_field, site.products) if said is None else (said,)
    for name in names:
        yield name, site.folder_of(name)


def group_fields(product: str, group: GroupFacts) -> dict[str, Any]:
    """Return a group, as `group list --json` has it."""
    return {
        "product": product,
        "group": group.name,
        "devices": len(group.macs),
        "pin": group.pin.version if group.pin else None,
        "pin_until": time_or_none(group.pin.until_ms if group.pin else None),
        "target_version": group.target,
    }


def _list(site: Site, given: Given) -> Reply:
    found = [(name, list_groups(folder)) for name, folder in products_asked(site, given)]
    content = {
        "groups": [group_fields(name, each) for name, all_ in found for each in all_.groups],
        "problems": [problem for _, all_ in found for problem in all_.problems],
    }
    return reply(content)


def _named(site: Site, given: Given) -> tuple[Path, GroupFacts]:
    """Return the folder of the product of a group, and the group.

    Raises:
        NotHere: there is no such product, or no such group.
        BadPolicy: its file cannot be used.
    """
    folder, name = site.folder_of(given.product), given.path["group"]
    found = list_groups(folder)
    group = next((each for each in found.groups if each.name == name), None)
    if group is not None:
        return folder, group
    if edits.group_path(folder / "version", name).exists():
        raise BadPolicy("; ".join(found.problems) or f"group {name} cannot be read")
    raise NotHere(f"There is no group {name}.")


def _show(site: Site, given: Given) -> Reply:
    _, group = _named(site, given)
    members = [(mac,) for mac in sorted(group.macs)]
    return _part(
        given,
        "members",
        members,
        lambda each: each,
        lambda each: each[0],
        group_fields(given.product, group),
    )


def _part(
    given: Given,
    name: str,
    items: Sequence[_Item],
    place_of: Callable[[_Item], tuple[str, ...]],
    shown_as: Callable[[_Item], object],
    more: Mapping[str, Any] = {},
) -> Reply:
    """Return the part of a list that was asked for, under a name, and more beside it."""
    limit = given.query.get("limit", _MOST_LISTED)
    shown, after = part_after(items, place_of, given.query.get("cursor"), limit)
    content = {**more, name: [*map(shown_as, shown)], "next": after}
    return reply(content, HTTPStatus.OK, *next_link(given, after))


def _delete(site: Site, given: Given) -> Reply:
    folder, group = _named(site, given)
    delete_group(folder, group.name, given.query.get("force", False))
    return nothing()


def _change_member(site: Site, given: Given, action: BulkAction) -> Reply:
    key, folder = key_in_path(site, given), site.folder_of(given.product)
    is_forced = given.query.get("force", False)
    change = BulkChange(action, group=given.path["group"], is_forced=is_forced)
    done = changed_fields(site, folder, change, [key], OnRecord(site.index))
    return nothing() if action is BulkAction.REMOVE else reply(done)


def _add(site: Site, given: Given) -> Reply:
    return _change_member(site, given, BulkAction.ADD)


def _remove(site: Site, given: Given) -> Reply:
    _named(site, given)
    return _change_member(site, given, BulkAction.REMOVE)


def _pin(site: Site, given: Given) -> Reply:
    folder, group = _named(site, given)
    who, version, until_ms = Who("groups", group.name), given.body["version"], None
    if "until" in given.body:
        until_ms = in_time(parse_end_time, "until", given.body["until"])
    if not given.body.get("force"):
        check_pin(folder, who, Pin(version, None))
    version = edits.pin(folder, who, version, until_ms)
    warnings = [*device_warnings.pinned(folder, who, version), hold_warning(folder)]
    fields = _pin_fields(given.product, who, Pin(version, until_ms))
    return reply({**fields, "warnings": [*filter(None, warnings)]})


def _unpin(site: Site, given: Given) -> Reply:
    folder, group = _named(site, given)
    if group.pin is not None:
        who = Who("groups", group.name)
        if not given.query.get("force"):
            check_pin(folder, who, None)
        edits.unpin(folder, who)
    return nothing()


def _pins(site: Site, given: Given) -> Reply:
    pins = [
        (product, who, pin)
        for product, folder in products_asked(site, given)
        for who, pin in _pins_in(folder)
    ]
    return _part(given, "pins", pins, _place_of_pin, lambda each: _pin_fields(*each))


def _place_of_pin(pin: tuple[str, Who, Pin]) -> tuple[str, ...]:
    product, who, _ = pin
    return _first(product == DEFAULT, product), _first(who.kind == "groups", who.kind), who.name


def _first(is_first: bool, name: str) -> str:
    """Return a name as a place, which is before all others for one of them."""
    return "" if is_first else name


def _pins_in(folder: Path) -> Iterator[tuple[Who, Pin]]:
    for group in list_groups(folder).groups:
        if group.pin is not None:
            yield Who("groups", group.name), group.pin
    for name, pin in sorted(device_pins(folder).items()):
        yield Who("devices", name), pin


def _pin_fields(product: str, who: Who, pin: Pin) -> dict[str, Any]:
    return {
        "product": product,
        "mac": who.name if who.kind == "devices" else None,
        "group": who.name if who.kind == "groups" else None,
        "version": pin.version,
        "until": time_or_none(pin.until_ms),
    }


def _labels(site: Site, given: Given) -> Reply:
    labels = [
        (product, mac, label)
        for product, folder in products_asked(site, given)
        for mac, label in sorted(read_labels(folder).items())
    ]
    return _part(
        given,
        "labels",
        labels,
        lambda each: (_first(each[0] == DEFAULT, each[0]), each[1]),
        lambda each: dict(zip(("product", "mac", "label"), each, strict=True)),
    )


_GROUP = "/groups/{product}/{group}"
_OK = HTTPStatus.OK
_DONE = Success(HTTPStatus.NO_CONTENT, "It is so, or was so already.")
_MISSING = (HTTPStatus.NOT_FOUND,)
OPERATIONS = (
    Operation(
        "GET",
        "/groups",
        Access.READ,
        "listGroups",
        "List groups",
        _list,
        Success(_OK, "The groups, and what is wrong with their files.", reference("GroupList")),
        query=(OF_PRODUCT,),
        problems=_MISSING,
    ),
    Operation(
        "GET",
        _GROUP,
        Access.READ,
        "getGroup",
        "Show a group and its devices",
        _show,
        Success(_OK, "The group.", reference("GroupDetail"), fields=LINK),
        query=PAGING,
        problems=(HTTPStatus.CONFLICT,),
    ),
    Operation(
        "DELETE",
        _GROUP,
        Access.ACT,
        "deleteGroup",
        "Delete a group that is not in use; its devices stay on record",
        _delete,
        Success(HTTPStatus.NO_CONTENT, "It is deleted."),
        query=(FORCE,),
    ),
    Operation(
        "PUT",
        f"{_GROUP}/devices/{{mac}}",
        Access.ACT,
        "addToGroup",
        "Put a device into a group, which is made if it is not there",
        _add,
        Success(_OK, "It is in the group.", reference("Changed")),
        query=(FORCE,),
    ),
    Operation(
        "DELETE",
        f"{_GROUP}/devices/{{mac}}",
        Access.ACT,
        "removeFromGroup",
        "Take a device out of a group",
        _remove,
        _DONE,
        query=(FORCE,),
    ),
    Operation(
        "PUT",
        f"{_GROUP}/pin",
        Access.ACT,
        "pinGroup",
        "Keep the devices of a group on a release",
        _pin,
        Success(_OK, "The pin.", reference("PinOfGroup")),
        body=Body(reference("PinRequest"), "The release, and when the pin ends."),
    ),
    Operation(
        "DELETE",
        f"{_GROUP}/pin",
        Access.ACT,
        "unpinGroup",
        "End the pin of a group",
        _unpin,
        _DONE,
        query=(FORCE,),
    ),
    Operation(
        "GET",
        "/pins",
        Access.READ,
        "listPins",
        "List pins",
        _pins,
        Success(
            _OK,
            "A part of them: of each product those of groups, then those of devices.",
            reference("PinPage"),
            fields=LINK,
        ),
        query=(OF_PRODUCT, *PAGING),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ),
    Operation(
        "GET",
        "/labels",
        Access.READ,
        "listLabels",
        "List labels",
        _labels,
        Success(_OK, "What devices are called.", reference("LabelPage"), fields=LINK),
        query=(OF_PRODUCT, *PAGING),
        problems=(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    ),
)
