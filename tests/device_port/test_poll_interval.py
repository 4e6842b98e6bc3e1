"""When a device should ask again: spread over time, and within what clients take."""

import unittest

from ota_server.device_port.admission import Admission
from ota_server.device_port.poll_interval import poll_seconds
from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.wiring import open_service
from ota_server.httpd.reply import Peer
from ota_server.policy.edits import hold, unhold
from tests.support import DEVICE, ServerCase

KEYS = [f"02:00:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(2000)]


class PollIntervalTest(unittest.TestCase):
    def test_a_fleet_is_spread_over_half_of_the_interval(self):
        found = [poll_seconds(key, 1000.0) for key in KEYS]
        self.assertTrue(750 <= min(found) < 760 and 1240 < max(found) <= 1250)
        for quarter in range(4):
            share = sum(750 + 125 * quarter <= each < 875 + 125 * quarter for each in found)
            self.assertTrue(400 < share < 600, share)

    def test_a_device_always_has_the_same_interval(self):
        self.assertEqual(len({poll_seconds("/gw-1", 300.0) for _ in range(10)}), 1)

    def test_devices_that_wait_for_slots_make_it_longer_up_to_four_times(self):
        calm = poll_seconds("/gw-1", 1000.0)
        self.assertAlmostEqual(poll_seconds("/gw-1", 1000.0, 1.0), 2 * calm, delta=1)
        self.assertAlmostEqual(poll_seconds("/gw-1", 1000.0, 1e9), 4 * calm, delta=3)

    def test_it_is_never_shorter_or_longer_than_clients_take(self):
        self.assertEqual({poll_seconds(key, 1.0) for key in KEYS[:50]}, {30})
        self.assertEqual({poll_seconds(key, 1e9, 9.0) for key in KEYS[:50]}, {24 * 3600 - 1})


class RetryAfterTest(ServerCase):
    """Of replies that refuse what a device asks for until something changes."""

    PATHS = ("/firmware.bin", "/firmware.bin.sig", "/firmware.bin.md5", "/firmware.bin.sha256")

    def waits(self, path: str) -> list[int]:
        """Ask for a path in the name of many devices; return when each should ask again."""
        answers = [self.get(path, {**DEVICE, "_br_mac_": key}) for key in KEYS[:20]]
        self.assertEqual({answer.status for answer in answers}, {503})
        return [int(answer.fields["retry-after"]) for answer in answers]

    def test_while_nothing_may_be_had_devices_come_at_their_next_poll_each_at_another_time(self):
        self.start(service={"poll_interval_seconds": 1000.0})
        for name in ("hold.json", "version.txt"):
            if name == "hold.json":
                hold(self.data_dir, "night")
            else:
                unhold(self.data_dir)
                self.stop()
                self.set_target("")
                self.start(service={"poll_interval_seconds": 1000.0})
            for path in self.PATHS if name == "hold.json" else (*self.PATHS, "/version.txt"):
                with self.subTest(name, path=path):
                    found = self.waits(path)
                    self.assertEqual(found, [poll_seconds(key, 1000.0) for key in KEYS[:20]])

    def test_while_slots_are_awaited_they_come_later(self):
        admission = Admission(DownloadSlots(1))
        self.start(service={"poll_interval_seconds": 1000.0, "admission": admission})
        for key in KEYS[20:24]:
            admission.offer(key, 0)
        self.assertEqual(admission.load, 3.0)
        hold(self.data_dir, "night")
        found = self.waits("/firmware.bin")
        self.assertEqual(found, [poll_seconds(key, 1000.0, 3.0) for key in KEYS[:20]])

    def test_an_image_that_is_not_ready_is_worth_another_try_in_half_a_minute(self):
        service = open_service(self.data_dir, settle_seconds=3600.0)
        self.addCleanup(service.close)
        self.put_image("v1.0.1", b"copied in a moment ago")
        found = set()
        for key in KEYS:
            head = (
                f"GET /firmware.bin HTTP/1.1\r\nHost: h\r\n_br_mac_: {key}\r\n_br_fwv_: v1\r\n\r\n"
            )
            request, _ = service.read_request(head.encode())
            answer = service.respond(request, Peer("127.0.0.1", True), may_wait=False)
            self.assertEqual(answer.status, 503)
            found.add(answer.retry_seconds)
        self.assertEqual((min(found), max(found)), (23, 37))

    def test_nobody_in_particular_is_told_half_a_minute(self):
        self.start(service={"is_anonymous": True})
        hold(self.data_dir, "night")
        answer = self.get("/firmware.bin", {})
        self.assertEqual((answer.status, answer.fields["retry-after"]), (503, "30"))
