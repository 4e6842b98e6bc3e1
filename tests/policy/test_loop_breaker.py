"""The loop breaker: who fetches one image again and again is told to wait."""

import unittest

from ota_server.journal.replay import newest
from ota_server.model.device import Device, Download, Report, checked, ran_for_a_day
from ota_server.model.manifest import Manifest
from ota_server.policy import edits
from ota_server.policy.explain import in_words
from ota_server.policy.gather import explain_device
from ota_server.policy.loop_breaker import HOUR_MS, fetched, why_wait
from ota_server.policy.policy import make_policy
from ota_server.system.clock import now_ms
from tests.support import DEVICE, MAC, ServerCase, until

SHA256 = "ab" * 32
DOWNLOAD = Download("v2", SHA256, 1000, 50)
PLAIN = make_policy()
DAY_MS = 24 * HOUR_MS


def attempted(attempts: int, at_ms: int = 0) -> Download:
    return DOWNLOAD._replace(attempts=attempts, attempt_ms=at_ms)


def waits(attempts: int, now_ms: int) -> str:
    cause = why_wait(MAC, attempted(attempts), "v2", PLAIN, now_ms)
    return "" if cause is None else in_words(cause)


class CountTest(unittest.TestCase):
    def test_a_whole_reply_is_one_attempt(self):
        self.assertEqual(fetched(DOWNLOAD, 1000, True, 70), attempted(1, 70))

    def test_a_cut_reply_is_none(self):
        after = fetched(DOWNLOAD, 999, False, 70)
        self.assertEqual((after.attempts, after.fetched_bytes), (0, 999))

    def test_ranges_that_make_the_image_together_are_one_attempt(self):
        after = DOWNLOAD
        for _ in range(4):
            after = fetched(after, 250, True, 70)
        self.assertEqual((after.attempts, after.fetched_bytes), (1, 0))

    def test_what_was_cut_and_gone_on_with_is_one_attempt(self):
        after = fetched(fetched(DOWNLOAD, 600, False, 60), 400, True, 70)
        self.assertEqual(after.attempts, 1)

    def test_what_is_cut_again_and_again_counts_from_five_times_the_size_on(self):
        after = DOWNLOAD
        for _ in range(5):
            after = fetched(after, 1000, False, 70)
        self.assertEqual(after.attempts, 0)
        self.assertEqual(fetched(after, 1, False, 70).attempts, 1)


class WaitTest(unittest.TestCase):
    def test_the_first_three_are_at_once(self):
        for attempts in range(3):
            with self.subTest(attempts):
                self.assertEqual(waits(attempts, 0), "")

    def test_after_that_the_time_doubles_up_to_a_day(self):
        for attempts, hours in ((3, 1), (4, 2), (5, 4), (6, 8), (7, 16), (8, 24), (9, 24)):
            with self.subTest(attempts):
                self.assertNotEqual(waits(attempts, hours * HOUR_MS - 1), "")
                self.assertEqual(waits(attempts, hours * HOUR_MS), "")

    def test_after_ten_it_is_stuck_however_long_it_waits(self):
        self.assertIn("stuck", waits(10, 1000 * DAY_MS))

    def test_a_retry_after_the_last_attempt_begins_again(self):
        for retry_ms, is_free in ((99, False), (100, True)):
            with self.subTest(retry_ms):
                policy = make_policy(retries={MAC: retry_ms})
                cause = why_wait(MAC, attempted(10, 100), "v2", policy, 200)
                self.assertEqual(cause is None, is_free)

    def test_another_release_or_another_image_is_fetched_at_once(self):
        self.assertIsNone(why_wait(MAC, attempted(10), "v3", PLAIN, 0))
        other = Manifest("v2", "cd" * 32, "ef" * 16, 1000, "2026-11-24T00:00:00Z")
        policy = make_policy(manifests={"2": other})
        self.assertIsNone(why_wait(MAC, attempted(10), "v2", policy, 0))

    def test_an_image_without_a_manifest_is_another_one_by_its_bytes(self):
        for sha256, is_free in (("cd" * 32, True), (SHA256, False), (None, False)):
            with self.subTest(sha256=sha256):
                cause = why_wait(MAC, attempted(10), "v2", PLAIN, 0, sha256)
                self.assertEqual(cause is None, is_free)


class SettledTest(unittest.TestCase):
    def device(self, version: str, update_ms: int | None) -> Device:
        return Device(0, version, 0, update_ms, "v2", "192.0.2.1", False, attempted(2, 100))

    def test_a_day_on_the_release_makes_it(self):
        self.assertFalse(ran_for_a_day(self.device("v2", 200), 200 + DAY_MS - 1))
        self.assertTrue(ran_for_a_day(self.device("v2", 200), 200 + DAY_MS))
        self.assertFalse(ran_for_a_day(self.device("v1", 200), 200 + DAY_MS))

    def test_who_falls_back_after_a_day_begins_again(self):
        for hours, attempts in ((23, 2), (25, 0)):
            with self.subTest(hours):
                now_ms = 200 + hours * HOUR_MS
                after = checked(self.device("v2", 200), Report(MAC, "v1"), "v2", "", now_ms)
                assert after.download is not None
                self.assertEqual(after.download.attempts, attempts)


class ServerTest(ServerCase):
    _fetched = 0

    def setUp(self) -> None:
        super().setUp()
        self.retries.unlink()

    def fetch(self, times: int) -> None:
        for _ in range(times):
            self.assertEqual(self.get("/firmware.bin").status, 200)
            self._fetched += 1
            # Its end is on record once the last byte is acknowledged.
            self.assertTrue(until(lambda: self.count_whole() == self._fetched))

    def count_whole(self) -> int:
        return len(self.records(event="download", complete=True))

    def test_a_device_that_fetches_a_fourth_time_is_told_its_own_version(self):
        self.start()
        self.fetch(2)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        self.fetch(1)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")

    def test_and_gets_no_image_and_no_begin_record(self):
        self.start()
        self.fetch(3)
        for fields in (DEVICE, {**DEVICE, "Range": "bytes=0-"}):
            answer = self.get("/firmware.bin", fields)
            self.assertEqual(answer.status, 503)
            self.assertIn("retry-after", answer.fields)
        self.stop()
        self.assertEqual(len(self.records(event="begin")), 3)

    def test_it_survives_a_restart(self):
        self.start()
        self.fetch(3)
        self.stop()
        self.start()
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
        self.stop()
        self.start()
        self.assertEqual(self.get("/firmware.bin").status, 503)

    def test_another_device_is_offered_the_release_all_the_same(self):
        self.start()
        self.fetch(3)
        other = {**DEVICE, "_br_mac_": "00:11:22:33:44:66"}
        self.assertEqual(self.get("/version.txt", other).body, b"v1.0.1")

    def test_a_retry_lets_it_in_again(self):
        self.start()
        self.fetch(3)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
        edits.retry(self.data_dir, MAC)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")

    def test_an_image_that_was_copied_over_the_old_one_is_offered_at_once(self):
        self.start()
        self.fetch(3)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
        report = Report(MAC, "v1.0.0")
        for content, told in ((None, "v1.0.0"), (b"a fixed image", "v1.0.1")):
            if content is not None:
                self.put_image("v1.0.1", content)
            with self.subTest(told):
                self.assertEqual(self.get("/version.txt").body.decode(), told)
                device = newest(self.data_dir / "log", MAC)
                found = explain_device(self.data_dir, report, device, now_ms())
                self.assertEqual(found.decision.version, told)
        self.assertEqual(self.get("/firmware.bin").body, b"a fixed image")

    def test_a_target_that_is_another_release_is_offered_at_once(self):
        self.start()
        self.fetch(3)
        self.put_image("v1.0.2", b"another image")
        self.set_target("v1.0.2")
        self.assertEqual(self.get("/version.txt").body, b"v1.0.2")
