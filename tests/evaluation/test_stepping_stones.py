"""Stones: what a release on the way to that of a rollout does to devices is the rollout's doing."""

import unittest

from ota_server.model.manifest import Manifest
from ota_server.rollouts.audience import stepping_stones_to
from tests.support.story import DAY_MINUTES, OLD, PLAN, RELEASE, Story

STONE = "v1.1.0"
STONE_SHA256 = "cd" * 32
ANCIENT = "v0.9.0"
GRACE_MINUTES = 8 * 60 + 30
SILENCE_MINUTES = 13.5 * 60


class StoneStory(Story):
    """A story in which the devices have to run a stone first."""

    def __init__(self, waves: tuple[float, ...] = (100.0,)) -> None:
        super().__init__(PLAN._replace(waves=waves))
        self.plan = PLAN._replace(waves=waves)
        self.known = self.known._replace(stepping_stones=frozenset(("1.1.0",)))
        self.feedback.change(self.plan, self.known)

    def get_stone(self, number: int, version: str = OLD) -> None:
        """Have a device ask, and fetch all of the stone."""
        told = {"target_version": STONE}
        of_stone = {"download_version": STONE, "download_sha256": STONE_SHA256}
        ended = {"release_version": STONE, "release_sha256": STONE_SHA256}
        self.check(number, version, told=STONE)
        self.begin(number, version, **told, **of_stone)
        self.end(number, firmware_version=version, **told, **ended)


class StoneTest(unittest.TestCase):
    def test_a_device_that_is_told_the_stone_is_offered_it(self):
        story = StoneStory()
        story.check(1, told=STONE)
        self.assertEqual(story.state(), "offered")

    def test_a_device_that_has_the_stone_is_undecided_until_it_reports_it(self):
        story = StoneStory()
        story.get_stone(1)
        self.assertEqual(story.state(), "undecided")
        story.check(1, STONE)
        self.assertEqual(story.state(), "offered")

    def test_a_device_that_falls_silent_with_the_stone_is_silent(self):
        story = StoneStory()
        story.get_stone(1, ANCIENT)
        story.wait(SILENCE_MINUTES)
        tally = story.tally()
        self.assertEqual((story.state(), tally.overall.silent), ("silent", 1))
        self.assertEqual({name: each.silent for name, each in tally.parts.items()}, {ANCIENT: 1})

    def test_a_device_that_reports_its_old_version_after_the_grace_has_failed(self):
        story = StoneStory()
        story.get_stone(1)
        story.wait(GRACE_MINUTES)
        story.check(1, told=STONE)
        self.assertEqual(story.state(), "failed")
        self.assertEqual([*story.tally().parts], [OLD])

    def test_a_device_that_begins_the_stone_anew_has_failed_until_it_reports_it(self):
        story = StoneStory()
        story.get_stone(1)
        story.get_stone(1)
        self.assertEqual(story.state(), "failed")
        story.check(1, STONE)
        self.assertEqual(story.state(), "offered")

    def test_a_device_that_goes_back_from_the_stone_has_failed(self):
        story = StoneStory()
        story.get_stone(1)
        story.check(1, STONE)
        story.wait(60)
        story.check(1, told=STONE)
        self.assertEqual(story.state(), "failed")
        self.assertEqual([*story.tally().parts], [OLD])

    def test_the_way_over_the_stone_is_no_failure(self):
        story = StoneStory()
        story.get_stone(1)
        story.wait(1)
        story.check(1, STONE)
        story.download(1, version=STONE)
        story.wait(1)
        story.check(1, RELEASE)
        self.assertEqual((story.state(), story.tally().parts), ("updated", {}))

    def test_a_third_version_after_the_stone_is_mislabelled(self):
        story = StoneStory()
        story.get_stone(1)
        story.check(1, "v1.1.0-rc1")
        self.assertEqual(story.state(), "mislabelled")

    def test_a_stone_that_is_the_target_of_those_held_back_is_not_the_rollout_s_doing(self):
        story = StoneStory(waves=(0.001, 100.0))
        story.get_stone(1)
        story.feedback.open_wave(1, story.now_ms)
        story.now += DAY_MINUTES
        story.check(1)
        self.assertEqual(story.state(), "offered")

    def test_where_no_stone_is_known_other_releases_are_none(self):
        story = StoneStory()
        story.feedback.change(PLAN, story.known._replace(stepping_stones=frozenset()))
        story.get_stone(1)
        self.assertEqual(story.state(), "")


class WayTest(unittest.TestCase):
    def test_stones_are_all_that_lead_to_the_release(self):
        def manifest(version: str, via: str | None) -> Manifest:
            return Manifest(version, "00" * 32, "00" * 16, 1, "", via=via)

        manifests = {
            "2.0.0": manifest(RELEASE, "v1.1.0"),
            "1.1.0": manifest("v1.1.0", "v1.0.5"),
            "1.0.5": manifest("v1.0.5", None),
            "3.0.0": manifest("v3.0.0", "v2.0.0"),
            "4.0.0": manifest("v4.0.0", "v4.1.0"),
            "4.1.0": manifest("v4.1.0", "v4.0.0"),
        }
        for version, stones in (
            (RELEASE, {"1.1.0", "1.0.5"}),
            ("v1.0.5", set()),
            ("v9.9.9", set()),
            ("v4.0.0", {"4.1.0"}),
        ):
            with self.subTest(version):
                self.assertEqual(stepping_stones_to(version, manifests), stones)


if __name__ == "__main__":
    unittest.main()
