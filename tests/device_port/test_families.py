"""One request is check and download: what updaters of microcontrollers get, over real sockets."""

import hashlib
import json

from ota_server.device_port.admission import Admission
from ota_server.device_port.slots import DownloadSlots
from ota_server.model.updater import Updater
from ota_server.policy import edits
from ota_server.releases.publish import publish
from ota_server.releases.publish_request import PublishRequest
from ota_server.releases.withdraw import withdraw
from ota_server.system.clock import now_ms
from tests.device_port.test_dialects import ESP32, ESP8266, MONGOOSE, PICO, basic
from tests.support import Answer, Client, ServerCase
from tests.support.fleet import run_command
from tests.support.images import esp32_image, esp8266_image, rp2040_image

MAC = "00:11:22:aa:bb:cc"
IMAGE = b"\xe9" + b"image of v1.0.1 " * 300
TASMOTA = (*ESP8266, "x-ESP8266-version: 14.1.0(tasmota)")
NO_HASHES = tuple(line for line in ESP32 if "sketch-" not in line)
IDF = ("User-Agent: ESP32 HTTP Client/1.0", basic(MAC))


class FamilyCase(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.1", IMAGE)
        self.server = self.start()

    def ask(
        self, *lines: str, path: str = "/firmware.bin", http: str = "1.0", method: str = "GET"
    ) -> Answer:
        """Send one request, and wait until the server has counted the download as well."""
        with Client(self.port) as client:
            head = "\r\n".join((f"{method} {path} HTTP/{http}", "Host: h", *lines, "", ""))
            client.send(head.encode("latin-1"))
            answer = client.answer(method)
        self.await_ends()
        return answer

    def events(self) -> list[str]:
        return [str(record["event"]) for record in self.records() if record.get("mac") == MAC]


class CheckAndDownloadTest(FamilyCase):
    UPDATERS = {
        "esp8266": (ESP8266, "x-ESP8266-version"),
        "esp32": (ESP32, "x-ESP32-version"),
        "pico": (PICO[:5], "x-Pico-Version"),
        "mongoose": (MONGOOSE[:1], "X-MGOS-FW-Version"),
    }

    def test_one_that_runs_another_version_gets_the_image(self):
        self.server.service.offers.is_development = True  # it is one device that fetches it
        for name, (lines, field) in self.UPDATERS.items():
            with self.subTest(name):
                image = rp2040_image("v1.0.2") if name == "pico" else IMAGE
                version = "v1.0.2" if name == "pico" else "v1.0.1"
                self.put_image(version, image)
                self.set_target(version)
                answer = self.ask(*lines, f"{field}: 1.0.0")
                self.assertEqual((answer.status, answer.body), (200, image))
                self.assertEqual(answer.fields["content-length"], str(len(image)))
                self.assertEqual(answer.head.lower().count(b"\r\nx-md5:"), 1)

    def test_one_that_runs_the_release_gets_304(self):
        for name, (lines, field) in self.UPDATERS.items():
            with self.subTest(name):
                answer = self.ask(*lines, f"{field}: 1.0.1")
                self.assertEqual((answer.status, answer.body), (304, b""))
                self.assertNotIn("content-length", answer.fields)

    def test_tasmota_which_restarts_at_a_304_gets_none(self):
        edits.hold(self.data_dir, "night")
        answer = self.ask(*TASMOTA)
        self.assertEqual((answer.status, answer.body), (404, b"No update now."))

    def test_one_that_is_held_back_gets_no_error(self):
        edits.hold(self.data_dir, "night")
        for name, (lines, field) in self.UPDATERS.items():
            with self.subTest(name):
                self.assertEqual(self.ask(*lines, f"{field}: 1.0.0").status, 304)

    def test_without_a_target_nothing_is_offered(self):
        (self.data_dir / "version" / "version.txt").unlink()
        self.stop()
        self.start()
        self.assertEqual(self.ask(*ESP8266, "x-ESP8266-version: 1.0.0").status, 304)

    def test_a_304_is_a_check_and_an_image_is_a_check_and_a_download(self):
        self.ask(*ESP8266, "x-ESP8266-version: 1.0.1")
        self.ask(*ESP8266, "x-ESP8266-version: 1.0.0")
        self.stop()
        self.assertEqual(self.events(), ["check", "check", "begin", "download"])
        told = [record["target_version"] for record in self.records(event="check")]
        self.assertEqual(told, ["1.0.1", "v1.0.1"])

    def test_the_file_system_is_never_answered_by_the_sketch(self):
        for mode in ("spiffs", "littlefs", "fatfs", "flashfs"):
            lines = [line.replace("mode: sketch", f"mode: {mode}") for line in ESP32]
            self.assertEqual(self.ask(*lines, "x-ESP32-version: 1.0.0").status, 304)

    def test_an_esp8266_that_asks_for_the_version_gets_it_in_a_field(self):
        lines = [line.replace("mode: sketch", "mode: version") for line in ESP8266]
        for runs, told in (("1.0.0", "v1.0.1"), ("1.0.1", "1.0.1")):
            answer = self.ask(*lines, f"x-ESP8266-version: {runs}")
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertEqual(answer.fields["x-version"], told)

    def test_an_esp32_can_compare_the_sha256(self):
        answer = self.ask(*ESP32, "x-ESP32-version: 1.0.0")
        self.assertRegex(answer.fields["x-sha256"], r"\A[0-9a-f]{64}\Z")


class ReportedHashTest(ServerCase):
    """A device that says no version, but the hash of what it runs."""

    def ask(self, lines: tuple[str, ...], *more: str) -> int:
        with Client(self.port) as client:
            head = "\r\n".join(("GET /firmware.bin HTTP/1.0", "Host: h", *lines, *more, "", ""))
            client.send(head.encode("latin-1"))
            return client.answer().status

    def versions(self) -> list[object]:
        self.stop()
        return [record["firmware_version"] for record in self.records(event="check")]

    def publish(self, image: bytes, version: str) -> None:
        source = self.data_dir / "build.bin"
        source.write_bytes(image)
        publish(self.data_dir, PublishRequest(str(source), version), 0, lambda done, size: None)

    def test_an_esp8266_whose_updater_changed_the_flash_mode_is_known(self):
        old, new = esp8266_image("old", mode=2), esp8266_image("new", mode=2)
        self.publish(old, "v2.0.0")
        self.publish(new, "v2.0.1")
        self.set_target("v2.0.1")
        self.start()
        lines = tuple(line for line in ESP8266 if "sketch-md5" not in line)
        for runs, status in ((old, 200), (new, 304)):
            patched = hashlib.md5(runs[:2] + b"\x00" + runs[3:]).hexdigest()
            self.assertEqual(self.ask(lines, f"x-ESP8266-sketch-md5: {patched}"), status)
        self.assertEqual(self.versions(), ["v2.0.0", "v2.0.1"])

    def test_an_esp32_is_known_by_the_digest_in_its_image(self):
        old, new = esp32_image("old"), esp32_image("new")
        self.publish(old, "v2.0.0")
        self.publish(new, "v2.0.1")
        self.set_target("v2.0.1")
        self.start()
        lines = tuple(line for line in ESP32 if "sketch-" not in line)
        for runs, status in ((old, 200), (new, 304)):
            says = f"x-ESP32-sketch-sha256: {runs[-32:].hex().upper()}"
            self.assertEqual(self.ask(lines, says), status)
        self.assertEqual(self.versions(), ["v2.0.0", "v2.0.1"])

    def test_an_image_that_was_copied_in_by_hand_is_known_once_it_was_hashed(self):
        image = esp32_image("by hand")
        self.put_image("v2.0.1", image)
        self.set_target("v2.0.1")
        self.start()
        lines = tuple(line for line in ESP32 if "sketch-" not in line)
        self.assertEqual(self.ask(lines, "x-ESP32-version: v0.9"), 200)
        md5 = hashlib.md5(image).hexdigest()
        self.assertEqual(self.ask(lines, f"x-ESP32-sketch-md5: {md5}"), 304)
        self.assertEqual(self.versions(), ["v0.9", "v2.0.1"])

    def test_a_version_that_it_says_counts_for_more_than_the_hash(self):
        image = esp32_image("one")
        self.publish(image, "v2.0.1")
        self.set_target("v2.0.1")
        self.start()
        lines = tuple(line for line in ESP32 if "sketch-" not in line)
        says = f"x-ESP32-sketch-md5: {hashlib.md5(image).hexdigest()}"
        self.ask(lines, "x-ESP32-version: v0.9", says)
        self.ask(lines, "x-ESP32-version: -", says)
        self.assertEqual(self.versions(), ["v0.9", "v2.0.1"])

    def test_one_whose_hash_is_not_known_runs_nothing_that_is_known(self):
        self.publish(esp32_image("one"), "v2.0.1")
        self.set_target("v2.0.1")
        self.start()
        self.assertEqual(self.ask(ESP32), 200)
        self.assertEqual(self.versions(), ["-"])


class FitTest(FamilyCase):
    """An image that a device cannot run is "nothing to do", and `why` says the reason."""

    def reason(self) -> object:
        self.stop()
        _, output, _ = run_command(self.data_dir, "why", MAC, "--json")
        return json.loads(output)["rule"]

    def test_an_image_that_is_larger_than_the_free_space(self):
        lines = [line.replace("2818048", "4000") for line in ESP8266]
        self.assertEqual(self.ask(*lines, "x-ESP8266-version: 1.0.0").status, 304)
        self.assertEqual(self.reason(), "no_room")

    def test_an_image_for_another_family(self):
        self.put_image("v2", esp8266_image("v2"))
        self.set_target("v2")
        self.assertEqual(self.ask(*ESP32, "x-ESP32-version: 1.0.0").status, 304)
        self.assertEqual(self.ask(*ESP8266, "x-ESP8266-version: 1.0.0").status, 200)
        self.assertEqual(self.ask(*ESP32, "x-ESP32-version: 1.0.0").status, 304)
        self.assertEqual(self.reason(), "wrong_chip")

    def test_an_image_for_another_chip_than_that_of_the_image_whose_hash_it_reports(self):
        runs, other = esp32_image("v2", "ESP32"), esp32_image("v3", "ESP32-S3")
        for version, image in (("v2", runs), ("v3", other)):
            source = self.data_dir / "build.bin"
            source.write_bytes(image)
            request = PublishRequest(str(source), version)
            publish(self.data_dir, request, now_ms(), lambda done, size: None)
        self.set_target("v3")
        lines = [line for line in ESP32 if "sketch-" not in line]
        says = f"x-ESP32-sketch-sha256: {runs[-32:].hex().upper()}"
        self.assertEqual(self.ask(*lines, says).status, 304)
        own = (f"_br_mac_: {MAC}", "_br_fwv_: v2")
        self.assertEqual(self.ask(*own, path="/version.txt").body, b"v2")
        self.assertEqual(self.ask(*own).status, 503)
        self.assertEqual(self.reason(), "wrong_chip")

    def publish_both(self) -> tuple[str, str]:
        """Publish v2 for an ESP32-S3 and v3, the target, for an ESP32; return how v2 is reported.

        By its version, and by its hash.
        """
        image = esp32_image("v2", "ESP32-S3")
        for version, content in (("v2", image), ("v3", esp32_image("v3"))):
            source = self.data_dir / "build.bin"
            source.write_bytes(content)
            request = PublishRequest(str(source), version)
            publish(self.data_dir, request, now_ms(), lambda done, size: None)
        self.set_target("v3")
        return "x-ESP32-version: v2", f"x-ESP32-sketch-sha256: {image[-32:].hex()}"

    def test_the_hash_tells_the_chip_of_a_device_that_has_a_version_of_its_own(self):
        _, by_hash = self.publish_both()
        own = "x-ESP32-version: night-build"
        self.assertEqual(self.ask(*NO_HASHES, own, by_hash).status, 304)
        self.assertEqual(self.reason(), "wrong_chip")

    def test_the_chip_of_the_last_image_that_a_device_reported_counts(self):
        unknown = ("x-ESP32-version: hotfix", f"x-ESP32-sketch-sha256: {'0' * 64}")
        for number, reported in enumerate((*self.publish_both(), "x-ESP32-version: v1")):
            lines = [line.replace("AA:BB:CC", f"AA:BB:0{number}") for line in NO_HASHES]
            statuses = [self.ask(*lines, says).status for says in (reported, *unknown)]
            self.assertEqual(statuses, [200 if number == 2 else 304] * 3, reported)
        self.stop()
        lines = [line.replace("AA:BB:CC", "AA:BB:01") for line in NO_HASHES]
        self.assertEqual(self.ask(*lines, unknown[0]).status, 304)  # it is on record

    def test_the_chip_of_a_release_that_was_copied_by_hand_counts(self):
        self.publish_both()
        self.put_image("by-hand", esp32_image("by hand", "ESP32-S3"))
        self.assertEqual(self.ask(*NO_HASHES, "x-ESP32-version: by-hand").status, 304)
        self.assertEqual(self.reason(), "wrong_chip")

    def test_an_image_that_does_not_begin_like_one_for_arduino_pico(self):
        self.assertEqual(self.ask(*PICO).status, 304)
        self.assertEqual(self.reason(), "wrong_chip")

    def test_a_compressed_image_is_not_held_against_the_room_that_the_plain_one_takes(self):
        source = self.data_dir / "build.bin"
        source.write_bytes(esp8266_image("v2", size=8000))
        publish(self.data_dir, PublishRequest(str(source), "v2"), now_ms(), lambda done, size: None)
        self.set_target("v2")
        lines = [line.replace("2818048", "4000") for line in TASMOTA]
        self.assertEqual(self.ask(*lines).status, 404)
        self.assertEqual(self.ask(*lines, path="/firmware.bin.gz").status, 200)


class EspIdfTest(FamilyCase):
    def test_a_head_then_ranges_is_one_download(self):
        head = self.ask(*IDF, http="1.1", method="HEAD")
        self.assertEqual((head.status, head.fields["content-length"]), (200, str(len(IMAGE))))
        self.assertLessEqual(len(head.head), 512)
        got = b""
        while len(got) < len(IMAGE):
            answer = self.ask(*IDF, f"Range: bytes={len(got)}-{len(got) + 1999}", http="1.1")
            self.assertEqual(answer.status, 206)
            got += answer.body
        self.assertEqual(got, IMAGE)

    def test_one_that_has_installed_it_is_not_given_it_again_within_ten_minutes(self):
        path = f"/d/{MAC}/%s/firmware.bin"
        agent, zero = IDF[0], "Range: bytes=0-"
        self.assertEqual(self.ask(agent, zero, path=path % "1.0.0", http="1.1").status, 206)
        for lines in ((agent,), (agent, zero), (agent, "Range: bytes=0-0")):
            self.assertEqual(self.ask(*lines, path=path % "1.0.1", http="1.1").status, 304)
        answer = self.ask(agent, path=path % "1.0.1", http="1.1", method="HEAD")
        self.assertEqual(answer.status, 304)


class PathTest(FamilyCase):
    def test_a_client_of_no_family_asks_for_the_version_first(self):
        path = f"/d/{MAC}/1.0.0/"
        self.assertEqual(
            self.ask("User-Agent: curl/8.5.0", path=path + "version.txt").body, b"v1.0.1"
        )
        self.assertEqual(self.ask("User-Agent: curl/8.5.0", path=path + "firmware.bin").body, IMAGE)
        self.assertEqual(self.ask(path=path + "nothing").status, 404)

    def test_two_that_disagree_are_401_by_their_names(self):
        answer = self.ask(*PICO, path="/d/00:11:22:aa:bb:dd/1/firmware.bin")
        self.assertEqual(answer.status, 401)
        self.assertIn('header="x-pico-sta-mac, the path"', answer.fields["www-authenticate"])


class RecordedFamilyTest(FamilyCase):
    def test_it_is_on_record_with_the_room_that_the_device_has(self):
        self.ask(*ESP32, "x-ESP32-version: 1.0.1")
        self.stop()
        (record,) = self.records(event="check")
        self.assertEqual((record["family"], record["free_space"]), ("esp32", 1310720))

    def test_it_survives_a_restart_and_a_download_and_goes_when_another_updater_asks(self):
        self.ask(*ESP32, "x-ESP32-version: 1.0.0")
        self.stop()
        self.server = self.start()
        table = self.server.service.fleet
        with table.lock:
            self.assertEqual(table.get(MAC).updater, Updater("esp32", 1310720))
        own = (f"_br_mac_: {MAC}", "_br_fwv_: 1.0.0")
        self.ask(*own, path="/version.txt", http="1.1")
        with table.lock:
            self.assertIsNone(table.get(MAC).updater)

    def test_a_plain_device_has_no_word_of_it(self):
        self.ask(f"_br_mac_: {MAC}", "_br_fwv_: 1.0.0", path="/version.txt")
        self.stop()
        (record,) = self.records(event="check")
        self.assertNotIn("family", record)


class AnonymousTest(FamilyCase):
    def test_it_is_401_unless_that_is_allowed(self):
        self.assertEqual(self.ask().status, 401)

    def test_allowed_it_gets_the_target_and_is_not_on_record(self):
        self.server.service.is_anonymous = True
        self.assertEqual(self.ask(path="/version.txt").body, b"v1.0.1")
        self.assertEqual(self.ask().body, IMAGE)
        self.assertEqual(self.ask(path="/nothing").status, 404)
        self.assertEqual(self.ask("_br_fwv_: v1").status, 401)
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.ask().status, 503)
        self.assertEqual(self.ask(path="/version.txt").status, 503)
        self.stop()
        self.assertEqual(self.records(event="check") + self.records(event="begin"), [])

    def test_one_that_says_what_it_runs_is_not_given_that_again(self):
        self.server.service.is_anonymous = True
        updater = ("User-Agent: ESP32-http-Update", "x-ESP32-mode: sketch")
        self.assertEqual(self.ask(*updater, "x-ESP32-version: 1.0.0").body, IMAGE)
        self.assertEqual(self.ask(*updater, "x-ESP32-version: 1.0.1").status, 304)
        self.assertEqual(self.ask(*updater, "x-ESP32-version: 1\t0").status, 401)
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.ask(*updater, "x-ESP32-version: 1.0.0").status, 304)

    def test_a_withdrawn_target_is_not_told(self):
        self.server.service.is_anonymous = True
        withdraw(self.data_dir, "v1.0.1", "", now_ms())
        self.assertEqual(self.ask(path="/version.txt").status, 503)
        self.assertEqual(self.ask().status, 503)

    def test_it_gets_the_files_of_a_release(self):
        self.server.service.is_anonymous = True
        folder = self.data_dir / "board"
        folder.mkdir()
        (folder / "main.py").write_bytes(b"print(2)\n")
        publish(self.data_dir, PublishRequest(str(folder), "v2"), now_ms(), print)
        self.set_target("v2")
        for path in ("/main.py", "/v2_main.py", "/v2/main.py"):
            self.assertEqual(self.ask(path=path).body, b"print(2)\n")
        self.assertEqual(self.ask(path="/v1/main.py").status, 404)


class SilentVersionTest(FamilyCase):
    def test_a_request_without_a_version_does_not_change_the_one_that_is_known(self):
        self.ask("User-Agent: curl/8", path=f"/d/{MAC}/1.0/version.txt")
        for path in ("firmware.bin.md5", "foo"):
            self.ask("User-Agent: curl/8", path=f"/d/{MAC}/-/{path}")
        self.stop()
        self.assertEqual(self.records(event="report"), [])

    def test_a_path_that_no_release_has_is_404_and_not_on_record(self):
        folder = self.data_dir / "board"
        folder.mkdir()
        (folder / "main.py").write_bytes(b"print(2)\n")
        publish(self.data_dir, PublishRequest(str(folder), "v2"), now_ms(), print)
        for prepare in (
            lambda: None,
            lambda: edits.hold(self.data_dir, "night"),
            lambda: (self.data_dir / "firmware" / "firmware_v1.0.1.bin").unlink(),
        ):
            prepare()
            for path in ("/junk", "/wp-login.php", "/nope/main.txt"):
                with self.subTest(path):
                    own = (f"_br_mac_: {MAC}", "_br_fwv_: 1")
                    self.assertEqual(self.ask(*own, path=path).status, 404)
        self.stop()
        self.assertEqual(self.records(mac=MAC), [])


class CopiedTargetTest(FamilyCase):
    def test_a_plain_device_is_not_given_one_for_another_chip(self):
        source = self.data_dir / "build.bin"
        for version, chip in (("1.0", "ESP32"), ("1.1", "ESP32-S3")):
            source.write_bytes(esp32_image(version, chip))
            publish(self.data_dir, PublishRequest(str(source), version), now_ms(), print)
        self.put_image("2.0", esp32_image("2.0", "ESP32-S3"))
        self.set_target("2.0")
        own = (f"_br_mac_: {MAC}", "_br_fwv_: 1.0")
        self.assertEqual(self.ask(*own, path="/version.txt").body, b"1.0")
        self.assertEqual(self.ask(*own).status, 503)


class SlotTest(FamilyCase):
    def test_a_device_without_a_free_slot_is_told_that_there_is_nothing(self):
        self.stop()
        self.start(service={"admission": Admission(DownloadSlots(1))})
        other = [line.replace("BB:CC", "BB:DD") for line in ESP8266]
        self.assertEqual(self.ask(*ESP8266, "x-ESP8266-version: 1.0.0", method="HEAD").status, 200)
        self.assertEqual(self.ask(*other, "x-ESP8266-version: 1.0.0").status, 304)
        self.stop()
        self.assertEqual(self.records(event="download"), [])


class MissingProductTest(FamilyCase):
    def test_a_path_of_a_product_that_is_not_there_is_404_and_no_word_of_a_device(self):
        own = (f"_br_mac_: {MAC}", "_br_fwv_: 7")
        for with_target in (True, False):
            if not with_target:
                (self.data_dir / "version" / "version.txt").unlink()
                self.stop()
                self.start()
            for path, lines in (
                ("/Plug/firmware.bin", own),
                ("/plug/version.txt", (basic(MAC),)),
                (f"/plug/d/{MAC}/7/firmware.bin", ()),
                ("/plug/firmware.bin", ()),
            ):
                with self.subTest(path=path, with_target=with_target):
                    self.assertEqual(self.ask(*lines, path=path).status, 404)
        self.stop()
        self.assertEqual(self.records(mac=MAC), [])


class TasmotaVersionTest(FamilyCase):
    def test_the_variant_in_it_is_not_the_release(self):
        self.put_image("14.1.0", esp8266_image("14.1.0"))
        self.set_target("14.1.0")
        for version, status in (
            ("14.1.0(release-tasmota)", 404),
            ("14.1.0(release-sensors)", 404),
            ("14.1.0(minimal)", 200),
            ("14.1.0(release-safeboot)", 200),
            ("14.0.0(release-tasmota)", 200),
        ):
            with self.subTest(version):
                answer = self.ask(*ESP8266, f"x-ESP8266-version: {version}")
                self.assertEqual(answer.status, status)

    def test_it_is_where_a_release_is_reported_with_it(self):
        image = self.data_dir / "tasmota.bin"
        image.write_bytes(esp8266_image("x"))
        request = PublishRequest(str(image), "v7", reports_as="14.1.0(release-tasmota)")
        publish(self.data_dir, request, now_ms(), print)
        self.set_target("v7")
        answer = self.ask(*ESP8266, "x-ESP8266-version: 14.1.0(release-tasmota)")
        self.assertEqual(answer.status, 404)
