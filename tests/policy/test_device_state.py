"""The condition of a device: one for each, by one definition."""

import unittest
from typing import Any

from ota_server.model.device import DAY_MS, Device, Download
from ota_server.model.manifest import Manifest
from ota_server.model.updater import Updater
from ota_server.model.version import Target, meaning
from ota_server.policy.device_state import (
    GRACE_MS,
    QUIET_MS,
    Condition,
    condition_of,
    evidence_in_words,
)
from ota_server.policy.explain import in_words
from ota_server.policy.policy import Pin, Rollout, RolloutState, Stopped, make_policy
from ota_server.policy.situation import Situation, no_slot, window_closed

MAC = "00:11:22:33:44:55"
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
SHA = "a" * 64
IMAGES = frozenset(map(meaning, ("v1.0", "v1.1", "v1.2")))
RUNNING, PAUSED = RolloutState.RUNNING, RolloutState.PAUSED


def device(version: str = "v1.1", ago_ms: int = 1000, **fields: Any) -> Device:
    """Return a device that asked for the version some time ago."""
    seen_ms = NOW_MS - ago_ms
    plain = Device(seen_ms, version, seen_ms, None, "v1.1", "10.0.0.9", False, None, seen_ms)
    return plain._replace(**fields)


def download(version: str, attempts: int, ago_ms: int) -> Download:
    """Return a download of which the device had all, for the last time so long ago."""
    return Download(version, SHA, 1000, NOW_MS - ago_ms - 5000, attempts, NOW_MS - ago_ms, 0)


def found(one: Device, judged: str = "", **situation: Any) -> tuple[Condition, str]:
    """Return the condition of a device where the target is v1.1, and its cause in words."""
    decided = {"images": IMAGES, **situation.pop("policy", {})}
    target = Target("v1.1", "", "firmware_v1.1.bin", 1000)
    situation = {"target": target, "now_ms": NOW_MS, "download": one.download, **situation}
    around = Situation(make_policy(**decided), **situation)
    condition, cause = condition_of(MAC, one, around, lambda _: None, judged)
    return condition, in_words(cause)


def rollout(state: RolloutState = RUNNING, percent: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {"rollouts": {"": Rollout("v1.2", state, percent, **fields)}}


class ByDecisionTest(unittest.TestCase):
    def test_a_device_that_runs_what_it_should_is_up_to_date(self):
        alias = Manifest("v1.1", SHA, "0" * 32, 9, "", reports_as="build 7")
        pin = {"pins": ({MAC: Pin("v1.0", None)}, {})}
        for version, policy in (
            ("v1.1", {}),
            ("1.1", {}),
            ("v1.0", pin),
            ("v1.2", rollout(percent=100)),
            ("build 7", {"manifests": {"1.1": alias}}),
        ):
            with self.subTest(version, policy=policy):
                self.assertEqual(found(device(version), policy=policy)[0], Condition.UP_TO_DATE)

    def test_a_device_that_is_offered_another_release_is_behind(self):
        self.assertEqual(found(device("v1.0")), (Condition.BEHIND, "the target of the fleet"))
        begun = device("v1.1"), rollout(percent=100)
        self.assertEqual(found(begun[0], policy=begun[1])[0], Condition.BEHIND)

    def test_a_device_that_may_not_have_what_it_should_run_is_held_back_by_what_keeps_it(self):
        withdrawn = {"stopped": {"1.1": Stopped("v1.1", True, None)}}
        for says, version, situation in (
            ("it is on hold", "v1.0", {"policy": {"is_held": True}}),
            ("maintenance window", "v1.0", {"put_off": window_closed("01:00-05:00")}),
            ("download slots", "v1.0", {"put_off": no_slot(4)}),
            ("held back by a rollout", "v1.1", {"policy": rollout()}),
            ("held back by a rollout", "v1.1", {"policy": rollout(PAUSED, 100)}),
            ("journal", "v1.1", {"policy": rollout(percent=100), "is_journal_failing": True}),
            ("v1.1 was withdrawn", "v1.0", {"policy": withdrawn}),
            ("which was withdrawn", "v1.1", {"policy": withdrawn}),
            ("there is no target", "v1.0", {"target": None}),
            ("broken.json", "v1.1", {"policy": {"problem": "broken.json is broken"}}),
        ):
            with self.subTest(says):
                condition, words = found(device(version), **situation)
                self.assertEqual(condition, Condition.HELD_BACK)
                self.assertIn(says, words)

    def test_on_hold_it_is_the_hold_whatever_else_would_keep_the_release_from_it(self):
        again = device("v1.0", 500, download=download("v1.1", 3, 400))
        full = device("v1.0", updater=Updater("esp8266", 1))
        held = {"is_held": True, "manifests": {"1.1": Manifest("v1.1", SHA, "0" * 32, 9, "")}}
        for one in (again, full):
            condition, words = found(one, policy=held)
            self.assertEqual((condition, words), (Condition.HELD_BACK, "it is on hold"))
            self.assertNotIn("hold", found(one, policy={**held, "is_held": False})[1])

    def test_the_loop_breaker_holds_back_a_device_that_has_just_fetched_it_again(self):
        again = device("v1.0", 500, download=download("v1.1", 3, 400))
        condition, words = found(again)
        self.assertEqual(condition, Condition.HELD_BACK)
        self.assertIn("has fetched the image of v1.1 3 times", words)

    def test_a_hold_a_window_and_slots_change_nothing_for_a_device_that_is_up_to_date(self):
        for situation in (
            {"policy": {"is_held": True}},
            {"put_off": window_closed("01:00-05:00")},
            {"put_off": no_slot(4)},
        ):
            with self.subTest(situation):
                self.assertEqual(
                    found(device(), **situation), (Condition.UP_TO_DATE, "the target of the fleet")
                )

    def test_a_revert_holds_back_only_devices_that_run_what_it_takes_back(self):
        revert = {"rollouts": {"": Rollout("v1.0", RUNNING, 0.0, reverts="v1.2")}}
        self.assertEqual(found(device("v1.1"), policy=revert)[0], Condition.UP_TO_DATE)
        self.assertNotEqual(found(device("v1.2"), policy=revert)[0], Condition.UP_TO_DATE)


class ByEvidenceTest(unittest.TestCase):
    def test_a_device_that_had_the_image_and_says_something_else_later_has_failed(self):
        for attempts, heard_after_ms, expected in (
            (1, GRACE_MS + 1000, Condition.FAILED),
            (1, GRACE_MS - 1000, Condition.BEHIND),  # it may still install it
            (2, 60_000, Condition.FAILED),  # it has fetched it again
            (4, HOUR_MS, Condition.FAILED),  # and waits now
        ):
            with self.subTest(attempts=attempts, heard_after_ms=heard_after_ms):
                had = download("v1.1", attempts, heard_after_ms + 1000)
                self.assertEqual(found(device("v1.0", download=had))[0], expected)

    def test_an_image_that_it_should_no_longer_run_is_no_failure(self):
        had = download("v1.2", 1, HOUR_MS)
        self.assertEqual(found(device("v1.1", download=had))[0], Condition.UP_TO_DATE)

    def test_a_device_that_has_the_image_and_says_nothing_for_an_hour_is_silent(self):
        for quiet_ms, expected in (
            (QUIET_MS, Condition.SILENT),
            (40 * DAY_MS, Condition.SILENT),
            (QUIET_MS - 1, Condition.BEHIND),
        ):
            with self.subTest(quiet_ms=quiet_ms):
                took = device("v1.0", quiet_ms + 2000, download=download("v1.1", 1, quiet_ms))
                self.assertEqual(found(took)[0], expected)

    def test_a_device_that_had_the_image_and_says_no_version_is_undecided(self):
        behind = Condition.BEHIND
        for attempts, version, ago_ms, judged, expected in (
            (1, "v1.1", 1000, "", Condition.UNDECIDED),
            (5, "v1.1", 1000, "", Condition.UNDECIDED),  # it fetches it at each poll
            (5, "v1.1", 1000, "undecided", Condition.UNDECIDED),
            (1, "v1.1", 1000, "failed", Condition.FAILED),
            (1, "v1.1", 2 * DAY_MS, "", Condition.AWAY),
            (1, "v1.2", 1000, "", behind),  # it should no longer run that
            (0, "v1.1", 1000, "", behind),  # it never had the whole
        ):
            with self.subTest(attempts=attempts, version=version, judged=judged):
                one = device("-", ago_ms, download=download(version, attempts, ago_ms + HOUR_MS))
                self.assertEqual(found(one, judged)[0], expected)
        just_had = device("-", 3000, download=download("v1.1", 1, 2000))
        self.assertEqual(found(just_had)[0], behind)

    def test_a_device_that_was_not_heard_from_for_a_day_is_away(self):
        for ago_ms, expected in ((DAY_MS, Condition.AWAY), (DAY_MS - 1, Condition.UP_TO_DATE)):
            with self.subTest(ago_ms=ago_ms):
                self.assertEqual(found(device(ago_ms=ago_ms))[0], expected)

    def test_a_time_in_the_future_counts_as_now(self):
        self.assertEqual(found(device(ago_ms=-40 * DAY_MS))[0], Condition.UP_TO_DATE)

    def test_what_a_rollout_says_of_a_device_decides(self):
        took = device("v1.0", download=download("v1.1", 2, 2 * HOUR_MS))
        for judged, expected in (
            ("failed", Condition.FAILED),
            ("mislabelled", Condition.FAILED),
            ("silent", Condition.SILENT),
            ("undecided", Condition.BEHIND),
            ("updated", Condition.BEHIND),
        ):
            with self.subTest(judged):
                self.assertEqual(found(took, judged)[0], expected)

    def test_why_it_is_silent_or_failed_is_said_from_its_own_record(self):
        had = download("v1.1", 1, HOUR_MS)
        died = device("v1.0", HOUR_MS + 2000, download=had)
        for one, condition, expected in (
            (died, Condition.SILENT, "it had the whole image of v1.1, and nothing was heard since"),
            (
                device("v1.1", 1000, download=had),
                Condition.SILENT,
                "it had the whole image of v1.1, reported v1.1, and nothing was heard since",
            ),
            (
                device("v1.0", download=had),
                Condition.FAILED,
                "it had the whole image of v1.1, and reports v1.0",
            ),
            (device("v1.0"), Condition.FAILED, "it had the image, and reports v1.0"),
            (
                device("-", download=had),
                Condition.UNDECIDED,
                "it had the whole image of v1.1, and says no version",
            ),
            (died, Condition.BEHIND, ""),
        ):
            with self.subTest(expected):
                self.assertEqual(evidence_in_words(condition, one), expected)
