"""The command `product`: kinds of devices with releases of their own."""

import argparse
import json

from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    say,
    warn_of_no_server,
)
from ota_server.commands.terminal import write_table
from ota_server.model.identity import PRODUCT_RULE, is_product_name
from ota_server.operations.product_facts import add_product, list_products, remove_product

_ADD_EXAMPLES = """\
  %(prog)s plug
  then `release publish FILE --version V --product plug`

Its devices ask for /plug/version.txt and /plug/firmware.bin.
"""
_LIST_EXAMPLES = """\
  %(prog)s
  %(prog)s --json   a JSON object a line
"""
_REMOVE_EXAMPLES = """\
  %(prog)s plug
  %(prog)s plug --force   though it has releases or devices

Its folder is kept under another name, and its devices stay on record.
"""


def add_commands(commands: Commands) -> None:
    """Add the command and its parts."""
    parts = add_command_of_parts(
        commands,
        "product",
        "add, list and remove kinds of devices with releases of their own",
        "Several kinds of devices on one server: each product has its own releases, target, "
        "rollouts, groups and pins, and its own paths.",
        "  %(prog)s add plug\n",
        "add, list or remove",
    )
    adding = add_command(
        parts, "add", "add a product", "Add a product.", _ADD_EXAMPLES, _add, has_product=False
    )
    adding.add_argument("name", metavar="NAME", type=_name, help="as in a path")
    listing = add_command(
        parts,
        "list",
        "list the products",
        "List the products, with the target and the number of devices of each.",
        _LIST_EXAMPLES,
        _list,
        has_product=False,
    )
    listing.add_argument("--json", action="store_true", help="a JSON object a line")
    removing = add_command(
        parts,
        "remove",
        "serve a product no more",
        "Serve a product no more. Nothing is deleted.",
        _REMOVE_EXAMPLES,
        _remove,
        has_product=False,
    )
    removing.add_argument("name", metavar="NAME", type=_name, help="one that is there")
    removing.add_argument(
        "--force", action="store_true", help="though it has releases or devices on record"
    )


def _name(text: str) -> str:
    if not is_product_name(text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a product: use {PRODUCT_RULE}")
    return text


def _add(arguments: argparse.Namespace) -> int:
    root, name = arguments.data_dir, arguments.name
    is_held_too = add_product(root, name)
    say(f"product {name} is there; `release publish FILE --version V --product {name}` is next")
    if is_held_too:
        say(f"everything is on hold, and so is product {name}; `unhold` ends that")
    warn_of_no_server(root, "start it, or no device is answered")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found = list_products(arguments.data_dir)
    if arguments.json:
        for each in found:
            fields = {"product": each.name, "target": each.target, "releases": each.releases}
            print(json.dumps({**fields, "devices": each.devices}))
        return 0
    rows = [
        (each.name or "(default)", each.target or "-", str(each.releases), f"{each.devices:,}")
        for each in found
    ]
    write_table(("PRODUCT", "TARGET", "RELEASES", "DEVICES"), rows)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    name = arguments.name
    kept = remove_product(arguments.data_dir, name, arguments.force)
    print(f"product {name} is served no more; its folder is {kept}")
    return 0
