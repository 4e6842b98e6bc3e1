"""Times and durations as text and as numbers. Pure."""

from datetime import UTC, datetime
from functools import lru_cache

from ota_server.model.quantity import DURATION_UNITS

_LAST_MS = 253_402_300_799_999  # the end of the year 9999
# A table costs half of a format spec, and each request formats three times.
_FRACTIONS = tuple(f".{ms:03d}Z" for ms in range(1000))


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    # Not by strftime, which takes four times as long.
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def format_time(ms: int) -> str:
    """Return milliseconds since the epoch as RFC 3339 text in UTC, as in the journal."""
    return _second(ms // 1000) + _FRACTIONS[ms % 1000]


def format_second(ms: int) -> str:
    """Return a time for people, without its milliseconds."""
    return f"{_second(ms // 1000)}Z"


def parse_time(text: str) -> int:
    """Return RFC 3339 text in milliseconds since the epoch.

    Raises:
        ValueError: it is not a time, or has no time zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text[:40]!r}")
    ms = round(moment.timestamp() * 1000)
    if not 0 <= ms <= _LAST_MS:
        raise ValueError(f"a time out of range: {text[:40]!r}")
    return ms


def ago(text: str, now_ms: int) -> str:
    """Return how long ago a time was, in its largest unit; one that is still to come is now."""
    try:
        return ago_ms(parse_time(text), now_ms)
    except ValueError:
        return "?"


def ago_ms(ms: int, now_ms: int) -> str:
    """Return what `ago` does, of a time in milliseconds."""
    seconds = (now_ms - ms) // 1000
    for unit, size in DURATION_UNITS.items():
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return "now"
