"""What paths stand for; and releases of several files, as boards with MicroPython fetch them."""

import unittest
from pathlib import Path

from ota_server.device_port.admission import Admission
from ota_server.device_port.asked_for import AskedFor, asked_for
from ota_server.device_port.slots import DownloadSlots
from ota_server.model.parts import is_taken_path
from ota_server.policy import edits
from ota_server.policy.loop_breaker import HOUR_MS
from ota_server.releases.publish import publish
from ota_server.releases.publish_request import PublishRequest
from ota_server.releases.withdraw import withdraw
from ota_server.system.clock import now_ms
from tests.device_port.test_dialects import ESP32, basic
from tests.device_port.test_families import MAC, FamilyCase
from tests.support import Answer

FIRST = {"main.py": b"print(1)\n", "lib/net.py": b"# one\n", "lib/__init__.py": b""}
SECOND = {"main.py": b"print(2)\n", "lib/net.py": b"# two\n" * 300, "lib/__init__.py": b""}


class AskedForTest(unittest.TestCase):
    def test_a_path_names_an_image_or_a_file(self):
        for path, wanted in {
            b"/firmware.bin": AskedFor(),
            b"/firmware.bin.gz": AskedFor(is_compressed=True),
            b"/firmware_v1.2-rc.bin": AskedFor("v1.2-rc"),
            b"/firmware-minimal.bin": AskedFor(other="-minimal"),
            b"/firmware-safeboot.bin.gz": AskedFor(other="-safeboot", is_compressed=True),
            b"/lib/net.py": AskedFor(path="lib/net.py"),
            b"/../main.py": None,
            b"/lib//net.py": None,
            b"/.env": None,
            b"/": None,
            b"/caf\xc3\xa9.py": None,
            b"/" + b"x" * 101: None,
        }.items():
            with self.subTest(path):
                self.assertEqual(asked_for(path), wanted)

    def test_no_file_of_a_release_has_a_path_that_stands_for_something_else(self):
        for path in (
            "healthz",
            "firmware_2.bin",
            "firmware_2.bin.gz",
            "firmware-minimal.bin",
            "firmware-safeboot.bin.gz",
            "plug/controller/v1/gw-1",
            "default/controller/v1/gw-1/configData",
        ):
            with self.subTest(path):
                self.assertTrue(is_taken_path(path))
        for path in ("firmware_2.py", "lib/healthz", "lib/firmware_2.bin", "controller/v1/gw.py"):
            with self.subTest(path):
                self.assertFalse(is_taken_path(path))

    def test_a_version_may_stand_before_a_file(self):
        paths = {"main.py", "lib/net.py", "2/main.py"}
        for path, release, wanted in (
            ("main.py", "v1", "main.py"),
            ("v1_main.py", "v1", "main.py"),
            ("v1/lib/net.py", "v1", "lib/net.py"),
            ("1_main.py", "v1", "main.py"),
            ("1_0_main.py", "1_0", "main.py"),
            ("2/main.py", "2", "2/main.py"),
            ("v1_main.py", "v2", None),
            ("v1_other.py", "v1", None),
            ("_main.py", "v1", None),
        ):
            with self.subTest(path, release=release):
                self.assertEqual(AskedFor(path=path).file_in(release, paths), wanted)


class FilesCase(FamilyCase):
    def setUp(self) -> None:
        super().setUp()
        self.publish("v1", FIRST)
        self.publish("v2", SECOND)
        self.set_target("v2")

    def publish(self, version: str, files: dict[str, bytes]) -> None:
        """Publish files."""
        folder = Path(self.data_dir / "builds" / version)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        publish(self.data_dir, PublishRequest(str(folder), version), now_ms(), lambda *_: None)

    def fetch(self, path: str, runs: str = "v1") -> Answer:
        """Ask as a board does whose URL names it."""
        return self.ask("Connection: close", path=f"/d/{MAC}/{runs}/{path}")


class FilesTest(FilesCase):
    def test_files_are_found_by_the_version_that_was_told(self):
        version = self.fetch("version").body.decode()
        self.assertEqual(version, "v2")
        for separator in "_/":
            for path, content in SECOND.items():
                with self.subTest(path, separator=separator):
                    answer = self.fetch(f"{version}{separator}{path}")
                    self.assertEqual((answer.status, answer.body), (200, content))
                    self.assertEqual(answer.fields["content-length"], str(len(content)))

    def test_the_user_name_of_basic_says_which_board_it_is(self):
        self.assertEqual(self.ask(basic(MAC), path="/v2_main.py").body, SECOND["main.py"])

    def test_plain_files_are_those_of_the_target(self):
        for path, content in SECOND.items():
            self.assertEqual(self.fetch(path).body, content)

    def test_a_board_that_is_held_back_finds_its_own_files_and_not_the_new_ones(self):
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.fetch("version").body, b"v1")
        for path, content in FIRST.items():
            self.assertEqual(self.fetch(path).body, content)
        self.assertEqual(self.fetch("v2_main.py").status, 404)

    def test_one_that_does_not_say_its_version_is_told_the_one_that_it_was_given_last(self):
        self.fetch("v2_main.py", runs="-")
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.fetch("version", runs="-").body, b"v2")
        self.assertEqual(self.ask(path="/d/00:11:22:aa:bb:dd/-/version").status, 503)

    def test_one_whose_files_are_not_known_gets_none_while_it_is_held_back(self):
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.fetch("main.py", runs="-").status, 503)

    def test_all_files_come_from_one_release_though_the_target_changes(self):
        self.assertEqual(self.fetch("main.py").body, SECOND["main.py"])
        self.set_target("v1.0.1")
        self.assertEqual(self.fetch("lib/net.py").body, SECOND["lib/net.py"])
        self.assertEqual(self.fetch("v2_lib/net.py").body, SECOND["lib/net.py"])

    def test_no_other_release_is_given_than_the_one_that_was_told(self):
        self.assertEqual(self.fetch("v1_main.py", runs="v0").status, 404)

    def test_no_file_of_a_withdrawn_release_is_given(self):
        self.fetch("v2_main.py")
        withdraw(self.data_dir, "v2", "", now_ms())
        self.assertEqual(self.fetch("v2_lib/net.py").status, 404)

    def test_what_no_release_holds_is_404_and_not_on_record(self):
        for path in ("other.py", "v2_other.py", "v2/../main.py", "favicon.ico"):
            self.assertEqual(self.fetch(path).status, 404)
        self.stop()
        self.assertEqual(self.events(), [])
        rejected = (self.data_dir / "log" / "rejected.jsonl").read_text()
        self.assertIn("404: there is no", rejected)

    def test_an_image_of_another_kind_has_no_files(self):
        self.set_target("v1.0.1")
        self.assertEqual(self.fetch("main.py").status, 404)

    def test_the_image_is_an_archive_of_them(self):
        image = (self.data_dir / "firmware" / "firmware_v2.bin").read_bytes()
        self.assertEqual(self.fetch("firmware.bin").body, image)

    def test_the_digest_of_the_image_is_not_said_of_one_file_of_it(self):
        lines = [*ESP32, "x-ESP32-version: v1", "Connection: close"]
        answer = self.ask(*lines, path="/main.py")
        self.assertEqual(answer.body, SECOND["main.py"])
        self.assertNotIn("x-sha256", answer.fields)
        self.assertIn("x-sha256", self.ask(*lines, path="/firmware.bin").fields)

    def test_all_files_together_are_one_whole_download(self):
        for path in SECOND:
            self.fetch(f"v2_{path}")
        self.stop()
        ends = self.records(event="download")
        spans = sorted((end["range_start"], end["range_stop"]) for end in ends if end["complete"])
        size = (self.data_dir / "firmware" / "firmware_v2.bin").stat().st_size
        (_, middle), (second, stop) = spans
        self.assertEqual((spans[0][0], middle, stop), (0, second, size))
        self.assertEqual(
            {each["file"] for each in ends if each["complete"]}, {"main.py", "lib/net.py"}
        )

    def test_a_board_that_fetches_them_again_and_again_has_to_wait(self):
        clock = now_ms() - 2 * HOUR_MS
        downloads = self.server.service.downloads
        downloads._clock_ms = downloads._records._clock_ms = lambda: clock
        for _ in range(3):
            for path in SECOND:
                self.assertEqual(self.fetch(path, runs="-").status, 200)
            clock += HOUR_MS // 4
        self.assertEqual(self.fetch("main.py", runs="-").status, 503)

    def test_a_board_that_asks_all_the_time_is_not_given_one_release_for_ever(self):
        clock = now_ms()
        downloads = self.server.service.downloads
        downloads._clock_ms = downloads._records._clock_ms = lambda: clock
        self.assertEqual(self.fetch("main.py", runs="-").body, SECOND["main.py"])
        self.set_target("v1")
        for minutes, body in ((4, SECOND), (8, SECOND), (10, FIRST)):
            clock = now_ms() + minutes * 60_000 + 1000
            self.assertEqual(self.fetch("main.py", runs="-").body, body["main.py"])

    def test_without_a_free_slot_a_board_that_has_begun_goes_on(self):
        self.stop()
        self.start(service={"admission": Admission(DownloadSlots(1))})
        self.assertEqual(self.fetch("main.py").status, 200)
        other = self.ask(path="/d/00:11:22:aa:bb:dd/v1/main.py")
        self.assertEqual(other.status, 429)
        for path, content in SECOND.items():
            self.assertEqual(self.fetch(path).body, content)
