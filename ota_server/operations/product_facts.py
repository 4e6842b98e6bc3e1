"""The products of a data directory: which there are, adding one, and serving one no more. I/O."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ota_server.journal.replay import replay
from ota_server.model.identity import product_of
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


class ProductFacts(NamedTuple):
    """A product: a kind of device with releases, target and rollouts of its own.

    Attributes:
        name: "": the default one.
        target: what its version.txt says; None: nothing that can be used.
        releases: how many it has.
        devices: how many are on record; None: they were not counted.
    """

    name: str
    target: str | None
    releases: int
    devices: int | None = None


def list_products(root: Path, counts_devices: bool = True) -> list[ProductFacts]:
    """Return all products, the default one first.

    Args:
        counts_devices: this reads the journal.

    Raises:
        OSError: a file cannot be read.
    """
    names = ["", *product_names(root)]
    counts = _device_counts(root) if counts_devices else None
    return [
        ProductFacts(
            name,
            read_version_file(product_dir(root, name)).version,
            _releases(product_dir(root, name)),
            None if counts is None else counts.get(name, 0),
        )
        for name in names
    ]


def _device_counts(root: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    found = replay(log_dir(root))
    found.close()
    for number in found.locations:
        product = product_of(found.names.key_of(number))
        counts[product] = counts.get(product, 0) + 1
    return counts


def _releases(folder: Path) -> int:
    with suppress(OSError):
        return sum(1 for name in os.listdir(folder / "firmware") if version_of_image_name(name))
    return 0


def add_product(root: Path, name: str) -> bool:
    """Add a product; return whether it is on hold, since all others are.

    Raises:
        Refused: there is one, or it is not a data directory.
        OSError: it cannot be made.
    """
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
    return is_held_too


def remove_product(root: Path, name: str, is_forced: bool = False) -> Path:
    """Serve a product no more; return where its folder is kept.

    Args:
        is_forced: though it has releases, a rollout or devices.

    Raises:
        Misused: there is no such product.
        Refused, Busy, OSError: it stays as it is.
    """
    if name not in product_names(root):
        raise Misused(f"there is no product {name}; there are {', '.join(product_names(root))}")
    folder = product_dir(root, name)
    with locked(folder):
        reason = _why_kept(root, folder, name)
        if reason and not is_forced:
            raise Refused(
                f"{name} has {reason}; --force removes it all the same, and deletes nothing"
            )
        kept = _free_name(folder)
        with audit.noted(log_dir(root), "product remove", name, to=kept.name):
            folder.rename(kept)
    return kept


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
