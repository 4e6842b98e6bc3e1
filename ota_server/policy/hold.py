"""The emergency hold as it is on record, and what the server's log says of it. I/O."""

import logging
import os
from contextlib import suppress
from pathlib import Path

from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.policy import HOLD_NAME
from ota_server.policy.text import Hold, hold_text, parse_hold
from ota_server.system.clock import now_ms
from ota_server.system.data_dir import product_at, product_dir, product_names
from ota_server.system.files import read
from ota_server.system.hints import hints

log = logging.getLogger(__name__)


def current_hold(data_dir: Path) -> Hold | None:
    """Return what is on record of the hold of a product; None: it is not on hold."""
    if not is_held(data_dir):
        return None
    what, end = hold_words(data_dir)
    try:
        held = parse_hold(read(data_dir / "version", HOLD_NAME))
    except (OSError, BadPolicy):
        return Hold(what=what, end=end)
    with suppress(ValueError):  # a clock that was ahead: it counts as now
        held = held._replace(time=format_time(min(parse_time(held.time), now_ms())))
    return held._replace(what=what, end=end)


def is_held(data_dir: Path) -> bool:
    """Return whether a product is on hold."""
    return os.path.lexists(data_dir / "version" / HOLD_NAME)


def is_all_held(root: Path) -> bool:
    """Return whether all products of a data directory are on hold."""
    return all(is_held(product_dir(root, each)) for each in ("", *product_names(root)))


def hold_words(data_dir: Path) -> tuple[str, str]:
    """Return what the hold of a product stops, in a sentence, and the command that ends it.

    The default product stands for everything while all products are on hold, except in a command
    that is about the default product alone.
    """
    if product := product_at(data_dir):
        return f"the product {product}", "`unhold`"
    if not product_names(data_dir) or (hints.product is None and is_all_held(data_dir)):
        return "everything", "`unhold`"
    return "the default product", "`unhold --product default`"


def reason_of_hold(data_dir: Path) -> str:
    """Return why a product is on hold; "" if it is not, or no reason is on record."""
    held = current_hold(data_dir)
    return "" if held is None else held.reason


def hold_lines(data_dir: Path) -> list[str]:
    """Return a line for each thing that is on hold, with what ends that.

    Args:
        data_dir: of one product; that of the server stands for all products, unless a command is
            about the default product alone.
    """
    held = current_hold(data_dir)
    of_one = product_at(data_dir) or hints.product is not None
    if of_one or (held is not None and is_all_held(data_dir)):
        return [] if held is None else [_line(held)]
    names = product_names(data_dir)
    of_products = [(name, current_hold(product_dir(data_dir, name))) for name in names]
    lines = [] if held is None else [_line(held)]
    return lines + [hints.paste(_line(each), name) for name, each in of_products if each]


def _line(held: Hold) -> str:
    return f"{hold_text(held)}; {held.end} ends that"


class HoldLog:
    """Logs the beginning and the end of a hold, whoever made it."""

    def __init__(self, data_dir: Path, policies: PolicyFiles) -> None:
        self._data_dir = data_dir
        self._policies = policies
        self._is_held = False

    def look_after(self) -> None:
        """Log a hold that has begun or ended since the last look."""
        before, self._is_held = self._is_held, self._policies.latest.is_held
        if self._is_held and not before:
            hold = current_hold(self._data_dir) or Hold()
            until = hints.paste(hold.end, product_at(self._data_dir))
            whom = "no device" if hold.what == "everything" else "no device of it"
            log.warning("%s; %s is offered anything until %s", hold_text(hold), whom, until)
        elif before and not self._is_held:
            product = product_at(self._data_dir)
            of = f" of the product {product}" if product else ""
            log.warning("the hold%s has ended: devices are offered what they should run", of)
