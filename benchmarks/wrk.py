"""Load by wrk: one run of it, and what it says."""

import json
import socket
import subprocess
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from benchmarks.figures import Broken

# A device that fetches one image again and again is made to wait, so that each run begins with
# others: one of so many parts of them further on.
_PARTS = 12
_runs = count()
_SCRIPT = Path(__file__).with_name("load.lua")
_OWN_FIELDS = ("_br_mac_: @:", "_br_fwv_: v1.0.1")
# Of all requests, this part may go wrong before the measurement is worth nothing.
_TRACE = 0.001
# Beyond the time of the run, so that a large image on a slow peer is no error.
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Load:
    """What wrk is to ask.

    Attributes:
        path: with @ where the MAC without its colons belongs.
        requests: how many different ones there are, each of another device.
        devices: draw the devices from so many known ones; 0: number n asks n-th.
        seed: of that draw.
        close: each request on a connection of its own.
        fields: what else is sent, with @: where the MAC belongs.
    """

    path: str
    connections: int
    seconds: int
    requests: int = 1
    devices: int = 0
    seed: int = 0
    close: bool = False
    fields: tuple[str, ...] = _OWN_FIELDS
    protocol: str = "HTTP/1.1"

    def lasting(self, seconds: int) -> "Load":
        """Return the same load for another time."""
        return replace(self, seconds=seconds)

    @property
    def template(self) -> str:
        """A request, as load.lua wants it."""
        lines = [f"GET {self.path} {self.protocol}", "Host: 127.0.0.1", *self.fields]
        lines += ["Connection: close"] if self.close else []
        return "\r\n".join([*lines, "", ""])


@dataclass(frozen=True)
class Outcome:
    """What wrk did; of `requests`, those whose whole reply came."""

    requests: int
    bytes: int
    seconds: float
    errors: dict[str, int]
    p50_ms: float
    p99_ms: float


def parse(output: str) -> Outcome:
    """Return what the last line of wrk's output says.

    Raises:
        Broken: it is not there, nothing was answered, or more than a trace went wrong.
    """
    lines = [line for line in output.splitlines() if line.startswith('{"requests":')]
    if not lines:
        raise Broken(f"wrk said: {output.strip()[-300:]!r}")
    said = json.loads(lines[-1])
    errors = {name: said[name] for name in ("connect", "read", "write", "status", "timeout")}
    if not said["bytes"]:
        raise Broken(f"wrk got no bytes: {errors}")
    if sum(errors.values()) > _TRACE * max(said["requests"], 1):
        raise Broken(f"of {said['requests']} requests, errors: {errors}")
    return Outcome(
        said["requests"], said["bytes"], said["seconds"], errors, said["p50_ms"], said["p99_ms"]
    )


def status_of(port: int, load: Load) -> int:
    """Send one request of a load, as the first device; return the status of the reply.

    Raises:
        Broken: there is none.
    """
    request = load.template.replace("@:", "02:00:00:00:00:01").replace("@", "020000000001")
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS) as sock:
        sock.sendall(request.encode("ascii"))
        with sock.makefile("rb") as reply:
            line = reply.readline(1024)
    words = line.split()
    if len(words) < 2:
        raise Broken(f"a request was answered {line!r}")
    return int(words[1])


def run(port: int, load: Load) -> Outcome:
    """Run wrk on a port of this machine. One thread: on two cores the server has the other.

    Raises:
        Broken: see `parse`.
    """
    command = ["wrk", "--threads", "1", "--connections", str(load.connections)]
    command += ["--duration", f"{load.seconds}s"]
    command += ["--timeout", f"{load.seconds + _PATIENCE_SECONDS}s", "--script", str(_SCRIPT)]
    command += [f"http://127.0.0.1:{port}/", "--", load.template, str(load.requests)]
    command += [str(load.devices), str(load.seed)]
    command.append(str(next(_runs) * load.requests // _PARTS % load.requests))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=load.seconds + _PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired as problem:
        raise Broken("wrk did not end") from problem
    return parse(done.stdout + done.stderr)
