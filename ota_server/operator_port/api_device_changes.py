"""Changes of one device, and of many, by the API. I/O.

All are those of `operations.bulk_edits`: of one device it is a list of one.
"""

from collections.abc import Container, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ota_server.httpd.reply import Reply
from ota_server.model.identity import parse_key, product_of
from ota_server.model.quantity import count_of
from ota_server.operations import bulk_edits
from ota_server.operations.bulk_edits import BulkAction, BulkChange, read_change
from ota_server.operations.device_index import DeviceIndex
from ota_server.operator_port.api_devices import key_in_path
from ota_server.operator_port.api_operation import (
    FORCE,
    Body,
    Given,
    Operation,
    Success,
    nothing,
    reply,
)
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import read_filter
from ota_server.operator_port.index_follows import await_shown
from ota_server.operator_port.problems import Problem
from ota_server.operator_port.schema_check import reference
from ota_server.operator_port.sentences import capitalised
from ota_server.operator_port.site import DEFAULT, NotHere, Site

_CHANGE_FIELDS = ("action", "version", "until", "group", "label")
_CHANGED = Success(HTTPStatus.OK, "What was done.", reference("Changed"))
_FORGOTTEN = Success(HTTPStatus.NO_CONTENT, "It is so, or was so already.")
_FORGOTTEN_WARNED = Success(
    HTTPStatus.OK, "It is forgotten, and a pin or a group names it still.", reference("Changed")
)
_LATER = Success(HTTPStatus.ACCEPTED, "The server does it in a moment.", reference("Changed"))


class OnRecord:
    """Whether devices are on record, by their keys."""

    def __init__(self, index: DeviceIndex) -> None:
        self._index = index

    def __contains__(self, key: object) -> bool:
        """Ask the index."""
        return isinstance(key, str) and self._index.device(key) is not None


def _change_one(site: Site, given: Given, change: BulkChange) -> dict[str, Any]:
    key, folder = key_in_path(site, given), site.folder_of(given.product)
    return changed_fields(site, folder, change, [key], OnRecord(site.index))


def changed_fields(
    site: Site, folder: Path, change: BulkChange, keys: Sequence[str], known: Container[str]
) -> dict[str, Any]:
    """Change devices of a product; return what was done, as `Changed` has it.

    The index shows it then, unless that takes too long.

    Args:
        known: the keys on record.

    Raises:
        Refused, BadPolicy, Busy, OSError: nothing was changed.
    """
    warnings = bulk_edits.preview(folder, change, keys, known).warnings
    done = bulk_edits.apply(folder, change, keys)
    await_shown(site, change, keys)
    return {**done._asdict(), "warnings": list(warnings)}


def _pin(site: Site, given: Given) -> Reply:
    change = _read({**given.body, "action": BulkAction.PIN})
    return reply(_change_one(site, given, change))


def _unpin(site: Site, given: Given) -> Reply:
    _change_one(site, given, BulkChange(BulkAction.UNPIN, is_forced=_is_forced(given)))
    return nothing()


def _label(site: Site, given: Given) -> Reply:
    change = _read({**given.body, "action": BulkAction.LABEL})
    return reply(_change_one(site, given, change))


def _unlabel(site: Site, given: Given) -> Reply:
    _change_one(site, given, BulkChange(BulkAction.LABEL))
    return nothing()


def _retry(site: Site, given: Given) -> Reply:
    return reply(_change_one(site, given, BulkChange(BulkAction.RETRY)))


def _forget(site: Site, given: Given) -> Reply:
    key = key_in_path(site, given)
    if site.index.device(key) is None:
        raise NotHere(f"{given.path['mac'][:70]!r} is not on record.")
    done = _change_one(site, given, BulkChange(BulkAction.FORGET))
    if site.index.device(key) is not None:
        return reply(done, HTTPStatus.ACCEPTED)
    return reply(done) if done["warnings"] else nothing()


def _is_forced(given: Given) -> bool:
    return bool(given.query.get("force", False))


def _read(fields: Mapping[str, Any]) -> BulkChange:
    said = {name: fields[name] for name in _CHANGE_FIELDS if name in fields}
    return read_change({**said, "is_forced": bool(fields.get("force"))})


# Many


def _preview(site: Site, given: Given) -> Reply:
    change = _read(given.body)
    product, keys = _chosen(site, given)
    known = OnRecord(site.index) if "keys" in given.body else frozenset(keys)
    return reply(bulk_edits.preview(site.folder_of(product), change, keys, known)._asdict())


def _act(site: Site, given: Given) -> Reply:
    change = _read(given.body)
    product, keys = _chosen(site, given)
    expected = given.body.get("expected")
    if expected is None and "filter" in given.body:
        raise _conflict("`expected` is missing: say how many devices the filter should choose")
    if expected is not None and expected != len({*keys}):
        raise _conflict(
            f"{count_of(len({*keys}), 'device')} would be changed, and {expected} are expected: "
            "look again at the list"
        )
    folder = site.folder_of(product)
    known = OnRecord(site.index) if "keys" in given.body else frozenset(keys)
    return reply(changed_fields(site, folder, change, keys, known))


def _chosen(site: Site, given: Given) -> tuple[str, list[str]]:
    """Return the product, and the keys of the devices that are meant.

    Raises:
        Problem: not exactly one of `filter` and `keys` is there, or they are of several products.
    """
    body = given.body
    if ("filter" in body) == ("keys" in body):
        raise _conflict("give either `filter` or `keys`")
    if "keys" in body:
        keys = [_key(each) for each in body["keys"]]
        product = product_of(keys[0]) or DEFAULT
    else:
        said = {name: _texts(value) for name, value in body["filter"].items()}
        product = body["filter"].get("product", body.get("product", DEFAULT))
        site.folder_of(product)
        keys = [*site.index.keys(read_filter({**said, "product": [product]}))]
    if body.get("product", product) != product:
        raise _conflict(f"the devices are of the product {product}")
    return product, keys


def _key(text: str) -> str:
    key = parse_key(text)
    if key is None:
        raise _conflict(f"{text[:70]!r} is not the key of a device")
    return key


def _texts(value: object) -> list[str]:
    """Return the value of a field as a query has it."""
    if isinstance(value, list):
        return [str(each) for each in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def _conflict(text: str) -> Problem:
    return Problem(HTTPStatus.CONFLICT, f"{capitalised(text)}.")


def _body(name: str, description: str, **example: object) -> Body:
    return Body(reference(name), description, example=example)


_ONE = "/devices/{product}/{mac}"
_BULK = _body(
    "BulkRequest",
    "What is to be done, and to which devices: those of a filter, or those that are named.",
    action="label",
    filter={"version": ["v1.0.0"], "group": "beta"},
    label="pump house",
    expected=12,
)
_EXAMPLE_PIN = {"version": "v1.2.0", "until": "2027-01-31T18:00:00Z"}
OPERATIONS = (
    Operation(
        "PUT",
        f"{_ONE}/pin",
        Access.ACT,
        "pinDevice",
        "Keep a device on a release, whatever rollouts and targets say",
        _pin,
        _CHANGED,
        body=_body("PinRequest", "The release, and when the pin ends.", **_EXAMPLE_PIN),
    ),
    Operation(
        "DELETE",
        f"{_ONE}/pin",
        Access.ACT,
        "unpinDevice",
        "End the pin of a device",
        _unpin,
        _FORGOTTEN,
        query=(FORCE,),
    ),
    Operation(
        "PUT",
        f"{_ONE}/label",
        Access.ACT,
        "labelDevice",
        "Give a device a label",
        _label,
        _CHANGED,
        body=_body("LabelRequest", "What it is called.", label="pump house"),
    ),
    Operation(
        "DELETE",
        f"{_ONE}/label",
        Access.ACT,
        "unlabelDevice",
        "Remove the label of a device",
        _unlabel,
        _FORGOTTEN,
    ),
    Operation(
        "POST",
        f"{_ONE}/retry",
        Access.ACT,
        "retryDevice",
        "Let a device try again that has fetched an image too often",
        _retry,
        _CHANGED,
    ),
    Operation(
        "DELETE",
        _ONE,
        Access.ACT,
        "forgetDevice",
        "Remove a device from the table; if it asks again, it is a new one",
        _forget,
        Success(HTTPStatus.NO_CONTENT, "It is forgotten."),
        also=(_FORGOTTEN_WARNED, _LATER),
    ),
    Operation(
        "POST",
        "/devices/actions/preview",
        Access.ACT,
        "previewBulkAction",
        "Say how many devices an action would change; nothing is changed",
        _preview,
        Success(HTTPStatus.OK, "How many.", reference("BulkPreview")),
        body=_BULK,
        problems=(HTTPStatus.NOT_FOUND,),
    ),
    Operation(
        "POST",
        "/devices/actions",
        Access.ACT,
        "bulkAction",
        "Change many devices of one product, all or none",
        _act,
        _CHANGED,
        description="With a filter, `expected` has to be how many devices it chooses: if that has "
        "changed since you looked, nothing is done (409).",
        body=_BULK,
        problems=(HTTPStatus.NOT_FOUND,),
    ),
)
