"""How many devices an action reaches, in words, as far as the index says. I/O."""

from ota_server.model.quantity import count_of
from ota_server.operations.device_filter import DeviceFilter
from ota_server.operations.device_index import IndexAway
from ota_server.operator_port.html import Node
from ota_server.operator_port.pieces import link, number
from ota_server.operator_port.site import Site


def devices_of(site: Site, wanted: DeviceFilter) -> int | None:
    """Return how many devices a filter lets through; None: there is no index now."""
    try:
        return site.index.count(wanted)
    except IndexAway:
        return None


def devices_in_words(site: Site, wanted: DeviceFilter) -> str:
    """Return how many devices a filter lets through, as it stands in a sentence."""
    found = devices_of(site, wanted)
    if found is None:
        return "an unknown number of devices (the index of devices is not ready)"
    return count_of(found, "device")


def linked_number(found: int | None, url: str) -> Node:
    """Return a number of devices that leads to the table of them."""
    return "?" if found is None else link(url, number(found))
