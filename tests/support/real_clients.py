"""What the tests with real clients share: real images, a link that breaks, clients as processes.

The images are Debian's: the flash image of a virtual machine (4 MiB, package ovmf) and the firmware
of two USB radios (51 and 73 KB, package firmware-ath9k-htc), each in two releases that differ.
"""

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import MAC, TIMEOUT_SECONDS, Answer, Client, DataDirCase, Process, ServerCase
from tests.support.commands import call

OVMF = Path("/usr/share/OVMF")
ATH9K = Path("/lib/firmware/ath9k_htc")
MEBIBYTE = 1024 * 1024
POLL_SECONDS = 0.01
# Clients that are Python packages, where .ci/run puts them.
PYTHON_CLIENTS = Path(os.environ.get("OTA_SERVER_TEST_CLIENTS", "/nowhere"))
NO_PROXY = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


def ovmf_image(kind: str) -> bytes:
    """Return a whole flash image, which Debian ships in two parts: variables, then code."""
    parts = (OVMF / f"OVMF_{name}_4M{kind}.fd" for name in ("VARS", "CODE"))
    return b"".join(part.read_bytes() for part in parts if part.is_file())


def ath9k_image(chip: str) -> bytes:
    """Return the firmware of a radio; the file's name ends in a version that may grow."""
    return next((path.read_bytes() for path in sorted(ATH9K.glob(f"htc_{chip}*.fw"))), b"")


class Update(NamedTuple):
    """An image, the one of the next release, and how much of the first arrives before the cut."""

    image: bytes
    next_image: bytes
    cut_after: int


LARGE = Update(ovmf_image(""), ovmf_image(".ms"), 256 * 1024)
SMALL = Update(ath9k_image("9271"), ath9k_image("7010"), 24 * 1024)

needs_images = unittest.skipUnless(
    len(LARGE.image) >= 4 * MEBIBYTE and 0 < len(SMALL.image) < 100_000,
    "the images of the packages ovmf and firmware-ath9k-htc are not installed",
)


def needs(*tools: str) -> Callable[[type], type]:
    """Skip a class of tests, naming the tools, where one of them is not installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return unittest.skipIf(bool(missing), f"not installed: {', '.join(missing)}")


def needs_packages(*names: str) -> Callable[[type], type]:
    """Skip a class of tests, naming the Python packages, where one of them is not there."""
    missing = [name for name in names if not list(PYTHON_CLIENTS.glob(f"{name}*"))]
    return unittest.skipIf(
        bool(missing), f"not in the folder OTA_SERVER_TEST_CLIENTS: {', '.join(missing)}"
    )


class WeakLink:
    """A link to the server that carries so many bytes of each connection, then falls silent.

    Clients are cut here and not by a limit on their rate, since curl takes a whole image of 50 KB
    in one go whatever its limit. A thread carries the bytes until `close`.

    Attributes:
        port: where clients find it.
        is_silent: set once it has fallen silent.
        requests: what clients have sent, in the order of its arrival.
    """

    def __init__(self, server_port: int, carried_bytes: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._carried_bytes: float = carried_bytes
        self._left: dict[socket.socket, float] = {}
        self.requests = b""
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.is_silent = threading.Event()
        self._wake, woken = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(woken, selectors.EVENT_READ)
        self._woken = woken
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        """Break all connections; later ones are carried to their end."""
        self._wake.send(b"cut")

    def close(self) -> None:
        """Break all connections and end."""
        self._wake.close()
        self._thread.join()

    def _run(self) -> None:
        order = b"cut"
        while order:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    order = self._woken.recv(16)
                    self._carried_bytes = float("inf")
                    for sock in list(self._left):
                        self._break(sock)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._left:
                    self._carry(key.fileobj, key.data)
        self._selector.close()
        self._listener.close()
        self._woken.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._server)
        for source, sink, left in ((client, server, float("inf")), (server, client, None)):
            self._left[source] = self._carried_bytes if left is None else left
            self._selector.register(source, selectors.EVENT_READ, sink)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            content = source.recv(int(min(65536, self._left[source])))
            if source.getsockname()[1] == self.port:
                self.requests += content
            sink.sendall(content)
        except OSError:
            content = b""
        if not content:
            self._break(source, sink)
            return
        self._left[source] -= len(content)
        if not self._left[source]:
            self._selector.unregister(source)
            self.is_silent.set()

    def _break(self, *ends: socket.socket) -> None:
        for end in ends:
            if self._left.pop(end, 0):
                self._selector.unregister(end)
            end.close()


class Clients(DataDirCase):
    """Clients as processes that never outlive their test."""

    port: int

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start_client(
        self, command: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a client in the temporary folder."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **NO_PROXY, "TMPDIR": str(self.folder), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.addCleanup(self.end_client, process, signal.SIGKILL)
        return process

    def end_client(self, process: subprocess.Popen[str], signum: int) -> int:
        """End a client and collect it."""
        if process.poll() is None:
            process.send_signal(signum)
        if process.stdout is not None and not process.stdout.closed:
            process.communicate(timeout=TIMEOUT_SECONDS)
        return process.returncode

    def run_client(
        self, command: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> str:
        """Run a client to its end, which must be success, and return what it said."""
        process = self.start_client(command, env)
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(process.returncode, 0, output)
        return output

    def weak_link(self, carried_bytes: int = 2**31) -> WeakLink:
        link = WeakLink(self.port, carried_bytes)
        self.addCleanup(link.close)
        return link

    def wait_for(self, is_so: Callable[[], bool], client: subprocess.Popen[str]) -> None:
        """Wait until something is so, as long as the client is at work."""
        until = time.monotonic() + TIMEOUT_SECONDS
        never = threading.Event()
        while not is_so():
            self.assertIsNone(client.poll(), "the client ended by itself")
            self.assertLess(time.monotonic(), until)
            never.wait(POLL_SECONDS)


class RealClientCase(Clients, ServerCase):
    """Clients of a server in this process."""


class FleetCase(Clients):
    """Clients of a server that is a process of its own; releases by the commands of operators."""

    def setUp(self) -> None:
        super().setUp()
        self.process = Process("--data-dir", str(self.data_dir))
        self.addCleanup(self.process.kill)
        self.port = self.process.port

    def operate(self, *arguments: str | Path) -> str:
        """Run a command, which must succeed, and return what it printed."""
        done = call(*map(str, arguments), "--data-dir", str(self.data_dir))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def give(self, path: Path, version: str, *arguments: str) -> None:
        """Publish a release, and give it to all."""
        self.operate("release", "publish", path, "--version", version, *arguments)
        self.operate("release", "activate", version, *arguments)

    def answer(self, path: str, fields: Mapping[str, str]) -> Answer:
        """Send one request on a connection of its own, and return the reply."""
        with Client(self.port) as client:
            client.request(path, fields)
            return client.answer()

    def wanted(self, version: str, mac: str = MAC) -> str:
        """Return the version that a device should run; its script asks for that first."""
        answer = self.answer(f"/d/{mac}/{version}/version.txt", {})
        self.assertEqual(answer.status, 200, answer)
        return answer.body.decode("ascii")

    def url(self, version: str, port: int | None = None) -> str:
        """Return where a device gets its image that runs a version."""
        return f"http://127.0.0.1:{port or self.port}/d/{MAC}/{version}/firmware.bin"

    def device(self, name: str = MAC) -> dict[str, Any]:
        """Return the row of a device in the table."""
        rows = map(json.loads, self.operate("devices", "--json").splitlines())
        (row,) = (row for row in rows if row["mac"] == name)
        return dict(row)

    def assert_updated(self, install: Callable[[], object]) -> None:
        """Check what the table shows before and after a device installs a release by its script."""
        self.assertEqual(self.wanted("v1.0.0"), "v2.0.0")
        row = self.device()
        self.assertEqual((row["firmware_version"], row["state"]), ("v1.0.0", "behind"))
        install()
        self.assertEqual(self.wanted("v2.0.0"), "v2.0.0")
        row = self.device()
        self.assertEqual((row["firmware_version"], row["state"]), ("v2.0.0", "up to date"))
        self.assertIsNotNone(row["update_time"])
