"""One server of a peer as a process of its own: started, asked until it answers, ended."""

import hashlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from benchmarks import procfs
from benchmarks.figures import Broken
from benchmarks.peers import ROOT, VERSION, Peer, Place

DEVICE = {"_br_mac_": "02:00:00:00:00:01", "_br_fwv_": VERSION}
_START_SECONDS = 60.0
_END_SECONDS = 5.0
_LOG_LINES = 12


def free_port() -> int:
    """Return a port that nobody has on any address, not even a connection that was closed."""
    with socket.socket() as sock:
        sock.bind(("", 0))
        port: int = sock.getsockname()[1]
        return port


class Server:
    """A running server. Use it as a context: at its end nothing of it is left.

    Attributes:
        site: the folder that it serves.
        process: the id of the process, the root of a tree.
    """

    def __init__(
        self,
        peer: Peer,
        site: Path,
        folder: Path,
        python: Path,
        idle_seconds: float = 0,
    ) -> None:
        """Start it in a folder of its own; `wait` until it answers."""
        folder.mkdir(exist_ok=True)
        place = Place(folder, site, free_port(), python, idle_seconds)
        self.peer = peer
        self.port = place.port
        self._log = folder / "process.log"
        self.site = site
        self._image = site / "firmware.bin"
        command = peer.prepare(place)
        environment = {**os.environ, **peer.environment(place)}
        with self._log.open("wb") as log:
            # In a session of its own: Ctrl-C is for us, and we end it.
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.process = self._popen.pid

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _problem: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def check_url(self) -> str:
        """The URL of a check of the first device."""
        path = self.peer.check_path.replace("@", "020000000001")
        return f"http://127.0.0.1:{self.port}{path}"

    def wait(self) -> None:
        """Return when it answers a check, and sends the very image.

        Raises:
            Broken: it ended, or did not within a minute.
        """
        self.wait_for_check()
        with self.blamed():
            self.peer.introduce(self.port)
        if self.peer.has_images:
            content = self._wait_for(f"http://127.0.0.1:{self.port}/firmware.bin")
            with self._image.open("rb") as image:
                wanted = hashlib.file_digest(image, "sha256").digest()
            if hashlib.sha256(content).digest() != wanted:
                raise Broken(f"it sent another image of {len(content)} bytes")

    def wait_for_check(self) -> None:
        """Return when it answers a check.

        Raises:
            Broken: it ended, or did not within a minute.
        """
        self._wait_for(self.check_url)

    def _wait_for(self, url: str) -> bytes:
        """Return the body of the first reply that is a 200 of the length that it says."""
        give_up_at = time.monotonic() + _START_SECONDS
        problem: Exception | None = None
        while time.monotonic() < give_up_at:
            if self._popen.poll() is not None:
                raise Broken(f"exit code {self._popen.returncode}: {self.last_lines()}")
            try:
                request = urllib.request.Request(url, headers=DEVICE)
                with urllib.request.urlopen(request, timeout=20) as reply:
                    content: bytes = reply.read()
                    if reply.status == 200 and int(reply.headers["Content-Length"]) == len(content):
                        return content
                    problem = Broken(f"{reply.status}, {len(content)} bytes")
            except (OSError, ValueError) as refused:
                problem = refused
            time.sleep(0.02)
        raise Broken(f"no good answer from {url}: {problem}; {self.last_lines()}")

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add to what goes wrong in this context what the server said last.

        Raises:
            Broken: something went wrong.
        """
        try:
            yield
        except (Broken, OSError, ValueError) as problem:
            raise Broken(f"{problem}; {self.last_lines()}") from problem

    def last_lines(self) -> str:
        """Return the end of what it said, for a report: without tracebacks, which name paths."""
        said = self._log.read_text(errors="replace").splitlines()
        lines = [line for line in said if not line.startswith(" ")][-_LOG_LINES:]
        return " | ".join(lines) or "it said nothing"

    def end(self) -> None:
        """End it and all its children: by SIGTERM, twice, then by SIGKILL."""
        left = procfs.tree(self.process)
        try:
            for signum in (signal.SIGTERM, signal.SIGTERM):
                if self._popen.poll() is None:
                    self._popen.send_signal(signum)
                    with suppress(subprocess.TimeoutExpired):
                        self._popen.wait(_END_SECONDS)
        finally:
            if self._popen.poll() is None:
                for process in left:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                self._popen.wait()
