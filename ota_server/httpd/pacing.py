"""Pace: how fast images are sent, all together and each for itself. Pure.

Bytes are sent in pieces, each in its turn. A line gives the turns in the order in which they are
asked for, so that nobody starves; what is asked for after a rest is owed nothing but a moment.

Times are seconds of one monotonic clock. No lock: the caller holds one where there are threads.
"""

# What a turn takes of a line at its rate: a shared one by many small turns, one's own by few.
_SHARED_TURN_SECONDS = 0.02
_OWN_TURN_SECONDS = 0.25
# A timer is late by a little; what that costs is made up for, and no more.
_OWED_SECONDS = 0.05
_LEAST_BYTES = 1460  # a packet
_MOST_BYTES = 1024 * 1024


class Line:
    """Bytes at a rate, in turns."""

    def __init__(self, bytes_per_second: int, turn_seconds: float) -> None:
        self._rate = bytes_per_second
        self._turn_bytes = bytes_per_second * turn_seconds
        self._free_at = 0.0

    def turn_bytes(self, now: float) -> int:
        """Return how much the next turn has: less when many wait, or each would wait for long."""
        waiting_seconds = max(0.0, self._free_at - now)
        length = int(self._turn_bytes / (1.0 + waiting_seconds))
        return max(_LEAST_BYTES, min(length, _MOST_BYTES))

    def take_turn(self, length: int, now: float) -> float:
        """Return when `length` bytes may be sent: after all that were asked for before."""
        begins = max(self._free_at, now - _OWED_SECONDS)
        self._free_at = begins + length / self._rate
        return begins


class Pace:
    """The pace of one connection.

    Attributes:
        due: when its next turn is.
    """

    __slots__ = ("_left", "_lines", "due")

    def __init__(self, lines: tuple[Line, ...]) -> None:
        self._lines = lines
        self._left = 0
        self.due = 0.0

    def allowed(self, wanted: int, now: float) -> int:
        """Return how many of `wanted` bytes may be sent now; 0: none before `due`."""
        if not self._left:
            length = min(wanted, *(line.turn_bytes(now) for line in self._lines))
            self.due = max(line.take_turn(length, now) for line in self._lines)
            self._left = length
        return min(wanted, self._left) if now >= self.due else 0

    def sent(self, length: int) -> None:
        """Take note of what was sent of it; the rest is for later."""
        self._left -= length


class Pacing:
    """The rates of one server, in bytes a second: of all images together, and of each connection.

    None: as fast as it goes; one of the two is given.
    """

    def __init__(self, rate: int | None, connection_rate: int | None) -> None:
        self._shared = () if rate is None else (Line(rate, _SHARED_TURN_SECONDS),)
        self._connection_rate = connection_rate

    def pace(self) -> Pace:
        """Return the pace of a new connection."""
        own = self._connection_rate
        return Pace(self._shared if own is None else (*self._shared, Line(own, _OWN_TURN_SECONDS)))
