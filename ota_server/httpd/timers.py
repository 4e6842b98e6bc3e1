"""When the event loop looks at which connection again: a heap, not a scan of all connections."""

import heapq

from ota_server.httpd.channel import Channel

# A closed connection is kept in memory by its timer: 20,000 short ones a second are 400 MB.
_MOST_STALE = 1000


class Timers:
    """Deadlines, in seconds of one monotonic clock, one for each channel."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Channel]] = []
        self._stale = 0

    def next_due(self) -> float | None:
        """Return when the next one is due, None if there is none."""
        return self._heap[0][0] if self._heap else None

    def add(self, due: float, channel: Channel) -> None:
        """Have `due` yield a channel at that time, if not sooner anyway."""
        if channel.timer_at is not None:
            if due >= channel.timer_at:
                return
            self._forget()
        channel.timer_at = due
        heapq.heappush(self._heap, (due, channel))

    def drop(self, channel: Channel) -> None:
        """Forget a channel that is closed."""
        if channel.timer_at is not None:
            channel.timer_at = None
            self._forget()

    def due(self, now: float) -> list[Channel]:
        """Return what is due; each has no timer from then on.

        A list: what is done about one may make it due again at once, which is for the next time.
        """
        channels = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, channel = heapq.heappop(heap)
            if channel.timer_at == due:
                channel.timer_at = None
                channels.append(channel)
            else:
                self._stale -= 1
        return channels

    def _forget(self) -> None:
        """Count an entry that nobody waits for; rebuild the heap when most of them are."""
        self._stale += 1
        if self._stale > max(_MOST_STALE, len(self._heap) // 2):
            self._heap[:] = [entry for entry in self._heap if entry[1].timer_at == entry[0]]
            heapq.heapify(self._heap)
            self._stale = 0
