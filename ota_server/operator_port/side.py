"""All that the controller does for operators: answers, keeps the index, tells of changes. I/O."""

import logging
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from ota_server.model.address import is_loopback
from ota_server.operations.device_index import DeviceIndex
from ota_server.operations.index_writer import IndexWriter
from ota_server.operations.uploads import clear_killed
from ota_server.operator_port.authoriser import Authoriser
from ota_server.operator_port.change_watch import ChangeWatch
from ota_server.operator_port.changes import Changes
from ota_server.operator_port.port import OperatorPort
from ota_server.operator_port.site import Site
from ota_server.operator_port.site_routes import all_routes
from ota_server.system import clock

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


class OperatorSide:
    """Answers operators from its constructor on. `look` and `end` are for one thread."""

    def __init__(self, data_dir: Path, sock: socket.socket, names: Sequence[str]) -> None:
        """Begin to answer.

        Args:
            sock: listens already.
            names: of hosts by which browsers reach the port, besides its address.
        """
        is_local = is_loopback(sock.getsockname()[0])
        authoriser = Authoriser(data_dir, reads_openly=is_local, names=names, now_seconds=time.time)
        self._changes = Changes(clock.now_ms())
        self._authoriser = authoriser
        self._index = DeviceIndex(data_dir)
        self._writer = IndexWriter(data_dir)
        self._watch = ChangeWatch(data_dir, self._index, self._changes)
        site = Site(data_dir, self._index, authoriser, self._changes)
        for product in site.products:
            clear_killed(site.folder_of(product))
        self._uploads = site.uploads
        self._port = OperatorPort(sock, site, all_routes())
        self._look_at = 0.0
        self._port.start()

    def look(self, now_ms: int) -> bool:
        """Do a little of what is to be done; return whether there is more to do at once."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._authoriser.look_after()
            self._uploads.look_after()
        has_more = self._writer.step(now_ms)
        self._watch.look()
        return has_more

    def end(self) -> None:
        """Answer what has arrived, and close everything."""
        self._changes.close()
        self._port.end()
        self._uploads.close()
        self._index.close()
        self._writer.close()
