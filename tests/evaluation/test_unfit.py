"""Devices that cannot take a release, as the server itself finds: they are not needed."""

import unittest
from typing import Any

from ota_server.evaluation.device_case import DeviceState
from ota_server.evaluation.tally import Tally
from ota_server.evaluation.waves import advance
from ota_server.model.manifest import Manifest
from ota_server.policy.policy import Policy, make_policy
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from tests.evaluation.test_outcomes import outcomes_of
from tests.support.story import OLD, PLAN, RELEASE, Story, mac

SMALL: dict[str, Any] = {"family": "esp32", "free_space": 200_000}
LARGE: dict[str, Any] = {"family": "esp32", "free_space": 900_000}
OTHER: dict[str, Any] = {"family": "esp8266", "free_space": 900_000}
BEGUN = RolloutProgress("id", "running", 0, PLAN.time)


def fit(size: int = 400_000, **fields: Any) -> Policy:
    """Return what is on record of the images, as `RolloutScope.fit`."""
    release = Manifest(RELEASE, "ab" * 32, "0" * 32, size, "", chip="ESP32", **fields)
    return make_policy(manifests={"2.0.0": release})


class UnfitCase(unittest.TestCase):
    def begin(self, devices: int = 5, plan: RolloutPlan = PLAN, fits: Policy | None = None) -> None:
        self.story = Story(plan, devices=devices)
        self.scope = self.story.known._replace(fit=fits or fit())
        self.story.feedback.change(plan, self.scope)

    def tally(self) -> Tally:
        return self.story.tally()

    def progress(self, plan: RolloutPlan = PLAN) -> RolloutProgress:
        return advance(plan, BEGUN, self.tally(), self.story.now_ms)


class UnfitTest(UnfitCase):
    def test_a_device_without_room_or_with_another_chip_is_not_needed(self):
        self.begin()
        for number, updater in ((1, SMALL), (2, OTHER), (3, OTHER), (4, LARGE)):
            self.story.check(number, told=OLD, **updater)
        tally = self.tally()
        self.assertEqual((tally.members, tally.reach, tally.active), (2, 2, 1))
        self.assertEqual((tally.cannot_take_it, tally.no_room), (3, 1))

    def test_a_wave_goes_on_without_them(self):
        self.begin()
        self.story.check(5, told=OLD, **SMALL)
        for number in (1, 2, 3, 4):
            self.story.update(number, **LARGE)
        self.story.wait(90)
        for number in (1, 2, 3, 4):
            self.story.check(number, RELEASE, **LARGE)
        self.assertEqual(self.progress().state, "done")

    def test_each_is_listed_with_the_reason(self):
        self.begin()
        self.story.check(1, told=OLD, **SMALL)
        self.story.check(2, told=OLD, **OTHER)
        outcomes = outcomes_of(self.story)
        for number, words in (
            (1, "no room: the image has 400000 bytes, and the device has room for 200000"),
            (2, "other chip: the image is for ESP32, and its updater, esp8266, does not run on "),
        ):
            outcome = outcomes[mac(number)]
            self.assertEqual(outcome.state, DeviceState.CANNOT_TAKE_IT)
            self.assertIn(words, outcome.in_words(OLD))
        self.assertEqual(outcomes[mac(3)].state, DeviceState.NOT_HEARD_FROM)

    def test_a_device_that_has_begun_to_fetch_it_is_needed_whatever_it_says(self):
        self.begin()
        self.story.begin(1, **SMALL)
        self.assertEqual((self.tally().cannot_take_it, self.story.state()), (0, "downloading"))

    def test_only_its_home_says_what_a_device_has(self):
        self.begin()
        self.story.check(1, **LARGE)
        self.story.check(1, address="203.0.113.9", **SMALL)
        self.assertEqual(self.tally().cannot_take_it, 0)

    def test_a_device_that_makes_room_or_a_release_that_fits_is_taken_up(self):
        self.begin()
        for number in (1, 2):
            self.story.check(number, told=OLD, **SMALL)
        self.story.check(1, **LARGE)
        self.assertEqual(self.tally().cannot_take_it, 1)
        self.story.feedback.change(PLAN, self.scope._replace(fit=fit(100_000)))
        self.assertEqual(self.tally().cannot_take_it, 0)

    def test_a_release_that_is_forced_on_all_chips_is_refused_to_none_for_its_chip(self):
        self.begin(fits=fit(any_chip=True))
        self.story.check(1, told=OLD, **OTHER)
        self.assertEqual(self.tally().cannot_take_it, 0)

    def test_a_device_that_runs_it_already_needs_no_room(self):
        self.begin()
        self.story.check(1, RELEASE, **SMALL)
        self.assertEqual((self.tally().cannot_take_it, self.story.state()), (0, "updated"))

    def test_a_controller_that_goes_on_from_a_checkpoint_knows_the_same(self):
        self.begin()
        self.story.check(1, told=OLD, **SMALL)
        dumped, before = self.story.feedback.dump(), self.tally()
        self.begin()
        self.story.feedback.load(dumped)
        self.story.feedback.change(PLAN, self.scope)
        self.assertEqual(self.story.feedback.tally(self.story.now_ms), before)

    def test_a_device_that_is_forgotten_is_not_counted_with_them(self):
        self.begin()
        self.story.check(1, told=OLD, **SMALL)
        self.story.tell("forget", 1)
        self.assertEqual(self.tally().cannot_take_it, 0)


class NobodyTest(UnfitCase):
    def test_where_nobody_can_take_it_a_person_is_asked(self):
        self.begin(devices=3)
        self.story.check(1, told=OLD, **SMALL)
        for number in (2, 3):
            self.story.check(number, told=OLD, **OTHER)
        progress = self.progress()
        self.assertEqual(progress.state, "paused")
        self.assertIn("3 cannot take it: no room (1), other chip (2)", progress.reason)
        self.assertIn("`rollout promote` goes on", progress.reason)

    def test_not_where_others_may(self):
        self.begin(devices=3)
        for number in (2, 3):
            self.story.check(number, told=OLD, **OTHER)
        self.assertEqual(self.progress().state, "running")
