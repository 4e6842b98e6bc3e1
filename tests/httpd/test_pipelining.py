"""Many clients that send faster than they are answered: memory, and how long others wait."""

import select
import socket
import statistics
import time
import unittest
from contextlib import suppress
from pathlib import Path

from tests.support import (
    DEVICE,
    ROOT,
    Client,
    DataDirCase,
    Process,
    ServerCase,
    request_head,
    until,
)

MIB = 1024 * 1024
MAC_OF_OTHER = "02:00:00:00:00:01"
PART = {**DEVICE, "Range": "bytes=1-1"}


@unittest.skipUnless(Path("/proc/self/status").exists(), "needs /proc")
class PipeliningCrowdTest(DataDirCase):
    CONNECTIONS = 300
    # Measured: 3 to 20 MB and 1 to 130 ms; where all that arrives is read, 80 to 190 MB.
    MOST_GROWTH_BYTES = 48 * MIB
    MOST_MEDIAN_SECONDS = 1.0
    # Files that are there for long: a fresh one is hashed only when it is two seconds old.
    FIRMWARE = ROOT / "ota_server" / "firmware"

    def setUp(self) -> None:
        super().setUp()
        (self.data_dir / "firmware").rmdir()
        (self.data_dir / "firmware").symlink_to(self.FIRMWARE)
        self.set_target("v1.0.1")
        self.server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(self.server.kill)
        for line in self.server.process.stdout:
            if "SHA-256" in line:
                break

    def test_checks_take_neither_memory_nor_time_of_others(self):
        self.assert_harmless(request_head("/version.txt") * 1000, checks=50)
        self.assertGreater(len(self.records(event="check")), self.CONNECTIONS)

    def test_checks_of_clients_that_read_their_answers_take_neither(self):
        self.assert_harmless(request_head("/version.txt") * 1000, checks=50, reads=True)
        self.assertGreater(len(self.records(event="check")), self.CONNECTIONS)

    def test_ranges_of_a_byte_take_neither_memory_nor_time_of_others(self):
        self.assert_harmless(request_head("/firmware.bin", PART) * 1000)
        self.assertGreater(len(self.records(event="begin", status=206)), self.CONNECTIONS)

    def test_a_line_that_never_ends_takes_neither(self):
        self.assert_harmless(b"a" * 100_000)

    def test_a_head_that_never_ends_takes_neither(self):
        self.assert_harmless(b"a: b\r\n" * 20_000, b"GET / HTTP/1.1\r\n")

    def test_one_that_reads_all_its_answers_takes_no_memory(self):
        # The crowd above is held up by its own unread answers; this one never is.
        flood = Flood(self.server.port, request_head("/healthz") * 1000, b"")
        self.addCleanup(flood.sock.close)
        resident_before = self.resident_bytes()
        while flood.total_bytes < 8 * MIB:
            select.select([flood.sock], [flood.sock], [], 1.0)
            flood.read()
            flood.send_more()
        self.assertLess(self.resident_bytes() - resident_before, 3 * MIB)

    def assert_harmless(
        self, content: bytes, before: bytes = b"", checks: int = 20, reads: bool = False
    ) -> None:
        """Have a crowd send `content` over and over beside so many checks; see what that costs.

        Args:
            reads: it reads its answers.
        """
        crowd = [Flood(self.server.port, content, before) for _ in range(self.CONNECTIONS)]
        for each in crowd:
            self.addCleanup(each.sock.close)
        resident_before = self.resident_bytes()
        waits = []
        for _ in range(checks):
            for each in crowd:
                each.send_more()
                if reads:
                    each.read()
            began = time.monotonic()
            with Client(self.server.port) as other:
                other.request("/version.txt", {**DEVICE, "_br_mac_": MAC_OF_OTHER})
                self.assertEqual(other.answer().body, b"v1.0.1")
            waits.append(time.monotonic() - began)
        growth = self.resident_bytes() - resident_before
        self.assertLess(growth, self.MOST_GROWTH_BYTES)
        self.assertLess(statistics.median(waits), self.MOST_MEDIAN_SECONDS)

    def resident_bytes(self) -> int:
        """Return how much memory the server has now."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


class Flood:
    """A connection that sends whatever the kernel takes, until the server ends it."""

    def __init__(self, port: int, content: bytes, before: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.sendall(before)
        self.sock.setblocking(False)
        self._content = content
        self._sent_bytes = 0
        self.total_bytes = 0

    def send_more(self) -> None:
        """Send until the kernel takes no more, at most the content once."""
        with suppress(OSError):
            count = self.sock.send(self._content[self._sent_bytes :])
            self.total_bytes += count
            self._sent_bytes = (self._sent_bytes + count) % len(self._content)

    def read(self) -> None:
        """Read what has arrived."""
        with suppress(OSError):
            self.sock.recv(MIB)


class LongPipelineTest(ServerCase):
    # More than may be under way, and more than is read at once.
    PARTS = 400

    def test_all_of_a_pipeline_of_ranges_is_answered_to_a_client_that_closed_its_side(self):
        with Client(self.port) as client:
            for first in range(1, self.PARTS + 1):
                client.request("/firmware.bin", {**DEVICE, "Range": f"bytes={first}-{first}"})
            client.sock.shutdown(socket.SHUT_WR)
            for first in range(1, self.PARTS + 1):
                self.assertEqual(client.answer().body, self.IMAGE[first : first + 1])
            self.assertEqual(client.read_all(), b"")
        self.stop()
        found = [(r["range_start"], r["complete"]) for r in self.records(event="download")]
        self.assertEqual(found, [(first, True) for first in range(1, self.PARTS + 1)])

    def test_a_client_that_resets_while_its_pipeline_waits_is_gone(self):
        client = Client(self.port, receive_buffer=4096)
        client.sock.settimeout(0.2)
        with suppress(TimeoutError):
            while True:
                client.request("/firmware.bin", {**DEVICE, "Range": "bytes=1-4000"})
        client.reset()
        began = len(self.records(event="begin"))
        self.assertTrue(until(lambda: len(self.records(event="download")) >= began))
