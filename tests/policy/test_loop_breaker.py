"""The loop breaker: who fetches one image again and again is told to wait."""

import json
import time
import unittest

from ota_server.journal.replay import newest
from ota_server.model.device import Device, Download, Report, checked, ran_for_a_day
from ota_server.model.manifest import Manifest
from ota_server.policy import edits
from ota_server.policy.explain import in_words
from ota_server.policy.gather import explain_device
from ota_server.policy.loop_breaker import HOUR_MS, fetched, wait_seconds, why_wait
from ota_server.policy.policy import make_policy
from ota_server.policy.reason import Cause, Reason
from ota_server.policy.rollout_plan import RolloutPlan, format_plan, plan_name
from ota_server.policy.situation import ServerState
from ota_server.system.clock import now_ms
from ota_server.system.files import replace
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


class ClockAheadTest(ServerCase):
    def test_downloads_by_a_clock_that_was_ahead_make_nobody_wait_for_a_year(self):
        self.retries.unlink()
        for _ in range(3):
            self.assertEqual(self.get("/firmware.bin", DEVICE).status, 200)
        self.stop()
        journal, year = self.data_dir / "log" / "devices.jsonl", time.gmtime().tm_year
        journal.write_text(journal.read_text().replace(f'"{year}-', f'"{year + 1}-'))
        self.assertEqual(self.get("/version.txt", DEVICE).body, b"v1.0.0")
        self.assertEqual(self.get("/firmware.bin", DEVICE).status, 503)
        device = newest(self.data_dir / "log", MAC)
        assert device is not None and device.download is not None
        self.assertLessEqual(device.download.attempt_ms, now_ms())
        edits.retry(self.data_dir, MAC)
        self.assertEqual(self.get("/version.txt", DEVICE).body, b"v1.0.1")
        self.assertEqual(self.get("/firmware.bin", DEVICE).status, 200)


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

    def test_an_attempt_by_a_clock_that_was_ahead_counts_as_now(self):
        year_ms = 365 * DAY_MS
        cause = why_wait(MAC, attempted(3, year_ms), "v2", PLAIN, DAY_MS)
        assert cause is not None
        self.assertEqual(cause.until_ms, DAY_MS + HOUR_MS)
        lifted = make_policy(retries={MAC: DAY_MS - 5})
        self.assertIsNone(why_wait(MAC, attempted(3, year_ms), "v2", lifted, DAY_MS))

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


class AskAgainTest(unittest.TestCase):
    def test_a_device_is_told_to_ask_when_its_wait_is_over(self):
        for attempts, after_ms, seconds in (
            (3, 0, 3600),
            (3, HOUR_MS - 1, 1),
            (4, HOUR_MS, 3600),
            (9, 1, 86_400),
            (3, -100 * HOUR_MS, 3600),  # a clock that was ahead: it counts as now
            (10, 5, 3600),
        ):
            with self.subTest(attempts, after_ms=after_ms):
                cause = why_wait(MAC, attempted(attempts), "v2", PLAIN, after_ms)
                assert cause is not None
                self.assertEqual(wait_seconds(cause, after_ms), seconds)

    def test_what_waits_for_something_else_is_not_told_that(self):
        self.assertIsNone(wait_seconds(Cause(Reason.ON_HOLD), 0))


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
        try:
            return len(self.records(event="download", complete=True))
        except json.JSONDecodeError:
            return 0  # a line is just being written

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

    def test_a_retry_begins_a_new_count_also_across_a_restart(self):
        self.start()
        self.fetch(3)
        edits.retry(self.data_dir, MAC)
        self.fetch(1)
        self.stop()
        self.start()
        self.fetch(1)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        with self.assertLogs("ota_server.device_port.offers", "WARNING") as log:
            self.fetch(1)
            self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
        self.assertIn("3 times", log.output[0])
        answer = self.get("/firmware.bin")
        self.assertTrue(3500 <= int(answer.fields["retry-after"]) <= 3600)

    def test_each_wait_is_in_the_log_also_after_a_retry(self):
        self.start()
        with self.assertLogs("ota_server.device_port.offers", "WARNING") as log:
            for _ in range(2):
                self.fetch(3)
                self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
                edits.retry(self.data_dir, MAC)
        self.assertEqual(len(log.output), 2)

    def test_the_same_bytes_under_another_version_count_as_the_image_of_both(self):
        self.start()
        self.fetch(3)
        self.put_image("v1.0.2", self.IMAGE)
        self.set_target("v1.0.2")
        self.fetch(1)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
        device = newest(self.data_dir / "log", MAC)
        found = explain_device(self.data_dir, Report(MAC, "v1.0.0"), device, now_ms())
        self.assertIn("it has fetched the image of v1.0.2 4 times", in_words(found.decision.cause))

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

    def test_the_answers_say_when_the_wait_is_over(self):
        self.start()
        self.fetch(3)
        for fields in (DEVICE, {**DEVICE, "Range": "bytes=0-"}):
            with self.subTest(fields=fields):
                answer = self.get("/firmware.bin", fields)
                self.assertEqual(answer.status, 503)
                self.assertTrue(3500 <= int(answer.fields["retry-after"]) <= 3600)

    def test_so_do_those_for_a_signature_once_the_download_is_long_over(self):
        (self.data_dir / "firmware" / "firmware_v1.0.1.bin.sig").write_bytes(b"a signature")
        service = self.start().service
        self.fetch(3)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
        service.signatures._clock_ms = lambda: now_ms() + HOUR_MS // 2
        answer = self.get("/firmware.bin.sig")
        self.assertEqual(answer.status, 503)
        self.assertTrue(1700 <= int(answer.fields["retry-after"]) <= 1800)

    def test_the_log_says_so_once_for_each_wait(self):
        self.start()
        self.fetch(3)
        with self.assertLogs("ota_server.device_port.offers", "WARNING") as log:
            for _ in range(3):
                self.get("/version.txt")
                self.get("/firmware.bin", {**DEVICE, "Range": "bytes=0-"})
        (said,) = log.output
        self.assertIn(f"{MAC} is offered nothing: it has fetched the image of v1.0.1 3 times", said)
        self.assertIn(f"`retry {MAC}`", said)
        self.assertIn("`serve --development`", said)

    def test_the_log_does_not_advise_what_is_refused_while_a_rollout_is_on(self):
        plan = RolloutPlan("id", "v2", "beta", (100.0,), "2026-11-24T00:00:00.000Z", "v1.0.1")
        replace((self.data_dir / "version" / plan_name("beta")), format_plan(plan))
        self.start()
        self.fetch(3)
        with self.assertLogs("ota_server.device_port.offers", "WARNING") as log:
            self.get("/version.txt")
        self.assertNotIn("--development", log.output[0])

    def test_with_development_it_may_fetch_as_often_as_it_likes(self):
        service = self.start(service={"is_development": True}).service
        self.fetch(5)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")
        self.get("/firmware.bin", {**DEVICE, "Range": "bytes=0-"})
        device = newest(self.data_dir / "log", MAC)
        report = Report(MAC, "v1.0.0")
        state = service.standing(service.default)[1]
        for server, told in ((state, "v1.0.1"), (ServerState(True), "v1.0.0")):
            with self.subTest(told):
                found = explain_device(self.data_dir, report, device, now_ms(), server)
                self.assertEqual(found.decision.version, told)
