"""The socket of the operators' port: the server listens, the controller answers. I/O.

So a controller that is started again finds the clients that came meanwhile, and a port that is
taken shows when the server starts.
"""

import argparse
import logging
import socket
from pathlib import Path
from typing import NamedTuple

from ota_server.device_port.option_values import DEFAULT_ADMIN, AdminAddress
from ota_server.httpd.adopted import listen_on
from ota_server.policy.admin_address import check_address, say_url
from ota_server.system.hints import hints

log = logging.getLogger(__name__)


class NoAdminPort(Exception):
    """Operators cannot be answered at the address that was given; the message says what to do."""


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


def open_admin_socket(arguments: argparse.Namespace) -> AdminSocket | None:
    """Listen for operators; None: not wanted, or the default port is taken.

    Raises:
        NoAdminPort: another address was given, and is not available, or nobody has a token.
    """
    if arguments.no_admin:
        return None
    address: AdminAddress = arguments.admin or DEFAULT_ADMIN
    if refusal := check_address(arguments.data_dir, address.host):
        raise NoAdminPort(hints.paste(refusal))
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


def say_where(data_dir: Path, admin: AdminSocket) -> None:
    """Let `token login` know where the page is, if that can be written."""
    try:
        say_url(data_dir, admin.url.rstrip("/"))
    except OSError as problem:
        log.warning("`token login` has to be told --url: %s", problem)
