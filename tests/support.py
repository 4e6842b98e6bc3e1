"""What tests share: a real server on a free port, a temporary data directory, raw sockets."""

import fcntl
import json
import logging
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ota_server.device_port.server import OTAServer
from ota_server.device_port.wiring import open_service
from ota_server.httpd.transports import TRANSPORTS

ROOT = Path(__file__).resolve().parent.parent
MAC = "00:11:22:33:44:55"
DEVICE = {"_br_mac_": MAC, "_br_fwv_": "v1.0.0"}
TIMEOUT_SECONDS = 20.0
# CI runs all tests on each; test_transports compares them at every run.
TRANSPORT = os.environ.get("OTA_SERVER_TEST_TRANSPORT", TRANSPORTS[0])


class Answer(NamedTuple):
    """A reply as it came over the wire; names of fields in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes
    head: bytes


class Client:
    """A raw socket that speaks HTTP as far as a test wants it to."""

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        source: str | None = None,
    ) -> None:
        """Connect, from the address `source` where that is given."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if source is not None:
            self.sock.bind((source, 0))
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect((host, port))
        self._buffer = bytearray()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, content: bytes) -> None:
        self.sock.sendall(content)

    def request(self, path: str, fields: Mapping[str, str] = DEVICE, method: str = "GET") -> None:
        """Send a request head."""
        self.send(request_head(path, fields, method))

    def read_until(self, mark: bytes) -> bytes:
        """Return what arrives up to and with `mark`; less if the connection ends before."""
        while mark not in self._buffer:
            part = self.sock.recv(65536)
            if not part:
                break
            self._buffer += part
        end = self._buffer.find(mark)
        end = len(self._buffer) if end < 0 else end + len(mark)
        return self._take(end)

    def read(self, length: int) -> bytes:
        """Return `length` bytes; fewer if the connection ends before."""
        while len(self._buffer) < length:
            part = self.sock.recv(65536)
            if not part:
                break
            self._buffer += part
        return self._take(length)

    def read_all(self) -> bytes:
        """Return all up to the end of the connection."""
        while part := self.sock.recv(65536):
            self._buffer += part
        return self._take(len(self._buffer))

    def _take(self, length: int) -> bytes:
        content = bytes(self._buffer[:length])
        del self._buffer[:length]
        return content

    def answer(self, method: str = "GET") -> Answer:
        """Read one reply."""
        head = self.read_until(b"\r\n\r\n")
        status, fields = parse_reply_head(head)
        length = int(fields.get("content-length", "0"))
        body = b"" if method == "HEAD" or status == 304 else self.read(length)
        return Answer(status, fields, body, head)

    def reset(self) -> None:
        """Close by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


def request_head(path: str, fields: Mapping[str, str] = DEVICE, method: str = "GET") -> bytes:
    """Return a request head with a Host field."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\nHost: ota\r\n{lines}\r\n".encode("latin-1")


def parse_reply_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and fields of a reply head; fails where it is none."""
    lines = head.decode("latin-1").split("\r\n")
    version, status, _ = lines[0].split(" ", 2)
    assert version == "HTTP/1.1", head
    fields = dict(line.split(": ", 1) for line in lines[1:-2])
    return int(status), {name.lower(): value for name, value in fields.items()}


def until(
    condition: Callable[[], bool], seconds: float = TIMEOUT_SECONDS, pause_seconds: float = 0.005
) -> bool:
    """Wait for what nothing tells of, such as a line in a file; False when it did not come."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= give_up_at:
            return False
        select.select([], [], [], pause_seconds)
    return True


class DataDirCase(unittest.TestCase):
    """A temporary data directory."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data_dir = Path(folder.name)
        for name in ("version", "firmware", "log"):
            (self.data_dir / name).mkdir()

    def set_target(self, content: str | bytes) -> None:
        """Write version.txt, by rename as an editor does."""
        content = content.encode() if isinstance(content, str) else content
        temporary = self.data_dir / "version" / "version.tmp"
        temporary.write_bytes(content)
        temporary.replace(self.data_dir / "version" / "version.txt")

    def on_terminal(self, columns: int, *arguments: str) -> list[str]:
        """Return what a command on this data directory writes to a terminal of so many columns."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-m", "ota_server", *arguments]
        command += ["--data-dir", str(self.data_dir)]
        environment = {name: each for name, each in os.environ.items() if name != "COLUMNS"}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs) as process:
            os.close(theirs)
            written = b""
            try:
                while part := os.read(ours, 65536):
                    written += part
            except OSError:
                pass  # how Linux says that the other side of a terminal was closed
            finally:
                os.close(ours)
        self.assertEqual(process.returncode, 0)
        return written.decode().splitlines()

    def put_image(self, version: str, content: bytes) -> Path:
        """Put an image into firmware/, by rename."""
        temporary = self.data_dir / "firmware" / f"{version}.tmp"
        temporary.write_bytes(content)
        path = self.data_dir / "firmware" / f"firmware_{version}.bin"
        temporary.replace(path)
        return path

    def records(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the records of devices in the current journal that have these fields."""
        lines = (self.data_dir / "log" / "devices.jsonl").read_bytes().splitlines()
        records = [json.loads(line) for line in lines]
        return [
            record
            for record in records
            if record["event"] != "snapshot" or "event" in wanted
            if all(record.get(name) == value for name, value in wanted.items())
        ]


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
        self.addCleanup(lambda: self.assertEqual(tracebacks.found, []))
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
        """Start it, by `code` instead of as a user does where that is given."""
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
        self.port = 0
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.banner += line
            if "listening" in line:
                self.port = int(line.split("//")[1].split("/")[0].rsplit(":", 1)[1])
            if "journal" in line:
                break

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
