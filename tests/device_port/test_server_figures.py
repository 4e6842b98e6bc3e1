"""A running server says how it is: each figure is that of what happened."""

import json
import os
import signal
from collections.abc import Callable

from ota_server.device_port.admission import Admission
from ota_server.device_port.figures import FILE_NAME, read_figures
from ota_server.device_port.live_figures import LiveFigures, SlotFigures
from ota_server.device_port.server_figures import ServerFigures
from ota_server.device_port.slots import DownloadSlots
from ota_server.system import clock
from tests.device_port.test_beside import BesideCase, in_mode
from tests.device_port.test_dialects import ESP8266
from tests.support import DEVICE, MAC, Client, DataDirCase, Process, ServerCase, until

LARGE = 8 * 1024 * 1024


class ServerFiguresTest(ServerCase):
    def begin(self, **options) -> ServerFigures:
        """Start the server."""
        server = self.start(**options)
        self.figures = ServerFigures(server, self.data_dir / "log", 5, clock.now_ms)
        return self.figures

    def wait_for(self, is_so: Callable[[LiveFigures], bool]) -> LiveFigures:
        """Return the figures once something is so."""
        self.assertTrue(until(lambda: is_so(self.figures.now())), self.figures.now())
        return self.figures.now()

    def test_common_checks_and_others_are_one_number(self):
        self.begin()
        for _ in range(3):
            self.get("/version.txt")
        self.get("/version.txt", {**DEVICE, "Range": "bytes=0-1"})
        found = self.wait_for(lambda now: sum(now.durations) == 4)
        self.assertEqual(found.requests["version.txt"]["200"], 4)
        self.assertGreater(found.duration_seconds, 0)
        self.assertEqual((found.pid, found.since_ms), (os.getpid(), 5))

    def test_a_download_that_runs_is_named_with_its_progress(self):
        self.put_image("v1.0.1", bytes(LARGE))
        self.begin()
        with Client(self.port) as client:
            client.request("/firmware.bin", {**DEVICE, "Range": "bytes=1000-"})
            client.sock.recv(100)
            found = self.wait_for(lambda now: now.downloads and now.downloads[0].sent_bytes > 0)
            (download,) = found.downloads
            self.assertEqual((download.key, download.version, download.file), (MAC, "v1.0.1", ""))
            self.assertEqual((download.start, download.size), (1000, LARGE - 1000))
            self.assertLess(download.sent_bytes, download.size)
            self.assertLess(abs(found.time_ms - download.since_ms), 60_000)
            self.assertEqual((found.running, found.connections), (1, 1))
        found = self.wait_for(lambda now: not now.running)
        self.assertEqual((found.ends["incomplete"], found.downloads), (1, ()))

    def test_what_was_sent_of_downloads_is_counted_at_their_ends(self):
        self.begin()
        self.get("/firmware.bin")
        found = self.wait_for(lambda now: now.ends["complete"] == 1)
        self.assertEqual(found.sent_bytes, len(self.IMAGE))

    def test_the_journal_counts_its_records_and_errors(self):
        self.begin()
        self.get("/version.txt")
        found = self.wait_for(lambda now: now.journal.records > 0)
        self.assertFalse(found.journal.is_failing)
        self.assertGreater(found.journal.written_ms, 0)
        journal = self.server.service.fleet.journal
        ours, journal._fd = journal._fd, os.open("/dev/full", os.O_WRONLY)
        os.close(ours)
        self.get("/version.txt")
        found = self.wait_for(lambda now: now.journal.errors > 0)
        self.assertGreaterEqual(found.journal.outages, 1)

    def test_when_a_device_was_last_answered_is_noticed_and_health_checks_are_no_devices(self):
        figures = self.begin()
        self.get("/healthz")
        self.get("/version.txt", {})
        figures.look_after()
        self.assertEqual(figures.now().last_request_ms, 0)
        self.get("/version.txt")

        def is_noticed() -> bool:
            figures.look_after()
            return figures.now().last_request_ms > 0

        self.assertTrue(until(is_noticed))
        before = figures.now().last_request_ms
        figures.look_after()
        self.assertEqual(figures.now().last_request_ms, before)

    def test_slots_say_how_many_are_used_and_wanted(self):
        self.put_image("v1.0.1", bytes(LARGE))
        self.begin(service={"admission": Admission(DownloadSlots(1))})
        other = {**DEVICE, "_br_mac_": "00:11:22:33:44:66"}
        with Client(self.port) as client:
            client.request("/firmware.bin")
            client.sock.recv(100)
            self.assertEqual(self.get("/firmware.bin", other).status, 429)
            self.assertEqual(self.figures.now().slots, SlotFigures(1, 1, 1))

    def test_without_slots_there_are_no_figures_of_them(self):
        self.assertIsNone(self.begin().now().slots)

    def test_refused_connections_are_counted(self):
        self.begin(max_connections=1)
        with Client(self.port) as first:
            first.request("/version.txt")
            first.answer()
            self.get("/version.txt")
        self.wait_for(lambda now: now.refused_connections == 1)


class PartTest(BesideCase):
    def test_a_file_system_that_is_sent_is_named_as_one(self):
        self.publish(b"an image for any chip", "v2", bytes(LARGE))
        self.set_target("v2")
        figures = ServerFigures(self.server, self.data_dir / "log", 0, clock.now_ms)
        lines = ["GET /firmware.bin HTTP/1.1", "Host: h", *in_mode(ESP8266, "spiffs")]
        with Client(self.port) as client:
            client.send("\r\n".join([*lines, "", ""]).encode())
            client.sock.recv(100)
            self.assertTrue(until(lambda: figures.now().downloads))
            (download,) = figures.now().downloads
            self.assertEqual((download.version, download.file), ("v2", "filesystem"))
            self.assertEqual((download.start, download.size), (0, LARGE))
        self.assertTrue(until(lambda: not figures.now().running))
        self.assertEqual(figures.now().ends["incomplete"], 1)


class ProcessTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.1", b"image")
        self.set_target("v1.0.1")
        self.server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(self.server.kill)

    def test_a_server_says_how_it_is_until_it_ends(self):
        with Client(self.server.port) as client:
            client.request("/version.txt")
            client.answer()
        logs = self.data_dir / "log"

        def is_counted() -> bool:
            found = read_figures(logs)
            return found is not None and found.requests["version.txt"].get("200") == 1

        self.assertTrue(until(is_counted))
        found = read_figures(logs)
        self.assertEqual(found.pid, self.server.process.pid)
        self.assertEqual((found.devices, found.journal.records > 0), (1, True))
        self.assertLess(abs(found.time_ms - clock.now_ms()), 60_000)
        serving = json.loads((logs / "admission.json").read_text())["serving"]
        self.assertEqual(found.since_ms, serving["since_ms"])
        self.assertEqual(self.server.end()[0], 0)
        self.assertFalse((logs / FILE_NAME).exists())
        self.assertIsNone(read_figures(logs))

    def test_a_server_that_was_killed_is_no_longer_heard_and_the_next_one_is(self):
        self.assertTrue(until(lambda: read_figures(self.data_dir / "log")))
        self.server.end(signal.SIGKILL)
        self.assertIsNone(read_figures(self.data_dir / "log"))
        again = Process("--data-dir", str(self.data_dir))
        self.addCleanup(again.kill)
        self.assertTrue(until(lambda: read_figures(self.data_dir / "log")))
