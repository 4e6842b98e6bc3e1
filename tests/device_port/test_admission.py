"""Admission: windows and download slots together, at times that the tests say."""

import unittest
from contextlib import ExitStack
from datetime import UTC, datetime

from ota_server.device_port.admission import Admission
from ota_server.device_port.slots import SLOWEST_BYTES_A_SECOND, DownloadSlots
from ota_server.device_port.window import Hours, Standing, parse_window
from ota_server.policy.explain import in_words
from tests.support import Client, ServerCase

A, B = "00:11:22:33:44:55", "00:11:22:33:44:66"
HOURS = "01:00-05:00"
CLOSED = f"outside the maintenance window {HOURS} (UTC)"


class AdmissionTest(unittest.TestCase):
    """A window from 01:00 until 05:00, and a clock that stands still between two lines."""

    def setUp(self) -> None:
        self.seconds = 0.0

    def make(self, slots: int | None = None, overdue_seconds: float | None = None) -> None:
        self.admission = Admission(
            None if slots is None else DownloadSlots(slots),
            Hours([parse_window(HOURS)], UTC),
            overdue_seconds,
            lambda: self.seconds,
        )

    def at(self, time: str) -> int:
        moment = datetime.fromisoformat(f"2026-06-01T{time}").replace(tzinfo=UTC)
        self.seconds = moment.timestamp()
        return round(moment.timestamp() * 1000)

    def offer(self, mac: str, time: str) -> str:
        cause = self.admission.offer(mac, self.at(time))
        return "" if cause is None else in_words(cause)

    def begin(self, mac: str, time: str, is_new: bool = True) -> str:
        refusal = self.admission.begin(mac, self.at(time), is_transfer=True, is_new=is_new)
        return "" if refusal is None else in_words(refusal.cause)

    def test_a_device_is_offered_a_release_in_the_window_alone(self):
        self.make()
        for time, expected in (("00:59", CLOSED), ("01:00", ""), ("05:00", CLOSED)):
            with self.subTest(time):
                self.assertEqual(self.offer(A, time), expected)

    def test_who_was_told_in_the_last_minute_of_the_window_may_still_begin(self):
        self.make()
        self.assertEqual(self.offer(A, "04:59:59"), "")
        self.assertEqual(self.begin(A, "05:00:30"), "")
        self.assertEqual(self.begin(B, "05:01:00"), CLOSED)

    def test_what_began_in_the_window_goes_on_after_it(self):
        self.make()
        self.assertEqual(self.begin(A, "07:00", is_new=False), "")

    def test_a_device_with_a_slot_keeps_it_after_the_window(self):
        self.make(slots=1)
        self.assertEqual(self.begin(A, "04:59"), "")
        self.assertEqual(self.offer(A, "06:00"), "")
        self.assertEqual(self.begin(A, "06:00"), "")
        self.assertEqual(self.offer(B, "06:00"), CLOSED)

    def test_outside_the_window_no_slot_is_taken(self):
        self.make(slots=1)
        self.offer(A, "00:30")
        self.assertEqual(self.offer(B, "01:00"), "")

    def test_in_the_window_slots_are_given_as_ever(self):
        self.make(slots=1)
        self.assertEqual(self.offer(A, "01:00"), "")
        self.assertIn("all 1 download slots are taken", self.offer(B, "01:00"))

    def test_a_device_that_is_overdue_is_let_in_until_it_has_the_image(self):
        self.make(overdue_seconds=3 * 3600.0)
        self.assertEqual(self.offer(A, "06:00"), CLOSED)
        self.assertEqual(self.offer(A, "09:00"), "")
        self.assertEqual(self.begin(A, "09:02"), "")
        self.admission.end(A, is_last=False)
        self.assertEqual(self.offer(A, "09:30"), "")
        self.admission.end(A, is_last=True)
        self.assertEqual(self.offer(A, "10:00"), CLOSED)

    def test_who_came_in_the_window_has_not_waited(self):
        self.make(overdue_seconds=3 * 3600.0)
        self.offer(A, "00:30")
        self.offer(A, "01:00")
        self.assertEqual(self.offer(A, "05:30"), CLOSED)

    def test_it_counts_the_devices_that_have_waited_for_more_than_a_day(self):
        self.make()
        self.offer(A, "06:00")
        self.seconds += 86401
        self.assertEqual(self.admission.unmet, 1)

    def test_operators_are_told_whom_it_lets_in(self):
        self.make()
        self.offer(A, "06:00")
        moment = self.at("06:00")
        self.seconds += 86401
        expected = Standing(None, "01:00-05:00 (UTC)", False, 1)
        self.assertEqual(self.admission.standing(moment), expected)
        self.assertTrue(self.admission.standing(self.at("02:00")).is_open)

    def test_it_says_once_an_hour_how_many_devices_do_not_meet_the_window(self):
        self.make()
        self.offer(A, "06:00")
        self.seconds += 86401
        with self.assertLogs("ota_server.device_port.admission") as logged:
            self.admission.look_after()
            self.admission.look_after()
        self.assertEqual(len(logged.output), 1)
        self.assertIn("1 devices have waited for the window 01:00-05:00", logged.output[0])


class SlowReaderTest(ServerCase):
    def test_one_that_reads_slowly_does_not_keep_the_only_slot_from_others(self):
        self.put_image("v1.0.1", bytes(8 << 20))
        seconds = 0.0
        self.start(service={"admission": Admission(DownloadSlots(1), clock=lambda: seconds)})
        other = {"_br_mac_": B, "_br_fwv_": "v1.0.0"}
        with Client(self.port, receive_buffer=4096) as slow:
            slow.request("/firmware.bin")
            slow.read_until(b"\r\n\r\n")
            self.assertEqual(self.get("/version.txt", other).body, b"v1.0.0")
            seconds = 60.0 + (8 << 20) / SLOWEST_BYTES_A_SECOND
            self.assertEqual(self.get("/version.txt", other).body, b"v1.0.1")

    def test_those_at_one_address_leave_a_slot_to_others_after_a_minute(self):
        self.put_image("v1.0.1", bytes(8 << 20))  # half an hour at the slowest rate
        seconds = 0.0
        self.start(service={"admission": Admission(DownloadSlots(4), clock=lambda: seconds)})
        other = {"_br_mac_": B, "_br_fwv_": "v1.0.0"}
        with ExitStack() as stack:
            for number in range(4):
                slow = Client(self.port, receive_buffer=4096, source="127.0.0.9")
                stack.enter_context(slow)
                slow.request("/firmware.bin", {**other, "_br_mac_": f"02000000000{number}"})
                self.assertEqual(slow.read_until(b"\r\n\r\n")[:12], b"HTTP/1.1 200")
            self.assertEqual(self.get("/version.txt", other).body, b"v1.0.0")
            seconds = 60.0
            self.assertEqual(self.get("/version.txt", other).body, b"v1.0.1")
            self.assertEqual(len(self.get("/firmware.bin", other).body), 8 << 20)
            another = {**other, "_br_mac_": "020000000009"}
            with Client(self.port, source="127.0.0.9") as client:
                client.request("/firmware.bin", another)
                self.assertEqual(client.answer().status, 429)
