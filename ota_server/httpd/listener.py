"""`Listener(ThreadingHTTPServer)`: accepts connections, refuses some, and drains at the end.

The drivers of its connections (`transports.py`) know no other part of the server.
"""

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from socketserver import BaseRequestHandler
from typing import Any

from ota_server.httpd import reply
from ota_server.httpd.app import App
from ota_server.httpd.body_budget import BodyBudget
from ota_server.httpd.connection import CONFIRM_SECONDS, Connection
from ota_server.httpd.drivers import Drivers
from ota_server.httpd.http1 import is_head
from ota_server.httpd.lean_http_server import ThreadingHTTPServer
from ota_server.httpd.pacing import Pacing
from ota_server.httpd.reply import Peer
from ota_server.httpd.sockets import LINGER_SECONDS
from ota_server.httpd.trusted_proxies import ProxiedConnection, TrustedProxies
from ota_server.system.server_log import Budget, RateLimit
from ota_server.system.wished import wish

log = logging.getLogger(__name__)

IDLE_SECONDS = 15.0
GRACE_SECONDS = 30.0
MAX_LINGERING = 64
_LOG_EVERY_SECONDS = 60.0
# About clients that left: without a limit, an IPv6 network has enough addresses to fill any log.
_LOG_LINES = 20
# Of `accept`: that one client has already left (accept(2)), or a firewall does not want it.
_LEFT = frozenset(
    (
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EPERM,
        errno.EPROTO,
        errno.ETIMEDOUT,
    )
)


class Listener(ThreadingHTTPServer):
    """Listens for an application, from its constructor on.

    Attributes:
        wake_receiver: readable once `is_draining` is set.
        is_draining: each reply closes its connection, and idle connections close.
        ends_at_once: there is no grace period.
        ended: set when the last connection is closed.
        accepted_connections, refused_connections: how many were since it began to listen.
        drivers: those that have connections.
        pacing: how fast images are sent; None for no limit.
        proxies: who is believed about the addresses of clients; None: nobody.
        confirm_seconds: as in `Connection`.
        bodies: as in `Incoming`.
        max_lingering: how many refused connections stay open until they have read that.
    """

    max_lingering = MAX_LINGERING
    request_queue_size = 4096  # the stdlib's 5 drops devices when a fleet wakes at once
    # Why these two have these values: docs/adr/0008.
    defer_seconds = 1  # Linux hands over a connection with its first bytes, or after this time
    unsent_bytes = 64 * 1024  # how much unsent data of a download the kernel takes
    allow_reuse_address = True
    # Draining ends threads; daemon threads would be cut off at exit.
    daemon_threads = False
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int],
        app: App,
        handler_class: type[BaseRequestHandler],
        *,
        max_connections: int = 1000,
        idle_seconds: float = IDLE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        pacing: Pacing | None = None,
        proxies: TrustedProxies | None = None,
        confirm_seconds: float = CONFIRM_SECONDS,
    ) -> None:
        """Bind and listen.

        Raises:
            OSError: the address is not available.
        """
        self.app = app
        self.idle_seconds = idle_seconds
        self.is_draining = False
        self.ends_at_once = False
        self.ended = threading.Event()
        self.accepted_connections = self.refused_connections = 0
        self.drivers = Drivers()
        self.max_connections = max_connections
        self.grace_seconds = grace_seconds
        self.pacing = pacing
        self.proxies = proxies
        self.bodies = BodyBudget()
        self.confirm_seconds = confirm_seconds
        self._lingering: dict[socket.SocketType, float] = {}
        self._limit = RateLimit(_LOG_EVERY_SECONDS)
        self._left = Budget(_LOG_LINES, _LOG_EVERY_SECONDS)
        self._serving = threading.Event()
        family, *_, resolved = resolve_address(*address)
        self.wake_receiver, self._wake_sender = socket.socketpair()
        for end in (self.wake_receiver, self._wake_sender):
            end.setblocking(False)
        self.address_family = family
        super().__init__(resolved, handler_class, bind_and_activate=False)
        try:
            self.server_bind()
            self.server_activate()
        except OSError:
            super().server_close()
            self._close_wake()
            raise
        self.socket.setblocking(False)
        self._set_options()

    def _set_options(self) -> None:
        """Set the options that connections inherit from the listening socket on Linux."""
        self._set("TCP_NODELAY", 1)  # with Nagle's algorithm replies wait for ACKs
        if self.unsent_bytes:
            self._set("TCP_NOTSENT_LOWAT", self.unsent_bytes)
        if self.defer_seconds:
            self._set("TCP_DEFER_ACCEPT", self.defer_seconds)

    def _set(self, name: str, value: int, level: int = socket.IPPROTO_TCP) -> None:
        """Set an option that is not needed; nothing where this system has none of that name."""
        option = getattr(socket, name, None)
        if option is not None:
            wish(name, lambda: self.socket.setsockopt(level, option, value))

    def server_bind(self) -> None:
        """Bind, to both IPv6 and IPv4 if possible. Unlike the base class it asks no DNS."""
        if self.address_family == socket.AF_INET6:
            self._set("IPV6_V6ONLY", self.server_address[0] != "::", socket.IPPROTO_IPV6)
        self._set("SO_REUSEADDR", 1, socket.SOL_SOCKET)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        # Of IPv6: the interface to which an address that begins with fe80 belongs.
        scope = self.server_address[3] if len(self.server_address) == 4 else 0
        if scope:
            self.server_name += f"%{socket.if_indextoname(scope)}"

    def serve(self, drive: Callable[[], None]) -> None:
        """Drive connections until `shutdown`; return when the last one is closed."""
        self._serving.set()
        try:
            drive()
        finally:
            self.ended.set()

    def shutdown(self) -> None:
        """Drain and wait until that is done. In a signal handler call `drain` instead."""
        self.drain()
        if self._serving.is_set():
            self.ended.wait()

    def drain(self) -> None:
        """Begin to drain. Safe in a signal handler."""
        self.is_draining = True
        self._wake()

    def end_at_once(self) -> None:
        """Cut downloads instead of waiting for them; each is recorded. Safe in a signal handler."""
        self.ends_at_once = True
        self.drain()

    def server_close(self) -> None:
        """Close the listening socket."""
        super().server_close()
        self._close_wake()

    def connection_of(self, peer: Peer, now: float) -> Connection:
        """Return a new connection of a client, or of a trusted proxy."""
        if self.proxies is None or not self.proxies.has(peer.address):
            connection = Connection(self.app, peer, self.idle_seconds, now)
        else:
            connection = ProxiedConnection(self.app, peer, self.idle_seconds, now, self.proxies)
        connection.confirm_seconds = self.confirm_seconds
        connection.bodies = self.bodies
        return connection

    def may_log(self, what: str, now_seconds: float) -> bool:
        """Return whether something may be logged now: each thing once a minute."""
        return self._limit.allows(what, now_seconds)

    def note_left(self, address: str, now_seconds: float) -> None:
        """Log that a client left a download, unless that is logged too often."""
        if self.may_log(f"left {address}", now_seconds) and self._left.allows(now_seconds):
            log.info("%s left a download", address)

    def accept(self, limit: int, take: Callable[[socket.SocketType, Any], None]) -> bool:
        """Accept up to `limit` waiting connections; return False if it cannot: rest a moment then.

        The limit is there so that signals are noticed even if clients keep connecting.
        """
        for _ in range(limit):
            try:
                # Without the `socket.socket` around socket.SocketType: that saves 4 µs of 60.
                descriptor, address = self.socket._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return True
            except OSError as problem:
                if problem.errno in _LEFT:
                    continue
                if self.may_log("accept", time.monotonic()):
                    log.error("no connection can be accepted: %s; clients wait", problem.strerror)
                return False
            self.accepted_connections += 1
            take(socket.SocketType(self.address_family, self.socket_type, 0, descriptor), address)
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a bug that ended one connection; the others continue."""
        log.exception("the connection of %s failed", client_address[0])

    def refuse(self, connection: socket.SocketType, reason: str) -> None:
        """Answer 503 and close, without waiting, but so that the reply arrives."""
        self.refused_connections += 1
        if self.may_log("refused", time.monotonic()):
            log.warning("connections are refused with 503: %s", reason)
        connection.setblocking(False)
        try:
            connection.send(_refusal(int(time.time()), _asks_for_head(connection)))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        if len(self._lingering) >= self.max_lingering:
            oldest = next(iter(self._lingering))
            del self._lingering[oldest]
            oldest.close()
        self._lingering[connection] = time.monotonic() + LINGER_SECONDS

    def close_refused(self) -> None:
        """Close the refused connections whose clients have read the reply or whose time is over."""
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

    @property
    def has_refused(self) -> bool:
        """Whether refused connections are still open."""
        return bool(self._lingering)

    def stop_listening(self) -> None:
        """Close the listening socket and all refused connections."""
        super().server_close()
        for connection in self._lingering:
            connection.close()
        self._lingering.clear()

    def _wake(self) -> None:
        try:
            self._wake_sender.send(b"\0")
        except OSError:
            return  # full: it wakes anyway; or closed: nothing waits

    def _close_wake(self) -> None:
        self.wake_receiver.close()
        self._wake_sender.close()


def resolve_address(host: str, port: int) -> tuple[Any, ...]:
    """Return the first address of a host; "" means all interfaces, IPv6 and IPv4."""
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


def _asks_for_head(connection: socket.SocketType) -> bool:
    """Return whether a client that is refused has sent a HEAD, as far as that has arrived."""
    try:
        return is_head(connection.recv(16, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def _refusal(seconds: int, without_body: bool) -> bytes:
    answer = reply.later("Too many connections.")
    head = answer.head(seconds, False, 1)
    return head if without_body else head + answer.body
