"""Each family of devices, by an updater that takes and refuses what the real one does.

`FieldTest` has what users of these updaters met; the names of its tests say what would go wrong.
"""

import gzip
import hashlib
import json
import logging
from ipaddress import ip_network
from typing import Any

from ota_server.httpd.trusted_proxies import TrustedProxies
from ota_server.policy import edits
from ota_server.releases.publish import publish
from ota_server.releases.publish_request import PublishRequest
from ota_server.system.clock import now_ms
from tests.device_port.test_dialects import ESP32, ESP8266, MONGOOSE, PICO, basic
from tests.support import Answer, Client, ServerCase
from tests.support.images import esp32_image, esp8266_image, rp2040_image
from tests.support.updaters import (
    Device,
    Ending,
    Esp8266,
    EspHome,
    EspIdf,
    Fota,
    HttpUpdate,
    Mongoose,
    Pico,
    Silent8266,
    Tasmota,
)

MAC = "00:11:22:aa:bb:cc"
MAKERS = {
    HttpUpdate: esp32_image,
    Esp8266: esp8266_image,
    Silent8266: esp8266_image,
    Pico: rp2040_image,
    Tasmota: esp8266_image,
    EspIdf: esp32_image,
    Mongoose: esp32_image,
    EspHome: esp32_image,
    Fota: esp32_image,
}
# One request of each family for the image, as it sends it.
REQUESTS = {
    "br": ("/firmware.bin", "1.1", (f"_br_mac_: {MAC}", "_br_fwv_: v1.0.0")),
    "esp8266": ("/firmware.bin", "1.0", (*ESP8266, "x-ESP8266-version: v1.0.0")),
    "tasmota": ("/firmware.bin", "1.0", (*ESP8266, "x-ESP8266-version: 14.1.0(tasmota)")),
    "esp32": ("/firmware.bin", "1.0", (*ESP32, "x-ESP32-version: v1.0.0")),
    "pico": ("/firmware.bin", "1.0", PICO),
    "mongoose": ("/firmware.bin", "1.1", MONGOOSE),
    "esp-idf": ("/firmware.bin", "1.1", ("User-Agent: ESP32 HTTP Client/1.0", basic(MAC))),
    "esphome": (f"/d/{MAC}/v1/firmware.bin", "1.1", ("User-Agent: ESPHome/2026.1.0",)),
    "rauc": (
        "/firmware.bin",
        "1.1",
        ("User-Agent: rauc/1.12", f"RAUC-Machine-ID: {'ab' * 16}", "RAUC-System-Version: v1"),
    ),
    "swupdate": (
        "/firmware.bin",
        "1.1",
        ("User-Agent: libcurl-agent/1.0", "Accept: application/octet-stream", basic(MAC)),
    ),
    "mender": (f"/d/{MAC}/v1/firmware.bin", "1.1", ("User-Agent: Go-http-client/1.1",)),
    "curl": (f"/d/{MAC}/v1/firmware.bin", "1.1", ("User-Agent: curl/8.5.0",)),
}


class FamiliesCase(ServerCase):
    def device(self, kind: type[Device], version: str = "v1.0.0") -> Device:
        return kind(self.port, MAC, MAKERS[kind](version), self.await_ends)

    def target(self, kind: type[Device], version: str) -> bytes:
        """Make an image for devices of a kind the target, as an operator does who copies it in."""
        image = MAKERS[kind](version)
        self.put_image(version, image)
        self.set_target(version)
        return image

    def send(self, name: str, *lines: str, method: str = "GET") -> Answer:
        """Send the request of a family for the image, with more lines."""
        path, http, own = REQUESTS[name]
        with Client(self.port) as client:
            head = (f"{method} {path} HTTP/{http}", "Host: h", *own, *lines, "", "")
            client.send("\r\n".join(head).encode())
            return client.answer(method)


class UpdateTest(FamiliesCase):
    def setUp(self) -> None:
        super().setUp()
        self.start().service.offers.is_development = True  # one device makes all the requests

    def device(self, kind: type[Device], version: str = "v1.0.0") -> Device:
        # A board of its own for each kind: the server remembers which chip a board has.
        device = super().device(kind, version)
        device.mac = f"{MAC[:-2]}{[*MAKERS].index(kind):02x}"
        return device

    def test_each_updates_to_the_target_and_back_and_then_has_nothing_to_do(self):
        for kind in MAKERS:
            for version in ("v2.0.0", "v1.5.0"):
                with self.subTest(kind.__name__, version=version):
                    self.target(kind, version)
                    device = self.device(kind, "v1.0.0" if version == "v2.0.0" else "v2.0.0")
                    if kind is Fota and version == "v1.5.0":
                        self.assertEqual(device.update(), Ending.NOTHING)  # it never goes back
                        continue
                    self.assertEqual(device.update(), Ending.UPDATED, device.problem)
                    self.assertIn(version, device.version)
                    if kind not in (Tasmota,):
                        self.assertEqual(device.update(), Ending.NOTHING, device.problem)

    def test_each_that_is_held_back_stays_as_it_is(self):
        for kind in MAKERS:
            self.target(kind, "v2.0.0")
            device = self.device(kind)
            self.assertEqual(device.update(), Ending.UPDATED, device.problem)
            self.target(kind, "v3.0.0")
            edits.hold(self.data_dir, "night")
            with self.subTest(kind.__name__):
                # Tasmota has no word for it: it says that the update failed, and goes on.
                is_tasmota = kind is Tasmota
                expected = Ending.FAILED if is_tasmota else Ending.NOTHING
                self.assertEqual(device.update(), expected, device.problem)
                self.assertIn("v2.0.0", device.version)
            edits.unhold(self.data_dir)

    def test_a_sketch_without_a_version_is_known_after_its_update_by_the_changed_md5(self):
        source = self.data_dir / "build.bin"
        source.write_bytes(esp8266_image("v2.0.0"))
        request = PublishRequest(str(source), "v2.0.0")
        publish(self.data_dir, request, now_ms(), lambda done, size: None)
        self.set_target("v2.0.0")
        device = self.device(Silent8266)
        self.assertEqual([device.update(), device.update()], [Ending.UPDATED, Ending.NOTHING])
        self.stop()
        versions = [record["firmware_version"] for record in self.records(event="check")]
        self.assertEqual(versions, ["-", "v2.0.0"])


class EveryReplyTest(FamiliesCase):
    def setUp(self) -> None:
        super().setUp()
        self.start().service.offers.is_development = True
        # It begins like one for an RP2040, and nothing of it tells that to the others.
        self.image = rp2040_image("v9", 5000)
        manifest = {"version": "v9", "sha256": hashlib.sha256(self.image).hexdigest()}
        manifest |= {"md5": hashlib.md5(self.image).hexdigest(), "size": len(self.image)}
        manifest |= {"time": "2026-01-01T00:00:00Z", "any_chip": True}
        self.put_image("v9", self.image)
        (self.data_dir / "firmware" / "firmware_v9.json").write_text(json.dumps(manifest))
        self.set_target("v9")

    def test_a_range_from_byte_zero_is_206(self):
        for name in REQUESTS:
            for asked in ("bytes=0-", f"bytes=0-{len(self.image) + 10}"):
                with self.subTest(name, asked=asked):
                    answer = self.send(name, f"Range: {asked}")
                    self.assertEqual((answer.status, answer.body), (206, self.image))
                    size = len(self.image)
                    whole = f"bytes 0-{size - 1}/{size}"
                    self.assertEqual(answer.fields["content-range"], whole)

    def test_a_malformed_range_is_ignored(self):
        for name in REQUESTS:
            with self.subTest(name):
                answer = self.send(name, "Range: bytes=0--1")
                self.assertEqual((answer.status, answer.body), (200, self.image))

    def test_an_image_is_never_coded_and_its_head_is_short_and_says_each_hash_once(self):
        for name in REQUESTS:
            with self.subTest(name):
                answer = self.send(name, "Accept-Encoding: deflate, gzip, br, zstd")
                self.assertEqual((answer.status, answer.body), (200, self.image))
                self.assertNotIn("transfer-encoding", answer.fields)
                self.assertNotIn("content-encoding", answer.fields)
                self.assertIn("no-transform", answer.fields["cache-control"])
                self.assertEqual(answer.fields["x-md5"], hashlib.md5(self.image).hexdigest())
                self.assertEqual(answer.head.lower().count(b"\r\nx-md5:"), 1)
                if name != "esp32":
                    self.assertLessEqual(len(answer.head), 512)

    def test_a_reply_to_http_1_0_ends_with_the_connection(self):
        for name, (_, http, _) in REQUESTS.items():
            if http == "1.0":
                with self.subTest(name):
                    self.assertEqual(self.send(name).fields["connection"], "close")

    def test_an_error_is_one_short_line_and_never_a_redirect(self):
        for name in REQUESTS:
            edits.hold(self.data_dir, "night")
            held = self.send(name)
            edits.unhold(self.data_dir)
            self.assertIn(held.status, (304, 204, 404, 503), name)
            (self.data_dir / "version" / "version.txt").unlink()
            for answer in (held, self.send(name, "_br_mac_: 1", "_br_fwv_: 1")):
                with self.subTest(name, status=answer.status):
                    self.assertNotIn(answer.status // 100, (1, 2) if answer.status != 204 else (1,))
                    self.assertNotIn("location", answer.fields)
                    self.assertLess(len(answer.body), 200)
                    self.assertNotIn(b"\n", answer.body.rstrip(b"\n"))
            self.set_target("v9")


class FieldTest(FamiliesCase):
    """What happened to others, and must not happen here."""

    def test_an_esp8266_is_not_told_the_size_of_the_image(self):
        image = self.target(Esp8266, "v2.0.0")
        answer = self.send("esp8266")
        self.assertEqual(answer.fields["content-length"], str(len(image)))
        self.assertNotIn("transfer-encoding", answer.fields)

    def test_an_esp8266_is_redirected_and_calls_that_a_wrong_code(self):
        self.target(Esp8266, "v2.0.0")
        for path in ("/firmware.bin", "/firmware.bin/", "//firmware.bin", "/d/x/-/firmware.bin"):
            with Client(self.port) as client:
                lines = "\r\n".join((f"GET {path} HTTP/1.0", "Host: h", *ESP8266, "", ""))
                client.send(lines.encode())
                self.assertNotEqual(client.answer().status // 100, 3, path)

    def test_tasmota_takes_a_304_for_success_and_restarts_at_each_check(self):
        self.target(Tasmota, "v2.0.0")
        device = self.device(Tasmota)
        for prepare in (
            lambda: None,
            lambda: edits.hold(self.data_dir, "night"),
            lambda: (self.data_dir / "version" / "version.txt").unlink(),
        ):
            prepare()
            self.assertIsNot(device.update(), Ending.RESTARTED)

    def test_tasmota_on_an_esp32_takes_a_304_for_success_too(self):
        self.put_image("v2.0.0", esp32_image("v2.0.0"))
        self.set_target("v2.0.0")
        for runs, status in (("14.1.0", 200), ("2.0.0", 404), ("v2.0.0", 404), ("1", 404)):
            if runs == "1":
                edits.hold(self.data_dir, "night")
            with self.subTest(runs), Client(self.port) as client:
                lines = (*ESP32, f"x-ESP32-version: {runs}(release-tasmota32)", "", "")
                client.send("\r\n".join(("GET /firmware.bin HTTP/1.0", "Host: h", *lines)).encode())
                self.assertEqual(client.answer().status, status)

    def test_tasmota_compares_the_compressed_image_with_the_md5_of_the_plain_one(self):
        source = self.data_dir / "build.bin"
        source.write_bytes(esp8266_image("v2.0.0"))
        request = PublishRequest(str(source), "v2.0.0")
        publish(self.data_dir, request, now_ms(), lambda done, size: None)
        self.set_target("v2.0.0")
        with Client(self.port) as client:
            lines = (*ESP8266, "x-ESP8266-version: 14.1.0(tasmota)", "", "")
            client.send("\r\n".join(("GET /firmware.bin.gz HTTP/1.0", "Host: h", *lines)).encode())
            answer = client.answer()
        self.assertEqual(gzip.decompress(answer.body), esp8266_image("v2.0.0"))
        self.assertEqual(answer.fields["x-md5"], hashlib.md5(answer.body).hexdigest())

    def test_tasmota_asks_for_the_compressed_image_and_gets_the_plain_one(self):
        self.target(Tasmota, "v2.0.0")
        with Client(self.port) as client:
            path = "/firmware.bin.gz"
            lines = (*ESP8266, "x-ESP8266-version: 14.1.0(tasmota)", "", "")
            client.send("\r\n".join((f"GET {path} HTTP/1.0", "Host: h", *lines)).encode())
            self.assertEqual(client.answer().status, 404)  # no such file was published

    def test_tasmota_behind_a_proxy_that_speaks_1_1_is_not_told_the_size(self):
        self.target(Tasmota, "v2.0.0")
        path, _, lines = REQUESTS["tasmota"]
        with Client(self.port) as client:
            head = (f"GET {path} HTTP/1.1", "Host: h", "X-Forwarded-For: 192.0.2.1", *lines, "", "")
            client.send("\r\n".join(head).encode())
            self.assertIn("content-length", client.answer().fields)

    def test_a_resume_is_answered_by_the_whole_image_and_ends_at_115_percent(self):
        image = self.target(EspIdf, "v2.0.0")
        self.start().service.offers.is_development = True
        device = self.device(EspIdf)
        for cut_at in (1, 1500, len(image) - 1):
            device.cut_at = cut_at
            self.assertEqual((device.update(), device.problem), (Ending.FAILED, "cut"))
            self.assertEqual(device.update(), Ending.UPDATED, device.problem)
            self.assertEqual(device.runs, image)
            device.runs = esp32_image("v1.0.0")
        for start in (0, 1):
            answer = self.send("esp-idf", f"Range: bytes={start}-")
            self.assertEqual((answer.status, answer.body), (206, image[start:]))

    def test_a_proxy_compresses_the_image_and_the_device_keeps_its_old_one(self):
        self.target(HttpUpdate, "v2.0.0")
        answer = self.send("esp32", "Accept-Encoding: gzip", "Via: 1.1 proxy")
        self.assertIn("no-transform", answer.fields["cache-control"])
        self.assertNotIn("content-encoding", answer.fields)

    def test_a_message_comes_in_chunks_or_without_its_length(self):
        self.target(HttpUpdate, "v2.0.0")
        for http in ("1.0", "1.1"):
            for path in (
                "/version.txt",
                f"/d/{MAC}/v1/manifest.json",
                f"/d/{MAC}/v1/esp32fota.json",
                f"/d/{MAC}/v1/firmware.bin.md5",
                "/DEFAULT/controller/v1/gw-1",
                "/DEFAULT/controller/v1/gw-1/deploymentBase/1",
                "/nothing",
            ):
                with self.subTest(path, http=http), Client(self.port) as client:
                    lines = (f"_br_mac_: {MAC}", "_br_fwv_: v1") if "txt" in path else ()
                    head = (f"GET {path} HTTP/{http}", "Host: h", *lines, "Connection: close")
                    client.send("\r\n".join((*head, "", "")).encode())
                    answer, rest = client.answer(), client.read_all()
                    self.assertEqual(len(answer.body), int(answer.fields["content-length"]))
                    self.assertGreater(len(answer.body), 0)
                    self.assertEqual(rest, b"")
                    self.assertNotIn("transfer-encoding", answer.fields)

    def fota(self, host: str, **fields: str) -> Any:
        """Return the document of esp32FOTA, as a device gets it from a host."""
        with Client(self.port) as client:
            lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
            head = (f"GET /d/{MAC}/v1/esp32fota.json HTTP/1.1", f"Host: {host}", *lines, "", "")
            client.send("\r\n".join(head).encode())
            (document,) = json.loads(client.answer().body)
        return document

    def test_the_url_in_a_manifest_is_relative_or_missing(self):
        self.target(Fota, "v2.0.0")
        for host in ("ota.example", "192.0.2.1:7777", "[2001:db8::1]:7777"):
            with self.subTest(host):
                document = self.fota(host)
                self.assertEqual(
                    {name: type(value) for name, value in document.items()},
                    {"type": str, "version": str, "url": str},
                )
                path = f"/d/{MAC}/v1/firmware_v2.0.0.bin"
                self.assertEqual(document["url"], f"http://{host}{path}")

    def test_the_url_in_a_manifest_is_of_http_behind_a_tls_proxy(self):
        self.target(Fota, "v2.0.0")
        said = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "ota.example"}
        self.assertTrue(self.fota("inner:7777", **said)["url"].startswith("http://inner:7777/"))
        self.stop()
        self.start(proxies=TrustedProxies([ip_network("127.0.0.1")]))
        self.assertTrue(self.fota("inner:7777", **said)["url"].startswith("https://ota.example/"))

    def test_a_cut_download_is_filled_up_and_its_md5_differs(self):
        image = self.target(EspHome, "v2.0.0")
        path = self.data_dir / "firmware" / "firmware_v2.0.0.bin"
        large = image * 2000
        self.put_image("v2.0.0", large)
        with Client(self.port, receive_buffer=4096) as client:
            client.send(f"GET /d/{MAC}/v1/firmware.bin HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            head = client.read_until(b"\r\n\r\n")
            with path.open("r+b") as file:
                file.truncate(len(large) // 2)
            self.assertIn(f"Content-Length: {len(large)}".encode(), head)
            body = client.read(len(large))
            # All of it, from a copy that nobody can cut, or less and a closed connection.
            self.assertEqual(body, large[: len(body)])

    def test_the_md5_is_of_another_release_than_the_image_that_follows(self):
        self.target(EspHome, "v2.0.0")
        base = f"/d/{MAC}/v1.0.0/"
        device = self.device(EspHome)
        build = json.loads(device.ask(f"{base}manifest.json").body)["builds"][0]["ota"]
        self.target(EspHome, "v3.0.0")
        self.assertEqual(device.ask(base + build["path"]).status, 503)
        self.assertEqual(device.update(), Ending.UPDATED, device.problem)
        self.assertEqual(device.version, "v3.0.0")

    def test_a_label_that_differs_only_by_its_v_is_fetched_for_ever(self):
        self.target(HttpUpdate, "v2.0.0")
        for version in ("2.0.0", "v2.0.0"):
            lines = (*ESP32, f"x-ESP32-version: {version}")
            with Client(self.port) as client:
                head = ("GET /firmware.bin HTTP/1.0", "Host: h", *lines, "", "")
                client.send("\r\n".join(head).encode())
                self.assertEqual(client.answer().status, 304)

    def test_a_binary_with_another_label_than_its_release_is_fetched_for_ever(self):
        self.put_image("v2.0.0", esp32_image("v1.0.0-dirty"))
        self.set_target("v2.0.0")
        self.start()
        device = self.device(HttpUpdate)
        endings = [device.update() for _ in range(6)]
        self.assertEqual(endings[:3], [Ending.UPDATED] * 3)
        self.assertEqual(endings[3:], [Ending.NOTHING] * 3)

    def test_nobody_is_told_that_a_device_fetches_one_image_for_ever(self):
        self.put_image("v2.0.0", esp32_image("v1.0.0-dirty"))
        self.set_target("v2.0.0")
        self.start()
        device = self.device(HttpUpdate)
        with self.assertLogs("ota_server", logging.WARNING) as logged:
            for _ in range(4):
                device.update()
        said = [line for line in logged.output if MAC in line]
        self.assertEqual(len(said), 1, logged.output)
        self.assertIn("v2.0.0", said[0])

    def test_a_range_that_ends_before_it_begins_is_an_error_to_mender(self):
        image = self.target(HttpUpdate, "v2.0.0")
        answer = self.send("mender", "Range: bytes=0--1")
        self.assertEqual((answer.status, answer.body), (200, image))
