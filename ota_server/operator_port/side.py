"""All that the controller does for operators: answers, keeps the index, tells of changes. I/O."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from ota_server.model.address import is_loopback, plain_address
from ota_server.operations.device_index import DeviceIndex
from ota_server.operations.index_writer import IndexWriter
from ota_server.operations.killed import clear_killed
from ota_server.operator_port.authoriser import Authoriser
from ota_server.operator_port.change_watch import ChangeWatch
from ota_server.operator_port.changes import Changes
from ota_server.operator_port.port import OperatorPort
from ota_server.operator_port.site import Site
from ota_server.operator_port.site_routes import all_routes
from ota_server.rollouts.rollout_memory import RolloutMemory
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir
from ota_server.system.locks import InUse, take_lock
from ota_server.system.server_log import RateLimit

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_SAY_EVERY_SECONDS = 60.0
INDEX_LOCK_NAME = ".index.lock"


class OperatorSide:
    """Answers operators from its constructor on. `step` and `close` are for one thread."""

    def __init__(
        self,
        data_dir: Path,
        sock: socket.socket,
        names: Sequence[str],
        memory: RolloutMemory | None = None,
    ) -> None:
        """Begin to answer.

        Args:
            sock: listens already.
            names: of hosts by which browsers reach the port, besides its address.
            memory: has the rollouts that this process moves; None: it moves none.
        """
        self._writer: IndexWriter | None = None
        is_local = is_loopback(plain_address(ip_address(sock.getsockname()[0])))
        self._authoriser = Authoriser(
            data_dir, reads_openly=is_local, names=names, now_seconds=time.time
        )
        self._changes = Changes(clock.now_ms())
        self._index = DeviceIndex(data_dir, self._why_no_index)
        self._watch = ChangeWatch(data_dir, self._index, self._changes)
        site = Site(data_dir, self._index, self._authoriser, self._changes, memory=memory)
        self._site = site
        for product in site.products:
            clear_killed(site.folder_of(product))
        self._uploads = site.uploads
        self._port = OperatorPort(sock, site, all_routes())
        self._data_dir = data_dir
        self._lock: int | None = None
        self._look_at = 0.0
        self._limit = RateLimit(_SAY_EVERY_SECONDS)
        self._port.start()

    def step(self, now_ms: int) -> bool:
        """Do a little of what is to be done; return whether there is more to do at once."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._authoriser.look_after()
            self._look_for_lock()
            self._uploads.look_after()
        if self._writer is not None and self._site.is_waiting:
            self._writer.look_soon()
        has_more = self._writer is not None and self._writer.step(now_ms)
        self._watch.look()
        return has_more

    def _look_for_lock(self) -> None:
        """Begin to write the index, unless another process does: then it is only read."""
        if self._writer is not None:
            return
        try:
            self._lock = take_lock(journal_dir(self._data_dir) / INDEX_LOCK_NAME)
        except InUse:
            return
        except OSError as problem:
            if self._limit.allows("lock", time.monotonic()):
                log.error("the index of devices: %s: %s", problem.filename, problem.strerror)
            return
        self._writer = IndexWriter(self._data_dir)

    def _why_no_index(self) -> str:
        return "" if self._writer is None else self._writer.problem

    def close(self) -> None:
        """Answer what has arrived, and close everything."""
        self._changes.close()
        self._port.end()
        self._uploads.close()
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            os.close(self._lock)
        self._index.close()
