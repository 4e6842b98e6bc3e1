"""Which devices a form is about, and what is to be done to them. I/O: it asks the index."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ota_server.model.identity import name_of, parse_key, product_of
from ota_server.operations.bulk_edits import BulkAction, BulkChange, read_change
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.device_query import (
    FILTER_FIELDS,
    LIST_FIELDS,
    by_name,
    devices_url,
    fields_of,
    read_filter,
    refuse_unknown,
)
from ota_server.operator_port.page_devices_bar import BUTTONS, ROLL_OUT, one_product
from ota_server.operator_port.pieces import device_url
from ota_server.operator_port.site import Site

# A page that names more by hand would not be one that anybody ticks.
_MOST_TICKED = 10_000
# What a change needs stands in fields of these names: those of a filter are there too.
PREFIX = "set_"
CHANGE_FIELDS = ("version", "until", "group", "label", "is_forced")
_FIELDS = ("form_token", "action", "scope", "key", "expected", "back")
_KNOWN = (*FILTER_FIELDS, *LIST_FIELDS, *_FIELDS, *(PREFIX + name for name in CHANGE_FIELDS))


class MeantDevices(NamedTuple):
    """What a form is about.

    Attributes:
        action: one of `BUTTONS`.
        product: that all devices are of.
        keys: the devices.
        is_all: all that match are meant, not those that were ticked.
        is_one: it came from the page of the device.
    """

    action: str
    product: str
    wanted: DeviceFilter
    keys: Sequence[str]
    is_all: bool
    is_one: bool = False

    @property
    def back_url(self) -> str:
        """The page that it came from."""
        if self.is_one:
            return device_url(self.product, name_of(self.keys[0]))
        return devices_url(self.wanted)


def read_meant(site: Site, asked: Asked) -> MeantDevices:
    """Return what a form is about.

    Raises:
        Malformed: it cannot be read, or no device was chosen or matches.
        IndexAway: there is no index now.
    """
    refuse_unknown(asked.form, _KNOWN)
    action, scope = asked.typed("action"), asked.typed("scope", "chosen")
    if action not in dict(BUTTONS):
        raise Malformed(f"action: {action[:40]!r} is not one of {', '.join(dict(BUTTONS))}")
    if scope not in ("chosen", "all"):
        raise Malformed(f"scope: {scope[:40]!r} is neither chosen nor all")
    wanted = read_filter(asked.form)
    if scope == "all":
        product = one_product(site, wanted)
        if product is None:
            raise Malformed("these devices are of several products: choose one first")
        keys = [*site.index.keys(wanted)]
        if not keys:
            raise Malformed("no device matches: nothing can be done")
        return MeantDevices(action, product, wanted, keys, True)
    keys = _ticked(asked.form.get("key", ()))
    products = {product_of(key) for key in keys}
    if len(products) > 1:
        raise Malformed("these devices are of several products: choose those of one")
    is_one = asked.typed("back") == "device" and len(keys) == 1
    return MeantDevices(action, products.pop(), wanted, keys, False, is_one)


def _ticked(said: Sequence[str]) -> list[str]:
    """Return the keys of the devices that were ticked.

    Raises:
        Malformed: there are none or too many, or one is no key.
    """
    if not said:
        raise Malformed("no device was chosen: tick some, or choose all that match")
    if len(said) > _MOST_TICKED:
        raise Malformed(f"{len(said)} devices were chosen one by one: {_MOST_TICKED} at most")
    for each in said:
        if parse_key(each) != each:
            raise Malformed(f"key: {each[:80]!r} is not a device")
    return list(dict.fromkeys(said))


def read_wish(asked: Asked, meant: MeantDevices) -> BulkChange | None:
    """Return what is to be done; None: the form does not say yet what the action needs.

    Raises:
        BadFields: it says something that cannot be used.
    """
    is_rollout = meant.action == ROLL_OUT
    action = BulkAction.ADD.value if is_rollout else meant.action
    needed = _NEEDS.get(action, "")
    if needed and f"{PREFIX}{needed}" not in asked.form:
        return None
    given: dict[str, object] = {"action": action}
    for name in _TAKES.get(action, ()):
        given[name] = asked.typed(PREFIX + name)
    return read_change(given)


_NEEDS = {
    BulkAction.PIN.value: "version",
    BulkAction.LABEL.value: "label",
    BulkAction.ADD.value: "group",
    BulkAction.REMOVE.value: "group",
}
_TAKES: Mapping[str, Sequence[str]] = {
    BulkAction.PIN.value: ("version", "until", "is_forced"),
    BulkAction.UNPIN.value: ("is_forced",),
    BulkAction.LABEL.value: ("label",),
    BulkAction.ADD.value: ("group", "is_forced"),
    BulkAction.REMOVE.value: ("group", "is_forced"),
}


def hidden_fields(meant: MeantDevices) -> dict[str, list[str]]:
    """Return the fields that say which devices are meant."""
    fields: dict[str, list[str]] = by_name(fields_of(meant.wanted))
    fields["action"] = [meant.action]
    fields["scope"] = ["all" if meant.is_all else "chosen"]
    if not meant.is_all:
        fields["key"] = [*meant.keys]
    if meant.is_one:
        fields["back"] = ["device"]
    return fields
