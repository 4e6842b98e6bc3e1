"""Which addresses belong to this machine. I/O, though nothing is sent."""

import socket
from functools import lru_cache

from ota_server.model.address import is_loopback

_ANY_PORT = 9


@lru_cache(maxsize=4096)
def is_own_address(address: str) -> bool:
    """Return whether a connection from `address` comes from this machine.

    The system answers: to reach one of its own addresses, it would use that address itself.
    """
    if is_loopback(address):
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.inet_pton(family, address)  # never a name: that would be looked up
        with socket.socket(family, socket.SOCK_DGRAM) as unsent:
            unsent.connect((address, _ANY_PORT))
            return bool(unsent.getsockname()[0] == address)
    except (OSError, ValueError):
        return False
