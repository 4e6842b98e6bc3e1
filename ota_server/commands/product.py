"""The command `product`: kinds of devices with releases of their own."""

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path

from ota_server.commands.common import (
    Commands,
    add_command,
    add_command_of_parts,
    say,
    warn_of_no_server,
)
from ota_server.commands.terminal import write_table
from ota_server.journal.replay import replay
from ota_server.model.identity import PRODUCT_RULE, is_product_name, product_of
from ota_server.model.refusal import Misused, Refused
from ota_server.model.version import version_of_image_name
from ota_server.policy import audit
from ota_server.policy.hold import is_all_held
from ota_server.policy.hold_all import hold_as_all
from ota_server.policy.targets import read_version_file
from ota_server.rollouts.files import groups_with_plan
from ota_server.system.data_dir import log_dir, product_dir, product_names
from ota_server.system.locks import locked
from ota_server.system.new_files import make_folder

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
    if not (root / "version").is_dir():
        raise Refused(f"no version/ in {root}; is --data-dir right?")
    if name in product_names(root):
        raise Refused(f"there is a product {name} already")
    folder = product_dir(root, name)
    is_held_too = is_all_held(root)
    if folder.is_symlink():
        raise Refused(f"{folder} is a link, which no server follows; remove it first")
    with audit.noted(log_dir(root), "product add", name):
        for path in (folder, *(folder / part for part in ("version", "firmware", "log"))):
            make_folder(path)
        if is_held_too:
            hold_as_all(root, folder)
    say(f"product {name} is there; `release publish FILE --version V --product {name}` is next")
    if is_held_too:
        say(f"everything is on hold, and so is product {name}; `unhold` ends that")
    warn_of_no_server(root, "start it, or no device is answered")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    root = arguments.data_dir
    names = ["", *product_names(root)]
    counts = dict.fromkeys(names, 0)
    found = replay(log_dir(root))
    try:
        for number in found.locations:
            product = product_of(found.names.key_of(number))
            counts[product] = counts.get(product, 0) + 1
    finally:
        found.close()
    rows = []
    for name in names:
        folder = product_dir(root, name)
        target, releases = read_version_file(folder)[0], _releases(folder)
        if arguments.json:
            fields = {"product": name, "target": target, "releases": releases}
            print(json.dumps({**fields, "devices": counts[name]}))
        rows.append((name or "(default)", target or "-", str(releases), f"{counts[name]:,}"))
    if not arguments.json:
        write_table(("PRODUCT", "TARGET", "RELEASES", "DEVICES"), rows)
    return 0


def _releases(folder: Path) -> int:
    with suppress(OSError):
        return sum(1 for name in os.listdir(folder / "firmware") if version_of_image_name(name))
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    root, name = arguments.data_dir, arguments.name
    if name not in product_names(root):
        raise Misused(f"there is no product {name}; there are {', '.join(product_names(root))}")
    folder = product_dir(root, name)
    with locked(folder):
        reason = _why_kept(root, folder, name)
        if reason and not arguments.force:
            raise Refused(
                f"{name} has {reason}; --force removes it all the same, and deletes nothing"
            )
        kept = _free_name(folder)
        with audit.noted(log_dir(root), "product remove", name, to=kept.name):
            folder.rename(kept)
    print(f"product {name} is served no more; its folder is {kept}")
    return 0


def _why_kept(root: Path, folder: Path, name: str) -> str:
    if groups_with_plan(folder):
        return "a rollout"
    if releases := _releases(folder):
        return f"{releases} release{'s' * (releases != 1)}"
    found = replay(log_dir(root))
    try:
        has_devices = any(
            product_of(found.names.key_of(number)) == name for number in found.locations
        )
    finally:
        found.close()
    return "devices on record" if has_devices else ""


def _free_name(folder: Path) -> Path:
    """Return what a product is called that is kept: no server takes that for a product."""
    number = 1
    while True:
        kept = folder.with_name(f"{folder.name}.removed-{number}")
        if not os.path.lexists(kept):
            return kept
        number += 1
