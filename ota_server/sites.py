"""Sites: the addresses that devices ask from, and how much one of them may decide. Pure.

Anybody can claim any MAC, but not from anywhere.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, ip_network
from zlib import crc32

# Of all evidence, the share that one address may give: a quarter.
_ADDRESSES = 4
# Above all IPv4 addresses, below any IPv6 network that is in use.
_NO_ADDRESS = 1 << 40


@lru_cache(maxsize=16384)
def site_of(address: str) -> int:
    """Return an address as a number of 64 bits; all of an IPv6 /64 is one, for one host has it."""
    parts = address.split(".")
    if len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts):
        numbers = [int(part[:4]) for part in parts]
        if max(numbers) < 256:
            return numbers[0] << 24 | numbers[1] << 16 | numbers[2] << 8 | numbers[3]
    try:
        return int(IPv6Address(address)) >> 64
    except ValueError:
        return _NO_ADDRESS | crc32(address.encode("utf-8", "replace"))


class SharedSites:
    """The sites behind which there are many devices, as operators have named them."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Take networks, such as `203.0.113.0/24`.

        Raises:
            ValueError: one of them is none.
        """
        self._spans = []
        for text in networks:
            network = ip_network(text, strict=False)
            shift = 0 if isinstance(network, IPv4Network) else 64
            first, last = int(network.network_address), int(network.broadcast_address)
            self._spans.append((first >> shift, last >> shift))

    def __contains__(self, site: int) -> bool:
        """Say whether a site is one of them."""
        return any(first <= site <= last for first, last in self._spans)


def capped(devices: Counter[int], shared: SharedSites) -> int:
    """Return how many devices count of those at each site.

    No site gives more than a quarter of what is returned, but each gives one; a shared one gives
    all that it has.
    """
    total = devices.total()
    if not devices or max(devices.values()) * _ADDRESSES <= total:
        return total
    most = most_of_each(devices, shared)
    return sum(n if site in shared else min(n, most) for site, n in devices.items())


def most_of_each(devices: Counter[int], shared: SharedSites) -> int:
    """Return how many devices count at most of those at each site that is not shared."""
    alone = [count for site, count in devices.items() if site not in shared]
    free = devices.total() - sum(alone)
    most = max(alone, default=1)
    while most > 1:
        total = free + sum(min(count, most) for count in alone)
        if most * _ADDRESSES <= total:
            return most
        most = min(most - 1, total // _ADDRESSES)
    return 1


def lacking(devices: Counter[int], shared: SharedSites) -> int:
    """Return how many devices at other sites it takes until no site gives more than a quarter."""
    alone = max((n for site, n in devices.items() if site not in shared), default=0)
    most = min(alone, most_of_each(devices, shared))
    return max(most * _ADDRESSES - capped(devices, shared), 0)


def crowded(devices: Counter[int], bad: Counter[int], shared: SharedSites, reach: int) -> int:
    """Return how many are bad of the devices at sites that hold over a quarter of all.

    That is how the fleet is built and no forgery: it must be named as shared to count in full.

    Args:
        reach: all that are on record; of those heard from up to now a forger may be the first.
    """
    most = max(devices.total(), reach) / _ADDRESSES
    return sum(count for site, count in bad.items() if devices[site] > most and site not in shared)
