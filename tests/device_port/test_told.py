"""Documents of ESPHome and esp32FOTA, and digests beside the image: what a device is told."""

import hashlib
import json
from ipaddress import ip_network
from typing import Any

from ota_server.httpd.trusted_proxies import TrustedProxies
from ota_server.policy import edits
from ota_server.policy.targets import write_stopped
from tests.device_port.test_dialects import ESP32, basic
from tests.device_port.test_families import IMAGE, MAC, FamilyCase
from tests.releases.test_new_parts import esp8266_image
from tests.releases.test_publish import esp_image
from tests.support import Answer, Client

ESPHOME = "User-Agent: ESPHome/2026.10.0 (https://esphome.io)"
# The MAC as the ESP32 has it: a number with the first byte as the lowest.
FOTA_ID = int.from_bytes(bytes.fromhex(MAC.replace(":", "")), "little")


class ToldCase(FamilyCase):
    def setUp(self) -> None:
        super().setUp()
        self.new = esp_image("v2", "ESP32-S3")
        self.put_image("v2", self.new)
        self.set_target("v2")

    def at(self, path: str, runs: str = "v1.0.1", *lines: str) -> Answer:
        """Ask under the path of the device."""
        return self.ask(ESPHOME, *lines, path=f"/d/{MAC}/{runs}/{path}")

    def manifest(self, runs: str = "v1.0.1") -> dict[str, Any]:
        """Return what ESPHome is told, as far as it reads that."""
        answer = self.at("manifest.json", runs)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.fields["content-length"], str(len(answer.body)))
        found = json.loads(answer.body)
        self.assertIsInstance(found["name"], str)
        self.assertIsInstance(found["version"], str)
        for build in found["builds"]:
            self.assertIsInstance(build["chipFamily"], str)
            self.assertRegex(build["ota"]["md5"], r"\A[0-9a-f]{32}\Z")
            self.assertIsInstance(build["ota"]["path"], str)
            self.assertNotIn("http", build["ota"]["path"])  # ESPHome takes that for a whole URL
        return found

    def fota(self, runs: str = "-", host: str = "ota.example:7777") -> dict[str, Any]:
        """Return what esp32FOTA is told."""
        answer = self.hosted(f"/d/{MAC}/{runs}/esp32fota.json", host)
        self.assertEqual(answer.status, 200)
        self.assertLessEqual(len(answer.body), 2048)
        (found,) = json.loads(answer.body)
        self.assertEqual(sorted(found), ["type", "url", "version"])
        return found

    def hosted(self, path: str, host: str) -> Answer:
        """Ask with another Host."""
        with Client(self.port) as client:
            client.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return client.answer()


class EspHomeTest(ToldCase):
    def test_the_image_and_its_md5_are_of_one_release(self):
        found = self.manifest()
        (build,) = found["builds"]
        self.assertEqual((found["version"], build["chipFamily"]), ("v2", "ESP32-S3"))
        image = self.at(build["ota"]["path"])
        self.assertEqual((image.status, image.body), (200, self.new))
        self.assertEqual(build["ota"]["md5"], hashlib.md5(image.body).hexdigest())

    def test_no_other_image_follows_when_the_target_has_changed(self):
        path = self.manifest()["builds"][0]["ota"]["path"]
        self.set_target("v1.0.0")
        self.assertEqual(self.at(path).status, 503)

    def test_a_device_that_runs_the_target_is_told_its_own_version(self):
        for runs in ("v2", "2"):
            found = self.manifest(runs)
            self.assertEqual(found["version"], runs)
            self.assertEqual(found["builds"][0]["chipFamily"], "ESP32-S3")

    def test_a_device_that_is_held_back_is_told_its_own_version(self):
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.manifest("v1.0.1")["version"], "v1.0.1")
        self.assertEqual(self.manifest("gone-7")["version"], "gone-7")

    def test_one_that_does_not_say_its_version_is_told_what_it_was_given_last(self):
        self.at(self.manifest("-")["builds"][0]["ota"]["path"], "-")
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.manifest("-")["version"], "v2")

    def test_one_of_which_nothing_is_known_is_told_nothing_while_it_is_held_back(self):
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.at("manifest.json", "-").status, 503)

    def test_an_image_that_says_no_chip_is_for_those_that_cannot_say_it(self):
        self.set_target("v1.0.0")
        chips = [build["chipFamily"] for build in self.manifest()["builds"]]
        self.assertEqual(chips, ["RP2040", "BK72xx", "RTL87xx"])
        self.put_image("v3", esp8266_image())
        self.set_target("v3")
        chips = [build["chipFamily"] for build in self.manifest()["builds"]]
        self.assertEqual(chips, ["ESP8266"])

    def test_it_is_a_check_and_its_image_a_download(self):
        path = self.manifest()["builds"][0]["ota"]["path"]
        self.at(path)
        self.stop()
        self.assertEqual(self.events(), ["check", "begin", "download"])
        (check,) = self.records(event="check")
        self.assertEqual(check["target_version"], "v2")

    def test_nobody_is_told_anything_without_an_identity(self):
        for path in ("/manifest.json", "/esp32fota.json", "/firmware.bin.md5"):
            self.assertEqual(self.ask(ESPHOME, path=path).status, 401)

    def test_anybody_is_told_the_target_where_that_is_allowed(self):
        self.server.service.is_anonymous = True
        found = json.loads(self.ask(ESPHOME, path="/manifest.json").body)
        path = found["builds"][0]["ota"]["path"]
        self.assertEqual(self.ask(path=f"/{path}").body, self.new)
        (fota,) = json.loads(self.ask(path="/esp32fota.json").body)
        self.assertEqual(fota["url"], "http://h/firmware/firmware_v2.bin")
        md5 = hashlib.md5(self.new).hexdigest()
        self.assertEqual(self.ask(path="/firmware.bin.md5").body.decode(), md5)
        self.stop()
        self.assertEqual(self.events(), [])

    def test_basic_in_the_url_says_which_device_it_is(self):
        answer = self.ask(ESPHOME, basic(MAC), path="/manifest.json")
        self.assertEqual(json.loads(answer.body)["version"], "v2")


class FotaTest(ToldCase):
    def test_the_url_is_absolute_with_the_port_and_leads_to_the_image(self):
        found = self.fota()
        start, path = found["url"][:23], found["url"][23:]
        self.assertEqual(start, "http://ota.example:7777")
        self.assertEqual((found["type"], found["version"]), ("default", "2"))
        self.assertEqual(self.ask(path=path).body, self.new)

    def test_its_id_says_which_device_it_is(self):
        answer = self.ask(path=f"/esp32fota.json?id={FOTA_ID}")
        self.assertIn(f"/d/{MAC}/-/firmware_v2.bin", answer.body.decode())

    def test_the_url_is_https_behind_a_trusted_proxy_that_says_so(self):
        forwarded = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https")
        path = f"/d/{MAC}/-/esp32fota.json"
        for networks, scheme in (([], "http"), (["127.0.0.0/8"], "https")):
            with self.subTest(networks):
                self.stop()
                self.start(proxies=TrustedProxies(list(map(ip_network, networks))))
                (found,) = json.loads(self.ask(*forwarded, path=path).body)
                self.assertTrue(found["url"].startswith(f"{scheme}://h/"), found["url"])

    def test_its_family_is_known_by_what_it_asks_for_and_stays_through_the_download(self):
        (found,) = json.loads(self.ask(path=f"/esp32fota.json?id={FOTA_ID}").body)
        self.ask(path=found["url"].removeprefix("http://h"))
        device = self.server.service.fleet.get(MAC)
        self.assertEqual((device.updater.family, device.download.version), ("esp32fota", "v2"))

    def test_a_device_that_is_held_back_is_told_no_higher_version(self):
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.fota()["version"], "0.0.0")
        self.assertEqual(self.fota("1.0.1")["version"], "1.0.1")

    def test_a_url_over_300_bytes_is_not_told(self):
        answer = self.hosted(f"/d/{MAC}/version-99/esp32fota.json", "a" * 250 + ":7777")
        self.assertEqual(answer.status, 503)


class DigestTest(ToldCase):
    def test_they_are_those_of_the_image_that_follows_though_the_target_changes(self):
        md5, sha256 = self.at("firmware.bin.md5").body, self.at("firmware.bin.sha256").body
        self.set_target("v1.0.0")
        image = self.at("firmware.bin").body
        self.assertEqual(image, self.new)
        self.assertEqual(md5.decode(), hashlib.md5(image).hexdigest())
        self.assertEqual(sha256.decode(), hashlib.sha256(image).hexdigest())
        self.assertEqual(len(md5), 32)

    def test_a_device_that_has_installed_that_image_is_not_given_it_again(self):
        for told in ("v2", "built on tuesday"):  # the second is what the release is reported as
            with self.subTest(told):
                manifest = {"version": "v2", "sha256": hashlib.sha256(self.new).hexdigest()}
                manifest |= {"md5": hashlib.md5(self.new).hexdigest(), "size": len(self.new)}
                manifest |= {"time": "2026-01-01T00:00:00Z", "reports_as": "built on tuesday"}
                record = self.data_dir / "firmware" / "firmware_v2.json"
                record.write_text(json.dumps(manifest))
                self.set_target("v2")
                self.at("firmware.bin.md5")
                self.set_target("v1.0.1")
                own = (f"_br_mac_: {MAC}", f"_br_fwv_: {told}")
                self.assertEqual(self.ask(*own).body, IMAGE)

    def test_a_digest_of_what_it_runs_already_keeps_that_image_for_it(self):
        self.at("firmware.bin.md5", "v2")
        self.set_target("v1.0.1")
        self.assertEqual(self.at("firmware.bin", "v2").body, self.new)

    def test_a_digest_does_not_keep_an_image_that_was_withdrawn(self):
        self.at("firmware.bin.md5")
        write_stopped(
            self.data_dir,
            {"v2": {"state": "withdrawn", "instead_of": None, "time": "2026-01-01T00:00:00Z"}},
        )
        self.assertNotEqual(self.at("firmware.bin").body, self.new)

    def test_a_device_that_is_held_back_gets_neither(self):
        self.at("firmware.bin.md5")
        edits.hold(self.data_dir, "night")
        self.assertEqual(self.at("firmware.bin.md5", "v1.0.1").status, 503)
        self.assertEqual(self.at("firmware.bin").status, 503)

    def test_a_family_with_a_word_for_no_update_gets_that_for_a_digest_too(self):
        full = [line.replace("1310720", "10") for line in ESP32]
        rauc = ("User-Agent: rauc/1.12", f"RAUC-Machine-ID: {'ab' * 16}")
        for lines, status in ((full, 304), (ESP32, 200), (rauc, 200)):
            self.assertEqual(self.ask(*lines, path="/firmware.bin.md5").status, status)
        edits.hold(self.data_dir, "night")
        for lines, status in ((ESP32, 304), (rauc, 204), ((ESPHOME, basic(MAC)), 503)):
            for path in ("/firmware.bin.md5", "/firmware.bin.sha256"):
                self.assertEqual(self.ask(*lines, path=path).status, status)

    def test_the_digest_of_what_runs_can_be_asked_for(self):
        self.set_target("v1.0.1")
        self.assertEqual(self.at("firmware.bin.md5").body.decode(), hashlib.md5(IMAGE).hexdigest())
