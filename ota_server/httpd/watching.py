"""What wakes a channel: an event of its socket, told by a poller; a time; or what it waits for."""

import select
import time

from ota_server.httpd.channel import HELD, LINGERING, PARKED, SENDING, Channel
from ota_server.httpd.sockets import PollPoller
from ota_server.httpd.timers import Timers

# The same bits as EPOLLIN, EPOLLOUT and EPOLLERR.
READ, WRITE, ERROR = select.POLLIN, select.POLLOUT, select.POLLERR
LOOK_SECONDS = 0.5
_PARKED_LOOK_SECONDS = 0.02


class Watching:
    """Says when there is something to do for a channel.

    Attributes:
        parked: channels whose answer waits for what the application makes.
        next_due: when the next time is that a channel waits for; None: there is none.
        due: takes what is due.
    """

    def __init__(self, poller: "select.epoll | PollPoller") -> None:
        self._poller = poller
        self._forgets = not isinstance(poller, PollPoller)  # what was closed, by itself
        self._timers = Timers()
        self.next_due = self._timers.next_due
        self.due = self._timers.due
        self.parked: list[Channel] = []

    def watch(self, channel: Channel, now: float) -> None:
        """Wait for what a channel waits for, by its state."""
        state = channel.state
        if state is SENDING:
            events = WRITE
        elif state is HELD or state is PARKED or channel.is_deaf:
            events = 0
        else:
            events = READ
        if events == 0 and state is LINGERING:
            # With both sides closed a poller would report that for ever: only the timer looks.
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
        """Return for how long a poll may wait, in seconds."""
        timeout = _PARKED_LOOK_SECONDS if self.parked else LOOK_SECONDS
        due = self.next_due()
        return timeout if due is None else min(timeout, max(0.0, due - time.monotonic()))

    def unparked(self, now: float) -> list[Channel]:
        """Return the channels whose answer can be made now, or may be waited for no longer."""
        parked, self.parked = self.parked, []
        unparked: list[Channel] = []
        for channel in parked:
            is_made = channel.not_ready is not None and channel.not_ready.done.is_set()
            is_due = is_made or now >= channel.give_up_at
            (unparked if is_due else self.parked).append(channel)
        return unparked

    def wake(self, channel: Channel, now: float) -> None:
        """Have a channel looked at in this turn."""
        self._timers.add(now, channel)

    def forget(self, channel: Channel) -> None:
        """Wait no longer for a channel that is about to be closed."""
        self._timers.drop(channel)
        if channel.events is not None and not self._forgets:
            self._poller.unregister(channel.fd)
