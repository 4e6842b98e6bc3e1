"""`--unknown-devices keep`: a device in no group is told nothing."""

import unittest

from ota_server.model.device import Report
from ota_server.model.version import Target
from ota_server.policy import edits
from ota_server.policy.decision import decide
from ota_server.policy.gather import explain_device
from ota_server.policy.policy import Pin, Rollout, RolloutState, make_policy
from ota_server.policy.reason import Reason
from ota_server.policy.situation import ServerState, Situation
from ota_server.policy.text import Who
from ota_server.rollouts.audience import scope_of
from tests.support import DEVICE, MAC, ServerCase

OTHER = "a0:b1:c2:d3:e4:f5"
TARGET = Target("v2", "", "firmware_v2.bin", 10)
IMAGES = frozenset(("1", "2", "3"))
ROLLOUT = Rollout("v3", RolloutState.RUNNING, 100.0)


class DecisionTest(unittest.TestCase):
    def told(self, mac: str = MAC, **decided: object) -> tuple[str, Reason]:
        decided = {"images": IMAGES, "groups": {OTHER: ("beta",)}, **decided}
        policy = make_policy(keeps_ungrouped=True, **decided)
        found = decide(Report(mac, "v1"), Situation(policy, TARGET))
        return found.version, found.reason

    def test_a_device_in_no_group_stays_on_what_it_runs(self):
        self.assertEqual(self.told(), ("v1", Reason.NO_GROUP))
        self.assertEqual(self.told(rollouts={"": ROLLOUT}), ("v1", Reason.NO_GROUP))

    def test_one_that_is_pinned_gets_that(self):
        self.assertEqual(self.told(pins=({MAC: Pin("v3", None)}, {})), ("v3", Reason.PIN))

    def test_the_hold_and_a_broken_file_come_first(self):
        self.assertEqual(self.told(is_held=True), ("v1", Reason.ON_HOLD))
        self.assertEqual(self.told(problem="x"), ("v1", Reason.UNUSABLE_FILE))

    def test_one_in_a_group_gets_the_target_and_rollouts(self):
        self.assertEqual(self.told(OTHER), ("v2", Reason.TARGET))
        self.assertEqual(self.told(OTHER, rollouts={"": ROLLOUT}), ("v3", Reason.ROLLOUT))


class ServerTest(ServerCase):
    def test_it_is_told_its_own_version_and_why_says_so(self):
        service = self.start(service={"keeps_ungrouped": True}).service
        edits.add_members(self.data_dir, "beta", [OTHER])
        grouped = {**DEVICE, "_br_mac_": OTHER}
        for fields, told in ((DEVICE, "v1.0.0"), (grouped, "v1.0.1")):
            with self.subTest(told):
                self.assertEqual(self.get("/version.txt", fields).body.decode(), told)
        self.assertEqual(self.get("/firmware.bin", {**DEVICE, "_br_fwv_": "v0.9"}).status, 503)
        state = service.standing(service.default)[1]
        for server, told in ((state, "v1.0.0"), (ServerState(True), "v1.0.1")):
            with self.subTest(server=server):
                found = explain_device(self.data_dir, Report(MAC, "v1.0.0"), None, 0, server)
                self.assertEqual(found.decision.version, told)

    def test_a_pin_lets_one_in(self):
        self.start(service={"keeps_ungrouped": True})
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")
        edits.pin(self.data_dir, Who("devices", MAC), "v1.0.1", None)
        self.assertEqual(self.get("/version.txt").body, b"v1.0.1")


class ReachTest(unittest.TestCase):
    def test_a_rollout_to_the_fleet_reaches_the_members_of_groups_alone(self):
        from ota_server.policy.rollout_plan import RolloutPlan

        plan = RolloutPlan("id", "v3", "", (100.0,), "2026-11-24T00:00:00.000Z", "v2")
        groups = {OTHER: ("beta",)}
        for keeps, reached in ((True, [False, True]), (False, [True, True])):
            with self.subTest(keeps):
                policy = make_policy(groups=groups, keeps_ungrouped=keeps)
                scope = scope_of(plan, policy, None, 0)
                self.assertEqual([scope.reaches(mac) for mac in (MAC, OTHER)], reached)
