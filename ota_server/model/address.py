"""Source addresses: where requests come from; an IPv6 /64 counts as one. Pure."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from zlib import crc32

# Above all IPv4 addresses, below any IPv6 network that is in use.
_NO_ADDRESS = 1 << 40


@lru_cache(maxsize=16384)
def source_of(address: str) -> int:
    """Return an address as a 64-bit number, one for each IPv6 /64: a host can have a whole one."""
    parts = address.split(".")
    if len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts):
        numbers = [int(part[:4]) for part in parts]
        if max(numbers) < 256:
            return numbers[0] << 24 | numbers[1] << 16 | numbers[2] << 8 | numbers[3]
    try:
        return int(IPv6Address(address)) >> 64
    except ValueError:
        return _NO_ADDRESS | crc32(address.encode("utf-8", "replace"))


def is_loopback(address: str) -> bool:
    """Return whether an address is one by which a machine talks to itself."""
    return address == "::1" or address.startswith("127.")


def plain_address(address: IPv4Address | IPv6Address) -> str:
    """Return an address as text; an IPv4 address is written plain, also one mapped into IPv6."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def plain_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Return a network; one of IPv4 addresses that are mapped into IPv6 as what it means."""
    if isinstance(network, IPv4Network) or network.prefixlen < 96:
        return network
    mapped = network.network_address.ipv4_mapped
    return network if mapped is None else IPv4Network((mapped, network.prefixlen - 96))


def address_of(source: int) -> str:
    """Return a source address as text: an IPv4 address, or the IPv6 network of one host."""
    if source < 1 << 32:
        return str(IPv4Address(source))
    if source < _NO_ADDRESS << 1:
        return "an unknown address"
    return str(IPv6Network((source << 64, 64)))
