"""A device on the command line: named by its label or its key; and which product it is of. I/O."""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

from ota_server.journal.replay import replay
from ota_server.model.identity import (
    key_of_name,
    name_of,
    number_of,
    parse_key,
    parse_name,
    product_of,
)
from ota_server.model.refusal import Misused
from ota_server.policy.files import GROUP_SUFFIX, GROUPS_FOLDER
from ota_server.policy.labels import read_labels
from ota_server.policy.policy import is_group_name
from ota_server.policy.text import Who
from ota_server.system.data_dir import journal_dir, product_dir, product_names, root_of

# What the default product is called where a product has to be named.
DEFAULT = "default"


class MaybeLabel(NamedTuple):
    """What was typed for a device and is not a MAC address.

    Attributes:
        or_group: it may also be the name of a group, and becomes a `Who`.
    """

    text: str
    or_group: bool


def find_product(arguments: argparse.Namespace) -> str | None:
    """Return the product of the device that is named, "" for the default one; None: none is.

    Where it was named by its key, as the log has it, only its name is left among the arguments.

    Raises:
        Misused: it is of several products, or of another than was named.
    """
    said: str | None = arguments.product
    if getattr(arguments, "rejected", False):
        return said  # who was rejected is on record for all products together
    for argument in ("mac", "who"):
        typed = getattr(arguments, argument, None)
        if isinstance(typed, MaybeLabel) and (key := parse_key(typed.text)) is not None:
            name, product = name_of(key), product_of(key)
            setattr(arguments, argument, Who("devices", name) if typed.or_group else name)
            if said not in (None, product or DEFAULT):
                raise Misused(f"{name} is a device of {product or DEFAULT}, not of {said}")
            return product
        if said is None and typed is not None and product_names(arguments.data_dir):
            found = _products_with(arguments.data_dir, typed)
            if len(found) > 1:
                names = " and of ".join(each or DEFAULT for each in found)
                text = typed.text if isinstance(typed, MaybeLabel) else typed
                raise Misused(f"{text} is a device of {names}: give --product")
            return found[0] if found else None
    return said


def _products_with(root: Path, typed: str | Who | MaybeLabel) -> list[str]:
    """Return the products with a device of that label, or on record by that name."""
    products = ["", *product_names(root)]
    if isinstance(typed, MaybeLabel):
        labels = {each: read_labels(product_dir(root, each)).values() for each in products}
        return [each for each in products if typed.text in labels[each]]
    if not journal_dir(root).is_dir():
        return []
    found = replay(journal_dir(root))
    found.close()
    keys = {each: key_of_name(each, str(typed)) for each in products}
    return [each for each in products if number_of(keys[each]) in found.locations]


def _known_by(root: Path, text: str) -> str:
    """Return which devices call themselves so, as the end of a message; "": none does."""
    name = parse_name(f"id:{text}")
    products = [] if name is None else _products_with(root, name)
    return "".join(f"; `{name}` is a device of {each or DEFAULT}" for each in products)


def resolve_labels(arguments: argparse.Namespace) -> None:
    """Replace each label among the arguments by the MAC of its device.

    Raises:
        Misused: no device has that label, or several have it.
    """
    for name, value in list(vars(arguments).items()):
        if isinstance(value, MaybeLabel):
            setattr(arguments, name, _resolved(arguments.data_dir, value))
        elif isinstance(value, list):
            resolved = [
                _resolved(arguments.data_dir, each) if isinstance(each, MaybeLabel) else each
                for each in value
            ]
            setattr(arguments, name, resolved)


def with_macs(data_dir: Path, content: bytes) -> bytes:
    """Return lines of text, with the MAC of its device for each that is a label.

    Raises:
        Misused: several devices have a label.
    """
    labels = {label.encode() for label in read_labels(data_dir).values()}
    lines = (line.strip() for line in content.split(b"\n"))
    return b"\n".join(
        str(_resolved(data_dir, MaybeLabel(line.decode(), or_group=False))).encode()
        if line in labels
        else line
        for line in lines
    )


def _resolved(data_dir: Path, typed: MaybeLabel) -> str | Who:
    text = typed.text
    macs = sorted(mac for mac, label in read_labels(data_dir).items() if label == text)
    may_be_group = typed.or_group and is_group_name(text)
    if may_be_group and not macs:
        return Who("groups", text)
    if not macs:
        mac = "a MAC address such as 00:11:22:33:44:55"
        what = f"neither {mac} nor a group's name" if typed.or_group else f"not {mac}"
        known = _known_by(root_of(data_dir), text)
        raise Misused(f"{text[:40]!r} is {what}, and no device has it as its label{known}")
    if len(macs) > 1:
        raise Misused(f"{len(macs)} devices are called {text}: give a MAC: {', '.join(macs[:5])}")
    path = data_dir / "version" / GROUPS_FOLDER / f"{text}{GROUP_SUFFIX}"
    if may_be_group and os.path.lexists(path):
        raise Misused(f"{text} is a group and the label of {macs[0]}: give that MAC, or rename one")
    return Who("devices", macs[0]) if typed.or_group else macs[0]
