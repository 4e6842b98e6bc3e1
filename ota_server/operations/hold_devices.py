"""The emergency hold of all products, or of one, as operators begin and end it. I/O."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ota_server.operations.after_change import WRONG_FOLDER, no_server_warning
from ota_server.policy import edits
from ota_server.policy.hold import current_hold, hold_words
from ota_server.policy.hold_all import hold_all, unhold_all
from ota_server.policy.text import Hold
from ota_server.system.data_dir import product_at, product_dir, product_names


class ProductHold(NamedTuple):
    """A product, "" is the default one, and its hold; None: it is not on hold."""

    product: str
    held: Hold | None


class HoldBegun(NamedTuple):
    """What came of a hold.

    Attributes:
        before: the holds that were on before, of each product that was to be held; None: none.
        problems: why a product is not on hold, by its name; "" is the default one.
        now: the hold that is on; None: there are problems.
    """

    before: tuple[Hold | None, ...]
    problems: Mapping[str, str]
    now: Hold | None


def holds(root: Path) -> list[ProductHold]:
    """Return all products of a server, the default one first, with their holds."""
    return [
        ProductHold(name, current_hold(product_dir(root, name)))
        for name in ("", *product_names(root))
    ]


def hold_warnings(data_dir: Path) -> tuple[str, ...]:
    """Return why no device may notice that a hold begins or ends."""
    return tuple(filter(None, [no_server_warning(data_dir, WRONG_FOLDER)]))


def is_of_all(data_dir: Path, is_one: bool) -> bool:
    """Return whether a hold concerns several products.

    Args:
        is_one: only the product of the data directory is meant.
    """
    return not is_one and bool(product_names(data_dir))


def hold_devices(data_dir: Path, reason: str, is_one: bool = False) -> HoldBegun:
    """Offer nothing to any device from now on.

    Args:
        is_one: of the product of the data directory alone.

    Raises:
        Refused, Busy, OSError: that is not done.
    """
    if is_of_all(data_dir, is_one):
        before, problems = hold_all(data_dir, reason)
        held = None if problems else current_hold(data_dir)
        return HoldBegun(tuple(before.values()), problems, held)
    found = edits.hold(data_dir, reason, what_is_held(data_dir, is_one))
    return HoldBegun((found,), {}, current_hold(data_dir))


def release_hold(data_dir: Path, is_one: bool = False) -> Mapping[str, str]:
    """End the hold; return why a product is still on hold, by its name; "" is the default one.

    Args:
        is_one: as `hold_devices`.

    Raises:
        Refused: nothing is on hold.
        Busy, OSError: that is not done.
    """
    if is_of_all(data_dir, is_one):
        return unhold_all(data_dir)
    edits.unhold(data_dir, what_is_held(data_dir, is_one))
    return {}


def what_is_held(data_dir: Path, is_one: bool = False) -> str:
    """Return what is held in a data directory alone, as the audit log has it.

    Args:
        is_one: as `hold_devices`: the default product does not stand for everything then.
    """
    if is_one and not product_at(data_dir) and product_names(data_dir):
        return "default product"
    return hold_words(data_dir)[0].removeprefix("the ")
