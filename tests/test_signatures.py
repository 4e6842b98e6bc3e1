"""Detached signatures: which one a device gets."""

import unittest

from ota_server.device import Download
from ota_server.rollout import RESTART_AFTER_MS, pinned_download
from tests.support import DEVICE, Client, ServerCase

NOW_MS = 1_800_000_000_000


class ServedTest(ServerCase):
    """Signatures are served as they lie there; v1.0.1 is the target."""

    def setUp(self) -> None:
        super().setUp()
        self.sign("v1.0.0")
        self.sign("v1.0.1")

    def sign(self, version: str) -> None:
        path = self.data_dir / "firmware" / f"firmware_{version}.bin.sig"
        path.write_bytes(f"signature of {version}".encode())

    def begin(self) -> None:
        """Have the device begin its download."""
        self.get("/firmware.bin", method="HEAD")

    def change_target(self) -> None:
        self.put_image("v2.0.0", b"another image")
        self.sign("v2.0.0")
        self.set_target("v2.0.0")

    def withdraw(self, version: str) -> None:
        stopped = f'{{"{version}": {{"state": "withdrawn", "instead_of": "v0"}}}}'
        (self.data_dir / "version" / "stopped.json").write_text(stopped)

    def test_a_device_gets_that_of_its_target(self):
        answer = self.get("/firmware.bin.sig")
        self.assertEqual((answer.status, answer.body), (200, b"signature of v1.0.1"))
        self.assertEqual(answer.fields["cache-control"], "private, no-cache, no-transform")
        self.assertEqual(answer.fields["content-type"], "application/octet-stream")

    def test_a_head_is_the_same_without_the_body(self):
        answer = self.get("/firmware.bin.sig", method="HEAD")
        self.assertEqual((answer.status, answer.fields["content-length"]), (200, "19"))

    def test_anybody_gets_one_by_name(self):
        answer = self.get("/firmware/firmware_v1.0.0.bin.sig", {})
        self.assertEqual((answer.status, answer.body), (200, b"signature of v1.0.0"))
        self.assertEqual(answer.fields["cache-control"], "no-cache, no-transform")
        answer = self.get("/firmware/firmware_1.0.0.bin.sig", {})
        self.assertEqual(answer.body, b"signature of v1.0.0")

    def test_without_device_headers_it_is_401(self):
        self.assertEqual(self.get("/firmware.bin.sig", {}).status, 401)

    def test_another_method_does_not_apply(self):
        for path in ("/firmware.bin.sig", "/firmware/firmware_v1.0.0.bin.sig"):
            with self.subTest(path):
                self.assertEqual(self.get(path, method="DELETE").status, 405)

    def test_where_there_is_none_it_is_404(self):
        for path in self.data_dir.glob("firmware/*.sig"):
            path.unlink()
        self.assertEqual(self.get("/firmware.bin.sig").status, 404)
        self.assertEqual(self.get("/firmware/firmware_v1.0.0.bin.sig", {}).status, 404)
        self.assertEqual(self.get("/firmware/firmware_v9.bin.sig", {}).status, 404)

    def test_what_can_be_no_signature_is_404(self):
        path = self.data_dir / "firmware" / "firmware_v1.0.1.bin.sig"
        for content in (b"", b"x" * 65_537):
            with self.subTest(size=len(content)):
                path.write_bytes(content)
                self.assertEqual(self.get("/firmware.bin.sig").status, 404)
        path.unlink()
        path.symlink_to("/etc/hostname")
        self.assertEqual(self.get("/firmware.bin.sig").status, 404)

    def test_it_is_that_of_the_bytes_that_the_device_began(self):
        self.begin()
        self.change_target()
        self.assertEqual(self.get("/firmware.bin.sig").body, b"signature of v1.0.1")
        other = {**DEVICE, "_br_mac_": "00:11:22:33:44:66"}
        self.assertEqual(self.get("/firmware.bin.sig", other).body, b"signature of v2.0.0")

    def test_it_is_that_of_bytes_under_another_name_too(self):
        self.begin()
        (self.data_dir / "firmware" / "firmware_v1.0.1.bin").rename(
            self.data_dir / "firmware" / "firmware_v1.0.1-old.bin"
        )
        self.sign("v1.0.1-old")
        self.change_target()
        self.assertEqual(self.get("/firmware.bin.sig").body, b"signature of v1.0.1-old")

    def test_while_a_download_runs_it_is_that_of_its_bytes(self):
        self.put_image("v1.0.1", bytes(8 << 20))
        with Client(self.port, receive_buffer=4096) as client:
            client.request("/firmware.bin")
            client.read_until(b"\r\n\r\n")
            self.change_target()
            self.assertEqual(self.get("/firmware.bin.sig").body, b"signature of v1.0.1")

    def test_of_a_withdrawn_release_it_is_404(self):
        self.begin()
        self.withdraw("v1.0.1")
        with self.assertLogs("ota_server", "ERROR"):
            self.assertEqual(self.get("/firmware.bin.sig").status, 404)
        self.assertEqual(self.get("/firmware/firmware_v1.0.1.bin.sig", {}).status, 404)

    def test_a_device_that_may_have_no_image_is_to_come_again(self):
        (self.data_dir / "version" / "hold.json").write_text("{}")
        answer = self.get("/firmware.bin.sig")
        self.assertEqual((answer.status, answer.fields["retry-after"]), (503, "30"))

    def test_it_is_no_download_on_record(self):
        self.get("/version.txt")
        self.get("/firmware.bin.sig")
        self.stop()
        self.assertEqual([record["event"] for record in self.records()], ["check"])

    def test_a_new_version_that_comes_to_light_is_on_record(self):
        self.get("/version.txt")
        self.get("/firmware.bin.sig", {**DEVICE, "_br_fwv_": "v1.0.1"})
        self.stop()
        (record,) = self.records(event="report")
        self.assertEqual(record["previous_version"], "v1.0.0")


class PinnedTest(unittest.TestCase):
    KNOWN = Download("v1.1", "ab" * 32, 1000, NOW_MS)
    LATER_MS = NOW_MS + RESTART_AFTER_MS

    def pinned(self, now_ms: int, running: str, told: str | None, under_way: bool = False) -> bool:
        return pinned_download(self.KNOWN, under_way, running, told, now_ms) is not None

    def test_where_nothing_was_begun_nothing_is_pinned(self):
        self.assertIsNone(pinned_download(None, False, "v1.0", "v1.1", NOW_MS))

    def test_a_download_is_pinned_for_ten_minutes_whatever_was_told_since(self):
        self.assertTrue(self.pinned(self.LATER_MS - 1, "v1.0", "v1.2"))
        self.assertFalse(self.pinned(self.LATER_MS, "v1.0", "v1.2"))

    def test_a_download_that_runs_is_pinned_however_long(self):
        self.assertTrue(self.pinned(self.LATER_MS, "v1.0", "v1.2", under_way=True))

    def test_a_long_download_is_pinned_until_the_device_is_told_another_version(self):
        self.assertTrue(self.pinned(self.LATER_MS, "v1.0", "1.1"))
        self.assertFalse(self.pinned(self.LATER_MS, "v1.0", None))

    def test_once_the_device_runs_it_it_is_not_pinned(self):
        self.assertFalse(self.pinned(self.LATER_MS, "1.1", "v1.1"))
