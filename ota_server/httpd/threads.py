"""A thread for each connection: accepts, starts them, and waits for their ends."""

import logging
import select
import socket
import time
from threading import Lock, Thread
from typing import Any

from ota_server.httpd.listener import Listener

log = logging.getLogger(__name__)

_ACCEPTED_AT_ONCE = 256
_LOOK_SECONDS = 0.5
_LINGER_LOOK_SECONDS = 0.1
_EMFILE_REST_SECONDS = 0.2
_DRAIN_LOOK_SECONDS = 0.05
# After the grace sockets are shut and threads end by themselves, but for one in a system call.
_END_SECONDS = 5.0


class ThreadDriver:
    """Gives each connection of a server a thread that runs its OTARequestHandler."""

    def __init__(self, server: Listener) -> None:
        self._server = server
        self._connections: dict[socket.SocketType, Thread] = {}
        self._lock = Lock()

    def run(self) -> None:
        """Accept until the server drains; return when the last connection has ended."""
        server = self._server
        while not server.is_draining:
            wait = _LINGER_LOOK_SECONDS if server.has_refused else _LOOK_SECONDS
            ready, _, _ = select.select([server.socket, server.wake_receiver], [], [], wait)
            if server.socket in ready and not server.accept(_ACCEPTED_AT_ONCE, self._take):
                # At the limit of open files accept fails at once and for ever: rest, do not spin.
                select.select([server.wake_receiver], [], [], _EMFILE_REST_SECONDS)
            server.let_refused_go()
        server.accept(server.request_queue_size, self._take)
        server.stop_listening()
        self._drain()

    def _take(self, connection: socket.SocketType, address: Any) -> None:
        thread = Thread(target=self._run, args=(connection, address), name="connection")
        with self._lock:
            is_full = len(self._connections) >= self._server.max_connections
            if not is_full:
                self._connections[connection] = thread
        if is_full:
            self._server.refuse(connection, "all connections are in use")
            return
        try:
            thread.start()
        except RuntimeError as problem:
            with self._lock:
                del self._connections[connection]
            self._server.refuse(connection, str(problem))

    def _run(self, connection: Any, address: Any) -> None:
        try:
            self._server.process_request_thread(connection, address)
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    def _drain(self) -> None:
        server = self._server
        # Ends the wait of idle connections; what has arrived can still be read and is answered.
        self._shut(socket.SHUT_RD)
        until = time.monotonic() + server.grace_seconds
        while not self._wait(until) and not server.ends_at_once and time.monotonic() < until:
            continue
        server.is_ending = True
        self._shut(socket.SHUT_RDWR)
        until = time.monotonic() + _END_SECONDS
        while not self._wait(until) and time.monotonic() < until:
            continue
        if self._connections:
            log.error("%d connections did not end", len(self._connections))

    def _wait(self, until: float) -> bool:
        """Wait a moment for a thread to end; True when none is left."""
        with self._lock:
            threads = list(self._connections.values())
        if threads:
            threads[0].join(min(_DRAIN_LOOK_SECONDS, max(0.0, until - time.monotonic())))
        return not threads

    def _shut(self, how: int) -> None:
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(how)
            except OSError:
                continue  # it has ended meanwhile
