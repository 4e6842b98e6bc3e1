"""A thread for each connection: the same channel as in the event loop, with a poll of one socket.

The listener's thread accepts as the event loop does. Each connection has a thread that runs the
`ChannelHandler` of the `ThreadingHTTPServer`.
"""

import logging
import socket
import time
from socketserver import BaseRequestHandler
from threading import Lock, Thread, current_thread
from typing import Any

from ota_server.httpd.channel import FRESH
from ota_server.httpd.driver import Driver
from ota_server.httpd.event_loop import EventLoop
from ota_server.httpd.listener import Listener
from ota_server.httpd.sockets import PollPoller
from ota_server.httpd.watching import LOOK_SECONDS, READ

log = logging.getLogger(__name__)

# After the grace threads end by themselves, but for one that waits for a disk.
_END_SECONDS = 5.0


class ThreadDriver(EventLoop):
    """Gives each connection of a listener a thread."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener, PollPoller())
        self._begin_turn = _begin_no_turn
        self._threads: set[Thread] = set()
        self._lock = Lock()

    def take_in(self, sock: socket.SocketType, address: Any) -> None:
        """Have a thread converse with a client."""
        thread = Thread(target=self._run, args=(sock, address), name="connection")
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as problem:
            self._forget(thread)
            self._listener.refuse(sock, str(problem))

    def _run(self, sock: Any, address: Any) -> None:
        try:
            self._listener.process_request_thread(sock, address)
        finally:
            self._forget(current_thread())

    def _forget(self, thread: Thread) -> None:
        with self._lock:
            self._threads.discard(thread)

    def _count_connections(self) -> int:
        return len(self._threads)

    def end(self) -> None:
        """Wait for the ends of all threads, which know themselves when that is."""
        until = time.monotonic() + self._listener.grace_seconds + _END_SECONDS
        for thread in tuple(self._threads):
            thread.join(max(0.0, until - time.monotonic()))
        if self._threads:
            log.error("%d connections did not end", len(self._threads))


class ChannelHandler(BaseRequestHandler):
    """Drives the channel of one connection to its end."""

    server: Listener

    def handle(self) -> None:
        """Read, answer and send, until the client, the time or the server ends it."""
        _OneChannel(self.server).converse(self.request, self.client_address)


class _OneChannel(Driver):
    """Drives one channel, and waits where the event loop may not."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener, PollPoller(), ahead=None)
        self._begin_turn = _begin_no_turn

    def converse(self, sock: socket.SocketType, address: Any) -> None:
        """Serve one connection to its end."""
        wake = self._listener.wake_receiver.fileno()
        self._poller.register(wake, READ)
        self.take_in(sock, address)
        self._after_events()
        while self._channels and not self._listener.is_draining:
            self.turn()
        self._poller.unregister(wake)
        self.end()

    def _timeout(self) -> float:
        for parked in self._watching.parked:
            if parked.not_ready is not None:
                parked.not_ready.done.wait(LOOK_SECONDS)
                return 0.0
        due = self._watching.next_due()
        if due is None or any(each.state is not FRESH for each in self._channels.values()):
            return super()._timeout()
        return max(0.0, due - time.monotonic())  # thousands that are idle must not look up


def _begin_no_turn() -> None:
    """Leave the application to look at its files for each request.

    A turn of one thread is none of the others': what it has looked at may be old for them.
    """
