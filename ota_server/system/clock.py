"""The clock on the wall. Pure code is told the time; who tells it asks here."""

import time


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
