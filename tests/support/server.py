"""A real server on a free port: in this process, or as a process of its own."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from ota_server.device_port.server import OTAServer
from ota_server.device_port.wiring import open_service
from ota_server.httpd.transports import TRANSPORTS
from tests.support.client import DEVICE, MAC, TIMEOUT_SECONDS, Answer, Client, until
from tests.support.data_dir import ROOT, DataDirCase

# CI runs all tests on each; test_transports compares them at every run.
TRANSPORT = os.environ.get("OTA_SERVER_TEST_TRANSPORT", TRANSPORTS[0])


class Tracebacks(logging.Handler):
    """Keeps what the server logged with a traceback, which is a bug."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        if record.exc_info:
            self.found.append(self.format(record))


class ServerCase(DataDirCase):
    """A real server in this process, with the target v1.0.1 and images of v1.0.0 and v1.0.1.

    A traceback in the server's log fails the test.
    """

    IMAGE = bytes(range(256)) * 300  # 76,800 bytes
    OLD_IMAGE = b"old image " * 5000  # 50,000 bytes
    TRANSPORT = TRANSPORT

    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.0", self.OLD_IMAGE)
        self.put_image("v1.0.1", self.IMAGE)
        self.set_target("v1.0.1")
        # One device makes all the requests of a test: it may fetch an image as often as it likes.
        self.retries = self.data_dir / "version" / "retries.json"
        self.retries.write_text(json.dumps({MAC: "2999-01-01T00:00:00Z"}))
        self.server: OTAServer | None = None
        tracebacks = Tracebacks()
        log = logging.getLogger("ota_server")
        log.addHandler(tracebacks)
        self.addCleanup(log.removeHandler, tracebacks)
        self.addCleanup(lambda: self.assertEqual("\n".join(tracebacks.found), ""))
        self.addCleanup(self.stop)

    def start(self, **options: Any) -> OTAServer:
        """Start the server; options of OTAServer, and those of open_service under `service`."""
        service = open_service(
            self.data_dir, **{"settle_seconds": 0.0, **options.pop("service", {})}
        )
        options.setdefault("transport", self.TRANSPORT)
        self.server = OTAServer(("127.0.0.1", 0), service, **options)
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()
        return self.server

    @property
    def port(self) -> int:
        """The port of the server, which is started where it is not running."""
        return (self.server or self.start()).server_port

    def await_ends(self) -> None:
        """Wait until no download is running: a device has all of one before its end is counted."""
        transfers = self.server.service.fleet.transfers
        self.assertTrue(until(lambda: not transfers.counts))

    def stop(self) -> None:
        """Stop the server: on return every request has ended and is on record."""
        if self.server is not None:
            server, self.server = self.server, None
            server.shutdown()
            self._thread.join()
            server.server_close()
            server.service.close()

    def get(self, path: str, fields: Mapping[str, str] = DEVICE, method: str = "GET") -> Answer:
        """Send one request on a connection of its own and return the reply."""
        with Client(self.port) as client:
            client.request(path, fields, method)
            return client.answer(method)

    def raw(self, content: bytes) -> bytes:
        """Send bytes and return all that comes back until the server closes."""
        with Client(self.port) as client:
            client.send(content)
            client.sock.shutdown(socket.SHUT_WR)
            return client.read_all()


class Process:
    """The server as its own process, as a user starts it."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        code: str | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """Start it, by `code` instead of as a user does where that is given.

        It has no operators' port unless `--admin` is among the arguments.
        """
        if "--admin" not in arguments:
            arguments = (*arguments, "--no-admin")
        how = ["-m", "ota_server.server"] if code is None else ["-c", code]
        command = [sys.executable, *how, "--port", "0", "--transport", TRANSPORT, *arguments]
        # A file, since a pipe that nobody reads fills, and holds up the server.
        with tempfile.TemporaryFile() as log:
            self._log = os.dup(log.fileno())
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=pass_fds,
            )
        self.banner = ""
        self.log = ""
        self.port = self.admin_port = 0
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.banner += line
            if "listening" in line:
                self.port = int(line.split("//")[1].split("/")[0].rsplit(":", 1)[1])
            if "operators" in line:
                self.admin_port = int(line.rstrip().rstrip("/").rsplit(":", 1)[1])
            if "journal" in line:
                break

    def logged(self) -> str:
        """Return what it has logged so far."""
        return os.pread(self._log, 1 << 20, 0).decode()

    def kill(self) -> None:
        """End it by SIGKILL and collect it."""
        self.end(signal.SIGKILL)

    def end(self, signum: int = signal.SIGTERM) -> tuple[int, str]:
        """End it by a signal and return its exit code and what it logged."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        rest, _ = self.process.communicate(timeout=TIMEOUT_SECONDS * 3)
        self.banner += rest or ""
        if self._log >= 0:
            with open(self._log, encoding="utf-8") as log:
                log.seek(0)
                self.log = log.read()
            self._log = -1
        return self.process.returncode, self.log
