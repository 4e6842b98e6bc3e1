"""The lease of the controller: which rollouts it looks after, by the lines that it writes. Pure.

A rollout goes on only while the controller watches the result. After each look it writes

    +GROUP  for each rollout for which it has read the whole journal; for the fleet, just +
    .       if there is no such rollout: it is alive, and still reads old records
    !       if it cannot do its work, as on a full disk; then nothing else

Each `+` is valid for some seconds, for that rollout only: one that has much to read does not hold
up the others. A `!` ends all of them at once, since the server could not learn of a halt.
"""

from collections.abc import Iterable

_UP_TO_DATE, _ALIVE, _FAILING = b"+", b".", b"!"


class Lease:
    """What the controller said of each rollout, and when.

    Times are in seconds of a monotonic clock.

    Attributes:
        is_failing: its last word was that it cannot do its work.
        renewed_at: when it was last up to date with any rollout.
        times: when it was last up to date with each rollout, by group; "" is the fleet.
    """

    def __init__(self, seconds: float) -> None:
        """Begin with no rollout that is looked after; a `+` is valid for `seconds`."""
        self.is_failing = False
        self.renewed_at = float("-inf")
        self._seconds = seconds
        self.times: dict[str, float] = {}
        self._rest = b""  # of a line whose end is still to come

    def begin(self) -> None:
        """Listen to another controller. What the one before said stays valid for its time."""
        self.is_failing = False
        self._rest = b""

    def hear(self, content: bytes, now: float) -> None:
        """Take what was read from the controller, which may begin or end within a line."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            if line == _FAILING:
                self.is_failing = True
                self.times.clear()
            elif line.startswith(_UP_TO_DATE):
                self.is_failing = False
                self.renewed_at = now
                self.times[line[1:].decode("ascii", "replace")] = now

    def attended(self, now: float) -> frozenset[str]:
        """Return the groups whose rollouts are looked after."""
        return frozenset(group for group, time in self.times.items() if now - time <= self._seconds)


class Attended:
    """Which rollouts the controller looks after now: the keeper writes it, decisions read it.

    Attributes:
        groups: whose rollouts; "" is the fleet. None: all, since there is no keeper.
    """

    def __init__(self) -> None:
        """Begin without a keeper."""
        self.groups: frozenset[str] | None = None


def lines_of_a_look(up_to_date: Iterable[str], is_sound: bool) -> list[bytes]:
    """Return what the controller writes after a look, each to be written at once.

    Args:
        up_to_date: the groups for whose rollouts it has read the whole journal.
        is_sound: it can do its work.
    """
    if not is_sound:
        return [_FAILING + b"\n"]
    lines = [_UP_TO_DATE + group.encode("ascii") + b"\n" for group in up_to_date]
    return lines or [_ALIVE + b"\n"]
