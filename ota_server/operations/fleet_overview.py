"""How each product is, and what needs a person: the first thing that an operator looks at. I/O."""

import os
from collections.abc import Mapping
from pathlib import Path

from ota_server.model.refusal import Misused
from ota_server.operations.product_warnings import OF_ALL
from ota_server.operations.status_facts import StatusGatherer
from ota_server.policy.fleet_status import FleetStatus, assess
from ota_server.system import clock
from ota_server.system.data_dir import product_at, product_dir, product_names

_FOLDERS = ("version", "firmware", "log")


class MayNotRead(Misused):
    """A folder cannot be read by this user, who would get false alarms."""


def gatherers_of(root: Path, is_one: bool = False) -> dict[str, StatusGatherer]:
    """Return what gathers the facts of each product, by its name; "" is the default one.

    Args:
        root: the data directory.
        is_one: of the product of this data directory alone.

    Raises:
        MayNotRead: this user may not read a folder.
        Misused: there is no such data directory.
    """
    found = {product_at(root): _gatherer(root)}
    if not is_one:
        for name in product_names(root):
            found[name] = _gatherer(product_dir(root, name))
    return found


def _gatherer(data_dir: Path) -> StatusGatherer:
    for folder in (data_dir, *(data_dir / name for name in _FOLDERS)):
        try:
            os.listdir(f"{folder}/.")  # to list a folder, and to enter it
        except PermissionError as problem:
            raise MayNotRead(f"{folder} cannot be read: {problem.strerror}") from problem
        except OSError:
            continue
    if not os.path.isdir(data_dir):
        raise Misused(f"{data_dir} is not a folder; is --data-dir right?")
    return StatusGatherer(data_dir)


def overview(
    gatherers: Mapping[str, StatusGatherer], counts_devices: bool = True
) -> dict[str, FleetStatus]:
    """Return how each product is; what is one for all is said of the first alone.

    The default product is left out while it is not used and there are others.

    Args:
        counts_devices: that reads all of the journal, and no number of devices needs a person.
    """
    found: dict[str, FleetStatus] = {}
    said: set[tuple[str, str]] = set()
    for product, gatherer in gatherers.items():
        may_be_unused = not product and len(gatherers) > 1 and gatherer.is_empty
        facts = gatherer.facts(clock.now_ms(), counts_devices or may_be_unused)
        if may_be_unused and facts.devices is not None and not facts.devices.total:
            continue  # all devices are of other products
        warnings = []
        for each in assess(facts).warnings:
            if (each.about, each.text) in said:
                continue
            if each.about in OF_ALL:
                said.add((each.about, each.text))
            warnings.append(each)
        found[product] = FleetStatus(facts, tuple(warnings))
    return found
