"""What devices get beside firmware: file systems, compressed images, smaller ones."""

import gzip
import hashlib
from pathlib import Path
from unittest import mock

from ota_server.device_port.admission import Admission
from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.wiring import open_service
from ota_server.httpd.http1 import parse_head
from ota_server.httpd.reply import Peer
from ota_server.model.parts import Part
from ota_server.policy import edits
from ota_server.releases.publish import publish
from ota_server.releases.publish_request import PublishRequest
from ota_server.releases.store import NotHashed
from ota_server.releases.withdraw import withdraw
from ota_server.system.clock import now_ms
from tests.device_port.test_dialects import ESP32, ESP8266
from tests.device_port.test_families import MAC, TASMOTA, FamilyCase
from tests.releases.test_new_parts import esp8266_image
from tests.support import Answer, until

FILESYSTEM = b"littlefs " * 2000


class BesideCase(FamilyCase):
    def publish(self, content: bytes, version: str, filesystem: bytes = b"") -> None:
        """Publish an image, and a file system with it."""
        image, system = self.data_dir / "image.bin", self.data_dir / "fs.bin"
        image.write_bytes(content)
        system.write_bytes(filesystem)
        with_it = str(system) if filesystem else None
        request = PublishRequest(str(image), version, filesystem=with_it)
        publish(self.data_dir, request, now_ms(), lambda *_: None)

    def part(self, name: str) -> Path:
        """Return the path of a file in firmware/."""
        return self.data_dir / "firmware" / name


def in_mode(lines: tuple[str, ...], mode: str) -> list[str]:
    """Return the header lines of an updater that wants a file system."""
    return [line.replace("mode: sketch", f"mode: {mode}") for line in lines]


class FilesystemTest(BesideCase):
    def setUp(self) -> None:
        super().setUp()
        self.publish(b"an image for any chip", "v2", FILESYSTEM)
        self.set_target("v2")

    def ask_for_it(self, runs: str = "1.0.1") -> Answer:
        """Ask as an ESP8266 does."""
        return self.ask(*in_mode(ESP8266, "spiffs"), f"x-ESP8266-version: {runs}")

    def test_each_mode_gets_the_file_system_of_the_target(self):
        for lines, field, modes in (
            (ESP8266, "x-ESP8266-version", ("spiffs",)),
            (ESP32, "x-ESP32-version", ("spiffs", "littlefs", "fatfs", "flashfs")),
        ):
            for mode in modes:
                with self.subTest(mode=mode, field=field):
                    answer = self.ask(*in_mode(lines, mode), f"{field}: 1.0.1")
                    self.assertEqual((answer.status, answer.body), (200, FILESYSTEM))
                    md5 = hashlib.md5(FILESYSTEM).hexdigest()
                    self.assertEqual(answer.fields["x-md5"], md5)

    def test_one_of_a_release_for_another_chip_is_not_given(self):
        self.publish(esp8266_image(), "v3", FILESYSTEM)
        self.set_target("v3")
        self.assertEqual(self.ask_for_it().status, 200)
        lines = in_mode(ESP32, "littlefs")
        self.assertEqual(self.ask(*lines, "x-ESP32-version: 1.0.1").status, 304)

    def test_a_device_that_says_the_releases_own_version_has_it(self):
        self.assertEqual(self.ask_for_it(runs="v2").status, 304)

    def test_a_device_that_says_no_version_but_the_hash_of_the_release_has_it(self):
        image = (self.data_dir / "firmware" / "firmware_v2.bin").read_bytes()
        lines = [line for line in in_mode(ESP8266, "spiffs") if "md5" not in line]
        md5 = f"x-ESP8266-sketch-md5: {hashlib.md5(image).hexdigest()}"
        self.assertEqual(self.ask(*lines, md5).status, 304)

    def test_a_device_whose_release_is_reported_by_another_text_has_it(self):
        image = self.data_dir / "image.bin"
        request = PublishRequest(str(image), "v3", filesystem=str(image), reports_as="3-rel")
        image.write_bytes(b"another image")
        publish(self.data_dir, request, now_ms(), lambda *_: None)
        self.set_target("v3")
        self.assertEqual(self.ask_for_it(runs="3-rel").status, 304)

    def test_a_device_that_is_held_back_is_told_that_there_is_none(self):
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.ask_for_it().status, 304)

    def test_one_of_a_withdrawn_release_is_not_given(self):
        withdraw(self.data_dir, "v2", "", now_ms())
        self.assertEqual(self.ask_for_it().status, 304)

    def test_an_altered_one_is_not_given(self):
        self.part("filesystem_v2.bin").write_bytes(b"other bytes")
        self.assertEqual(self.ask_for_it().status, 304)

    def test_one_that_was_copied_in_by_hand_is_given(self):
        self.part("filesystem_v1.0.1.bin").write_bytes(b"by hand")
        self.set_target("v1.0.1")
        self.assertEqual(self.ask_for_it(runs="0").body, b"by hand")

    def test_it_says_nothing_of_what_the_device_runs_or_fetched(self):
        self.set_target("v1.0.1")
        self.ask(*ESP8266, "x-ESP8266-version: 1.0.0")
        self.set_target("v2")
        self.ask_for_it(runs="fs-7")
        self.stop()
        part, end = self.records(event="part")
        self.assertEqual(
            [part[name] for name in ("firmware_version", "download_version", "file", "status")],
            ["1.0.0", "v1.0.1", "filesystem", 200],
        )
        self.assertEqual((end["complete"], end["bytes_sent"]), (True, len(FILESYSTEM)))
        self.assertEqual(end["release_version"], "v2")

    def test_a_new_device_that_asks_for_nothing_else_is_on_record(self):
        self.ask_for_it(runs="fs-7")
        self.stop()
        self.assertEqual({each["firmware_version"] for each in self.records(mac=MAC)}, {"-"})


class GzipTest(BesideCase):
    def setUp(self) -> None:
        super().setUp()
        self.image = esp8266_image()
        self.publish(self.image, "v2")
        self.set_target("v2")

    def test_it_is_sent_only_where_the_path_asks_for_it(self):
        lines = (*ESP8266, "x-ESP8266-version: 1.0.1", "Accept-Encoding: gzip")
        self.assertEqual(self.ask(*lines).body, self.image)
        answer = self.ask(*lines, path="/firmware.bin.gz")
        self.assertEqual(gzip.decompress(answer.body), self.image)
        self.assertEqual(answer.fields["x-md5"], hashlib.md5(answer.body).hexdigest())
        self.assertNotIn("content-encoding", answer.fields)

    def test_it_counts_as_a_download_of_the_release(self):
        self.ask(*ESP8266, "x-ESP8266-version: 1.0.1", path="/firmware.bin.gz")
        self.stop()
        (end,) = self.records(event="download")
        sha256 = hashlib.sha256(self.image).hexdigest()
        self.assertEqual((end["release_sha256"], end["download_sha256"]), (sha256, sha256))
        self.assertEqual((end["file"], end["range_stop"]), ("gzip", len(self.image)))

    def test_a_device_that_fetches_it_again_and_again_is_held_back(self):
        lines = (*ESP8266, "x-ESP8266-version: 1.0.1")
        answers = [self.ask(*lines, path="/firmware.bin.gz").status for _ in range(5)]
        self.assertEqual(answers[0], 200)
        self.assertEqual(answers[-1], 304)

    def test_a_range_of_it_is_ignored(self):
        lines = (*ESP8266, "x-ESP8266-version: 1.0.1", "Range: bytes=5-")
        answer = self.ask(*lines, path="/firmware.bin.gz")
        self.assertEqual(gzip.decompress(answer.body), self.image)

    def test_an_image_of_another_kind_has_none(self):
        self.set_target("v1.0.1")
        lines = (*ESP8266, "x-ESP8266-version: 1.0.0")
        self.assertEqual(self.ask(*lines, path="/firmware.bin.gz").status, 404)


class TasmotaTest(BesideCase):
    def test_smaller_images_come_from_real_files_alone(self):
        for path in ("/firmware-minimal.bin", "/firmware-minimal.bin.gz", "/firmware-safeboot.bin"):
            self.assertEqual(self.ask(*TASMOTA, path=path).status, 404)
        minimal = esp8266_image(b"tiny")
        self.publish(minimal, "v1.0.1-minimal")
        self.assertEqual(self.ask(*TASMOTA, path="/firmware-minimal.bin").body, minimal)
        packed = self.ask(*TASMOTA, path="/firmware-minimal.bin.gz").body
        self.assertEqual(gzip.decompress(packed), minimal)
        self.assertEqual(self.ask(*TASMOTA, path="/firmware-safeboot.bin").status, 404)
        self.stop()
        self.assertEqual(self.records(event="begin"), [])

    def test_a_device_that_is_held_back_gets_an_error_and_no_304(self):
        self.publish(esp8266_image(b"tiny"), "v1.0.1-minimal")
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.ask(*TASMOTA, path="/firmware-minimal.bin").status, 503)


class PartSlotTest(BesideCase):
    def test_it_takes_a_download_slot_and_gives_it_back(self):
        self.publish(esp8266_image(), "v2", FILESYSTEM)
        self.set_target("v2")
        self.stop()
        self.start(service={"admission": Admission(DownloadSlots(1))})
        for last in ("CC", "DD"):
            lines = [line.replace("AA:BB:CC", f"AA:BB:{last}") for line in ESP8266]
            answer = self.ask(*in_mode(tuple(lines), "spiffs"))
            self.assertEqual((answer.status, answer.body), (200, FILESYSTEM))
            until(lambda: self.server.service.offers.admission.downloading == 0)

    def test_one_that_cannot_be_recorded_keeps_no_slot(self):
        self.publish(esp8266_image(), "v2", FILESYSTEM)
        self.set_target("v2")
        admission = Admission(DownloadSlots(1))
        self.stop()
        service = open_service(self.data_dir, settle_seconds=0.0, admission=admission)
        self.addCleanup(service.close)
        lines = ("GET /firmware.bin HTTP/1.1", "Host: h", *in_mode(ESP8266, "spiffs"))
        request = parse_head("\r\n".join(lines).encode())
        peer = Peer("127.0.0.1", True)
        try:
            service.store.part("v2", Part.FILESYSTEM)
        except NotHashed as not_hashed:
            not_hashed.hashing.done.wait()
        year_10000 = 26 * 10**19  # has no time in the journal
        with (
            mock.patch("time.time_ns", return_value=year_10000),
            self.assertLogs("ota_server.device_port.service", "ERROR"),
        ):
            self.assertEqual(service.respond(request, peer).status, 500)
        self.assertEqual(admission.downloading, 0)
