"""Which images a device is not given: for another chip, or too large for it."""

import unittest

from ota_server.model.device import Report
from ota_server.model.manifest import Manifest
from ota_server.model.updater import Updater
from ota_server.model.version import Target
from ota_server.policy.decision import Decision, decide
from ota_server.policy.device_state import Condition, condition_of
from ota_server.policy.explain import in_words
from ota_server.policy.policy import make_policy
from ota_server.policy.reason import Reason
from ota_server.policy.situation import ImageOnDisk, Situation
from tests.policy.test_device_state import MAC, NOW_MS, device

SHA, MD5 = "a" * 64, "0" * 32


def release(version: str, chip: str | None = None, any_chip: bool = False) -> Manifest:
    return Manifest(version, SHA, MD5, 1000, "", chip=chip, any_chip=any_chip)


def situation(*releases: Manifest, by_hand: ImageOnDisk | None = None) -> Situation:
    """Return a situation in which the target is v2."""
    manifests = {each.version.removeprefix("v"): each for each in releases}
    policy = make_policy(manifests=manifests, images=frozenset(("1", "2")))
    return Situation(policy, Target("v2", "", "firmware_v2.bin", 1000), NOW_MS, image=by_hand)


def told(updater: Updater | None, around: Situation, runs: str = "v1") -> Decision:
    return decide(Report(MAC, runs, updater), around)


class ChipTest(unittest.TestCase):
    def test_an_image_for_another_chip_than_that_of_the_image_it_runs_is_not_offered(self):
        around = situation(release("v1", "ESP32"), release("v2", "ESP32-S3"))
        for updater in (None, Updater("esp32"), Updater("esphome")):
            decision = told(updater, around)
            self.assertEqual((decision.version, decision.release), ("v1", None))
            self.assertIs(decision.reason, Reason.WRONG_CHIP)
        words = in_words(decision.cause)
        self.assertIn("the image of v2 is for ESP32-S3, and it runs one for ESP32;", words)
        self.assertIn("release publish FILE --version v2 --force", words)

    def test_the_chip_of_the_last_image_that_is_known_of_a_device_counts(self):
        around = situation(release("v1"), release("v2", "ESP32-S3"))
        for chip, version in (("ESP32", "own"), ("ESP32-S3", "v2"), (None, "v2")):
            decision = told(Updater("esp32", chip=chip), around, "own")
            self.assertEqual(decision.version, version)
        decision = told(Updater("esp32", chip="ESP32"), around, "own")
        said = "is for ESP32-S3, and the last known image of this device is for ESP32;"
        self.assertIn(said, in_words(decision.cause))
        # Its hash says more than a version that somebody may have forgotten to change.
        around = situation(release("v1", "ESP32-S3"), release("v2", "ESP32-S3"))
        self.assertEqual(told(Updater("esp32", chip="ESP32"), around).version, "v1")

    def test_an_image_that_its_updater_cannot_run_on_is_not_offered(self):
        for family, chip, is_offered in (
            ("esp8266", "ESP32", False),
            ("esp8266", "ESP8266", True),
            ("esp32", "ESP8266", False),
            ("esp32", "ESP32-C3", True),
            ("tasmota", "RP2040", False),
            ("tasmota", "ESP8266", True),
            ("pico", "ESP32", False),
            ("pico", "RP2350", True),
            ("curl", "ESP32", True),
        ):
            for published in (True, False):
                with self.subTest(family=family, chip=chip, published=published):
                    by_hand = ImageOnDisk("firmware_v2.bin", 1000, chip=chip)
                    around = situation(by_hand=by_hand)
                    if published:
                        around = situation(release("v2", chip))
                    decision = told(Updater(family), around, "-")
                    self.assertEqual(decision.version, "v2" if is_offered else "-")

    def test_arduino_pico_which_checks_nothing_gets_no_image_without_a_known_chip(self):
        self.assertEqual(told(Updater("pico"), situation(release("v2"))).version, "v1")
        self.assertEqual(told(Updater("esp32"), situation(release("v2"))).version, "v2")

    def test_one_that_was_forced_is_offered_all_the_same(self):
        around = situation(release("v1", "ESP32"), release("v2", "ESP8266", any_chip=True))
        self.assertEqual(told(Updater("pico"), around).version, "v2")

    def test_what_names_no_chip_of_a_device_does_not_count(self):
        for one, other in (("ESP chip 99", "ESP32-S3"), ("arm", "arm64"), (None, "ESP32")):
            around = situation(release("v1", one), release("v2", other))
            self.assertEqual(told(None, around).version, "v2")

    def test_releases_for_one_chip_leave_the_policy_plain(self):
        self.assertTrue(situation(release("v1", "ESP32"), release("v2", "ESP32")).policy.is_plain)
        self.assertFalse(situation(release("v1", "ESP32"), release("v2", "RP2040")).policy.is_plain)


class RoomTest(unittest.TestCase):
    def test_an_image_that_does_not_fit_is_not_offered(self):
        for space, version in ((999, "v1"), (1000, "v2"), (None, "v2")):
            decision = told(Updater("esp8266", space), situation(release("v2")))
            self.assertEqual(decision.version, version)
        decision = told(Updater("esp8266", 999), situation(release("v2")))
        said = "the image of v2 has 1000 bytes, and the device has room for 999; "
        self.assertEqual(in_words(decision.cause), said + "the target of the fleet")

    def test_a_device_that_runs_the_release_needs_no_room(self):
        decision = told(Updater("esp8266", 1), situation(release("v2")), "v2")
        self.assertIs(decision.reason, Reason.TARGET)

    def test_such_a_device_counts_as_held_back(self):
        one = device("v1", updater=Updater("esp8266", 999))
        condition, cause = condition_of(MAC, one, situation(release("v2")), lambda _: None)
        self.assertEqual((condition, cause.reason), (Condition.HELD_BACK, Reason.NO_ROOM))
