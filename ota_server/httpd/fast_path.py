"""Common checks in the event loop: answered from the bytes that arrived, by few steps.

Nearly every request of a fleet is one of these. A connection that was closed after one needs no
state at all, and one that is kept open needs none of its state but the time. What is the least bit
uncommon goes to the connection machine, which would have given the same answer.
"""

import socket
from typing import TYPE_CHECKING

from ota_server.device_port.service import CHECK_PATH, Service
from ota_server.httpd.http1 import read_common_head
from ota_server.httpd.reply import Peer
from ota_server.model.device import Report

if TYPE_CHECKING:
    from ota_server.httpd.channel import Link

# A check whose record is queued: its reply may leave once that is in the journal. The link is None
# for a connection that was accepted in this turn; last come whether the connection is kept, and
# what the device runs.
Answered = tuple[socket.SocketType, Peer, "Link | None", bytes, bool, str]


class CommonChecks:
    """The common checks of one turn of the loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._check = service.check
        self._failures = service.failures
        self._is_lost = False
        self.answered: list[Answered] = []

    def take(self, data: bytes, sock: socket.SocketType, peer: Peer, link: "Link | None") -> bool:
        """Answer `data`, all that a connection has sent, if it is one common check and no more."""
        common = read_common_head(data)
        if common is None:
            return False
        path, mac, version, keep_alive, length = common
        if length != len(data) or path != CHECK_PATH:
            return False
        content = self._check(Report(mac, version), peer, keep_alive)
        if content is None:
            return False
        self.answered.append((sock, peer, link, content, keep_alive, version))
        return True

    def flush(self) -> bool:
        """Bring records to the journal; say whether that began to fail since the last time.

        What was answered by these records was decided as if they could be written.
        """
        failures, service = self._failures, self._service
        service.flush()
        self._failures = service.failures
        self._is_lost = failures != self._failures
        return self._is_lost

    def drain(self) -> list[Answered]:
        """Return what was answered since the last call; without content: close that one."""
        answered, self.answered = self.answered, []
        if not self._is_lost:
            return answered
        return [
            (*each[:3], b"", False, each[5])
            if self._service.must_not_leave(each[3], each[5])
            else each
            for each in answered
        ]
