"""The server: `OTAServer(ThreadingHTTPServer)` accepts connections, and ends them in order."""

import errno
import logging
import select
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any

from ota_server import reply
from ota_server.handler import OTARequestHandler
from ota_server.http1 import reply_head
from ota_server.service import Service

log = logging.getLogger(__name__)

LOOK_AFTER_SECONDS = 0.25  # a journal that was taken away is noticed within a second
IDLE_SECONDS = 15.0
GRACE_SECONDS = 30.0
# After the grace sockets are shut and threads end by themselves, but for one in a system call.
_END_SECONDS = 5.0
_EMFILE_REST_SECONDS = 0.2
# Clients that connect faster than they are accepted must not keep a signal from being noticed.
_ACCEPTED_AT_ONCE = 256
_LINGER_SECONDS = 1.0
MAX_LINGERING = 64
_DRAIN_LOOK_SECONDS = 0.05
_OUT_OF_FILES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class OTAServer(ThreadingHTTPServer):
    """Accepts connections and gives each a thread. It listens from its constructor on.

    `shutdown` drains: no new connections, what is in flight is answered, downloads go on for
    `grace_seconds`; `serve_forever` returns after that.

    Attributes:
        is_draining: replies close their connections, and none is waited for.
        is_ending: the grace is over; downloads are cut.
        refused_connections: how many found no room.
    """

    request_queue_size = 4096  # the stdlib's 5 drops devices when a fleet wakes at once
    allow_reuse_address = True
    # Threads are ended on purpose, by draining: as daemons they would be cut off at exit.
    daemon_threads = False
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int],
        service: Service,
        *,
        max_connections: int = 1000,
        idle_seconds: float = IDLE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Bind and listen.

        Raises:
            OSError: the address cannot be had.
        """
        self.service = service
        self.idle_seconds = idle_seconds
        self.is_draining = False
        self.is_ending = False
        self.refused_connections = 0
        self._max_connections = max_connections
        self._grace_seconds = grace_seconds
        self._end_at_once = False
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._connections_lock = threading.Lock()
        self._lingering: dict[socket.socket, float] = {}
        self._serving = threading.Event()
        self._ended = threading.Event()
        family, *_, resolved = _resolve(*address)
        self._wake_receiver, self._wake_sender = socket.socketpair()
        for end in (self._wake_receiver, self._wake_sender):
            end.setblocking(False)
        self.address_family = family
        super().__init__(resolved[:2], OTARequestHandler, bind_and_activate=False)
        try:
            self.server_bind()
            self.server_activate()
        except OSError:
            super().server_close()
            self._close_wake()
            raise
        self.socket.setblocking(False)

    def server_bind(self) -> None:
        """Bind, to IPv6 and IPv4 at once where both are there. Unlike its base it asks no DNS."""
        if self.address_family == socket.AF_INET6:
            both = self.server_address[0] == "::"
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept until `shutdown`, then drain. Returns when the last connection has ended."""
        self._serving.set()
        chores = threading.Thread(target=self._do_chores, name="chores")
        chores.start()
        try:
            with selectors.DefaultSelector() as selector:
                self._accept_until_draining(selector, poll_interval)
            self._drain()
        finally:
            self.service.fleet.end()
            self._ended.set()
            chores.join()

    def shutdown(self) -> None:
        """Drain, and wait until that is done. Not from a signal handler: see `drain`."""
        self.drain()
        if self._serving.is_set():
            self._ended.wait()

    def drain(self) -> None:
        """Begin to drain. Safe in a signal handler."""
        self.is_draining = True
        self._wake()

    def end_at_once(self) -> None:
        """Cut downloads instead of waiting for them; each is recorded. Safe in a signal handler."""
        self._end_at_once = True
        self.drain()

    def server_close(self) -> None:
        """Close the listening socket."""
        super().server_close()
        self._close_wake()

    def _accept_until_draining(
        self, selector: selectors.BaseSelector, poll_interval: float
    ) -> None:
        selector.register(self.socket, selectors.EVENT_READ)
        selector.register(self._wake_receiver, selectors.EVENT_READ)
        while not self.is_draining:
            wait = _LINGER_SECONDS / 10 if self._lingering else poll_interval
            ready = {key.fileobj for key, _ in selector.select(wait)}
            if self.socket in ready and not self._accept_all():
                # At the limit of open files accept fails at once and for ever: rest, do not spin.
                select.select([self._wake_receiver], [], [], _EMFILE_REST_SECONDS)
            self._let_refused_go()

    def _accept_all(self) -> bool:
        """Accept what waits; False when the system has no room for one more."""
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, address = self.socket.accept()
            except BlockingIOError:
                return True
            except OSError as problem:
                if problem.errno not in _OUT_OF_FILES:
                    continue  # that client is gone again
                if self.service.may_say("accept", time.monotonic()):
                    log.error("no connection can be accepted: %s; clients wait", problem.strerror)
                return False
            self.process_request(connection, address)
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, or refuse it."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="connection"
        )
        with self._connections_lock:
            is_full = len(self._connections) >= self._max_connections
            if not is_full:
                self._connections[request] = thread
        if is_full:
            self._refuse(request, f"all {self._max_connections} connections are in use")
            return
        try:
            thread.start()
        except RuntimeError as problem:
            with self._connections_lock:
                del self._connections[request]
            self._refuse(request, str(problem))

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Run one connection; forget it at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._connections_lock:
                self._connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a bug that ended one connection; the others live on."""
        log.exception("the connection of %s failed", client_address[0])

    def _refuse(self, connection: socket.socket, reason: str) -> None:
        """Answer 503 and close, so that the reply arrives, without waiting here."""
        self.refused_connections += 1
        if self.service.may_say("refused", time.monotonic()):
            log.warning("connections are refused with 503: %s", reason)
        connection.setblocking(False)
        try:
            connection.send(_refusal(self.service.clock_ms() // 1000))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        if len(self._lingering) >= MAX_LINGERING:
            oldest = next(iter(self._lingering))
            del self._lingering[oldest]
            oldest.close()
        self._lingering[connection] = time.monotonic() + _LINGER_SECONDS

    def _let_refused_go(self) -> None:
        now = time.monotonic()
        for connection, until in list(self._lingering.items()):
            try:
                is_over = now >= until or not connection.recv(64 * 1024)
            except BlockingIOError:
                is_over = False
            except OSError:
                is_over = True
            if is_over:
                del self._lingering[connection]
                connection.close()

    def _drain(self) -> None:
        # What waits in the backlog has connected, and perhaps sent its request.
        for _ in range(0, self.request_queue_size, _ACCEPTED_AT_ONCE):
            if not self._accept_all():
                break
        super().server_close()
        for connection in self._lingering:
            connection.close()
        # Ends the wait of idle connections; what has arrived can still be read and is answered.
        self._shut_connections(socket.SHUT_RD)
        self._wait_for_connections(time.monotonic() + self._grace_seconds, True)
        self.is_ending = True
        self._shut_connections(socket.SHUT_RDWR)
        if not self._wait_for_connections(time.monotonic() + _END_SECONDS, False):
            log.error("%d connections did not end", len(self._connections))

    def _wait_for_connections(self, until: float, may_be_cut: bool) -> bool:
        while True:
            with self._connections_lock:
                threads = list(self._connections.values())
            if not threads:
                return True
            if time.monotonic() >= until or (may_be_cut and self._end_at_once):
                return False
            threads[0].join(_DRAIN_LOOK_SECONDS)

    def _shut_connections(self, how: int) -> None:
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(how)
            except OSError:
                continue  # it has ended meanwhile

    def _do_chores(self) -> None:
        while not self._ended.wait(LOOK_AFTER_SECONDS):
            for chore in self.service.chores:
                self._do_chore(chore)

    def _do_chore(self, chore: Callable[[], None]) -> None:
        """Do one chore; that it fails must not keep the others from being done."""
        try:
            chore()
        except OSError as problem:
            if self.service.may_say("chores", time.monotonic()):
                log.error("a chore failed: %s", problem)
        except Exception:
            if self.service.may_say("chores", time.monotonic()):
                log.exception("a chore failed")

    def _wake(self) -> None:
        try:
            self._wake_sender.send(b"\0")
        except OSError:
            return  # full: it wakes anyway; or closed: nobody sleeps

    def _close_wake(self) -> None:
        self._wake_receiver.close()
        self._wake_sender.close()


def _resolve(host: str, port: int) -> tuple[Any, ...]:
    """Return the first address of a host; none given: all interfaces, IPv6 and IPv4 at once."""
    if not host:
        host = "::" if _has_ipv6() else "0.0.0.0"
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _refusal(seconds: int) -> bytes:
    answer = reply.later("Too many connections.")
    length = len(answer.body)
    head = reply_head(HTTPStatus.SERVICE_UNAVAILABLE, answer.fields, length, seconds, False, 1)
    return head + answer.body


if __name__ == "__main__":
    # The documented way to start: the command itself is in serve.py, with its arguments.
    from ota_server.serve import main

    sys.exit(main())
