"""Whom a rollout reaches, where several are on, and where groups have targets of their own."""

import unittest
from itertools import product

from ota_server.model.device import Report
from ota_server.model.manifest import Manifest
from ota_server.model.parts import PartRecord
from ota_server.model.version import Target
from ota_server.policy.decision import decide
from ota_server.policy.explain import in_words
from ota_server.policy.policy import Pin, Policy, Rollout, Stopped, make_policy
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.policy.situation import Situation
from ota_server.rollouts.audience import groups_left_alone, scope_of

ALPHA, BETA, BOTH, NEITHER = (f"02:00:00:00:00:0{number}" for number in (1, 2, 3, 4))
GROUPS = {ALPHA: ("alpha",), BETA: ("beta",), BOTH: ("alpha", "beta")}
TIME = "2026-11-24T12:00:00.000Z"


def plan_of(group: str = "", groups_too: bool = False) -> RolloutPlan:
    return RolloutPlan("id1", "v2", group, (100.0,), TIME, "v1", groups_too=groups_too)


def left_out(policy: Policy, group: str = "", groups_too: bool = False) -> set[str]:
    return set(scope_of(plan_of(group, groups_too), policy, None, 0).left_out)


class FitTest(unittest.TestCase):
    def size_in_scope(self, manifest: Manifest, *beside: str) -> int | None:
        images = frozenset(("1", "2", *beside))
        policy = make_policy(manifests={"2": manifest}, images=images)
        found = scope_of(plan_of(), policy, None, 0).fit.manifests.get("2")
        return None if found is None else found.size

    def test_what_is_on_record_of_the_image_says_who_cannot_take_it(self):
        release = Manifest("v2", "a" * 64, "0" * 32, 1000, "")
        self.assertEqual(self.size_in_scope(release), 1000)
        self.assertEqual(self.size_in_scope(release, "2-minimal"), 0)
        packed = PartRecord("a" * 64, "0" * 32, 500)
        self.assertEqual(self.size_in_scope(release._replace(gzip=packed)), 0)
        self.assertEqual(self.size_in_scope(release._replace(via="v1.5")), None)


class ReachTest(unittest.TestCase):
    def policy(self, *groups: str, is_withdrawn: bool = False) -> Policy:
        rollouts = {group: Rollout("v3", "paused", 1.0) for group in groups}
        stopped = {"3": Stopped("v3", True, None)} if is_withdrawn else {}
        return make_policy(groups=GROUPS, rollouts=rollouts, stopped=stopped)

    def test_devices_with_a_rollout_of_their_group_are_left_out_of_that_of_the_fleet(self):
        self.assertEqual(left_out(self.policy("", "alpha")), {ALPHA, BOTH})

    def test_alone_it_leaves_nobody_out(self):
        self.assertEqual(left_out(self.policy("")), set())
        self.assertEqual(left_out(self.policy("alpha"), "alpha"), set())

    def test_of_two_groups_the_first_in_the_alphabet_has_the_device(self):
        policy = self.policy("alpha", "beta", "")
        self.assertEqual(left_out(policy, "alpha"), set())
        self.assertEqual(left_out(policy, "beta"), {ALPHA, BOTH})

    def test_a_rollout_of_what_was_withdrawn_has_nobody(self):
        self.assertEqual(left_out(self.policy("", "alpha", is_withdrawn=True)), set())

    def test_who_has_the_target_of_a_group_is_left_out_of_the_rollout_of_the_fleet_alone(self):
        policy = make_policy(groups=GROUPS, group_targets={"beta": "v1.5"})
        self.assertEqual(left_out(policy), {BETA, BOTH})
        self.assertEqual(left_out(policy, groups_too=True), set())
        self.assertEqual(left_out(policy, "alpha"), set())
        self.assertEqual(left_out(policy, "beta"), set())

    def test_it_counts_the_devices_that_the_server_offers_it_to_and_no_others(self):
        images = frozenset(("1", "1.5", "2", "3"))
        rollouts = (
            {},
            {"alpha": Rollout("v3", "paused", 1.0)},
            {"beta": Rollout("v2", "paused", 1)},
        )
        targets = ({}, {"alpha": "v1.5"}, {"beta": "v1.5"}, {"alpha": "v1.5", "beta": "v2"})
        pins = ({}, {"alpha": Pin("v1", None)})
        for groups_too, others, own, pinned in product((False, True), rollouts, targets, pins):
            with self.subTest(groups_too=groups_too, others=others, own=own, pinned=pinned):
                fleet = Rollout("v2", "running", 100.0, groups_too=groups_too)
                policy = make_policy(
                    groups=GROUPS,
                    rollouts={"": fleet, **others},
                    group_targets=own,
                    pins=({}, pinned),
                    images=images,
                )
                target = Target("v1", "", "firmware_v1.bin", 1000)
                reasons = {
                    mac: in_words(decide(Report(mac, "v1"), Situation(policy, target)).cause)
                    for mac in (ALPHA, BETA, BOTH, NEITHER)
                }
                reached = {mac for mac, why in reasons.items() if why == "the rollout of v2"}
                known = left_out(policy, groups_too=groups_too)
                self.assertEqual(reached, {ALPHA, BETA, BOTH, NEITHER} - known)

    def test_groups_that_are_left_alone_are_named_with_their_targets_and_devices(self):
        targets = {"beta": "v1.5", "alpha": "v1.4", "empty": "v1"}
        policy = make_policy(groups=GROUPS, group_targets=targets)
        found = groups_left_alone(plan_of(), policy)
        self.assertEqual(found, [("alpha", "v1.4", 2), ("beta", "v1.5", 2)])
        self.assertEqual(groups_left_alone(plan_of(groups_too=True), policy), [])
        self.assertEqual(groups_left_alone(plan_of("alpha"), policy), [])
