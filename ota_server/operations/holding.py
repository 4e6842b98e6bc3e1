"""The emergency hold of everything or of one product, as page and API set it. I/O."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ota_server.policy import edits
from ota_server.policy.hold import current_hold
from ota_server.policy.hold_all import hold_all, unhold_all
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
    if product is None and product_names(root):
        return hold_all(root, reason).problems
    edits.hold(product_dir(root, product or ""), reason, _what(root, product or ""))
    return {}


def end_hold(root: Path, product: str | None) -> Mapping[str, str]:
    """End the hold of a product; None: of all that are on hold.

    Returns:
        What is wrong with the products that are still on hold, by their names.

    Raises:
        Refused: nothing is on hold.
        Busy, BadPolicy, OSError: it still is.
    """
    if product is None and product_names(root):
        return unhold_all(root)
    edits.unhold(product_dir(root, product or ""), _what(root, product or ""))
    return {}


def _what(root: Path, product: str) -> str:
    """Return what the audit log calls a product."""
    if product:
        return f"product {product}"
    return "default product" if product_names(root) else "everything"
