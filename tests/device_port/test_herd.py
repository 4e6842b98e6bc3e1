"""When the whole fleet comes at once: a real server with few slots, by each transport."""

import random
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from datetime import UTC

from ota_server.device_port.admission import Admission
from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.window import Hours, Window
from ota_server.httpd.transports import TRANSPORTS
from tests.support import ROOT, Client, DataDirCase, Process, ServerCase, request_head, until

DEVICES = 500
SLOTS = 20


def device(number: int, version: str = "v1.0.0") -> dict[str, str]:
    return {"_br_mac_": (0x020000000000 + number).to_bytes(6).hex(":"), "_br_fwv_": version}


A, B, C = map(device, range(3))


class SlotsCase(ServerCase):
    """A server with few slots."""

    def start_with(self, slots: int, **options: object) -> None:
        self.admission = Admission(DownloadSlots(slots))
        self.start(service={"admission": self.admission}, **options)

    def version(self, fields: dict[str, str]) -> str:
        return self.get("/version.txt", fields).body.decode()


class OfferTest(SlotsCase):
    def test_a_check_that_finds_no_slot_answers_the_own_version_of_the_device(self):
        self.start_with(1)
        self.assertEqual(self.version(A), "v1.0.1")
        self.assertEqual(self.version(B), "v1.0.0")

    def test_a_device_that_is_up_to_date_takes_no_slot(self):
        self.start_with(1)
        self.assertEqual(self.version(device(0, "v1.0.1")), "v1.0.1")
        self.assertEqual(self.version(B), "v1.0.1")

    def test_a_device_that_asks_again_still_has_its_slot(self):
        self.start_with(1)
        for _ in range(3):
            self.assertEqual(self.version(A), "v1.0.1")

    def test_what_was_told_is_on_record(self):
        self.start_with(1)
        self.version(A)
        self.version(B)
        told = [record["target_version"] for record in self.records(event="check")]
        self.assertEqual(told, ["v1.0.1", "v1.0.0"])

    def test_a_check_by_head_reserves_a_slot_too(self):
        self.start_with(1)
        self.get("/version.txt", A, "HEAD")
        self.assertEqual(self.version(B), "v1.0.0")


class DownloadTest(SlotsCase):
    def test_a_download_without_a_slot_is_told_when_to_come_again(self):
        self.start_with(1)
        self.version(A)
        answer = self.get("/firmware.bin", B)
        self.assertEqual(answer.status, 429)
        self.assertTrue(30 <= int(answer.fields["retry-after"]) <= 90)

    def test_devices_are_told_to_come_again_at_different_times(self):
        self.start_with(1)
        self.version(A)
        answers = [self.get("/firmware.bin", device(number)) for number in range(1, 40)]
        self.assertGreater(len({answer.fields["retry-after"] for answer in answers}), 15)

    def test_a_refused_download_is_on_record_as_told_nothing_new(self):
        self.start_with(1)
        self.version(A)
        self.get("/firmware.bin", B)
        (record,) = self.records(event="download", status=429)
        self.assertEqual((record["target_version"], record["complete"]), ("v1.0.0", False))

    def test_a_client_that_never_checks_takes_a_slot_by_its_download(self):
        self.start_with(1)
        with Client(self.port, receive_buffer=4096) as client:
            client.request("/firmware.bin", A)
            client.read(1000)
            self.assertEqual(self.get("/firmware.bin", B).status, 429)

    def test_a_whole_download_gives_its_slot_to_the_next(self):
        self.start_with(1)
        self.assertEqual(self.get("/firmware.bin", A).body, self.IMAGE)
        self.assertTrue(until(lambda: self.version(B) == "v1.0.1"))

    def test_a_download_that_was_cut_keeps_its_slot(self):
        self.start_with(1)
        with Client(self.port, receive_buffer=4096) as client:
            client.request("/firmware.bin", A)
            client.read(1000)
            client.reset()
        self.assertTrue(until(lambda: bool(self.records(event="download"))))
        self.assertEqual(self.get("/firmware.bin", B).status, 429)
        answer = self.get("/firmware.bin", {**A, "Range": "bytes=1000-"})
        self.assertEqual(answer.status, 206)

    def test_a_download_in_parts_keeps_its_slot_until_the_last_part(self):
        self.start_with(1)
        self.version(A)
        size = len(self.IMAGE)
        for start in range(0, size, 20_000):
            part = f"bytes={start}-{min(start + 20_000, size) - 1}"
            self.assertEqual(self.version(B), "v1.0.0")
            self.assertEqual(self.get("/firmware.bin", {**A, "Range": part}).status, 206)
        self.assertTrue(until(lambda: self.version(B) == "v1.0.1"))

    def test_a_head_before_the_download_takes_the_same_slot(self):
        self.start_with(1)
        self.assertEqual(self.get("/firmware.bin", A, "HEAD").status, 200)
        self.assertEqual(self.get("/firmware.bin", B, "HEAD").status, 429)
        self.assertEqual(self.get("/firmware.bin", A).status, 200)

    def test_a_client_that_has_the_image_needs_no_slot(self):
        self.start_with(1)
        etag = self.get("/firmware/firmware_v1.0.1.bin", {}).fields["etag"]
        self.version(A)
        self.assertEqual(self.get("/firmware.bin", {**B, "If-None-Match": etag}).status, 304)

    def test_without_the_option_everybody_may_download(self):
        for number in range(20):
            self.assertEqual(self.version(device(number)), "v1.0.1")


def closed() -> Hours:
    """Return a window that opens in two hours, for two hours."""
    minute = int(time.time() // 60) % 1440
    return Hours([Window((minute + 120) % 1440, (minute + 240) % 1440)], UTC)


class WindowTest(SlotsCase):
    def start_closed(self, overdue_seconds: float | None = None) -> None:
        admission = Admission(None, closed(), overdue_seconds)
        self.start(service={"admission": admission})

    def test_outside_the_window_a_check_answers_the_own_version_of_the_device(self):
        self.start_closed()
        self.assertEqual(self.version(A), "v1.0.0")
        self.assertEqual(self.version(device(1, "v1.0.1")), "v1.0.1")

    def test_outside_the_window_a_download_is_told_to_come_when_it_has_opened(self):
        self.start_closed()
        answer = self.get("/firmware.bin", A)
        self.assertEqual(answer.status, 429)
        self.assertTrue(119 * 60 <= int(answer.fields["retry-after"]) <= 181 * 60)

    def test_a_download_that_began_in_the_window_goes_on_after_it(self):
        size = len(self.IMAGE)
        with Client(self.port, receive_buffer=4096) as client:
            client.request("/firmware.bin", A)
            client.read(1000)
        self.stop()
        self.start_closed()
        for fields, status in (
            ({**A, "Range": f"bytes=1000-{size - 1}"}, 206),
            (A, 200),  # most clients begin anew when they were cut
            ({**B, "Range": "bytes=1000-"}, 429),
        ):
            with self.subTest(fields):
                self.assertEqual(self.get("/firmware.bin", fields).status, status)

    def test_a_device_that_has_waited_for_too_long_is_let_in(self):
        self.start_closed(overdue_seconds=0.0)
        self.assertEqual([self.version(A) for _ in range(2)], ["v1.0.0", "v1.0.1"])
        self.assertEqual(self.get("/firmware.bin", A).status, 200)


class OptionsTest(unittest.TestCase):
    def refused(self, *options: str) -> str:
        """Return what the command says to options that it does not accept."""
        command = [sys.executable, "-m", "ota_server.server", "--port", "0", *options]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [*command, "--data-dir", folder], cwd=ROOT, capture_output=True, text=True
            )
        self.assertEqual(done.returncode, 2)
        return done.stderr

    def test_a_time_zone_that_is_not_known_is_refused_with_what_to_do(self):
        for zone in ("Mars/Olympus", "../passwd", "Europe", ""):
            with self.subTest(zone):
                said = self.refused("--window", "01:00-05:00", "--window-zone", zone)
                self.assertIn("give a name such as Europe/Berlin", said)

    def test_options_of_a_window_that_is_not_given_are_refused(self):
        self.assertIn("give that too", self.refused("--window-zone", "UTC"))
        self.assertIn("give that too", self.refused("--window-overdue", "7d"))

    def test_how_long_a_device_waits_has_a_unit(self):
        said = self.refused("--window", "01:00-05:00", "--window-overdue", "7")
        self.assertIn("argument --window-overdue: '7' is not a duration up to ten years", said)


class CommandTest(DataDirCase):
    def test_the_options_of_the_command_are_in_force(self):
        self.put_image("v1.0.1", b"image" * 20_000)
        self.set_target("v1.0.1")
        options = ["--max-downloads", "1", "--max-rate", "1M", "--max-download-rate", "100K"]
        options += ["--window", "00:00-12:00", "--window", "12:00-24:00", "--window-zone", "UTC"]
        process = Process(*options, "--window-overdue", "7d", "--data-dir", str(self.data_dir))
        self.addCleanup(process.kill)
        with Client(process.port) as client:
            client.request("/firmware.bin", A)
            client.read_until(b"\r\n\r\n")
            began = time.monotonic()
            self.assertEqual(client.read(100_000), b"image" * 20_000)
            self.assertGreater(time.monotonic() - began, 0.5)
            client.request("/version.txt", B)  # the download before it is over by that
            self.assertEqual(client.answer().body, b"v1.0.1")
            client.request("/version.txt", C)
            self.assertEqual(client.answer().body, b"v1.0.0")
        self.assertIn("slots        1 download at once; while", self.why(C))
        self.assertIn("window       00:00-12:00, 12:00-24:00 (UTC), open now", self.why(C))
        process.kill()
        self.assertNotIn("slots", self.why(C))

    def why(self, fields: dict[str, str]) -> str:
        command = [sys.executable, "-m", "ota_server", "why", fields["_br_mac_"]]
        command += ["--data-dir", str(self.data_dir)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


class DownloadByThreadsTest(DownloadTest):
    TRANSPORT = "threads"


class Device:
    """A device that checks, downloads when it is told another version, and comes again if not."""

    def __init__(self, number: int) -> None:
        self.fields = device(number)
        self.is_downloading = False
        self.buffer = b""

    def connect(self, port: int) -> None:
        self.buffer = b""
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(("127.0.0.1", port))

    def ask(self) -> None:
        path = "/firmware.bin" if self.is_downloading else "/version.txt"
        self.sock.send(request_head(path, {**self.fields, "Connection": "close"}))

    def hear(self) -> bool:
        """Take what has come; True at the end of the reply."""
        part = self.sock.recv(65536)
        self.buffer += part
        return not part


class FleetTest(SlotsCase):
    """Five hundred devices come within half a second."""

    def run_fleet(self, transport: str) -> None:
        self.start_with(SLOTS, transport=transport)
        source = random.Random(4)
        begun = time.monotonic()
        due = [(begun + 0.5 * n / DEVICES, Device(n)) for n in range(DEVICES)]
        updated: list[int] = []
        self.most = 0
        selector = selectors.DefaultSelector()
        with selector:
            while len(updated) < DEVICES and time.monotonic() < begun + 60:
                now = time.monotonic()
                for at, each in [entry for entry in due if entry[0] <= now]:
                    due.remove((at, each))
                    each.connect(self.port)
                    selector.register(each.sock, selectors.EVENT_WRITE, each)
                self.most = max(self.most, self.admission.downloading)
                for key, mask in selector.select(0.005):
                    each = key.data
                    if mask & selectors.EVENT_WRITE:
                        each.ask()
                        selector.modify(each.sock, selectors.EVENT_READ, each)
                    elif each.hear():
                        selector.unregister(each.sock)
                        each.sock.close()
                        if self.is_updated(each):
                            updated.append(1)
                        else:
                            wait = 0.0 if each.is_downloading else source.uniform(0.1, 0.3)
                            due.append((time.monotonic() + wait, each))
        self.assertEqual(len(updated), DEVICES)

    def is_updated(self, each: Device) -> bool:
        head, _, body = each.buffer.partition(b"\r\n\r\n")
        if each.is_downloading:
            self.assertIn(b" 200 OK", head)
            self.assertEqual(body, self.IMAGE)
            return True
        self.assertIn(b" 200 OK", head)
        each.is_downloading = body != b"v1.0.0"
        return False

    def test_all_have_the_release_at_the_end_and_never_more_than_so_many_downloaded_at_once(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                self.run_fleet(transport)
                self.assertLessEqual(self.most, SLOTS)
                self.assertEqual(self.server.refused_connections, 0)
                self.stop()
                self.assertLessEqual(most_at_once(self.records()), SLOTS)
                (self.data_dir / "log" / "devices.jsonl").unlink()


def most_at_once(records: list[dict[str, object]]) -> int:
    """Return how many downloads ran at once, by the order of their records."""
    running = most = 0
    for record in records:
        running += (record["event"] == "begin") - (record["event"] == "download")
        most = max(most, running)
    return most
