"""The lease of the controller: which rollouts it looks after, by the lines that it writes. Pure.

A rollout goes on only while somebody sees what comes of it. After each look the controller writes

    +GROUP  for each rollout of which it has read all that is on record; of the fleet, + alone
    .       where there is none of these: it lives, and reads what was on record before
    !       where it cannot do its work, as on a full disk; then nothing else

and each `+` is good for some seconds, for its rollout alone: one that has much to read holds up no
other one. A `!` ends all of them at once, since a halt that cannot be written is known to nobody.
"""

from collections.abc import Iterable

_UP_TO_DATE, _ALIVE, _FAILING = b"+", b".", b"!"


class Lease:
    """What the controller said of each rollout, and when.

    Times are in seconds of a monotonic clock.

    Attributes:
        is_failing: the last thing that it said of its work was that it cannot do it.
        renewed_at: when it was up to date with any rollout last.
        times: when it was up to date with each rollout last, by group; "" is the fleet.
    """

    def __init__(self, seconds: float) -> None:
        """Begin with no rollout that is looked after; `seconds`: for so long a `+` is good."""
        self.is_failing = False
        self.renewed_at = float("-inf")
        self._seconds = seconds
        self.times: dict[str, float] = {}
        self._rest = b""  # of a line of which the end is still to come

    def begin(self) -> None:
        """Listen to another controller. What the one before it said is good for as long as ever."""
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
    """Which rollouts the controller looks after now: the keeper says it, who decides reads it.

    Attributes:
        groups: theirs; "" is the fleet. None: all, where there is no keeper.
    """

    def __init__(self) -> None:
        """Begin without a keeper."""
        self.groups: frozenset[str] | None = None


def lines_of_a_look(up_to_date: Iterable[str], is_sound: bool) -> list[bytes]:
    """Return what the controller writes after a look, each to be written at once.

    Args:
        up_to_date: the groups of whose rollouts it has read all that is on record.
        is_sound: it can do its work.
    """
    if not is_sound:
        return [_FAILING + b"\n"]
    lines = [_UP_TO_DATE + group.encode("ascii") + b"\n" for group in up_to_date]
    return lines or [_ALIVE + b"\n"]
