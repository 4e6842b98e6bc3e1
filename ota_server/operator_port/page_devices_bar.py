"""The buttons below the table of devices: what can be done to many at once. I/O."""

from collections.abc import Sequence

from ota_server.operations.bulk_edits import BulkAction
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.device_index import Total
from ota_server.operations.group_facts import has_device_pins
from ota_server.operations.group_names import group_names
from ota_server.operator_port.device_query import DeviceListing, fields_of, product_field
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.pieces import link, number, url_with
from ota_server.operator_port.site import DEFAULT, Site

# Not of `bulk_edits`: the devices become a group, and a rollout to that begins.
ROLL_OUT = "roll out"
# What whoever may only read cannot do.
ALL_ACTIONS = "pin, label, group, forget or roll out"
BUTTONS = (
    (ROLL_OUT, "Roll out"),
    (BulkAction.ADD.value, "Add to a group"),
    (BulkAction.REMOVE.value, "Remove from a group"),
    (BulkAction.PIN.value, "Pin"),
    (BulkAction.UNPIN.value, "Unpin"),
    (BulkAction.RETRY.value, "Let try again"),
    (BulkAction.LABEL.value, "Label"),
    (BulkAction.FORGET.value, "Forget"),
)
# For one device another word fits better.
_WORDS_OF_ONE = {BulkAction.RETRY.value: "Let it try again"}
# What is said after it, by a word in the URL.
DONE = {
    BulkAction.PIN.value: "They are pinned.",
    BulkAction.UNPIN.value: "They are no longer pinned.",
    BulkAction.RETRY.value: "They may try again at once.",
    BulkAction.LABEL.value: "They are labelled.",
    BulkAction.FORGET.value: "They are forgotten; the server does that in a moment.",
    BulkAction.ADD.value: "They are in the group.",
    BulkAction.REMOVE.value: "They are no longer in the group.",
}


def action_bar(site: Site, listing: DeviceListing, total: Total) -> Node:
    """Return the buttons below the table; the form that they stand in has the filter."""
    product = one_product(site, listing.wanted)
    if product is None:
        return _choose_product(site, listing)
    all_of = ("" if total.is_exact else "more than ") + number(total.number)
    every = f"all devices ({all_of})" if listing.wanted.is_all else f"all {all_of} that match"
    scopes = element(
        "fieldset",
        element("legend", "What is done reaches"),
        _scope("chosen", "the chosen devices (", element("span", "0", data_chosen=True), ")"),
        _scope("all", every),
    )
    folder = site.folder_of(product or DEFAULT)
    buttons = action_buttons(has_pin=has_device_pins(folder), has_group=bool(group_names(folder)))
    said = element("p", "Each shows first how many devices it reaches.", class_="quiet")
    return element("section", element("h2", "Act"), scopes, button_bar(buttons), said, class_="act")


def action_buttons(*, has_pin: bool, has_group: bool, is_of_one: bool = False) -> list[Html]:
    """Return the buttons of the actions for which there is something to do.

    Args:
        is_of_one: they are for one device.
    """
    left_out: list[str] = [*[BulkAction.UNPIN] * (not has_pin), *[ROLL_OUT] * is_of_one]
    left_out += [BulkAction.REMOVE] * (not has_group)
    words = _WORDS_OF_ONE if is_of_one else {}
    return [
        element("button", words.get(action, usual), name="action", value=action)
        for action, usual in BUTTONS
        if action not in left_out
    ]


def button_bar(buttons: Sequence[Node]) -> Html:
    """Return buttons side by side."""
    return element("div", buttons, class_="actions")


def _scope(value: str, *words: Node) -> Html:
    box = element("input", type="radio", name="scope", value=value, checked=value == "chosen")
    return element("label", box, element("span", *words), class_="check")


def _choose_product(site: Site, listing: DeviceListing) -> Node:
    def one(product: str) -> Html:
        wanted = [*fields_of(listing.wanted), ("product", product_field(product))]
        return element("li", link(url_with("/devices", wanted), product or DEFAULT))

    words = "An action is for the devices of one product. Choose it first:"
    return element(
        "section", element("h2", "Act"), element("p", words), element("ul", map(one, site.products))
    )


def one_product(site: Site, wanted: DeviceFilter) -> str | None:
    """Return the product that a filter is about; None: it spans several."""
    if wanted.product is not None:
        return wanted.product
    return site.products[0] if len(site.products) == 1 else None
