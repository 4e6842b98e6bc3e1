"""When a device should ask again, where its protocol lets the server say so. Pure."""

from zlib import crc32

DEFAULT_SECONDS = 300.0
LEAST_SECONDS, MOST_SECONDS = 30, 24 * 3600 - 1
# Devices that poll at the same moment, after a power cut, are spread by the next one or two polls.
_SPREAD = 0.5
_MOST_LOAD = 3.0


def poll_seconds(key: str, base_seconds: float, load: float = 0.0) -> int:
    """Return how long a device should wait before it asks again.

    That is the base, more or less by up to a quarter, the same for each poll of one device.

    Args:
        load: how many devices wait for a download slot, for each slot.
    """
    share = crc32(key.encode("ascii")) / 2**32
    seconds = base_seconds * (1 - _SPREAD / 2 + _SPREAD * share) * (1 + min(load, _MOST_LOAD))
    return min(max(LEAST_SECONDS, round(seconds)), MOST_SECONDS)
