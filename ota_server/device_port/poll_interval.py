"""When a device should ask again, where its protocol or Retry-After says so. Pure."""

from zlib import crc32

from ota_server.httpd.reply import AT_NEXT_POLL, SOON_SECONDS

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
    seconds = _spread(key, base_seconds) * (1 + min(load, _MOST_LOAD))
    return min(max(LEAST_SECONDS, round(seconds)), MOST_SECONDS)


def retry_seconds(seconds: int, key: str, base_seconds: float, load: float) -> int:
    """Return when a device that was refused something should ask again, given what a reply says.

    Args:
        seconds: as in a `Reply`. A time that is neither of those of all devices stays.
        base_seconds, load: as for `poll_seconds`.
    """
    if seconds == AT_NEXT_POLL:
        return poll_seconds(key, base_seconds, load)
    return round(_spread(key, seconds)) if seconds == SOON_SECONDS else seconds


def _spread(key: str, seconds: float) -> float:
    share = crc32(key.encode("ascii")) / 2**32
    return seconds * (1 - _SPREAD / 2 + _SPREAD * share)
