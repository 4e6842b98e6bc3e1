"""A server with an operators' port as a process of its own, and questions to that port."""

import http.client
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import procfs
from benchmarks.figures import Broken
from benchmarks.peers import ROOT

_TIMEOUT_SECONDS = 60.0
_FIRST_BYTES = 1000


class Running(NamedTuple):
    """A server, with its process, and that of its controller."""

    port: int
    admin_port: int
    process: int
    controller: int

    def ask(self, path: str, is_begun: bool = False) -> tuple[bytes, float]:
        """Ask the operators' port; return the body and the ms from the connect to its end.

        Raises:
            Broken: the answer is no 200.
        """
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, _TIMEOUT_SECONDS)
        try:
            connection.request("GET", path.replace(" ", "+"))
            answer = connection.getresponse()
            body = answer.read(_FIRST_BYTES) if is_begun else answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise Broken(f"{path} was answered {answer.status}: {body[:200]!r}")
        return body, (time.perf_counter() - began) * 1000


@contextmanager
def serving(data_dir: Path) -> Iterator[Running]:
    """Start a server, and end it after the block.

    Raises:
        Broken: it does not start, or has no controller.
    """
    command = [sys.executable, "-m", "ota_server.server", "--port", "0", "--admin", "127.0.0.1:0"]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [*command, "--data-dir", str(data_dir)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for us, and we end it
        )
        try:
            port, admin_port = _ports(server)
            yield Running(port, admin_port, server.pid, _controller(server.pid))
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=_TIMEOUT_SECONDS)


def _ports(server: subprocess.Popen[str]) -> tuple[int, int]:
    """Return the ports for devices and for operators, once the server says them."""
    found = {}
    for line in server.stdout or ():
        said = line.split()
        if said[:1] in (["listening"], ["operators"]):
            found[said[0]] = int(said[1].rstrip("/").rsplit(":", 1)[1])
        if said[:1] == ["journal"]:
            return found["listening"], found["operators"]
    raise Broken("the server did not start")


def _controller(server: int) -> int:
    until = time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < until:
        for process in procfs.tree(server)[1:]:
            if b"ota_server.controller" in Path(f"/proc/{process}/cmdline").read_bytes():
                return process
        time.sleep(0.01)
    raise Broken("the server has no controller")
