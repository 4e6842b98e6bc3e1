"""A thread for each connection: each polls one socket and drives the same kind of channel.

The listener's thread accepts connections, as the event loop does. Each connection gets a thread
that runs the `ChannelHandler` of the `ThreadingHTTPServer`.
"""

import logging
import socket
import time
from socketserver import BaseRequestHandler
from threading import Lock, Thread, current_thread
from typing import Any

from ota_server.httpd.channel import FRESH, Channel
from ota_server.httpd.driver import Driver
from ota_server.httpd.event_loop import EventLoop
from ota_server.httpd.listener import Listener
from ota_server.httpd.reply import Outgoing
from ota_server.httpd.sockets import PollPoller
from ota_server.httpd.taken import TakenConnection, TakesOver
from ota_server.httpd.watching import LOOK_SECONDS, READ

log = logging.getLogger(__name__)

# After the grace period threads end by themselves, except one that waits for a disk.
_END_SECONDS = 5.0


class ThreadDriver(EventLoop):
    """Gives each connection of a listener a thread."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener, PollPoller())
        self._begin_turn = _begin_no_turn
        self._threads: set[Thread] = set()
        self._lock = Lock()

    def take_in(self, sock: socket.SocketType, address: Any) -> None:
        """Start a thread for a connection."""
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
        """Wait for all threads; they end by themselves."""
        until = time.monotonic() + self._listener.grace_seconds + _END_SECONDS
        for thread in tuple(self._threads):
            thread.join(max(0.0, until - time.monotonic()))
        if self._threads:
            log.error("%d connections did not end", len(self._threads))


class ChannelHandler(BaseRequestHandler):
    """Drives the channel of one connection until it closes."""

    server: Listener

    def handle(self) -> None:
        """Read, answer and send until the client or the server closes, or time is over."""
        _OneChannel(self.server).serve(self.request, self.client_address)


class _OneChannel(Driver):
    """Drives one channel; unlike the event loop it may wait."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener, PollPoller(), ahead=None)
        self._begin_turn = _begin_no_turn

    def serve(self, sock: socket.SocketType, address: Any) -> None:
        """Serve one connection until it closes."""
        listener = self._listener
        wake = listener.wake_receiver.fileno()
        self._poller.register(wake, READ)
        listener.drivers.add(self)
        try:
            self.take_in(sock, address)
            self._after_events()
            while self.channels and not listener.is_draining:
                self.turn()
            self._poller.unregister(wake)
            self.end()
        finally:
            listener.drivers.remove(self)

    def _next_reply(self, channel: Channel, answers: list[tuple[Channel, Outgoing | None]]) -> None:
        try:
            super()._next_reply(channel, answers)
        except TakesOver as taking:
            taken = TakenConnection(
                channel.sock, channel.connection.take_rest(), self._listener.wake_receiver
            )
            try:
                taking.talk(taken)
                taken.finish()
            except OSError as problem:
                log.debug("%s left: %s", channel.connection.peer.address, problem)
            finally:
                self._close(channel, was_reset=False)

    def _timeout(self) -> float:
        for parked in self._watching.parked:
            if parked.not_ready is not None:
                parked.not_ready.done.wait(LOOK_SECONDS)
                return 0.0
        due = self._watching.next_due()
        if due is None or any(each.state is not FRESH for each in self.channels.values()):
            return super()._timeout()
        return max(0.0, due - time.monotonic())  # thousands of idle threads must not wake up


def _begin_no_turn() -> None:
    """Do nothing, so that the application looks at its files for each request.

    Threads have no turns in common: what one has looked at may be outdated for another.
    """
