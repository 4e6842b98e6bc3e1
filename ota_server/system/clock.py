"""The time of day. Pure code gets it as an argument; its callers ask here."""

import time


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
