"""The page of a device that is not on record: what was decided for it all the same. I/O."""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from ota_server.httpd.reply import Reply
from ota_server.model.identity import key_of_name
from ota_server.operations.bulk_edits import BulkAction
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.device_query import product_field
from ota_server.operator_port.frame import page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_devices_meant import PREFIX
from ota_server.operator_port.page_overview_empty import device_port_url
from ota_server.operator_port.pieces import form, link, url_with, with_code
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.sentences import until_text
from ota_server.operator_port.site import Site
from ota_server.policy.files import PolicyFiles
from ota_server.policy.labels import read_labels


def absent_page(site: Site, asked: Asked, name: str, why: str, decided: Node = None) -> Reply:
    """Return that there is no such device, and what to do about it.

    Args:
        decided: what was decided for it (`decided_for`).
    """
    url = device_port_url(site, asked)
    steps = (
        (
            "It may have been rejected: ",
            link("/rejected", "Rejected"),
            " says who was, and why.",
        ),
        ("It may be of another product, or called otherwise: ", _find(name), "."),
        f"It may not reach the server{f' at {url}' if url else ''}.",
    )
    content = (
        element("h1", "Not on record"),
        element("p", element("strong", name[:80]), " is not on record. ", with_code(why)),
        element("ul", [element("li", each) for each in steps]),
        decided,
    )
    return page(site, asked, "Not on record", content, status=HTTPStatus.NOT_FOUND)


def _find(name: str) -> Html:
    return link(url_with("/devices", [("text", name[:80])]), "look for it among all devices")


def decided_for(asked: Asked, product: str, data_dir: Path, name: str) -> Node:
    """Return the pin, the label and the groups of a device, each with the button that ends it.

    Args:
        product: "" is the default one.
        data_dir: of the product.
    """
    hidden = {
        "product": product_field(product),
        "scope": "chosen",
        "key": key_of_name(product, name),
        "back": "device",
    }
    said, buttons = [], []
    for text, words, action, fields in _decided(data_dir, hidden["key"], name):
        said.append(element("li", text))
        button = element("button", words, name="action", value=action)
        wish = {f"{PREFIX}{field}": value for field, value in fields.items()}
        buttons.append(form(asked, "/devices/preview", button, hidden={**hidden, **wish}))
    if not said:
        return None
    return element(
        "section",
        element("h2", "What was decided for it"),
        element("p", "This holds when it comes:"),
        element("ul", said),
        element("div", buttons, class_="actions")
        if asked.operator.may_act
        else may_not_act("end that"),
    )


def _decided(
    data_dir: Path, key: str, name: str
) -> Iterator[tuple[str, str, BulkAction, dict[str, str]]]:
    """Yield what was decided: in words, the words of its button, and what that does."""
    policy = PolicyFiles(data_dir).current()
    if pin := policy.pins.get(key):
        yield (
            f"It is pinned to {pin.version}{until_text(pin.until_ms)}.",
            "Unpin",
            BulkAction.UNPIN,
            {},
        )
    if label := read_labels(data_dir).get(name):
        yield f"Its label is “{label}”.", "Remove the label", BulkAction.LABEL, {"label": ""}
    for group in policy.groups.get(key, ()):
        words = f"Remove from {group}"
        yield f"It is in the group {group}.", words, BulkAction.REMOVE, {"group": group}
