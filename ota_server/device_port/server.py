"""The server: `OTAServer(ThreadingHTTPServer)`, a listener with a service and its chores."""

import logging
import threading
import time
from collections.abc import Callable

from ota_server.device_port.service import Service
from ota_server.httpd.connection import CONFIRM_SECONDS
from ota_server.httpd.listener import GRACE_SECONDS, IDLE_SECONDS, Listener
from ota_server.httpd.pacing import Pacing
from ota_server.httpd.threads import ChannelHandler
from ota_server.httpd.transports import TRANSPORTS, drive
from ota_server.httpd.trusted_proxies import TrustedProxies
from ota_server.system.garbage import Collector

log = logging.getLogger(__name__)

LOOK_AFTER_SECONDS = 0.1  # a journal that was moved is noticed by then
SYNC_SECONDS = 0.1  # how much a power cut can lose under `--fsync interval`


class NoThread(Exception):
    """The system starts no further thread, without which the server cannot work."""


class OTARequestHandler(ChannelHandler):
    """Serves one device in a thread, under `--transport threads`.

    `Service` reads `_br_mac_` and `_br_fwv_` in each request, and answers `/version.txt` and
    `/firmware.bin`; the event loop uses it in the same way for all devices.
    """


class OTAServer(Listener):
    """Listens from its constructor on; `serve_forever` answers devices.

    `shutdown` drains: it accepts no new connections, answers what has arrived, and lets downloads
    continue for `grace_seconds`; then `serve_forever` returns.

    Attributes:
        chores: work that no request should wait for, done one by one several times a second.
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
        proxies: TrustedProxies | None = None,
        confirm_seconds: float = CONFIRM_SECONDS,
    ) -> None:
        """Bind and listen.

        Raises:
            OSError: the address is not available.
        """
        super().__init__(
            address,
            service,
            OTARequestHandler,
            max_connections=max_connections,
            idle_seconds=idle_seconds,
            grace_seconds=grace_seconds,
            pacing=pacing,
            proxies=proxies,
            confirm_seconds=confirm_seconds,
        )
        self.service = service
        self._transport = transport
        self._collector = Collector()
        self.chores = [*service.chores, self._collect]

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept until `shutdown`, then drain. Return when the last connection is closed.

        Raises:
            NoThread: the system does not start the threads that this takes.
        """
        # A thread of its own syncs records on time, even while a chore takes long.
        workers = [
            threading.Thread(target=self._do_chores, name="chores"),
            threading.Thread(target=self._sync, name="sync"),
        ]
        started = []
        try:
            for worker in workers:
                worker.start()
                started.append(worker)
        except RuntimeError as problem:
            self.ended.set()
            raise NoThread(str(problem)) from problem
        else:
            self.serve(lambda: drive(self, self._transport))
        finally:
            self.service.end_chores()
            for worker in started:
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
        """Do one chore; if it fails, the others must still be done."""
        try:
            chore()
        except OSError as problem:
            if self.may_log("chores", time.monotonic()):
                log.error("a chore failed: %s", problem)
        except Exception:
            if self.may_log("chores", time.monotonic()):
                log.exception("a chore failed")
