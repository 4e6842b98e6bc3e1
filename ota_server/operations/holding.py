"""The emergency hold by the names of products, as page and API set it. I/O."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ota_server.operations.hold_devices import hold_devices, release_hold
from ota_server.policy.hold import current_hold
from ota_server.policy.text import Hold
from ota_server.system.data_dir import product_dir, product_names


class ProductHold(NamedTuple):
    """A product, "" is the default one, and its hold; None: it is not on hold."""

    product: str
    held: Hold | None


def holds(root: Path) -> list[ProductHold]:
    """Return all products of a server, the default one first, with their holds."""
    return [
        ProductHold(name, current_hold(product_dir(root, name)))
        for name in ("", *product_names(root))
    ]


def begin_hold(root: Path, product: str | None, reason: str) -> Mapping[str, str]:
    """Offer nothing to any device of a product; None: of all products.

    Returns:
        What is wrong with the products that are not on hold, by their names.

    Raises:
        Refused, Busy, BadPolicy, OSError: nothing is on hold.
    """
    if product is None:
        return hold_devices(root, reason).problems
    return hold_devices(product_dir(root, product), reason, is_one=True).problems


def end_hold(root: Path, product: str | None) -> Mapping[str, str]:
    """End the hold of a product; None: of all that are on hold.

    Returns:
        What is wrong with the products that are still on hold, by their names.

    Raises:
        Refused: nothing is on hold.
        Busy, BadPolicy, OSError: it still is.
    """
    if product is None:
        return release_hold(root)
    return release_hold(product_dir(root, product), is_one=True)
