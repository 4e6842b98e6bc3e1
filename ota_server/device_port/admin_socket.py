"""The socket of the operators' port: the server listens, the controller answers. I/O.

So a controller that is started again finds the clients that came meanwhile, and a port that is
taken shows when the server starts.
"""

import argparse
import logging
import socket
from typing import NamedTuple

from ota_server.device_port.option_values import DEFAULT_ADMIN, AdminAddress
from ota_server.httpd.adopted import listen_on
from ota_server.model.address import is_loopback

log = logging.getLogger(__name__)


class NoAdminPort(Exception):
    """The address that was given for operators cannot be had; the message says what to do."""


class AdminSocket(NamedTuple):
    """A socket that listens for operators.

    Attributes:
        names: of hosts by which browsers reach it, besides its address.
    """

    socket: socket.socket
    names: tuple[str, ...]

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port, *_ = self.socket.getsockname()
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    @property
    def is_for_this_machine(self) -> bool:
        """Whether nobody else reaches it."""
        return is_loopback(self.socket.getsockname()[0])


def open_admin_socket(arguments: argparse.Namespace) -> AdminSocket | None:
    """Listen for operators; None: not wanted, or the default port is taken.

    Raises:
        NoAdminPort: another address was given, and is not available.
    """
    if arguments.no_admin:
        return None
    address: AdminAddress = arguments.admin or DEFAULT_ADMIN
    try:
        sock = listen_on(*address)
    except (OSError, UnicodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not the name of a host"
        if arguments.admin is None:
            log.warning(
                "no page for operators: port %d of this machine: %s; --admin HOST:PORT gives "
                "another, --no-admin leaves it out",
                address.port,
                reason,
            )
            return None
        raise NoAdminPort(
            f"cannot listen for operators on {address}: {reason}; give another --admin"
        ) from problem
    return AdminSocket(sock, tuple(arguments.admin_name))
