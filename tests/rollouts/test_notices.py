"""What is told of, by what two looks have seen."""

import unittest
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, RolloutState, RolloutWish
from ota_server.policy.text import Hold
from ota_server.rollouts.notices import EventName, hold_notice, journal_notice, rollout_notices

TIME = "2026-11-28T20:00:00.000Z"
PLAN = RolloutPlan("1", "v2.0.0", "", (10.0, 100.0), TIME, "v1.0.0")


class Moment(NamedTuple):
    """What one look has seen: the rollouts that have begun, by group."""

    rollouts: Mapping[str, tuple[RolloutPlan, RolloutProgress]] = {}
    is_journal_failing: bool = False


def notices_between(before: Moment, after: Moment) -> Iterator[dict[str, Any]]:
    """Yield what happened between two looks."""
    if after.is_journal_failing != before.is_journal_failing:
        yield journal_notice(after.is_journal_failing)
    for group, (plan, progress) in after.rollouts.items():
        known = before.rollouts.get(group)
        yield from rollout_notices(known and known[1], plan, progress)


def at(state: str, wave: int = 0, plan: RolloutPlan = PLAN, **fields: Any) -> Moment:
    progress = RolloutProgress(plan.id, RolloutState(state), wave, TIME, **fields)
    return Moment({plan.group: (plan, progress)})


class NoticesBetweenTest(unittest.TestCase):
    def test_each_step_of_a_rollout_is_told_once(self):
        other = PLAN._replace(id="2", version="v3.0.0")
        for before, after, expected in (
            (Moment(), at("running"), EventName.ROLLOUT_MOVED),
            (at("running"), at("running", 1), EventName.ROLLOUT_MOVED),
            (at("running"), at("paused", reason="a doubt"), EventName.ROLLOUT_WAITS),
            (at("paused"), at("paused", asks=("a",)), EventName.ROLLOUT_WAITS),
            (at("running"), at("running", asks=("a",), waiting="1"), EventName.ROLLOUT_WAITS),
            (at("paused"), at("running"), EventName.ROLLOUT_MOVED),
            (at("running"), at("halted", reason="3 failed"), EventName.ROLLOUT_HALTED),
            (at("running", 1), at("done", 1), EventName.ROLLOUT_ENDED),
            (at("paused"), at("aborted"), EventName.ROLLOUT_ENDED),
            (at("done"), at("running", plan=other), EventName.ROLLOUT_MOVED),
            (Moment(), Moment(is_journal_failing=True), EventName.JOURNAL_FAILING),
            (Moment(is_journal_failing=True), Moment(), EventName.JOURNAL_WORKS),
        ):
            with self.subTest(expected, after=after):
                (event,) = notices_between(before, after)
                self.assertEqual(event["event"], expected)
                self.assertTrue(event["text"])
                self.assertEqual(list(notices_between(after, after)), [])

    def test_nobody_waits_for_a_person_who_has_paused_or_promoted_it(self):
        paused = PLAN._replace(wanted=RolloutWish.PAUSE)
        promoted = PLAN._replace(promoted=0)
        for before, after in (
            (at("running"), at("paused", plan=paused, reason="paused by an operator")),
            (at("running"), at("running", plan=paused, asks=("a",))),
            (at("running", -1), at("paused", -1, plan=promoted)),
            (at("running", -1), at("running", -1, plan=promoted, asks=("a",))),
        ):
            with self.subTest(after=after):
                self.assertEqual(list(notices_between(before, after)), [])

    def test_a_pause_that_an_operator_has_ended_and_that_comes_again_is_told_again(self):
        resumed = PLAN._replace(resumed=1)
        paused, again = at("paused"), at("running", plan=resumed, resumed=1)
        (event,) = notices_between(again, at("paused", plan=resumed, resumed=1))
        self.assertEqual(event["event"], EventName.ROLLOUT_WAITS)
        self.assertEqual(list(notices_between(paused, at("paused", plan=resumed))), [])

    def test_a_halt_that_is_on_its_way_is_told_once_it_is_there_or_cannot_be(self):
        halting = at("paused", reason="3 failed", is_halting=True)
        self.assertEqual(list(notices_between(at("running"), halting)), [])
        for after, expected in (
            (at("halted", reason="3 failed"), EventName.ROLLOUT_HALTED),
            (at("paused", reason="the disk is full"), EventName.ROLLOUT_WAITS),
        ):
            with self.subTest(expected):
                (event,) = notices_between(halting, after)
                self.assertEqual(event["event"], expected)

    def test_a_halt_names_the_devices_that_did_badly(self):
        (event,) = notices_between(at("running"), at("halted", bad=("a", "b")))
        self.assertEqual(event["devices"], ["a", "b"])

    def test_counts_that_change_are_no_event(self):
        before, after = at("running"), at("running", counts={"updated": 4}, waiting="20 more")
        self.assertEqual(list(notices_between(before, after)), [])

    def test_the_rollout_of_a_group_names_it(self):
        plan = PLAN._replace(group="beta")
        (event,) = notices_between(Moment(), at("halted", plan=plan, reason="3 failed"))
        self.assertEqual(
            (event["group"], event["version"], event["state"]), ("beta", "v2.0.0", "halted")
        )
        self.assertEqual(event["text"], "rollout of v2.0.0 to beta is halted: 3 failed")

    def test_a_revert_is_called_one(self):
        plan = PLAN._replace(version="v1.0.0", reverts="v2.0.0", is_revert=True)
        (event,) = notices_between(at("running"), at("done", plan=plan))
        self.assertEqual(event["text"], "revert to v1.0.0 is done")

    def test_a_wave_that_goes_on_after_a_pause_is_told_from_one_that_opens(self):
        text = "wave 2 of 2 is open, 100 %"
        for before, expected in (
            (at("paused", 1), f"rollout of v2.0.0 goes on: {text}"),
            (at("paused", 0), f"rollout of v2.0.0: {text}"),
        ):
            with self.subTest(expected):
                (event,) = notices_between(before, at("running", 1))
                self.assertEqual(event["text"], expected)

    def test_the_id_is_that_of_the_step_whatever_the_counts_and_no_other_step_has_it(self):
        asked = {"asks": ("a",), "waiting": "1"}
        steps = (
            at("running"),
            at("running", 1),
            at("paused", reason="a doubt"),
            at("paused", reason="a doubt", resumed=1),
            at("running", **asked),
            at("halted"),
        )
        ids = [each["id"] for step in steps for each in notices_between(Moment(), step)]
        self.assertEqual(len({*ids}), len(ids))
        for id_ in ids:
            self.assertRegex(id_, r"^[0-9a-f]{24}$")
        (before,) = notices_between(Moment(), at("halted", bad=("a",)))
        (after,) = notices_between(Moment(), at("halted", bad=("a",), counts={"failed": 9}))
        self.assertEqual(before["id"], after["id"])

    def test_a_hold_says_who_and_why_and_what_ends_it(self):
        notice = hold_notice(Hold(TIME, "ann", "smoke in the plant"))
        self.assertEqual(
            (notice["event"], notice["user"], notice["reason"]),
            ("hold_begun", "ann", "smoke in the plant"),
        )
        self.assertEqual(
            notice["text"],
            "everything is on hold since 2026-11-28T20:00:00Z by ann: smoke in the plant; "
            "`unhold` ends that",
        )
        self.assertEqual(hold_notice(None)["event"], "hold_ended")
