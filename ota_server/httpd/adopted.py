"""A listening socket that is made in one process and served in another: restarts lose no client."""

import socket
from socketserver import BaseRequestHandler
from typing import Any

from ota_server.httpd.app import App
from ota_server.httpd.listener import Listener, resolve_address


def listen_on(host: str, port: int) -> socket.socket:
    """Return a socket that listens; it can be given to a child process.

    Raises:
        OSError: the address is not available, or the host has none.
    """
    family, *_, resolved = resolve_address(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, resolved[0] != "::")
        sock.bind(resolved)
        sock.listen(Listener.request_queue_size)
    except OSError:
        sock.close()
        raise
    return sock


class AdoptedListener(Listener):
    """Serves a socket that listens already."""

    def __init__(
        self, sock: socket.socket, app: App, handler: type[BaseRequestHandler], **options: Any
    ) -> None:
        """Take the socket over, and close it at the end.

        Args:
            options: as those of `Listener`.
        """
        self._adopted = sock
        host, port, *_ = sock.getsockname()
        super().__init__((host, port), app, handler, **options)

    def server_bind(self) -> None:
        """Take the socket in place of the one that the base class has made."""
        self.socket.close()
        self.socket = self._adopted
        self.address_family = self.socket.family
        self.server_address = self.socket.getsockname()
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
