"""Rollouts behind a real nginx with exactly the documented block, over links that break.

One rollout of a good release and one of a bad one; OTA_SERVER_TEST_PROXY_RUNS=20 does 20 of each.
"""

import os
import random
import re
import socket
import subprocess

from tests.support import ROOT, Client, parse_reply_head, until
from tests.support.fleet import NEW, OLD, Fleet, RolloutCase
from tests.support.real_clients import needs

RUNS = int(os.environ.get("OTA_SERVER_TEST_PROXY_RUNS", "1"))
PAGE = ROOT / "docs" / "deployment.md"
# As a device on Wi-Fi has them; the segments of the loopback would not fit into so small a window.
WINDOW_BYTES, SEGMENT_BYTES = 4 * 1024, 1460
CONFIGURATION = """\
daemon off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {block}
}}
"""


def documented_block() -> str:
    """Return the server block for nginx that the page has."""
    return re.search(r"```nginx\n(server .*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]


def documented_options() -> list[str]:
    """Return the options of the server that stand below that block."""
    command = re.search(r"```nginx.*?ota_server\.server (--[^\n]*)", PAGE.read_text(), re.DOTALL)[1]
    return command.split()


class BreakingFleet(Fleet):
    """Devices of which half lose their link in each download, anywhere in it.

    Attributes:
        lost: how many downloads were cut.
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size)
        self.lost = 0
        self._random = random.Random(seed)

    def _get(self, port: int, path: str, mac: str, version: str) -> str:
        if path != "/firmware.bin":
            return super()._get(port, path, mac, version)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        with sock:
            sock.connect(("127.0.0.1", port))
            fields = f"Host: ota\r\n_br_mac_: {mac}\r\n_br_fwv_: {version}\r\n"
            sock.sendall(f"GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n".encode())
            return self._read(sock)

    def _read(self, sock: socket.socket) -> str:
        """Return what was fetched; "" where the link broke."""
        content = b""
        while b"\r\n\r\n" not in content:
            content += sock.recv(4096)
        head, _, body = content.partition(b"\r\n\r\n")
        status, fields = parse_reply_head(head + b"\r\n\r\n")
        size = int(fields["content-length"])
        if status != 200:
            return ""
        most = self._random.randrange(size) if self._random.random() < 0.5 else size
        while len(body) < most:
            body += sock.recv(4096)
        if most < size:
            self.lost += 1
            return ""
        return "whole"


@needs("nginx")
class BehindNginxTest(RolloutCase):
    IMAGES = {OLD: random.Random(1).randbytes(600_000), NEW: random.Random(2).randbytes(600_000)}

    def start_nginx(self, server_port: int) -> int:
        """Start nginx before a server; return its port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        block = documented_block()
        changed = block.replace("listen 80", f"listen 127.0.0.1:{port}")
        changed = changed.replace("127.0.0.1:7777", f"127.0.0.1:{server_port}")
        self.assertEqual(len(changed.splitlines()), len(block.splitlines()))
        self.assertNotIn("7777", changed)
        folder = self.data_dir / f"nginx-{port}"
        folder.mkdir()
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(user + CONFIGURATION.format(block=changed))
        command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        self.assertTrue(until(lambda: answers(port)), "nginx did not start")
        return port

    def run_one(self, is_good: bool, seed: int) -> str:
        """Roll a release out to 60 devices; return how it ended."""
        self.devices = BreakingFleet(60, seed)
        server = self.serve(*documented_options())
        self.proxy_port = self.start_nginx(server.port)
        # In a first wave of six a bad device is a question to a person, which is no halt.
        waves = (10.0, 50.0, 100.0) if is_good else (50.0, 100.0)
        self.roll_out(min_devices=5, grace_seconds=0.1, waves=waves)
        bad = set() if is_good else {mac for mac in self.devices.versions if mac[-1] in "0369c"}

        def is_over() -> bool:
            self.devices.ask(self.proxy_port, boots=lambda mac: mac not in bad)
            return self.state() in ("done", "halted", "aborted")

        self.assertTrue(until(is_over, 60.0), self.progress())
        self.assertGreater(self.devices.lost, 3)
        server.end()
        return self.state()

    def reset(self) -> None:
        """Forget a rollout, and the devices, for the next run."""
        for path in [*(self.data_dir / "version").iterdir(), *(self.data_dir / "log").iterdir()]:
            if path.is_file():
                path.unlink()
        self.set_target(OLD)

    def ends(self, is_good: bool) -> list[str]:
        ends = []
        for run in range(RUNS):
            self.reset()
            ends.append(self.run_one(is_good, seed=run))
        return ends

    def test_a_good_release_reaches_all_although_half_of_the_downloads_break(self):
        self.assertEqual(self.ends(is_good=True), ["done"] * RUNS)
        self.assertEqual({*self.devices.versions.values()}, {NEW})

    def test_a_release_that_a_third_cannot_boot_is_halted(self):
        self.assertEqual(self.ends(is_good=False), ["halted"] * RUNS)

    def test_the_server_sees_the_devices_and_warns_of_nothing(self):
        server = self.serve(*documented_options())
        port = self.start_nginx(server.port)
        self.roll_out()
        self.devices = Fleet(5)
        self.devices.ask(port)
        forged = {"_br_mac_": "02:00:00:00:00:01", "_br_fwv_": OLD, "X-Forwarded-For": "192.0.2.7"}
        with Client(port, source="127.0.0.9") as client:
            client.request("/version.txt", forged)
            self.assertEqual(client.answer().status, 200)
        self.assertNotIn("--buffering-proxy", server.end()[1])
        self.assertEqual(self.records(event="check")[-1]["address"], "127.0.0.9")


def answers(port: int) -> bool:
    """Return whether something listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
