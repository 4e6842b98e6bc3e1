"""Devices: who a request comes from, and what is known of a device after each event."""

import unittest

from ota_server.model.action import Action, ActionState, PinnedImage
from ota_server.model.device import (
    Device,
    Download,
    Report,
    asked_for_image,
    checked,
    checked_again,
    first_seen_hour,
    flatten,
    not_later,
    previous_version,
    reported,
    unflatten,
    version_changed,
)
from ota_server.model.identity import parse_mac

MAC = "00:11:22:aa:bb:cc"
ADDRESS = "192.0.2.7"
DOWNLOAD = Download("v2", "ab" * 32, 1000, 50)
KNOWN = Device(100, "v1", 90, 80, "v2", ADDRESS, False, DOWNLOAD)


def report(version: str) -> Report:
    return Report(MAC, version)


class MacTest(unittest.TestCase):
    def test_every_notation_of_a_mac_is_one_device(self):
        for text in (
            *("00:11:22:aa:bb:cc", "00-11-22-AA-BB-CC", "001122aabbcc", "001122AABBCC"),
            *("0011.22aa.bbcc", "0011.22AA.bbCC", "00:11:22:AA:bb:Cc"),
        ):
            with self.subTest(text):
                self.assertEqual(parse_mac(text), MAC)

    def test_what_is_no_mac_is_none(self):
        for text in (
            *("", "0", "001122aabbc", "001122aabbccd", "00:11:22:aa:bb", "00:11:22:aa:bb:cc:dd"),
            *("00:11-22:aa:bb:cc", "00:1122:aa:bb:cc", "0011:22aa:bbcc", "00.11.22.aa.bb.cc"),
            *("0:11:22:aa:bb:cc", "00:11:22:aa:bb:cg", " 001122aabbcc", "001122aabbcc\n"),
            *("00::11:22:aa:bb:cc", "001122aabb\u0661\u0661", "\uff10\uff10:11:22:aa:bb:cc"),
            *("00:11:22:aa:bb:cc/../..", "../../../../etc", "0x1122aabbcc", "-01122aabbcc"),
            *("00 11 22 aa bb cc", "0011-22aa-bbcc", "x" * 16_000, "00:" * 5_000),
        ):
            with self.subTest(text[:30]):
                self.assertIsNone(parse_mac(text))

    def test_all_zeros_and_all_ones_are_no_device(self):
        for text in ("000000000000", "00:00:00:00:00:00", "FF-FF-FF-FF-FF-FF", "ffff.ffff.ffff"):
            with self.subTest(text):
                self.assertIsNone(parse_mac(text))
        self.assertEqual(parse_mac("000000000001"), "00:00:00:00:00:01")


class CheckTest(unittest.TestCase):
    def test_the_first_check_of_a_device_makes_it_known_without_an_update_time(self):
        self.assertEqual(
            checked(None, report("v1"), "v2", ADDRESS, 100),
            Device(100, "v1", 100, None, "v2", ADDRESS, False, None, 3_600_000),
        )

    def test_when_a_device_was_first_seen_stays_as_it_was(self):
        first = checked(None, report("v1"), "v2", ADDRESS, 7_200_000)
        self.assertEqual(first.first_seen_ms, 7_200_000)
        later = checked(first, report("v2"), "v2", ADDRESS, 99_000_000)
        later = asked_for_image(later, report("v2"), "v2", ADDRESS, 99_000_001, DOWNLOAD)
        self.assertEqual(unflatten(flatten(later)).first_seen_ms, 7_200_000)

    def test_people_see_the_beginning_of_the_hour_in_which_it_was_first_seen(self):
        hour_ms = 3_600_000
        for first_ms, begin_ms in (
            (2 * hour_ms + 1, 2 * hour_ms),
            (2 * hour_ms + 540_000, 2 * hour_ms),
            (3 * hour_ms - 1, 2 * hour_ms),
            (3 * hour_ms, 2 * hour_ms),
        ):
            device = checked(None, report("v1"), "v2", ADDRESS, first_ms)
            for later_ms in (
                first_ms,
                first_ms + 1,
                first_ms + 9 * 60_000,
                first_ms + 99 * hour_ms,
            ):
                with self.subTest(first_ms=first_ms, later_ms=later_ms):
                    device = checked(device, report("v1"), "v2", ADDRESS, later_ms)
                    self.assertEqual(first_seen_hour(device), begin_ms)
        self.assertIsNone(first_seen_hour(device._replace(first_seen_ms=None)))
        with self.subTest("its clock went back"):
            seen_earlier = device._replace(last_seen_ms=hour_ms + 5)
            self.assertEqual(first_seen_hour(seen_earlier), hour_ms)

    def test_a_check_moves_the_last_seen_time_and_keeps_the_download(self):
        self.assertEqual(
            checked(KNOWN, report("v1"), "v3", "198.51.100.1", 200),
            Device(200, "v1", 200, 80, "v3", "198.51.100.1", False, DOWNLOAD),
        )

    def test_a_check_that_reports_a_new_version_sets_the_update_time(self):
        after = checked(KNOWN, report("v2"), "v2", ADDRESS, 200)
        self.assertEqual((after.firmware_version, after.update_ms), ("v2", 200))
        self.assertEqual(previous_version(KNOWN, report("v2")), {"previous_version": "v1"})

    def test_a_version_that_stays_keeps_its_update_time(self):
        first = checked(KNOWN, report("v2"), "v2", ADDRESS, 200)
        second = checked(first, report("v2"), "v2", ADDRESS, 300)
        self.assertEqual((second.update_ms, second.last_seen_ms), (200, 300))
        self.assertEqual(previous_version(first, report("v2")), {})

    def test_going_back_to_an_older_version_is_an_update_too(self):
        newer = checked(KNOWN, report("v2"), "v2", ADDRESS, 200)
        self.assertEqual(checked(newer, report("v1"), "v1", ADDRESS, 300).update_ms, 300)

    def test_another_spelling_of_the_same_version_is_no_update(self):
        before = KNOWN._replace(firmware_version="1.0")
        after = checked(before, report("v1.0"), "v1.0", ADDRESS, 200)
        self.assertEqual((after.firmware_version, after.update_ms), ("v1.0", 80))
        self.assertEqual(previous_version(before, report("v1.0")), {})
        self.assertFalse(version_changed(before, report("v1.0")))

    def test_a_device_that_is_not_known_has_not_changed_its_version(self):
        self.assertFalse(version_changed(None, report("v1")))
        self.assertEqual(previous_version(None, report("v1")), {})

    def test_a_check_that_no_target_answers_forgets_the_old_one(self):
        self.assertIsNone(checked(KNOWN, report("v1"), None, ADDRESS, 200).target_version)


class FlatTest(unittest.TestCase):
    DEVICES = (
        KNOWN,
        KNOWN._replace(update_ms=None, target_version=None, image_only=True),
        KNOWN._replace(download=None),
    )

    def test_what_was_made_flat_is_the_same_device_again(self):
        for device in self.DEVICES:
            with self.subTest(device):
                self.assertEqual(unflatten(flatten(device)), device)

    def test_the_short_way_of_a_check_never_disagrees_with_the_long_one(self):
        for device in self.DEVICES:
            for version in ("v1", "1", "v2", "V1", "v1 "):
                for target in ("v2", None):
                    short = checked_again(flatten(device), report(version), target, ADDRESS, 200)
                    with self.subTest(device=device, version=version, target=target):
                        if short is None:
                            self.assertNotEqual(version, device.firmware_version)
                            continue
                        long = checked(device, report(version), target, ADDRESS, 200)
                        self.assertEqual(unflatten(short), long)
                        self.assertEqual(previous_version(device, report(version)), {})


class ImageTest(unittest.TestCase):
    def test_a_device_that_only_ever_asks_for_the_image_is_seen_when_it_does(self):
        first = asked_for_image(None, report("v1"), "v2", ADDRESS, 100, DOWNLOAD)
        expected = Device(100, "v1", 100, None, "v2", ADDRESS, True, DOWNLOAD, 3_600_000)
        self.assertEqual(first, expected)
        second = asked_for_image(first, report("v1"), "v2", ADDRESS, 200, DOWNLOAD)
        self.assertEqual((second.last_seen_ms, second.image_only), (200, True))

    def test_a_device_that_asks_for_the_version_is_seen_when_it_does_and_not_by_a_download(self):
        after = asked_for_image(KNOWN, report("v1"), "v2", ADDRESS, 200, DOWNLOAD)
        self.assertEqual((after.time_ms, after.last_seen_ms), (200, KNOWN.last_seen_ms))

    def test_one_check_ends_that_a_device_only_asks_for_the_image(self):
        first = asked_for_image(None, report("v1"), "v2", ADDRESS, 100, DOWNLOAD)
        second = checked(first, report("v1"), "v2", ADDRESS, 200)
        third = asked_for_image(second, report("v1"), "v2", ADDRESS, 300, DOWNLOAD)
        self.assertEqual((third.image_only, third.last_seen_ms), (False, 200))

    def test_a_download_that_reports_a_new_version_sets_the_update_time(self):
        after = asked_for_image(KNOWN, report("v2"), "v2", ADDRESS, 200, None)
        self.assertEqual((after.firmware_version, after.update_ms), ("v2", 200))

    def test_a_request_that_was_given_no_bytes_keeps_the_download_under_way(self):
        after = asked_for_image(KNOWN, report("v1"), "v2", ADDRESS, 200, None)
        self.assertEqual(after.download, DOWNLOAD)

    def test_a_new_download_takes_the_place_of_the_old_one(self):
        other = DOWNLOAD._replace(sha256="cd" * 32)
        after = asked_for_image(KNOWN, report("v1"), "v2", ADDRESS, 200, other)
        self.assertEqual(after.download, other)


class ClockTest(unittest.TestCase):
    def test_no_time_of_a_device_is_later_than_now(self):
        image = PinnedImage("v2", "ab" * 32, 9)
        action = Action(101, 101, ActionState.FAILED, image, 9_000_000, 2)
        device = Device(100, "v1", 100, 100, "v1", ADDRESS, False, None, 3_600_000, action)
        self.assertEqual(
            not_later(device, 100), device._replace(action=action._replace(since_ms=100))
        )
        self.assertEqual(not_later(device, 9_000_000), device)


class OtherReportTest(unittest.TestCase):
    def test_a_version_that_comes_to_light_by_the_way_is_kept_and_nothing_else(self):
        self.assertEqual(
            reported(KNOWN, report("v9"), "198.51.100.1", 200),
            KNOWN._replace(
                time_ms=200, firmware_version="v9", update_ms=200, address="198.51.100.1"
            ),
        )
