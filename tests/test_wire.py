"""The device port as a device meets it: one request, one reply, one record."""

from tests.support import DEVICE, MAC, ServerCase


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
            {**record, "time": "", "last_seen_time": ""},
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
            },
        )


class FirmwareTest(ServerCase):
    def test_a_device_gets_the_image_of_the_target(self):
        answer = self.get("/firmware.bin")
        self.assertEqual((answer.status, answer.body), (200, self.IMAGE))

    def test_a_range_is_answered_with_that_part_of_the_image(self):
        answer = self.get("/firmware.bin", {**DEVICE, "Range": "bytes=10-19"})
        self.assertEqual((answer.status, answer.body), (206, self.IMAGE[10:20]))
