"""The operators' port in the controller's process: its listener, in a thread of its own. I/O."""

import logging
import socket
from threading import Thread

from ota_server.httpd.adopted import AdoptedListener
from ota_server.httpd.seats import SeatedDriver, Seats
from ota_server.httpd.threads import ChannelHandler
from ota_server.operator_port.app import OperatorApp
from ota_server.operator_port.routes import RouteTable
from ota_server.operator_port.site import Site

log = logging.getLogger(__name__)

# Browsers open six connections each; streams hold one each.
_MOST_CONNECTIONS = 256
_GRACE_SECONDS = 2.0


class OperatorRequestHandler(ChannelHandler):
    """Serves one connection of an operator, in its thread."""


class OperatorPort:
    """Answers operators from `start` until `end`."""

    def __init__(self, sock: socket.socket, site: Site, routes: RouteTable) -> None:
        """Take a socket that listens already."""
        self._site = site
        seats = Seats()
        self._listener = AdoptedListener(
            sock,
            OperatorApp(site, routes, seats),
            OperatorRequestHandler,
            max_connections=_MOST_CONNECTIONS,
            grace_seconds=_GRACE_SECONDS,
        )
        drive = SeatedDriver(self._listener, seats).run
        self._thread = Thread(target=self._listener.serve, args=(drive,), name="operators")

    @property
    def number(self) -> int:
        """The port that it listens on."""
        return self._listener.server_port

    def start(self) -> None:
        """Begin to answer.

        Raises:
            RuntimeError: the system starts no further thread.
        """
        self._thread.start()

    def end(self) -> None:
        """Answer what has arrived, end streams, and close."""
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
        self._site.authoriser.close()
