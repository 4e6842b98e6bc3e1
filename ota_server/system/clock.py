"""The time of day. Pure code gets it as an argument; its callers ask here."""

import os
import re
import time

# A zone with its rules, such as CET-1CEST,M3.5.0,M10.5.0/3 or <+03>-3 (POSIX).
_OWN_RULES = re.compile(r"(<[+\-A-Za-z0-9]{3,}>|[A-Za-z]{3,})[+-]?[0-9]")


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def knows_zone(name: str) -> bool:
    """Return whether the system knows a time zone by what TZ says; it takes UTC for all others."""
    name = name.removeprefix(":")
    if not name or name in ("UTC", "GMT") or _OWN_RULES.match(name):
        return True
    if name.startswith("/"):
        return os.path.isfile(name)
    from zoneinfo import ZoneInfo  # here, since most servers do not need it

    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return False
    return True
