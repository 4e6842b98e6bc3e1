"""When the event loop looks at which connection again: a heap, not a scan of all connections."""

import heapq

from ota_server.httpd.channel import Link

# A closed connection is kept in memory by its timer: 20,000 short ones a second are 400 MB.
_MOST_STALE = 1000


class Timers:
    """Deadlines, in seconds of one monotonic clock, one for each link."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Link]] = []
        self._stale = 0

    def next_due(self) -> float | None:
        """Return when the next one is due, None if there is none."""
        return self._heap[0][0] if self._heap else None

    def add(self, due: float, link: Link) -> None:
        """Have `due` yield a link at that time, if not sooner anyway."""
        if link.timer_at is not None:
            if due >= link.timer_at:
                return
            self._forget()
        link.timer_at = due
        heapq.heappush(self._heap, (due, link))

    def drop(self, link: Link) -> None:
        """Forget a link that is closed."""
        if link.timer_at is not None:
            link.timer_at = None
            self._forget()

    def due(self, now: float) -> list[Link]:
        """Return what is due; each has no timer from then on.

        A list: what is done about one may make it due again at once, which is for the next time.
        """
        links = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, link = heapq.heappop(heap)
            if link.timer_at == due:
                link.timer_at = None
                links.append(link)
            else:
                self._stale -= 1
        return links

    def _forget(self) -> None:
        """Count an entry that nobody waits for; rebuild the heap when most of them are."""
        self._stale += 1
        if self._stale > max(_MOST_STALE, len(self._heap) // 2):
            self._heap[:] = [entry for entry in self._heap if entry[1].timer_at == entry[0]]
            heapq.heapify(self._heap)
            self._stale = 0
