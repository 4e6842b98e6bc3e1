"""Decisions: which version a device is told, the reason, and the release that it may have."""

import time
import unittest
from collections.abc import Mapping
from typing import Any, NamedTuple

from ota_server.model.device import Report
from ota_server.model.manifest import Manifest, matches
from ota_server.model.version import Target, meaning
from ota_server.policy.decision import cohort_percent, decide
from ota_server.policy.explain import in_words
from ota_server.policy.policy import Pin, Policy, Rollout, Stopped, make_policy
from ota_server.policy.situation import Situation

MAC = "00:11:22:33:44:55"
OTHER = "a0:b1:c2:d3:e4:f5"
NOW_MS = 1_800_000_000_000
IMAGES = frozenset(map(meaning, ("v1.0", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6")))


class Told(NamedTuple):
    """A decision, with its reason in words."""

    version: str
    reason: str
    release: str | None


def target(version: str) -> Target:
    return Target(version, "", f"firmware_{version}.bin", 1000)


def policy(**decided: Any) -> Policy:
    """Return a policy; all of v1.0 to v1.6 have images unless it says otherwise."""
    return make_policy(**{"images": IMAGES, **decided})


def told(
    decided: Policy, reported: str = "v1.0", fleet: str | None = "v1.1", mac: str = MAC
) -> Told:
    aim = None if fleet is None else target(fleet)
    found = decide(Report(mac, reported), Situation(decided, aim, NOW_MS))
    return Told(found.version, in_words(found.cause), found.release)


def stopped(version: str, is_withdrawn: bool = True, instead_of: str | None = None) -> Any:
    return {meaning(version): Stopped(version, is_withdrawn, instead_of)}


def manifests(**vias: str | tuple[str, ...]) -> Mapping[str, Manifest]:
    """Return manifests by what comes before them, and after that the versions that need it not."""
    made = {}
    for name, value in vias.items():
        via, *direct = (value,) if isinstance(value, str) else value
        version = name.replace("_", ".")
        made[meaning(version)] = Manifest(
            version, "0" * 64, "0" * 32, 1, "", via=via, direct_from=tuple(direct)
        )
    return made


def alias(version: str, reports_as: str) -> Mapping[str, Manifest]:
    return {meaning(version): Manifest(version, "0" * 64, "0" * 32, 1, "", reports_as=reports_as)}


def in_all(version: str, state: str = "running") -> Rollout:
    return Rollout(version, state, 100.0)


def in_none(version: str, held_unknown: str = "keep") -> Rollout:
    return Rollout(version, "running", 0.0, None, held_unknown)


def groups_too(found: Rollout) -> Rollout:
    return found._replace(groups_too=True)


# Each line of this decides unless one before it does.
ORDER: tuple[tuple[dict[str, Any], str], ...] = (
    ({"is_held": True}, "v1.0"),
    ({"pins": ({MAC: Pin("v1.2", None)}, {})}, "v1.2"),
    ({"pins": ({}, {"beta": Pin("v1.3", None)})}, "v1.3"),
    ({"rollouts": {"beta": in_all("v1.4")}}, "v1.4"),
    ({"rollouts": {"": groups_too(in_all("v1.5"))}}, "v1.5"),
    ({"group_targets": {"beta": "v1.6"}}, "v1.6"),
    ({"rollouts": {"": in_all("v1.5")}}, "v1.5"),
    ({}, "v1.1"),
)


class TargetTest(unittest.TestCase):
    def test_a_device_is_told_the_target(self):
        for reported in ("v1.0", "v2.0.0", "v1.10", "vv1.1", "unknown", "1.1.0"):
            with self.subTest(reported):
                self.assertEqual(
                    told(Policy(), reported), Told("v1.1", "the target of the fleet", "v1.1")
                )

    def test_a_device_that_runs_the_target_is_told_its_own_spelling_of_it(self):
        for decided in (Policy(), policy(pins=({OTHER: Pin("v1.2", None)}, {}))):
            for reported in ("v1.1", "1.1"):
                with self.subTest(reported):
                    self.assertEqual(
                        told(decided, reported), Told(reported, "the target of the fleet", "v1.1")
                    )

    def test_without_a_target_it_is_told_its_own_version(self):
        decision = told(policy(), fleet=None)
        self.assertEqual(decision, Told("v1.0", "there is no target", "v1.0"))

    def test_a_target_is_offered_though_its_image_is_missing(self):
        # As it was before there was a policy: 404 tells the operator more than silence.
        decision = told(policy(images=frozenset(), pins=({OTHER: Pin("v1.2", None)}, {})))
        self.assertEqual((decision.version, decision.release), ("v1.1", "v1.1"))

    def test_a_release_whose_manifest_cannot_be_used_is_offered_to_nobody(self):
        decision = told(make_policy(unusable={"1.1": "is not JSON"}, images=IMAGES))
        self.assertEqual((decision.version, decision.release), ("v1.0", None))
        self.assertIn("the manifest of v1.1 is not JSON", decision.reason)


class OrderTest(unittest.TestCase):
    def test_what_comes_first_decides(self):
        for first in range(len(ORDER)):
            decided: dict[str, Any] = {"groups": {MAC: ("beta",)}}
            for more, _ in reversed(ORDER[first:]):
                for name, value in more.items():
                    before = decided.get(name)
                    if isinstance(before, dict):
                        value = {**before, **value}
                    elif isinstance(before, tuple):
                        value = ({**before[0], **value[0]}, {**before[1], **value[1]})
                    decided[name] = value
            with self.subTest(ORDER[first]):
                self.assertEqual(told(policy(**decided)).version, ORDER[first][1])

    def test_who_is_not_in_the_group_gets_the_target(self):
        for more, version in ORDER[2:7]:
            with self.subTest(more):
                concerns_all = "" in more.get("rollouts", {})
                expected = version if concerns_all else "v1.1"
                self.assertEqual(told(policy(**more)).version, expected)

    def test_under_hold_nobody_may_have_an_image(self):
        decision = told(policy(is_held=True), "v1.1")
        self.assertEqual(decision, Told("v1.1", "it is on hold", None))

    def test_a_file_that_could_not_be_read_at_the_start_stops_offers(self):
        decision = told(policy(problem="pins.json cannot be used"))
        self.assertEqual((decision.version, decision.release), ("v1.0", None))
        self.assertEqual(decision.reason, "nothing is offered while pins.json cannot be used")


class PinTest(unittest.TestCase):
    def test_a_pin_holds_until_its_time_and_not_longer(self):
        for until_ms, version in ((NOW_MS + 1, "v1.2"), (NOW_MS, "v1.1"), (None, "v1.2")):
            with self.subTest(until_ms=until_ms):
                decided = policy(pins=({MAC: Pin("v1.2", until_ms)}, {}))
                self.assertEqual(told(decided).version, version)

    def test_an_expired_pin_of_the_device_leaves_that_of_its_group(self):
        pins = ({MAC: Pin("v1.2", NOW_MS)}, {"beta": Pin("v1.3", None)})
        decided = policy(pins=pins, groups={MAC: ("beta",)})
        self.assertEqual(told(decided).version, "v1.3")

    def test_the_first_of_two_groups_in_the_alphabet_decides(self):
        pins = ({}, {"alpha": Pin("v1.2", None), "beta": Pin("v1.3", None)})
        decided = policy(pins=pins, groups={MAC: ("alpha", "beta")})
        self.assertEqual(told(decided).version, "v1.2")

    def test_a_pin_on_what_it_runs_is_told_as_the_device_spells_it(self):
        decided = policy(pins=({MAC: Pin("v1.2", None)}, {}))
        self.assertEqual(told(decided, "1.2")[::2], ("1.2", "v1.2"))

    def test_a_pin_on_an_image_that_is_missing_leaves_the_device_where_it_is(self):
        decided = policy(pins=({MAC: Pin("v9", None)}, {}))
        self.assertEqual(
            told(decided),
            Told("v1.0", "the image of v9 is missing; it is pinned to v9", None),
        )

    def test_a_pin_is_obeyed_without_a_target(self):
        decided = policy(pins=({MAC: Pin("v1.2", None)}, {}))
        self.assertEqual(told(decided, fleet=None).version, "v1.2")

    def test_a_pin_on_a_withdrawn_release_offers_nothing(self):
        decided = policy(pins=({MAC: Pin("v1.2", None)}, {}), stopped=stopped("v1.2"))
        decision = told(decided)
        self.assertEqual((decision.version, decision.release), ("v1.0", None))
        self.assertIn("v1.2 was withdrawn", decision.reason)


class RolloutTest(unittest.TestCase):
    def test_who_is_not_in_the_wave_is_told_the_target(self):
        decision = told(policy(rollouts={"": in_none("v1.2")}))
        self.assertEqual(
            decision, Told("v1.1", "held back by a rollout: the target of the fleet", "v1.1")
        )

    def test_a_wave_holds_the_devices_below_its_percentage(self):
        percent = cohort_percent("v1.2", MAC)
        for limit, version in ((percent, "v1.1"), (percent + 1e-9, "v1.2")):
            with self.subTest(limit):
                decided = policy(rollouts={"": Rollout("v1.2", "running", limit)})
                self.assertEqual(told(decided).version, version)

    def test_the_first_group_is_in_from_the_start(self):
        rollouts = {"": Rollout("v1.2", "running", 0.0, "canary")}
        decided = policy(rollouts=rollouts, groups={MAC: ("canary",)})
        self.assertEqual(told(decided).version, "v1.2")
        self.assertEqual(told(decided, mac=OTHER).version, "v1.1")

    def test_while_it_is_paused_nobody_is_offered_it(self):
        decided = policy(rollouts={"": in_all("v1.2", "paused")})
        self.assertEqual(told(decided).version, "v1.1")

    def test_who_runs_it_stays_whatever_its_wave_and_state(self):
        for found in (in_none("v1.2"), in_all("v1.2", "paused"), in_all("v1.2")):
            with self.subTest(found):
                decision = told(policy(rollouts={"": found}), "1.2")
                self.assertEqual(decision.version, "1.2")
                self.assertEqual(decision.release, "1.2")

    def test_who_is_held_back_on_no_known_release_keeps_it_unless_it_is_told_otherwise(self):
        for held_unknown, version in (("keep", "factory 7"), ("target", "v1.1")):
            with self.subTest(held_unknown):
                decided = policy(rollouts={"": in_none("v1.2", held_unknown)})
                self.assertEqual(told(decided, "factory 7").version, version)

    def test_who_is_held_back_where_there_is_no_target_keeps_its_version(self):
        decided = policy(rollouts={"": in_none("v1.2")})
        self.assertEqual(told(decided, fleet=None).version, "v1.0")

    def test_a_rollout_of_what_was_withdrawn_offers_nothing(self):
        decided = policy(rollouts={"": in_all("v1.2")}, stopped=stopped("v1.2"))
        self.assertEqual(told(decided).version, "v1.1")

    def test_a_rollout_whose_image_is_missing_leaves_the_device_where_it_is(self):
        decided = policy(rollouts={"": in_all("v9")})
        self.assertEqual(told(decided)[::2], ("v1.0", None))

    def test_who_is_held_back_by_the_rollout_of_its_group_is_offered_no_other(self):
        for found in (in_none("v1.2"), in_all("v1.2", "paused")):
            for other in ("beta", ""):
                with self.subTest(found=found, other=other):
                    rollouts = {"alpha": found, other: in_all("v1.3")}
                    groups = {MAC: ("alpha", "beta")}
                    decided = policy(rollouts=rollouts, groups=groups)
                    self.assertEqual(told(decided).version, "v1.1")
                    self.assertEqual(told(decided, mac=OTHER).version, "v1.1" if other else "v1.3")

    def test_who_is_held_back_by_the_rollout_of_its_group_gets_the_target_of_that(self):
        decided = policy(
            rollouts={"alpha": in_none("v1.2"), "": in_all("v1.3")},
            groups={MAC: ("alpha",)},
            group_targets={"alpha": "v1.4"},
        )
        self.assertEqual(told(decided).version, "v1.4")

    def test_what_it_has_from_the_rollout_of_the_fleet_it_keeps_meanwhile(self):
        rollouts = {"alpha": in_none("v1.2"), "": in_all("v1.3")}
        decided = policy(rollouts=rollouts, groups={MAC: ("alpha",)})
        self.assertEqual(told(decided, "v1.3").version, "v1.3")

    def test_a_rollout_of_its_group_that_was_withdrawn_leaves_it_that_of_the_fleet(self):
        decided = policy(
            rollouts={"alpha": in_none("v1.2"), "": in_all("v1.3")},
            groups={MAC: ("alpha",)},
            stopped=stopped("v1.2"),
        )
        self.assertEqual(told(decided).version, "v1.3")


class LeftAloneTest(unittest.TestCase):
    """The rollout of the fleet leaves alone whose group has a target of its own."""

    BETA: Mapping[str, Any] = {"groups": {MAC: ("beta",)}, "group_targets": {"beta": "v1.4"}}

    def test_it_is_told_the_target_of_its_group_whatever_wave_and_state_the_rollout_has(self):
        for found in (in_all("v1.5"), in_none("v1.5"), in_all("v1.5", "paused")):
            for reported in ("v1.0", "v1.5", "factory 7"):
                with self.subTest(found=found, reported=reported):
                    decision = told(policy(rollouts={"": found}, **self.BETA), reported)
                    self.assertEqual(decision.version, "v1.4")
                    expected = (
                        "the target of its group beta, which the rollout of v1.5 leaves alone"
                    )
                    self.assertEqual(decision.reason, expected)

    def test_also_where_the_group_is_the_first_wave(self):
        found = Rollout("v1.5", "running", 100.0, "beta")
        self.assertEqual(told(policy(rollouts={"": found}, **self.BETA)).version, "v1.4")

    def test_with_groups_too_it_is_offered_and_held_back_as_all_are(self):
        for found, version in ((in_all("v1.5"), "v1.5"), (in_none("v1.5"), "v1.4")):
            with self.subTest(found):
                decided = policy(rollouts={"": groups_too(found)}, **self.BETA)
                self.assertEqual(told(decided).version, version)

    def test_a_revert_takes_nobody_anywhere_who_is_not_on_its_release(self):
        back = groups_too(in_all("v1.1"))._replace(reverts="v1.5")
        for reported, version in (("v1.5", "v1.1"), ("v1.0", "v1.4"), ("v1.4", "v1.4")):
            with self.subTest(reported):
                decided = policy(rollouts={"": back}, **self.BETA)
                self.assertEqual(told(decided, reported).version, version)

    def test_one_of_its_groups_with_a_target_is_enough(self):
        decided = policy(
            rollouts={"": in_all("v1.5")},
            groups={MAC: ("alpha", "beta"), OTHER: ("alpha",)},
            group_targets={"beta": "v1.4"},
        )
        self.assertEqual(told(decided).version, "v1.4")
        self.assertEqual(told(decided, mac=OTHER).version, "v1.5")

    def test_the_rollout_of_its_own_group_takes_it_all_the_same(self):
        for group in ("beta", "gamma"):
            for found, version in ((in_all("v1.6"), "v1.6"), (in_none("v1.6"), "v1.4")):
                with self.subTest(group=group, found=found):
                    decided = policy(
                        rollouts={group: found, "": in_all("v1.5")},
                        groups={MAC: ("beta", "gamma")},
                        group_targets={"beta": "v1.4"},
                    )
                    self.assertEqual(told(decided).version, version)

    def test_what_its_group_is_on_is_not_taken_back_with_the_fleet(self):
        # The group got v1.2 by a rollout of its own; that of the fleet was aborted and goes back.
        decided = policy(
            rollouts={"": in_all("v1.1")},
            groups={MAC: ("beta",)},
            group_targets={"beta": "v1.2"},
            stopped={"1.2": Stopped("v1.2", False, "v1.1", {"beta": "v1.2"})},
        )
        self.assertEqual(told(decided, "v1.2").version, "v1.2")
        self.assertEqual(told(decided, "v1.2", mac=OTHER).version, "v1.1")


class CohortTest(unittest.TestCase):
    MACS = tuple(f"02:00:00:00:{number // 256:02x}:{number % 256:02x}" for number in range(10_000))

    def members(self, version: str, percent: float) -> set[str]:
        return {mac for mac in self.MACS if cohort_percent(version, mac) < percent}

    def test_it_is_the_same_on_every_server(self):
        # By sha256sum of "1.2\n00:11:22:33:44:55": an update of the server must not change waves.
        expected = 0x0EE0F5AF861E0436 / 2**64 * 100
        self.assertAlmostEqual(cohort_percent("v1.2", MAC), expected, places=9)

    def test_another_spelling_of_a_release_is_the_same_release(self):
        self.assertEqual(cohort_percent("v1.2", MAC), cohort_percent("1.2", MAC))

    def test_raising_the_percentage_only_adds_devices(self):
        before: set[str] = set()
        for percent in (0, 1, 10, 50, 99.5, 100):
            members = self.members("v1.2", percent)
            with self.subTest(percent):
                self.assertLessEqual(before, members)
            before = members
        self.assertEqual(before, set(self.MACS))

    def test_a_wave_holds_about_its_percentage(self):
        for percent in (1, 10, 50):
            with self.subTest(percent):
                expected = len(self.MACS) * percent / 100
                # Four standard deviations of a binomial distribution.
                deviation = 4 * (expected * (1 - percent / 100)) ** 0.5
                size = len(self.members("v1.2", percent))
                self.assertAlmostEqual(size, expected, delta=deviation)

    def test_another_release_begins_with_other_devices(self):
        both = self.members("v1.2", 10) & self.members("v1.3", 10)
        self.assertLess(len(both), 200)  # of a thousand each, a hundred by chance


class StoppedTest(unittest.TestCase):
    def test_a_withdrawn_target_is_offered_to_nobody(self):
        decision = told(policy(stopped=stopped("v1.1")))
        self.assertEqual(
            decision, Told("v1.0", "v1.1 was withdrawn; the target of the fleet", None)
        )

    def test_who_runs_what_was_withdrawn_stays_on_it(self):
        for fleet in ("v1.0", "1.0", "v1.1", None):
            with self.subTest(fleet):
                decided = policy(stopped=stopped("v1.1", instead_of="v1.0"))
                self.assertEqual(told(decided, "1.1", fleet).version, "1.1")

    def test_another_target_than_that_of_then_applies(self):
        decided = policy(stopped=stopped("v1.1", instead_of="v1.0"))
        self.assertEqual(told(decided, "v1.1", "v1.2").version, "v1.2")

    def test_a_group_stays_on_it_for_as_long_as_its_own_target_is_that_of_then(self):
        gone = {"1.2": Stopped("v1.2", True, "v1.1", {"beta": "v1.0"})}
        for target_of_group, version in (("v1.0", "v1.2"), ("v1.1", "v1.1")):
            with self.subTest(target_of_group):
                targets = {"beta": target_of_group}
                decided = policy(stopped=gone, groups={MAC: ("beta",)}, group_targets=targets)
                self.assertEqual(told(decided, "v1.2").version, version)

    def test_who_is_in_no_group_is_not_kept_by_the_target_of_one(self):
        gone = {"1.2": Stopped("v1.2", True, "v1.0", {"beta": "v1.1"})}
        self.assertEqual(told(policy(stopped=gone), "v1.2").version, "v1.1")

    def test_where_there_was_no_target_then_it_stays_until_that_is_lifted(self):
        decided = policy(stopped=stopped("v1.1"))
        self.assertEqual(told(decided, "v1.1", "v1.2").version, "v1.1")

    def test_who_runs_what_was_aborted_stays_on_it(self):
        decided = policy(stopped=stopped("v1.2", False, "v1.1"))
        decision = told(decided, "v1.2")
        self.assertEqual((decision.version, decision.release), ("v1.2", "v1.2"))
        self.assertIn("aborted", decision.reason)

    def test_what_was_aborted_may_be_a_target_again(self):
        decided = policy(stopped=stopped("v1.2", False, "v1.1"))
        self.assertEqual(told(decided, "v1.0", "v1.2").version, "v1.2")

    def test_the_wave_of_the_next_rollout_takes_devices_off_it(self):
        found = stopped("v1.2", instead_of="v1.1")
        decided = policy(stopped=found, rollouts={"": in_all("v1.3")})
        self.assertEqual(told(decided, "v1.2").version, "v1.3")
        held_back = policy(stopped=found, rollouts={"": in_none("v1.3")})
        self.assertEqual(told(held_back, "v1.2").version, "v1.2")

    def test_a_pin_takes_a_device_off_it(self):
        pins = ({MAC: Pin("v1.0", None)}, {})
        decided = policy(stopped=stopped("v1.1", instead_of="v1.0"), pins=pins)
        self.assertEqual(told(decided, "v1.1").version, "v1.0")


class StoneTest(unittest.TestCase):
    WAY = manifests(v1_3="v1.2", v1_2=("v1.1", "v1.0.*"))

    def test_a_device_goes_over_each_stone(self):
        steps = {"v1.0": "v1.1", "v1.1": "v1.2", "1.1": "v1.2", "v1.2": "v1.3", "v1.3": "v1.3"}
        for reported, version in steps.items():
            with self.subTest(reported):
                decided = policy(manifests=self.WAY)
                self.assertEqual(told(decided, reported, "v1.3").version, version)

    def test_the_reason_names_where_it_goes(self):
        decision = told(policy(manifests=self.WAY), "v1.0", "v1.3")
        self.assertEqual(decision.reason, "the stepping stone to v1.3: the target of the fleet")

    def test_a_version_that_is_named_as_direct_needs_no_stone(self):
        self.assertEqual(told(policy(manifests=self.WAY), "1.0.7", "v1.2").version, "v1.2")

    def test_a_pin_and_a_rollout_go_over_the_stepping_stones_too(self):
        for more in ({"pins": ({MAC: Pin("v1.3", None)}, {})}, {"rollouts": {"": in_all("v1.3")}}):
            with self.subTest(more):
                self.assertEqual(told(policy(manifests=self.WAY, **more), "v1.0").version, "v1.1")

    def test_a_stone_that_was_withdrawn_or_is_missing_stops_the_way(self):
        for more in ({"stopped": stopped("v1.1")}, {"images": IMAGES - {"1.1"}}):
            with self.subTest(more):
                decision = told(policy(manifests=self.WAY, **more), "v1.0", "v1.3")
                self.assertEqual((decision.version, decision.release), ("v1.0", None))

    def test_a_circle_made_by_hand_ends(self):
        circle = manifests(v1_2="v1.3", v1_3="v1.2")
        self.assertIn(told(policy(manifests=circle), fleet="v1.3").version, ("v1.2", "v1.3"))

    def test_patterns_are_compared_by_meaning(self):
        for version, pattern, expected in (
            ("1.1.5", "v1.1.*", True),
            ("v1.1.5", "1.1.*", True),
            ("v1.10", "v1.1", False),
            ("v1.1.5", "v1.1", False),
            ("v1x1", "v1.1", False),
            ("v1.1-rc", "*-rc", True),
            ("rc", "*rc*", True),
            ("aba", "ab*ba", False),
            ("", "*", True),
            ("v2", "*", True),
        ):
            with self.subTest(version=version, pattern=pattern):
                self.assertEqual(matches(version, pattern), expected)

    def test_a_pattern_of_many_stars_takes_no_time(self):
        began = time.process_time()
        self.assertFalse(matches("a" * 64, "*a" * 31 + "*b"))
        self.assertLess(time.process_time() - began, 1.0)


class ReportsAsTest(unittest.TestCase):
    def test_who_reports_the_other_name_of_the_target_runs_it(self):
        decision = told(policy(manifests=alias("v1.1", "build 77")), "build 77")
        self.assertEqual(decision, Told("build 77", "the target of the fleet", "v1.1"))

    def test_the_other_name_is_known_to_a_rollout_and_to_what_was_stopped(self):
        known = alias("v1.2", "build 77")
        for more in (
            {"rollouts": {"": in_none("v1.2")}},
            {"stopped": stopped("v1.2", instead_of="v1.1")},
        ):
            with self.subTest(more):
                decision = told(policy(manifests=known, **more), "build 77")
                self.assertEqual(decision.version, "build 77")

    def test_the_other_name_counts_as_a_known_release(self):
        decided = policy(manifests=alias("v1.0", "build 7"), rollouts={"": in_none("v1.2")})
        self.assertEqual(told(decided, "build 7").version, "v1.1")
