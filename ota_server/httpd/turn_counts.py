"""How many replies were handed to the kernel, and how long that took. Pure.

A time is measured once for all replies of a turn, and counted for each of them: 0.25 µs a turn,
where a clock and a lock for each reply would cost 0.5 µs each.
"""

from bisect import bisect_left

# Upper bounds in seconds. A turn with one check takes some 0.05 ms; what takes a quarter of a
# second is a disk that syncs, and a device gives up after five seconds.
BUCKET_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)


class TurnCounts:
    """Counts the replies of one driver. One thread counts; others may read.

    Attributes:
        quick: the replies that were made without a `Request`.
        seconds: what all replies took together, from the beginning of their turns.
        buckets: how many took at most `BUCKET_SECONDS` each, and more than the bound before; the
            last one counts those that took longer than all.
    """

    __slots__ = ("buckets", "quick", "seconds")

    def __init__(self) -> None:
        self.quick = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKET_SECONDS) + 1)

    def note(self, replies: int, quick: int, seconds: float) -> None:
        """Count replies that were sent `seconds` after their turn began.

        Args:
            quick: how many of them were made without a `Request`.
        """
        self.quick += quick
        self.buckets[bisect_left(BUCKET_SECONDS, seconds)] += replies
        self.seconds += seconds * replies

    def add(self, other: "TurnCounts") -> None:
        """Add what another driver has counted."""
        self.quick += other.quick
        self.seconds += other.seconds
        self.buckets = [ours + its for ours, its in zip(self.buckets, other.buckets, strict=True)]
