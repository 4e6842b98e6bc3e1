"""The server: `OTAServer(ThreadingHTTPServer)` gives a listener its service and does its chores."""

import logging
import threading
import time
from collections.abc import Callable

from ota_server.device_port.service import Service
from ota_server.httpd.listener import GRACE_SECONDS, IDLE_SECONDS, Listener
from ota_server.httpd.pacing import Pacing
from ota_server.httpd.threads import ChannelHandler
from ota_server.httpd.transports import TRANSPORTS, drive
from ota_server.system.garbage import Collector

log = logging.getLogger(__name__)

LOOK_AFTER_SECONDS = 0.1  # a journal that was taken away is noticed by then
SYNC_SECONDS = 0.1  # what a power cut may take under `--fsync interval`, and what the disk needs


class OTARequestHandler(ChannelHandler):
    """Converses with one device: it is run by a thread, under `--transport threads`.

    Of each request `Service` reads `_br_mac_` and `_br_fwv_`, and answers `/version.txt` and
    `/firmware.bin`; the event loop has the same done for all devices at once.
    """


class OTAServer(Listener):
    """Listens from its constructor on; `serve_forever` answers devices.

    `shutdown` drains: no new connections, what is in flight is answered, downloads go on for
    `grace_seconds`; `serve_forever` returns after that.

    Attributes:
        chores: what no request should wait for, to be done a few times a second, one by one.
    """

    def __init__(
        self,
        address: tuple[str, int],
        service: Service,
        *,
        transport: str = TRANSPORTS[0],
        max_connections: int = 1000,
        idle_seconds: float = IDLE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        pacing: Pacing | None = None,
    ) -> None:
        """Bind and listen.

        Raises:
            OSError: the address cannot be had.
        """
        super().__init__(
            address,
            service,
            OTARequestHandler,
            max_connections=max_connections,
            idle_seconds=idle_seconds,
            grace_seconds=grace_seconds,
            pacing=pacing,
        )
        self.service = service
        self._transport = transport
        self._collector = Collector()
        self.chores = [*service.chores, self._collect]

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept until `shutdown`, then drain. Returns when the last connection has ended."""
        # Bringing records to the disk is on time also while a chore takes long.
        workers = [
            threading.Thread(target=self._do_chores, name="chores"),
            threading.Thread(target=self._sync, name="sync"),
        ]
        for worker in workers:
            worker.start()
        try:
            self.serve(lambda: drive(self, self._transport))
        finally:
            self.service.end_chores()
            for worker in workers:
                worker.join()

    def _do_chores(self) -> None:
        while not self.ended.wait(LOOK_AFTER_SECONDS):
            for chore in tuple(self.chores):
                self._do_chore(chore)

    def _collect(self) -> None:
        self._collector.look_after(time.monotonic())

    def _sync(self) -> None:
        due = time.monotonic() + SYNC_SECONDS
        while not self.ended.wait(due - time.monotonic()):
            self._do_chore(self.service.sync)
            due = max(due + SYNC_SECONDS, time.monotonic())

    def _do_chore(self, chore: Callable[[], None]) -> None:
        """Do one chore; that it fails must not keep the others from being done."""
        try:
            chore()
        except OSError as problem:
            if self.may_log("chores", time.monotonic()):
                log.error("a chore failed: %s", problem)
        except Exception:
            if self.may_log("chores", time.monotonic()):
                log.exception("a chore failed")
