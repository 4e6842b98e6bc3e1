"""Whom a rollout reaches, where several are on."""

import unittest

from ota_server.plan import Plan
from ota_server.policy import Policy, Rollout, Stopped, make_policy
from ota_server.reach import what_is_known

ALPHA, BETA, BOTH = (f"02:00:00:00:00:0{number}" for number in (1, 2, 3))
GROUPS = {ALPHA: ("alpha",), BETA: ("beta",), BOTH: ("alpha", "beta")}
TIME = "2026-11-24T12:00:00.000Z"


def left_out(policy: Policy, group: str = "") -> set[str]:
    plan = Plan("id1", "v2", group, (100.0,), TIME, "v1")
    return set(what_is_known(plan, policy, None, 0).left_out)


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
