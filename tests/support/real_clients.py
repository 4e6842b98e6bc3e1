"""What the tests with real clients share: real images, a link that breaks, clients as processes.

The images are Debian's: the flash image of a virtual machine (4 MiB, package ovmf) and the firmware
of two USB radios (51 and 73 KB, package firmware-ath9k-htc), each in two releases that differ.
"""

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support import TIMEOUT_SECONDS, ServerCase

OVMF = Path("/usr/share/OVMF")
ATH9K = Path("/lib/firmware/ath9k_htc")
MEBIBYTE = 1024 * 1024
POLL_SECONDS = 0.01
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


class WeakLink:
    """A link to the server that carries so many bytes of each connection, then falls silent.

    Clients are cut here and not by a limit on their rate, since curl takes a whole image of 50 KB
    in one go whatever its limit. A thread carries the bytes until `close`.
    """

    def __init__(self, server_port: int, carried_bytes: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._carried_bytes: float = carried_bytes
        self._left: dict[socket.socket, float] = {}
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


class RealClientCase(ServerCase):
    """The server, and clients as processes that never outlive their test."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start_client(self, command: Sequence[str | Path]) -> subprocess.Popen[str]:
        """Start a client in the temporary folder."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **NO_PROXY, "TMPDIR": str(self.folder)},
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

    def run_client(self, command: Sequence[str | Path]) -> str:
        """Run a client to its end, which must be success, and return what it said."""
        process = self.start_client(command)
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(process.returncode, 0, output)
        return output

    def weak_link(self, carried_bytes: int) -> WeakLink:
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
