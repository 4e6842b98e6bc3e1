"""One event loop that drives all connections of a listener, from accepting them to draining."""

import select
import socket
import time
from typing import Any

from ota_server.httpd.driver import Driver
from ota_server.httpd.listener import Listener
from ota_server.httpd.readahead import ReadAhead
from ota_server.httpd.sockets import PollPoller
from ota_server.httpd.watching import READ

_ACCEPTED_A_TURN = 256
_LINGER_LOOK_SECONDS = 0.1
_EMFILE_REST_SECONDS = 0.2


class EventLoop(Driver):
    """Drives the connections of one listener until that has drained."""

    def __init__(self, listener: Listener, poller: "select.epoll | PollPoller") -> None:
        super().__init__(listener, poller, ReadAhead())
        self._listening = listener.socket.fileno()
        self._rest_until: float | None = None

    def run(self) -> None:
        """Serve until the listener drains; return when the last connection is closed."""
        listener, poller = self._listener, self._poller
        wake = listener.wake_receiver.fileno()
        poller.register(self._listening, READ)
        poller.register(wake, READ)
        listener.drivers.add(self)
        while not listener.is_draining:
            self.turn()
            if self._rest_until is not None or listener.has_refused:
                self._look_after_listening()
        poller.unregister(wake)
        poller.unregister(self._listening)
        self._now = time.monotonic()
        self._begin_turn()
        listener.accept(listener.request_queue_size, self._take)
        listener.stop_listening()
        self.end()
        if self._ahead is not None:
            self._ahead.close()
        poller.close()

    def _handle_other(self, fd: int) -> None:
        if fd == self._listening and not self._listener.accept(_ACCEPTED_A_TURN, self._take):
            # At the limit of open files each accept fails at once: rest instead of spinning.
            self._poller.modify(self._listening, 0)
            self._rest_until = self._now + _EMFILE_REST_SECONDS

    def _timeout(self) -> float:
        timeout = 0.0 if self._ready else self._watching.timeout()
        if self._listener.has_refused:
            timeout = min(timeout, _LINGER_LOOK_SECONDS)
        return timeout if self._rest_until is None else min(timeout, _EMFILE_REST_SECONDS)

    def _look_after_listening(self) -> None:
        if self._listener.has_refused:
            self._listener.close_refused()
        if self._rest_until is not None and self._now >= self._rest_until:
            self._rest_until = None
            self._poller.modify(self._listening, READ)

    def _take(self, sock: socket.SocketType, address: Any) -> None:
        try:
            if self._count_connections() >= self._listener.max_connections:
                self._listener.refuse(sock, "all connections are in use")
            else:
                self.take_in(sock, address)
        except Exception:
            self._fail(sock)

    def _count_connections(self) -> int:
        return len(self.channels) + len(self._quick)
