"""Pacing: how fast images are sent, all together and on each connection. Pure.

Bytes are sent in portions. A line hands out the times for portions in the order of requests, so
that no connection starves. A line that was idle does not catch up, except for a moment.

Times are seconds of one monotonic clock. No lock: with several threads the caller holds one.
"""

# How long a line is busy with a portion: many small portions on a shared line, few on one's own.
_SHARED_PORTION_SECONDS = 0.02
_OWN_PORTION_SECONDS = 0.25
# Timers are a little late: so much is caught up.
_CATCH_UP_SECONDS = 0.05
_LEAST_BYTES = 1460  # a packet
_MOST_BYTES = 1024 * 1024


class Line:
    """Bytes at a rate, in portions."""

    def __init__(self, bytes_per_second: int, portion_seconds: float) -> None:
        self._rate = bytes_per_second
        self._portion_bytes = bytes_per_second * portion_seconds
        self._free_at = 0.0

    def portion_bytes(self, now: float) -> int:
        """Return how large the next portion is: smaller if many wait, so that none waits long."""
        waiting_seconds = max(0.0, self._free_at - now)
        # By the third power: divided by the wait alone, a thousand downloads paused for 5 s each.
        length = int(self._portion_bytes / (1.0 + waiting_seconds) ** 3)
        return max(_LEAST_BYTES, min(length, _MOST_BYTES))

    def take(self, length: int, now: float) -> float:
        """Take a portion of `length` bytes; return when it may be sent: after all before it."""
        begins = max(self._free_at, now - _CATCH_UP_SECONDS)
        self._free_at = begins + length / self._rate
        return begins


class Pace:
    """The pace of one connection.

    Attributes:
        due: when its next portion may be sent.
    """

    __slots__ = ("_left", "_lines", "due")

    def __init__(self, lines: tuple[Line, ...]) -> None:
        self._lines = lines
        self._left = 0
        self.due = 0.0

    def allowed(self, wanted: int, now: float) -> int:
        """Return how many of `wanted` bytes may be sent now; 0 means none before `due`."""
        if not self._left:
            length = min(wanted, *(line.portion_bytes(now) for line in self._lines))
            self.due = max(line.take(length, now) for line in self._lines)
            self._left = length
        return min(wanted, self._left) if now >= self.due else 0

    def sent(self, length: int) -> None:
        """Record that `length` bytes were sent."""
        self._left -= length


class Pacing:
    """The rates of one server in bytes a second: of all images together, and of each connection.

    One of the two can be None: no limit.
    """

    def __init__(self, rate: int | None, connection_rate: int | None) -> None:
        self._shared = () if rate is None else (Line(rate, _SHARED_PORTION_SECONDS),)
        self._connection_rate = connection_rate

    def pace(self) -> Pace:
        """Return the pace of a new connection."""
        own = self._connection_rate
        own_line = () if own is None else (Line(own, _OWN_PORTION_SECONDS),)
        return Pace((*self._shared, *own_line))
