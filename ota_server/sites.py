"""Sites: the addresses that devices ask from, and a quarter of what is said from them. Pure."""

from collections import Counter
from collections.abc import Container
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from zlib import crc32

# Of all evidence, the share that one address may give: a quarter.
QUARTER = 4
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


def address_of(site: int) -> str:
    """Return a site as text: an IPv4 address, or the IPv6 network of one host."""
    if site < 1 << 32:
        return str(IPv4Address(site))
    if site < _NO_ADDRESS << 1:
        return "an unknown address"
    return str(IPv6Network((site << 64, 64)))


def capped(devices: Counter[int], free: Container[int]) -> int:
    """Return how many devices count of those at each site.

    No site gives more than a quarter of what is returned, but each gives one; a free one gives all
    that it has.
    """
    total = devices.total()
    if not devices or max(devices.values()) * QUARTER <= total:
        return total
    most = most_of_each(devices, free)
    return sum(n if site in free else min(n, most) for site, n in devices.items())


def most_of_each(devices: Counter[int], free: Container[int] = ()) -> int:
    """Return how many devices count at most of those at each site that is not free."""
    alone = [count for site, count in devices.items() if site not in free]
    others = devices.total() - sum(alone)
    most = max(alone, default=1)
    while most > 1:
        total = others + sum(min(count, most) for count in alone)
        if most * QUARTER <= total:
            return most
        most = min(most - 1, total // QUARTER)
    return 1
