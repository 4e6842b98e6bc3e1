"""Connections, each in a thread, of which the one that waits longest gives way to a new one.

Without that, whoever opens as many connections as there may be, and says nothing, keeps everybody
out. A connection of somebody who is known is held while it is answered: it never gives way then.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, local
from typing import Any

from ota_server.httpd.listener import Listener
from ota_server.httpd.threads import ThreadDriver

# Threads of connections that gave way and have not noticed: they are in the middle of an answer.
_MOST_LEAVING = 64


class _Seat:
    """The place of one connection; `since` is when it came, or was held last."""

    def __init__(self, sock: socket.SocketType) -> None:
        self.sock = sock
        self.since = time.monotonic()
        self.holds = 0
        self.is_leaving = False


class Seats:
    """The places of all connections. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken: set[_Seat] = set()
        self._leaving = 0
        self._mine = local()

    @property
    def leaving(self) -> int:
        """How many connections gave way whose threads have not ended."""
        return self._leaving

    @contextmanager
    def taken(self, sock: socket.SocketType) -> Iterator[None]:
        """Give this thread's connection a place."""
        seat = _Seat(sock)
        with self._lock:
            self._taken.add(seat)
        self._mine.seat = seat
        try:
            yield
        finally:
            with self._lock:
                self._taken.discard(seat)
                self._leaving -= seat.is_leaving

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep this thread's connection from giving way."""
        seat: _Seat | None = getattr(self._mine, "seat", None)
        if seat is None:  # another driver has none
            yield
            return
        with self._lock:
            seat.holds += 1
        try:
            yield
        finally:
            with self._lock:
                seat.holds -= 1
                seat.since = time.monotonic()

    def give_way(self) -> None:
        """Cut the connection that waits longest, unless all are held."""
        with self._lock:
            if self._leaving >= _MOST_LEAVING:
                return
            free = [each for each in self._taken if not each.holds and not each.is_leaving]
            if not free:
                return
            seat = min(free, key=lambda each: each.since)
            seat.is_leaving = True
            self._leaving += 1
        # Its thread sees the end of what is sent, and closes it.
        with suppress(OSError):
            seat.sock.shutdown(socket.SHUT_RDWR)


class SeatedDriver(ThreadDriver):
    """Gives each connection a thread and a place."""

    def __init__(self, listener: Listener, seats: Seats) -> None:
        super().__init__(listener)
        self._seats = seats

    def _take(self, sock: socket.SocketType, address: Any) -> None:
        if self._count_connections() >= self._listener.max_connections:
            self._seats.give_way()
        super()._take(sock, address)

    def _count_connections(self) -> int:
        return super()._count_connections() - self._seats.leaving

    def _run(self, sock: Any, address: Any) -> None:
        with self._seats.taken(sock):
            super()._run(sock, address)
