"""The device port as a device meets it: one request, one reply, one record."""

import base64
import email
import email.policy
import email.utils
import hashlib
import os
import socket
import time
from collections.abc import Mapping

from ota_server.httpd.http1 import read_request
from ota_server.httpd.reply import Peer, Reply
from ota_server.httpd.sockets import peer_of
from ota_server.journal.rejected import read_rejected
from tests.support import DEVICE, MAC, ROOT, Client, ServerCase, request_head

ELSEWHERE = Peer("192.0.2.9", False)
SAMPLE_DIR = ROOT / "ota_server" / "firmware"


class VersionTest(ServerCase):
    def test_a_device_is_told_the_target_version(self):
        answer = self.get("/version.txt")
        self.assertEqual((answer.status, answer.body), (200, b"v1.0.1"))

    def test_a_check_is_on_record_with_the_documented_fields(self):
        self.get("/version.txt")
        self.stop()
        (record,) = self.records(event="check")
        self.assertEqual(record["time"], record["last_seen_time"])
        self.assertEqual(
            {**record, "time": "", "last_seen_time": "", "first_seen_time": ""},
            {
                "time": "",
                "event": "check",
                "product": "",
                "mac": MAC,
                "firmware_version": "v1.0.0",
                "last_seen_time": "",
                "update_time": None,
                "target_version": "v1.0.1",
                "address": "127.0.0.1",
                "first_seen_time": "",
            },
        )
        self.assertRegex(record["first_seen_time"], r":00:00\.000Z$")

    def test_a_reply_ends_as_version_txt_ends(self):
        for content, body in (
            (b"v1.0.1", b"v1.0.1"),
            (b"v1.0.1\n", b"v1.0.1\n"),
            (b"v1.0.1\r\n", b"v1.0.1\n"),
            (b"v1.0.1\r", b"v1.0.1"),
            (b"v1.0.1 \t", b"v1.0.1"),
            (b"v1.0.1 \t\r\n", b"v1.0.1\n"),
            (b"\xef\xbb\xbfv1.0.1", b"v1.0.1"),
            (b"\xef\xbb\xbfv1.0.1\r\n", b"v1.0.1\n"),
        ):
            with self.subTest(content=content):
                self.set_target(content)
                self.assertEqual(self.get("/version.txt").body, body)

    def test_an_equal_version_is_spelled_as_the_device_spells_it(self):
        for content, reported, body in (
            ("v1.0.1", "1.0.1", b"1.0.1"),
            ("v1.0.1", "v1.0.1", b"v1.0.1"),
            ("1.0.1\n", "v1.0.1", b"v1.0.1\n"),
            ("v1.0.1", "V1.0.1", b"v1.0.1"),
            ("v1.0.1", "v1.0.10", b"v1.0.1"),
            ("v1.0.1", "vv1.0.1", b"v1.0.1"),
        ):
            with self.subTest(content=content, reported=reported):
                self.set_target(content)
                answer = self.get("/version.txt", {**DEVICE, "_br_fwv_": reported})
                self.assertEqual(answer.body, body)

    def test_a_newer_device_is_told_to_go_back(self):
        answer = self.get("/version.txt", {**DEVICE, "_br_fwv_": "v9.9.9"})
        self.assertEqual(answer.body, b"v1.0.1")

    def test_a_reply_is_plain_text_that_nobody_may_store(self):
        fields = self.get("/version.txt").fields
        self.assertEqual(fields["cache-control"], "no-store")
        self.assertTrue(fields["content-type"].startswith("text/plain"))
        self.assertEqual(fields["content-length"], "6")

    def test_head_is_the_same_head_without_a_body_and_a_check(self):
        whole, head = self.get("/version.txt"), self.get("/version.txt", method="HEAD")
        self.assertEqual(without_date(head.fields), without_date(whole.fields))
        self.stop()
        self.assertEqual(len(self.records(event="check")), 2)

    def test_a_change_of_version_txt_needs_no_restart(self):
        self.get("/version.txt")
        self.set_target("v1.0.0")
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")

    def test_two_edits_in_one_instant_are_both_seen(self):
        path = self.data_dir / "version" / "version.txt"
        for number in range(200):
            version = f"v1.0.{number % 2}"
            path.write_text(version)
            self.assertEqual(self.get("/version.txt").body, version.encode())

    def test_a_version_that_is_being_written_in_steps_is_not_told(self):
        self.put_image("v1", b"an older image, whose name begins like the next one")
        path = self.data_dir / "version" / "version.txt"
        path.write_text("v1.0.1")
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        with path.open("w") as file:
            for step in ("v", "1", ".0", ".", "0"):
                self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
                file.write(step)
                file.flush()
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")

    def test_a_bad_version_txt_leaves_the_last_good_target(self):
        self.put_image("v1.0.2", b"")
        self.get("/version.txt")
        path = self.data_dir / "version" / "version.txt"
        for content in BAD_VERSION_FILES:
            with self.subTest(content=content):
                path.write_bytes(content)
                self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
                self.assertEqual(self.get("/firmware.bin").body, self.IMAGE)
        for version in ("v7.7.7", "v1.0.2"):
            with self.subTest(version=version):
                self.set_target(version)
                self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
                self.assertEqual(self.get("/firmware.bin").body, self.IMAGE)

    def test_a_bad_version_txt_is_said_once(self):
        self.get("/version.txt")
        with self.assertLogs("ota_server.releases.fleet_target", "ERROR") as logs:
            self.set_target("no version at all")
            for _ in range(3):
                self.get("/version.txt")
        self.assertEqual(len(logs.output), 1)
        self.assertIn("v1.0.1 stays the target", logs.output[0])

    def test_a_missing_version_txt_leaves_the_last_good_target(self):
        self.get("/version.txt")
        (self.data_dir / "version" / "version.txt").unlink()
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")

    def test_without_a_good_target_the_answer_is_503_with_retry_after(self):
        path = self.data_dir / "version" / "version.txt"
        for content in BAD_VERSION_FILES:
            path.write_bytes(content)
            for asked in ("/version.txt", "/firmware.bin"):
                with self.subTest(content=content, asked=asked):
                    answer = self.get(asked)
                    self.assertEqual(answer.status, 503)
                    self.assertGreater(int(answer.fields["retry-after"]), 0)
                    self.assertEqual(answer.fields["cache-control"], "no-store")

    def test_a_missing_version_txt_without_a_good_target_is_503(self):
        (self.data_dir / "version" / "version.txt").unlink()
        self.assertEqual(self.get("/version.txt").status, 503)

    def test_a_version_txt_that_is_no_regular_file_is_503(self):
        path = self.data_dir / "version" / "version.txt"
        outside = self.data_dir / "outside.txt"
        outside.write_text("v1.0.1")
        for what, make in (
            ("a folder", path.mkdir),
            ("a pipe", lambda: os.mkfifo(path)),
            ("a link out of the folder", lambda: path.symlink_to(outside)),
            ("a link to itself", lambda: path.symlink_to(path)),
            ("a device", lambda: path.symlink_to("/dev/zero")),
        ):
            with self.subTest(what=what):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)
                make()
                self.assertEqual(self.get("/version.txt").status, 503)

    def test_a_check_without_a_target_is_on_record_all_the_same(self):
        self.set_target("")
        self.get("/version.txt")
        self.stop()
        (record,) = self.records(event="check")
        self.assertEqual((record["status"], record["target_version"]), (503, None))


BAD_VERSION_FILES = (
    b"",
    b"\n",
    b"v1.0.1\nv1.0.2\n",
    b"two words",
    b"-v1",
    b"../../etc/passwd",
    b"v1\x000",
    b"\xff\xfev\x001\x00",
    "v1.0.1é".encode(),
    b"v" * 65,
    b"v1.0.1" + b" " * 260,
    b"\x00" * 16,
)


class FirmwareTest(ServerCase):
    def test_a_device_gets_the_image_of_the_target(self):
        answer = self.get("/firmware.bin")
        self.assertEqual((answer.status, answer.body), (200, self.IMAGE))

    def test_a_range_is_answered_with_that_part_of_the_image(self):
        answer = self.get("/firmware.bin", {**DEVICE, "Range": "bytes=10-19"})
        self.assertEqual((answer.status, answer.body), (206, self.IMAGE[10:20]))

    def test_the_reported_version_does_not_choose_the_image(self):
        for reported in ("v1.0.0", "v1.0.1", "v3", "../x"):
            with self.subTest(reported=reported):
                answer = self.get("/firmware.bin", {**DEVICE, "_br_fwv_": reported})
                self.assertEqual(answer.body, self.IMAGE)

    def test_the_head_describes_the_image_exactly(self):
        sha256 = hashlib.sha256(self.IMAGE)
        answer = self.get("/firmware.bin")
        self.assertEqual(
            without_date(answer.fields),
            {
                "content-type": "application/octet-stream",
                "etag": f'"{sha256.hexdigest()[:32]}"',
                "accept-ranges": "bytes",
                "repr-digest": f"sha-256=:{base64.b64encode(sha256.digest()).decode()}:",
                "x-md5": hashlib.md5(self.IMAGE).hexdigest(),
                "x-firmware-version": "v1.0.1",
                "cache-control": "private, no-cache, no-transform",
                "digest": f"SHA-256={base64.b64encode(sha256.digest()).decode()}",
                "content-length": str(len(self.IMAGE)),
            },
        )

    def test_a_part_is_described_by_the_digests_of_the_whole(self):
        whole = self.get("/firmware.bin").fields
        part = self.get("/firmware.bin", {**DEVICE, "Range": "bytes=-5"}).fields
        size = len(self.IMAGE)
        self.assertEqual(part.pop("content-range"), f"bytes {size - 5}-{size - 1}/{size}")
        self.assertEqual(part.pop("content-length"), "5")
        for name in ("content-length", "digest"):
            whole.pop(name)
        self.assertEqual(without_date(part), without_date(whole))

    def test_head_is_the_same_head_without_a_body(self):
        whole, head = self.get("/firmware.bin"), self.get("/firmware.bin", method="HEAD")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(without_date(head.fields), without_date(whole.fields))

    def test_a_range_in_a_head_means_nothing(self):
        answer = self.get("/firmware.bin", {**DEVICE, "Range": "bytes=0-9"}, "HEAD")
        self.assertEqual(answer.fields["content-length"], str(len(self.IMAGE)))
        self.assertEqual(answer.status, 200)

    def test_a_missing_image_is_404_and_named_in_the_log(self):
        self.set_target("v7.7.7")
        with self.assertLogs("ota_server.device_port.downloads", "ERROR") as logs:
            answer = self.get("/firmware.bin")
        self.assertEqual((answer.status, answer.body), (404, b"Firmware version not found."))
        self.assertIn("firmware_v7.7.7.bin", logs.output[0])

    def test_an_empty_image_is_404(self):
        self.put_image("v7.7.7", b"")
        self.set_target("v7.7.7")
        answer = self.get("/firmware.bin")
        self.assertEqual((answer.status, answer.body), (404, b"Firmware version not found."))

    def test_an_image_that_is_no_regular_file_within_its_folder_is_404(self):
        self.set_target("v7.7.7")
        path = self.data_dir / "firmware" / "firmware_v7.7.7.bin"
        outside = self.data_dir / "secret.bin"
        outside.write_bytes(b"secret")
        for what, make in (
            ("a folder", path.mkdir),
            ("a pipe", lambda: os.mkfifo(path)),
            ("a link out of the folder", lambda: path.symlink_to(outside)),
            ("a relative link out of the folder", lambda: path.symlink_to("../secret.bin")),
            ("a link to itself", lambda: path.symlink_to(path)),
            ("a device", lambda: path.symlink_to("/dev/zero")),
        ):
            with self.subTest(what=what):
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)
                make()
                self.assertEqual(self.get("/firmware.bin").status, 404)
                self.assertEqual(self.get("/firmware/firmware_v7.7.7.bin").status, 404)

    def test_an_image_is_found_by_the_name_that_means_the_target(self):
        for target, body in (("1.0.1", self.IMAGE), ("v1.0.0", self.OLD_IMAGE)):
            with self.subTest(target=target):
                self.set_target(target)
                self.assertEqual(self.get("/firmware.bin").body, body)

    def test_the_exact_name_goes_before_the_one_equal_in_meaning(self):
        self.put_image("1.0.1", b"exact")
        self.set_target("1.0.1")
        self.assertEqual(self.get("/firmware.bin").body, b"exact")

    def test_a_new_image_under_the_same_name_needs_no_restart(self):
        self.get("/firmware.bin")
        self.put_image("v1.0.1", b"built again")
        answer = self.get("/firmware.bin")
        self.assertEqual(answer.body, b"built again")
        self.assertEqual(answer.fields["x-md5"], hashlib.md5(b"built again").hexdigest())


class IdentityTest(ServerCase):
    def test_a_401_names_the_header_that_is_wrong(self):
        start = "GET /version.txt HTTP/1.1\r\nHost: a\r\n"
        good_mac, good_version = f"_br_mac_: {MAC}\r\n", "_br_fwv_: v1\r\n"
        for lines, field in (
            ("", "_br_mac_"),
            (good_version, "_br_mac_"),
            ("_br_mac_:\r\n" + good_version, "_br_mac_"),
            ("_br_mac_:  \t\r\n" + good_version, "_br_mac_"),
            (good_mac * 2 + good_version, "_br_mac_"),
            (good_mac + "_BR_MAC_: 00:11:22:33:44:56\r\n" + good_version, "_br_mac_"),
            ("_br_mac_: 00:00:00:00:00:00\r\n" + good_version, "_br_mac_"),
            ("_br_mac_: ff-ff-ff-ff-ff-ff\r\n" + good_version, "_br_mac_"),
            ("_br_mac_: 00:11:22:33:44\r\n" + good_version, "_br_mac_"),
            ("_br_mac_: 00:11-22:33:44:55\r\n" + good_version, "_br_mac_"),
            ("_br_mac_: 00:11:22:33:44:5g\r\n" + good_version, "_br_mac_"),
            ("_br_mac_: ../../etc/passwd\r\n" + good_version, "_br_mac_"),
            ("_br_mac_: \xb2\xb3:11:22:33:44:55\r\n" + good_version, "_br_mac_"),
            (good_mac, "_br_fwv_"),
            (good_mac + "_br_fwv_: \r\n", "_br_fwv_"),
            (good_mac + good_version * 2, "_br_fwv_"),
            (good_mac + f"_br_fwv_: {'v' * 65}\r\n", "_br_fwv_"),
            (good_mac + "_br_fwv_: v1\xe9\r\n", "_br_fwv_"),
            (good_mac + "_br_fwv_: v1\tx\r\n", "_br_fwv_"),
        ):
            with self.subTest(lines=lines), Client(self.port) as client:
                client.send((start + lines + "\r\n").encode("latin-1"))
                answer = client.answer()
                self.assertEqual((answer.status, answer.body), (401, b"Unauthorized"))
                # ESP-IDF takes the first that is offered, wget the last of two fields.
                offered = f'Basic realm="ota", Device realm="ota", header="{field}"'
                self.assertEqual(answer.fields["www-authenticate"], offered)
                self.assertEqual(answer.head.lower().count(b"www-authenticate"), 1)
                self.assertEqual(answer.fields["cache-control"], "no-store")
        self.stop()
        self.assertEqual(self.records(), [])

    def test_a_401_is_a_line_in_the_servers_log_limited_in_rate(self):
        with self.assertLogs("ota_server.device_port.refusals", "WARNING") as logs:
            for _ in range(5):
                self.get("/version.txt", {"_br_mac_": MAC, "_br_fwv_": ""})
        (line,) = logs.output
        self.assertIn("127.0.0.1", line)
        self.assertIn("_br_fwv_ empty", line)
        self.assertIn(MAC, line)

    def test_a_request_that_breaks_http_is_listed_with_its_device_and_logged(self):
        c_buffer = b"GET /version.txt HTTP/1.0\r\n_br_mac_: %b\r\n_br_fwv_: v1.0.0\0\0\r\n\r\n"
        with self.assertLogs("ota_server.device_port.refusals", "WARNING") as logs:
            for _ in range(3):
                self.raw(c_buffer % MAC.encode())
            self.raw(b"HEAD / HTTP/1.1\r\n\r\n")
            self.raw(b"GET /" + b"a" * 9000)
        self.stop()
        found = [
            (entry["address"], entry["mac"], entry["reason"], entry["count"])
            for entry in read_rejected(self.data_dir / "log")
        ]
        field = r"400: malformed field line '_br_fwv_: v1.0.0\x00\x00'"
        self.assertEqual(
            found,
            [
                ("127.0.0.1", MAC, field, 3),
                ("127.0.0.1", None, "400: no Host field", 1),
                ("127.0.0.1", None, "414: the request line is too long", 1),
            ],
        )
        self.assertEqual(len(logs.output), 2)  # one for each status
        self.assertIn(f"400 for 127.0.0.1 ({MAC}): malformed field line", logs.output[0])

    def test_a_device_that_asks_for_what_is_not_there_is_listed(self):
        self.get("/version.text?x")
        self.get("/version.txt", {**DEVICE, "Content-Length": "2"})
        self.get("/version.txt", {"Content-Length": "2"})
        self.stop()
        self.assertEqual(
            [(entry["mac"], entry["reason"]) for entry in read_rejected(self.data_dir / "log")],
            [
                (MAC, "404: there is no '/version.text'"),
                (MAC, "413: the request has a body"),
                (None, "413: the request has a body"),
            ],
        )

    def test_a_mac_that_is_not_one_is_not_taken_from_a_broken_request(self):
        for mac in (b"00:00:00:00:00:00", b"00:11:22:33:44", b"0011223344556677", b"x", b""):
            self.raw(b"GET / HTTP/1.1\r\n_br_mac_: " + mac + b"\r\nbad\r\n\r\n")
        self.stop()
        self.assertEqual({e["mac"] for e in read_rejected(self.data_dir / "log")}, {None})

    def test_a_401_keeps_the_connection(self):
        with Client(self.port) as client:
            client.request("/version.txt", {})
            self.assertEqual(client.answer().status, 401)
            client.request("/version.txt")
            self.assertEqual(client.answer().status, 200)

    def test_each_way_to_write_a_mac_is_one_device(self):
        for mac in ("0011AABBCCDD", "00:11:aa:BB:cc:dd", "00-11-AA-BB-CC-DD", "0011.aabb.ccdd"):
            self.assertEqual(self.get("/version.txt", {**DEVICE, "_br_mac_": mac}).status, 200)
        self.stop()
        self.assertEqual({r["mac"] for r in self.records()}, {"00:11:aa:bb:cc:dd"})

    def test_header_names_are_taken_in_any_case(self):
        fields = {"_BR_MAC_": MAC, "_Br_Fwv_": "v1.0.0"}
        self.assertEqual(self.get("/version.txt", fields).status, 200)

    def test_a_version_of_64_printable_characters_is_taken_as_it_is(self):
        version = ('"\\ <b>{}%s,=' + "~" * 64)[:64]
        self.assertEqual(self.get("/version.txt", {**DEVICE, "_br_fwv_": version}).status, 200)
        self.stop()
        self.assertEqual(self.records()[0]["firmware_version"], version)


class OrderTest(ServerCase):
    """HTTP syntax, health, named images, identity, path, method, target, image, conditions."""

    def test_what_is_wrong_first_is_answered(self):
        long_range = {**DEVICE, "Range": "bytes=999999-"}
        for method, path, fields, status in (
            ("GET", "/healthz", {"Content-Length": "x"}, 400),
            ("GET", "/healthz", {"Content-Length": "1"}, 413),
            ("GET", "/healthz", {"Transfer-Encoding": "chunked"}, 501),
            ("POST", "/healthz", {}, 405),
            ("BREW", "/healthz", {}, 501),
            ("GET", "/healthz", {}, 200),
            ("POST", "/firmware/firmware_v1.0.1.bin", {}, 405),
            ("GET", "/firmware/firmware_v1.0.1.bin", {}, 200),
            ("GET", "/firmware/firmware_v7.bin", {}, 404),
            ("GET", "/nothing", {}, 401),
            ("POST", "/nothing", {}, 401),
            ("BREW", "/version.txt", {}, 401),
            ("POST", "/nothing", DEVICE, 404),
            ("BREW", "/nothing", DEVICE, 404),
            ("POST", "/version.txt", DEVICE, 405),
            ("BREW", "/firmware.bin", DEVICE, 501),
            ("GET", "/firmware.bin", long_range, 416),
            ("GET", "/firmware.bin", {**long_range, "If-Match": '"x"'}, 412),
        ):
            with self.subTest(method=method, path=path, fields=fields):
                self.assertEqual(self.get(path, fields, method).status, status)

    def test_the_method_goes_before_the_target_and_the_target_before_the_conditions(self):
        self.set_target("")
        self.assertEqual(self.get("/version.txt", DEVICE, "PUT").status, 405)
        self.assertEqual(self.get("/firmware.bin", {**DEVICE, "If-Match": '"x"'}).status, 503)

    def test_the_image_goes_before_the_conditions(self):
        self.set_target("v7")
        self.assertEqual(self.get("/firmware.bin", {**DEVICE, "If-Match": '"x"'}).status, 404)

    def test_healthz_needs_no_headers_and_leaves_no_record(self):
        answer = self.get("/healthz", {})
        self.assertEqual((answer.status, answer.body), (200, b"ok"))
        self.get("/healthz", DEVICE)
        self.assertEqual(self.get("/healthz", {}, "HEAD").body, b"")
        self.stop()
        self.assertEqual(self.records(), [])

    def test_healthz_answers_while_there_is_no_target(self):
        self.set_target("")
        self.assertEqual(self.get("/healthz", {}).status, 200)

    def test_another_path_is_404(self):
        for path in (
            "/",
            "//version.txt",
            "/%76ersion.txt",
            "/version.txt/",
            "/VERSION.TXT",
            "/./version.txt",
            "/x/../version.txt",
            "/version.txt%00",
            "/version.txt;a",
            "/firmware/firmware_v1.0.1.bin%00",
            "/firmware/firmware_../../version/version.txt.bin",
            "/firmware/firmware_.bin",
            "/firmware/",
            "/log/devices.jsonl",
            "/[brackets]",
            "http://ota/nothing",
        ):
            with self.subTest(path=path):
                answer = self.get(path)
                self.assertEqual((answer.status, answer.body), (404, b"Not Found"))
                self.assertEqual(answer.fields["cache-control"], "no-store")

    def test_a_browser_is_told_what_this_is(self):
        browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
        answer = self.get("/", browser)
        self.assertEqual(answer.status, 200)
        self.assertIn(b"ota_server", answer.body)
        self.assertEqual((answer.body.count(b". "), answer.body[-2:]), (0, b".\n"))
        self.assertEqual(self.get("/", browser, "HEAD").body, b"")
        for method, path, fields, status in (
            ("GET", "/", {}, 401),
            ("GET", "/", {"Accept": "*/*"}, 401),
            ("GET", "/version.txt", browser, 401),
            ("GET", "/", {**browser, "_br_mac_": MAC}, 401),
            ("GET", "/", {**browser, **DEVICE}, 404),
            ("POST", "/", browser, 401),
        ):
            with self.subTest(method=method, path=path, fields=fields):
                self.assertEqual(self.get(path, fields, method).status, status)
        self.stop()
        self.assertEqual(self.records(), [])

    def test_the_query_is_ignored(self):
        for query in ("?", "?a=/../b&c", "??x", "?%"):
            with self.subTest(query=query):
                self.assertEqual(self.get("/version.txt" + query).body, b"v1.0.1")

    def test_absolute_form_is_accepted(self):
        for path in (
            "http://elsewhere.example/version.txt",
            "HTTP://[::1]:7777/version.txt?x",
            "https://elsewhere.example:443/version.txt",
        ):
            with self.subTest(path=path):
                self.assertEqual(self.get(path).body, b"v1.0.1")

    def test_a_known_method_that_does_not_apply_is_405_with_allow(self):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"):
            with self.subTest(method=method):
                answer = self.get("/version.txt", DEVICE, method)
                self.assertEqual((answer.status, answer.fields["allow"]), (405, "GET, HEAD"))

    def test_methods_are_told_apart_by_case(self):
        self.assertEqual(self.get("/version.txt", DEVICE, "get").status, 501)

    def test_no_reply_names_the_server_software(self):
        for path, fields in (("/version.txt", DEVICE), ("/firmware.bin", DEVICE), ("/x", {})):
            with self.subTest(path=path):
                self.assertNotIn("server", self.get(path, fields).fields)

    def test_each_reply_has_the_date(self):
        for path in ("/version.txt", "/firmware.bin", "/healthz", "/nothing"):
            with self.subTest(path=path):
                date = email.utils.parsedate_to_datetime(self.get(path).fields["date"])
                self.assertLess(abs(date.timestamp() - time.time()), 5)


class SyntaxTest(ServerCase):
    """What breaks HTTP is refused, and the connection closes once the reply has arrived."""

    def test_a_request_that_breaks_http_is_refused_and_the_connection_closes(self):
        device = "".join(f"{name}: {value}\r\n" for name, value in DEVICE.items())
        start = "GET /version.txt HTTP/1.1\r\nHost: a\r\n" + device
        for request, status in (
            ("GET /version.txt\r\n\r\n", 400),
            ("GET  /version.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /version.txt HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
            (" GET /version.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET version.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /ver\x00sion.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /version.txt#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /version.txt HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET /version.txt HTTP/0.9\r\nHost: a\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("GET /version.txt http/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /version.txt HTTP/1.1\r\n" + device + "\r\n", 400),
            (start + "Host: a\r\n\r\n", 400),
            (start.replace("Host: a", "Host: a/b") + "\r\n", 400),
            (start.replace("Host: a", "Host: a, b") + "\r\n", 400),
            (start + "X\r\n\r\n", 400),
            (start + "X : y\r\n\r\n", 400),
            (start + "X: a\r\n b\r\n\r\n", 400),
            (start + "X: a\rY: b\r\n\r\n", 400),
            (start + "X: a\nY: b\r\n\r\n", 400),
            (start + "X: a\x00\r\n\r\n", 400),
            (start.replace("\r\n", "\n") + "\n", 400),
            (start + "Content-Length: +1\r\n\r\n", 400),
            (start + "Content-Length: 1_0\r\n\r\n", 400),
            (start + "Content-Length: 0, 0\r\n\r\n", 400),
            (start + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
            (start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (start + "Transfer-Encoding: identity\r\n\r\n", 501),
            (start + "Content-Length: 5\r\n\r\nGET /", 413),
            (f"GET /{'a' * 8000} HTTP/1.1\r\nHost: a\r\n\r\n", 414),
            (start + "X: y\r\n" * 64 + "\r\n", 431),
            (start + f"X: {'y' * 16400}\r\n\r\n", 431),
            (start + "X: " + "y" * 17000, 431),
            ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ):
            with self.subTest(request=request[:60], status=status), Client(self.port) as client:
                client.send(request.encode("latin-1") + b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = client.answer()
                self.assertEqual(answer.status, status, answer)
                self.assertEqual(answer.fields["connection"], "close")
                self.assertEqual(answer.fields["cache-control"], "no-store")
                self.assertEqual(client.read_all(), b"")
        self.stop()
        self.assertEqual(self.records(), [])

    def test_limits_are_not_stricter_than_they_say(self):
        target = "/version.txt?" + "q" * (8000 - len("GET /version.txt? HTTP/1.1"))
        self.assertEqual(self.get(target).status, 200)
        fields = {f"X-{number}": "y" for number in range(61)}
        self.assertEqual(self.get("/version.txt", {**DEVICE, **fields}).status, 200)
        spare = 16 * 1024 - len(request_head("/version.txt", {**DEVICE, "X": ""}))
        self.assertEqual(self.get("/version.txt", {**DEVICE, "X": "y" * spare}).status, 200)

    def test_an_empty_line_before_a_request_is_ignored(self):
        reply = self.raw(b"\r\n" + request_head("/version.txt"))
        self.assertTrue(reply.startswith(b"HTTP/1.1 200 "), reply)

    def test_a_head_may_come_in_any_pieces(self):
        head = request_head("/version.txt")
        with Client(self.port) as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(head)):
                client.send(head[at : at + 1])
            self.assertEqual(client.answer().body, b"v1.0.1")

    def test_the_reply_to_a_large_body_arrives(self):
        with Client(self.port) as client:
            client.request("/version.txt", {**DEVICE, "Content-Length": "400000"}, "POST")
            client.send(b"x" * 400000)
            self.assertEqual(client.answer().status, 405)
            self.assertEqual(client.read_all(), b"")


class ReuseTest(ServerCase):
    def test_a_connection_is_kept_for_further_requests(self):
        with Client(self.port) as client:
            for path, body in (
                ("/version.txt", b"v1.0.1"),
                ("/firmware.bin", self.IMAGE),
                ("/nothing", b"Not Found"),
                ("/healthz", b"ok"),
            ):
                client.request(path)
                answer = client.answer()
                self.assertEqual(answer.body, body)
                self.assertNotIn("connection", answer.fields)

    def test_pipelined_requests_are_answered_in_order(self):
        paths = ("/version.txt", "/firmware.bin", "/nothing", "/healthz") * 20
        with Client(self.port) as client:
            client.send(b"".join(request_head(path) for path in paths))
            bodies = [client.answer().body for _ in paths]
        self.assertEqual(bodies, [b"v1.0.1", self.IMAGE, b"Not Found", b"ok"] * 20)

    def test_pipelined_heads_and_gets_keep_apart(self):
        with Client(self.port) as client:
            client.send(request_head("/firmware.bin", DEVICE, "HEAD") + request_head("/healthz"))
            self.assertEqual(client.answer("HEAD").fields["content-length"], str(len(self.IMAGE)))
            self.assertEqual(client.answer().body, b"ok")

    def test_connection_close_closes_after_the_reply(self):
        for value in ("close", "Close", "keep-alive, close", "close , x"):
            with self.subTest(value=value), Client(self.port) as client:
                client.request("/firmware.bin", {**DEVICE, "Connection": value})
                answer = client.answer()
                self.assertEqual((answer.body, answer.fields["connection"]), (self.IMAGE, "close"))
                self.assertEqual(client.read_all(), b"")

    def test_an_http_1_0_connection_closes(self):
        head = request_head("/firmware.bin").replace(b"HTTP/1.1", b"HTTP/1.0")
        with Client(self.port) as client:
            client.send(head)
            answer = client.answer()
            self.assertEqual((answer.body, answer.fields["connection"]), (self.IMAGE, "close"))
            self.assertEqual(client.read_all(), b"")

    def test_an_http_1_0_request_needs_no_host(self):
        reply = self.raw(b"GET /healthz HTTP/1.0\r\n\r\n")
        self.assertTrue(reply.startswith(b"HTTP/1.1 200 "), reply)

    def test_an_http_1_0_connection_is_kept_when_it_asks_for_that(self):
        head = request_head("/version.txt", {**DEVICE, "Connection": "Keep-Alive"})
        with Client(self.port) as client:
            for _ in range(2):
                client.send(head.replace(b"HTTP/1.1", b"HTTP/1.0"))
                answer = client.answer()
                self.assertEqual(answer.fields["connection"], "keep-alive")

    def test_a_body_is_never_taken_for_the_next_request(self):
        inner = request_head("/version.txt", {**DEVICE, "_br_mac_": "00:00:00:00:00:99"})
        for method in ("GET", "HEAD", "POST", "PUT", "BREW"):
            with self.subTest(method=method), Client(self.port) as client:
                fields = {**DEVICE, "Content-Length": str(len(inner))}
                client.send(request_head("/version.txt", fields, method) + inner)
                reply = client.read_all()
                self.assertEqual(reply.count(b"HTTP/1.1 "), 1)
        self.stop()
        self.assertEqual(self.records(mac="00:00:00:00:00:99"), [])

    def test_a_client_that_closes_its_side_gets_all_replies(self):
        reply = self.raw(request_head("/version.txt") * 3 + request_head("/firmware.bin"))
        self.assertEqual(reply.count(b"\r\n\r\nv1.0.1"), 3)
        self.assertTrue(reply.endswith(self.IMAGE))


class NamedImageTest(ServerCase):
    PATH = "/firmware/firmware_v1.0.0.bin"

    def setUp(self):
        super().setUp()
        self.modified = 1_700_000_000
        image = self.data_dir / "firmware" / "firmware_v1.0.0.bin"
        os.utime(image, (self.modified, self.modified))
        self.date = email.utils.formatdate(self.modified, usegmt=True)
        self.sha256 = hashlib.sha256(self.OLD_IMAGE).hexdigest()

    def test_an_image_comes_by_its_name_without_headers_and_without_a_record(self):
        answer = self.get(self.PATH, {})
        self.assertEqual((answer.status, answer.body), (200, self.OLD_IMAGE))
        self.stop()
        self.assertEqual(self.records(), [])

    def test_its_head_says_when_it_was_modified(self):
        fields = self.get(self.PATH, {}).fields
        self.assertEqual(fields["last-modified"], self.date)
        self.assertEqual(fields["cache-control"], "no-cache, no-transform")
        self.assertEqual(fields["etag"], f'"{self.sha256[:32]}"')

    def test_a_time_in_the_future_is_not_told(self):
        path = self.data_dir / "firmware" / "firmware_v1.0.0.bin"
        for seconds in (time.time() + 10**6, 2**40):
            with self.subTest(seconds=seconds):
                os.utime(path, (seconds, seconds))
                fields = self.get(self.PATH, {}).fields
                date, modified = (
                    email.utils.parsedate_to_datetime(fields[name])
                    for name in ("date", "last-modified")
                )
                self.assertLessEqual(modified, date)
                part = {"Range": "bytes=0-9", "If-Range": fields["last-modified"]}
                self.assertEqual(self.get(self.PATH, part).status, 200)

    def test_a_time_that_reproducible_builds_share_is_not_told_and_no_validator(self):
        path = self.data_dir / "firmware" / "firmware_v1.0.0.bin"
        for seconds in (-1, 0, 1, 315_532_800, 318_211_200):  # also 1980, as in ZIP archives
            with self.subTest(seconds=seconds):
                os.utime(path, (seconds, seconds))
                fields = self.get(self.PATH, {}).fields
                self.assertNotIn("last-modified", fields)
                for seconds_told in (seconds, seconds + 10**9):
                    date = email.utils.formatdate(seconds_told, usegmt=True)
                    part = {"Range": "bytes=1000-", "If-Range": date}
                    self.assertEqual(self.get(self.PATH, part).status, 200)
                    self.assertEqual(self.get(self.PATH, {"If-Modified-Since": date}).status, 200)
                part = {"Range": "bytes=1000-", "If-Range": fields["etag"]}
                self.assertEqual(self.get(self.PATH, part).status, 206)

    def test_a_condition_on_such_a_time_refuses_nothing(self):
        path = self.data_dir / "firmware" / "firmware_v1.0.0.bin"
        for seconds in (1, 315_532_800):
            with self.subTest(seconds=seconds):
                os.utime(path, (seconds, seconds))
                for date in (seconds - 1, seconds, seconds + 10**9):
                    told = email.utils.formatdate(date, usegmt=True)
                    answer = self.get(self.PATH, {"If-Unmodified-Since": told})
                    self.assertEqual((answer.status, answer.body), (200, self.OLD_IMAGE))

    def test_with_the_right_hash_it_may_be_kept_for_ever(self):
        for query in (
            f"?sha256={self.sha256}",
            f"?sha256={self.sha256.upper()}",
            f"?a=b&sha256={self.sha256}&c",
        ):
            with self.subTest(query=query):
                answer = self.get(self.PATH + query, {})
                self.assertEqual(answer.body, self.OLD_IMAGE)
                self.assertEqual(
                    answer.fields["cache-control"],
                    "public, max-age=31536000, immutable, no-transform",
                )
                self.assertEqual(answer.fields["last-modified"], self.date)

    def test_with_another_hash_it_may_not(self):
        other = hashlib.sha256(self.IMAGE).hexdigest()
        for query in (f"?sha256={other}", "?sha256=", f"?xsha256={self.sha256}", "?sha256=zz"):
            with self.subTest(query=query):
                fields = self.get(self.PATH + query, {}).fields
                self.assertEqual(fields["cache-control"], "no-cache, no-transform")

    def test_dates_are_honoured_by_name(self):
        later = email.utils.formatdate(self.modified + 1, usegmt=True)
        earlier = email.utils.formatdate(self.modified - 1, usegmt=True)
        part = {"Range": "bytes=0-9"}
        for fields, status in (
            ({"If-Modified-Since": self.date}, 304),
            ({"If-Modified-Since": later}, 304),
            ({"If-Modified-Since": earlier}, 200),
            ({"If-Modified-Since": "yesterday"}, 200),
            ({"If-Modified-Since": self.date, "If-None-Match": '"x"'}, 200),
            ({"If-Unmodified-Since": self.date}, 200),
            ({"If-Unmodified-Since": earlier}, 412),
            ({**part, "If-Range": self.date}, 206),
            ({**part, "If-Range": later}, 200),
            ({**part, "If-Range": f'"{self.sha256[:32]}"'}, 206),
            ({**part, "If-Range": f'W/"{self.sha256[:32]}"'}, 200),
            (part, 206),
            ({"Range": "bytes=50000-"}, 416),
        ):
            with self.subTest(fields=fields):
                self.assertEqual(self.get(self.PATH, fields).status, status)

    def test_head_is_the_same_head(self):
        whole, head = self.get(self.PATH, {}), self.get(self.PATH, {}, "HEAD")
        self.assertEqual(without_date(head.fields), without_date(whole.fields))

    def test_a_name_equal_in_meaning_finds_it(self):
        answer = self.get("/firmware/firmware_1.0.0.bin", {})
        self.assertEqual(answer.fields["x-firmware-version"], "v1.0.0")


class ConditionTest(ServerCase):
    def setUp(self):
        super().setUp()
        self.etag = f'"{hashlib.sha256(self.IMAGE).hexdigest()[:32]}"'

    def test_conditions_by_entity_tag_are_honoured(self):
        for fields, status in (
            ({"If-None-Match": self.etag}, 304),
            ({"If-None-Match": "W/" + self.etag}, 304),
            ({"If-None-Match": f'"a,b", {self.etag}'}, 304),
            ({"If-None-Match": "*"}, 304),
            ({"If-None-Match": '"x"'}, 200),
            ({"If-Match": self.etag}, 200),
            ({"If-Match": "*"}, 200),
            ({"If-Match": "W/" + self.etag}, 412),
            ({"If-Match": '"x"'}, 412),
            ({"If-Match": '"x"', "If-None-Match": self.etag}, 412),
            ({"If-None-Match": self.etag, "Range": "bytes=0-1"}, 304),
        ):
            for method in ("GET", "HEAD"):
                with self.subTest(fields=fields, method=method):
                    answer = self.get("/firmware.bin", {**DEVICE, **fields}, method)
                    self.assertEqual(answer.status, status)

    def test_dates_are_ignored_for_the_target_so_that_going_back_works(self):
        future = email.utils.formatdate(time.time() + 1e6, usegmt=True)
        past = email.utils.formatdate(0, usegmt=True)
        for fields, status in (
            ({"If-Modified-Since": future}, 200),
            ({"If-Unmodified-Since": past}, 200),
            ({"If-Range": future, "Range": "bytes=0-1"}, 200),
        ):
            with self.subTest(fields=fields):
                answer = self.get("/firmware.bin", {**DEVICE, **fields})
                self.assertEqual(answer.status, status)
                self.assertNotIn("last-modified", answer.fields)

    def test_a_304_has_no_body_and_no_length(self):
        with Client(self.port) as client:
            client.request("/firmware.bin", {**DEVICE, "If-None-Match": self.etag})
            client.request("/healthz")
            answer = client.answer()
            self.assertEqual((answer.status, answer.fields["etag"]), (304, self.etag))
            self.assertNotIn("content-length", answer.fields)
            self.assertEqual(client.answer().body, b"ok")

    def test_a_304_is_on_record_and_sends_nothing(self):
        self.get("/firmware.bin", {**DEVICE, "If-None-Match": self.etag})
        self.stop()
        (record,) = self.records()
        self.assertEqual(
            (record["event"], record["status"], record["bytes_sent"]), ("download", 304, 0)
        )

    def test_a_416_says_how_long_the_image_is(self):
        for ranges in ("bytes=76800-", "bytes=-0", "bytes=99999999999999999999-"):
            with self.subTest(ranges=ranges):
                answer = self.get("/firmware.bin", {**DEVICE, "Range": ranges})
                self.assertEqual(answer.status, 416)
                self.assertEqual(answer.fields["content-range"], "bytes */76800")

    def test_a_malformed_range_is_ignored(self):
        for ranges in (
            "bytes=",
            "bytes=a-b",
            "bytes=9-1",
            "bytes=+1-2",
            "bytes=1_0-20",
            "bytes =0-1",
            "items=0-1",
            "bytes=0-1,x",
            "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 100, 2)),
        ):
            with self.subTest(ranges=ranges):
                answer = self.get("/firmware.bin", {**DEVICE, "Range": ranges})
                self.assertEqual((answer.status, answer.body), (200, self.IMAGE))

    def test_ranges_choose_bytes_as_rfc_9110_has_them(self):
        size = len(self.IMAGE)
        for ranges, start, stop in (
            ("bytes=0-0", 0, 1),
            ("BYTES=0-9", 0, 10),
            ("bytes=10-", 10, size),
            ("bytes=-10", size - 10, size),
            (f"bytes={size - 1}-", size - 1, size),
            ("bytes=0-99999999999999999999999", 0, size),
            (f"bytes=-{size * 10}", 0, size),
            ("bytes= 5-6", 5, 7),
            ("bytes=0-5,3-9", 0, 10),
            (f"bytes=5-9,{size}-", 5, 10),
        ):
            with self.subTest(ranges=ranges):
                answer = self.get("/firmware.bin", {**DEVICE, "Range": ranges})
                self.assertEqual((answer.status, answer.body), (206, self.IMAGE[start:stop]))
                content_range = f"bytes {start}-{stop - 1}/{size}"
                self.assertEqual(answer.fields["content-range"], content_range)

    def test_several_ranges_come_as_parts_in_the_order_asked_for(self):
        answer = self.get("/firmware.bin", {**DEVICE, "Range": "bytes=500-599,0-9,-7"})
        self.assertEqual(answer.status, 206)
        self.assertNotIn("content-range", answer.fields)
        self.assertEqual(int(answer.fields["content-length"]), len(answer.body))
        content_type = f"Content-Type: {answer.fields['content-type']}\r\n\r\n".encode()
        message = email.message_from_bytes(content_type + answer.body, policy=email.policy.HTTP)
        self.assertEqual(message.get_content_type(), "multipart/byteranges")
        self.assertEqual(message.defects, [])
        parts = list(message.iter_parts())
        self.assertEqual(
            [(part["Content-Range"], part.get_content()) for part in parts],
            [
                ("bytes 500-599/76800", self.IMAGE[500:600]),
                ("bytes 0-9/76800", self.IMAGE[:10]),
                ("bytes 76793-76799/76800", self.IMAGE[-7:]),
            ],
        )


class HeadSizeTest(ServerCase):
    """ESP-IDF keeps 512 bytes for a head, and a head that does not fit fails the update."""

    VERSION = "v1.20.345-beta.6"  # 16 characters
    SIZE = 999_999_999

    def test_the_head_of_an_image_reply_fits_512_bytes(self):
        image = self.put_image(self.VERSION, self.IMAGE)
        self.set_target(self.VERSION)
        sha256 = hashlib.sha256(self.IMAGE).hexdigest()
        by_hash = f"/firmware/firmware_{self.VERSION}.bin?sha256={sha256}"
        os.utime(image, (1_700_000_000, 1_700_000_000))
        # What nine digits would add to each number of the small image, instead of 1 GB on disk.
        digits = len(str(self.SIZE)) - len(str(len(self.IMAGE)))
        for path in ("/firmware.bin", f"/firmware/firmware_{self.VERSION}.bin", by_hash):
            for ranges, numbers in (
                (None, 1),
                ("bytes=10000-76799", 4),
                ("bytes=0-9,70000-76799", 1),
            ):
                for minor, connection in ((1, "keep-alive"), (1, "close"), (0, "keep-alive")):
                    with self.subTest(path=path, ranges=ranges, minor=minor, how=connection):
                        fields = {**DEVICE, "Connection": connection}
                        if ranges:
                            fields["Range"] = ranges
                        head = request_head(path, fields)
                        if minor == 0:
                            head = head.replace(b"HTTP/1.1", b"HTTP/1.0")
                        with Client(self.port) as client:
                            client.send(head)
                            answer = client.answer()
                        self.assertEqual(answer.status, 206 if ranges else 200)
                        self.assertLessEqual(len(answer.head) + numbers * digits, 512, answer.head)


class RecordTest(ServerCase):
    """Times and versions over the wire, as the newest line of a device has them."""

    def test_a_new_version_sets_the_update_time_and_names_the_one_before(self):
        self.get("/version.txt")
        self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.0.1"})
        self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.0.1"})
        self.stop()
        first, second, third = self.records(event="check")
        self.assertIsNone(first["update_time"])
        self.assertNotIn("previous_version", first)
        self.assertEqual(second["update_time"], second["time"])
        self.assertEqual(second["previous_version"], "v1.0.0")
        self.assertEqual(third["update_time"], second["time"])
        self.assertNotIn("previous_version", third)

    def test_another_spelling_of_the_version_is_no_update(self):
        self.get("/version.txt")
        self.get("/version.txt", {**DEVICE, "_br_fwv_": "1.0.0"})
        self.stop()
        record = self.records()[-1]
        self.assertEqual((record["firmware_version"], record["update_time"]), ("1.0.0", None))

    def test_a_download_does_not_move_the_last_seen_time_of_a_device_that_checks(self):
        self.get("/version.txt")
        self.get("/firmware.bin")
        self.stop()
        check, begin, download = self.records()
        self.assertEqual([begin["event"], download["event"]], ["begin", "download"])
        for record in (begin, download):
            self.assertEqual(record["last_seen_time"], check["time"])
            self.assertEqual(record["target_version"], "v1.0.1")

    def test_a_client_that_asks_for_images_only_is_seen_when_it_asks(self):
        self.get("/firmware.bin")
        self.get("/firmware.bin", method="HEAD")
        self.stop()
        begins = self.records(event="begin")
        self.assertEqual([r["last_seen_time"] for r in begins], [r["time"] for r in begins])
        self.assertTrue(all(r["image_only"] for r in begins))

    def test_a_new_version_in_a_request_for_the_image_sets_the_update_time(self):
        self.get("/version.txt")
        self.get("/firmware.bin", {**DEVICE, "_br_fwv_": "v1.0.1"})
        self.stop()
        (begin,) = self.records(event="begin")
        self.assertEqual(begin["update_time"], begin["time"])
        self.assertEqual(begin["previous_version"], "v1.0.0")

    def test_a_new_version_in_a_request_for_nothing_that_there_is_is_on_record(self):
        self.get("/version.txt")
        self.get("/nothing", {**DEVICE, "_br_fwv_": "v1.0.1"})
        self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.0.2"}, "POST")
        self.stop()
        check, one, two = self.records()
        self.assertEqual([one["event"], two["event"]], ["report", "report"])
        self.assertEqual(one["firmware_version"], "v1.0.1")
        self.assertEqual(two["previous_version"], "v1.0.1")
        self.assertEqual(two["last_seen_time"], check["time"])

    def test_a_device_that_nobody_knows_is_not_on_record_for_a_404(self):
        self.get("/nothing")
        self.stop()
        self.assertEqual(self.records(), [])

    def test_each_line_repeats_all_that_is_known(self):
        self.get("/version.txt")
        self.get("/firmware.bin")
        self.get("/version.txt")
        self.stop()
        begin, last = self.records(event="begin")[0], self.records()[-1]
        for name in ("download_version", "download_sha256", "download_size"):
            self.assertEqual(last[name], begin[name])
        self.assertEqual(last["download_sha256"], hashlib.sha256(self.IMAGE).hexdigest())

    def test_a_404_for_a_missing_image_is_on_record(self):
        self.set_target("v7.7.7")
        self.get("/firmware.bin")
        self.stop()
        (record,) = self.records(event="download")
        self.assertEqual((record["status"], record["complete"]), (404, False))

    def test_a_record_is_in_the_journal_before_its_reply(self):
        with Client(self.port) as client:
            for number in range(50):
                mac = f"0000000000{number + 1:02x}"
                client.request("/version.txt", {**DEVICE, "_br_mac_": mac})
                client.sock.recv(1, socket.MSG_PEEK)
                self.assertEqual(len(self.records(event="check")), number + 1)
                client.answer()


class SampleTest(ServerCase):
    """The shipped demonstration is offered to clients on this machine only."""

    def setUp(self):
        super().setUp()
        for version in ("v1.0.0", "v1.0.1"):
            content = (SAMPLE_DIR / f"firmware_{version}.bin").read_bytes()
            self.put_image(version, content)

    def ask(self, path: str, peer: Peer, fields: Mapping[str, str] = DEVICE) -> Reply:
        """Ask the service itself, as a client at `peer`."""
        assert self.server is not None
        found = read_request(request_head(path, fields))
        assert found is not None
        return self.server.service.respond(found[0], peer)

    def test_a_client_on_this_machine_gets_the_sample(self):
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        self.assertEqual(self.get("/firmware.bin").status, 200)

    def test_another_machine_is_told_its_own_version_and_gets_no_image(self):
        self.get("/firmware/firmware_v1.0.0.bin")
        self.get("/firmware.bin")
        self.assertEqual(self.ask("/version.txt", ELSEWHERE).body, b"v1.0.0")
        for path in ("/firmware.bin", "/firmware/firmware_v1.0.1.bin"):
            self.assertEqual(self.ask(path, ELSEWHERE, OTHER_DEVICE).status, 404)

    def test_another_machine_gets_no_piece_of_a_sample_that_was_begun_here(self):
        self.get("/firmware.bin")
        part = self.ask("/firmware.bin", ELSEWHERE, {**DEVICE, "Range": "bytes=100-"})
        self.assertEqual(part.status, 404)

    def test_another_image_of_the_same_size_is_for_all(self):
        self.put_image("v1.0.1", b"x" * 4096)
        self.get("/firmware.bin")
        self.assertEqual(self.ask("/version.txt", ELSEWHERE).body, b"v1.0.1")
        self.assertEqual(self.ask("/firmware.bin", ELSEWHERE, OTHER_DEVICE).status, 200)

    def test_a_peer_at_another_address_is_elsewhere(self):
        with Client(self.port) as client:
            for address, is_local in (
                ("127.0.0.1", True),
                ("::ffff:127.0.0.1", True),
                ("::1", True),
                ("192.0.2.9", False),
                ("::ffff:192.0.2.9", False),
                ("2001:db8::1", False),
            ):
                with self.subTest(address=address):
                    self.assertEqual(peer_of(client.sock, address).is_local, is_local)


OTHER_DEVICE = {**DEVICE, "_br_mac_": "00:11:22:33:44:66"}


class HashingTest(ServerCase):
    """An image is hashed off the path of requests; who needs it waits for that."""

    def test_a_fresh_image_is_waited_for(self):
        self.start(service={"settle_seconds": 0.3})
        self.put_image("v1.0.1", b"fresh")
        self.assertEqual(self.get("/firmware.bin").body, b"fresh")

    def test_the_version_is_told_while_the_image_is_being_hashed(self):
        self.start(service={"settle_seconds": 3600})
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")


def without_date(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a reply but for Date, which may differ between two replies."""
    return {name: value for name, value in fields.items() if name != "date"}
