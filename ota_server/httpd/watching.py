"""What wakes a channel: an event of its socket, a deadline, or an answer that has become ready."""

import heapq
import select
import time

from ota_server.httpd.channel import HELD, LINGERING, PARKED, SENDING, Channel
from ota_server.httpd.sockets import PollPoller

# The same bits as EPOLLIN, EPOLLOUT and EPOLLERR.
READ, WRITE, ERROR = select.POLLIN, select.POLLOUT, select.POLLERR
LOOK_SECONDS = 0.5
_PARKED_LOOK_SECONDS = 0.02
# A timer keeps its closed connection in memory: with 20,000 short ones a second that is 400 MB.
_MOST_STALE = 1000


class Timers:
    """Deadlines in seconds of one monotonic clock, one for each channel: a heap, never a scan."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Channel]] = []
        self._stale = 0

    def next_due(self) -> float | None:
        """Return when the next one is due, or None."""
        return self._heap[0][0] if self._heap else None

    def add(self, due: float, channel: Channel) -> None:
        """Make `due` return a channel at that time, or sooner if it has an earlier deadline."""
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
        """Return the channels that are due; they have no timer after that.

        As a list: handling a channel may make it due again, which is for the next call.
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
        """Count a stale entry; rebuild the heap when most entries are stale."""
        self._stale += 1
        if self._stale > max(_MOST_STALE, len(self._heap) // 2):
            self._heap[:] = [entry for entry in self._heap if entry[1].timer_at == entry[0]]
            heapq.heapify(self._heap)
            self._stale = 0


class Watching:
    """Knows when there is something to do for a channel.

    Attributes:
        parked: the channels whose answers are not ready.
        next_due: as in `Timers`.
        due: as in `Timers`.
    """

    def __init__(self, poller: "select.epoll | PollPoller") -> None:
        self._poller = poller
        self._forgets = not isinstance(poller, PollPoller)  # epoll drops closed sockets itself
        self._timers = Timers()
        self.next_due = self._timers.next_due
        self.due = self._timers.due
        self.parked: list[Channel] = []

    def watch(self, channel: Channel, now: float) -> None:
        """Wait for what the state of a channel asks for."""
        state = channel.state
        if state is SENDING:
            events = WRITE
        elif state is HELD or state is PARKED or channel.ignores_input:
            events = 0
        else:
            events = READ
        if events == 0 and state is LINGERING:
            # With both sides closed a poller would report that again and again: use only the timer.
            if channel.events is not None:
                self._poller.unregister(channel.fd)
                channel.events = None
        elif channel.events is None:
            self._poller.register(channel.fd, events)
            channel.events = events
        elif events != channel.events:
            self._poller.modify(channel.fd, events)
            channel.events = events
        self._timers.add(channel.due(now), channel)

    def timeout(self) -> float:
        """Return how many seconds a poll may wait."""
        timeout = _PARKED_LOOK_SECONDS if self.parked else LOOK_SECONDS
        due = self.next_due()
        return timeout if due is None else min(timeout, max(0.0, due - time.monotonic()))

    def unparked(self, now: float) -> list[Channel]:
        """Take the parked channels whose answers are ready or whose waiting time is over."""
        parked, self.parked = self.parked, []
        unparked: list[Channel] = []
        for channel in parked:
            is_made = channel.not_ready is not None and channel.not_ready.done.is_set()
            is_due = is_made or now >= channel.give_up_at
            (unparked if is_due else self.parked).append(channel)
        return unparked

    def wake(self, channel: Channel, now: float) -> None:
        """Look at a channel in this turn."""
        self._timers.add(now, channel)

    def forget(self, channel: Channel) -> None:
        """Stop waiting for a channel that is about to close."""
        self._timers.drop(channel)
        if channel.events is not None and not self._forgets:
            self._poller.unregister(channel.fd)
