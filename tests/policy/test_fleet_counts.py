"""How the devices of a fleet are: found out once for those that are told the same."""

from itertools import product

from ota_server.model.device import DAY_MS, Device, Download
from ota_server.model.version import Target, meaning
from ota_server.policy.device_state import Condition, condition_of
from ota_server.policy.fleet_counts import FleetConditions
from ota_server.policy.gather import FleetSituation, image_on_disk
from ota_server.policy.policy import Pin, Policy, Rollout, RolloutState, Stopped, make_policy
from ota_server.policy.situation import ServerState
from tests.policy.test_device_state import NOW_MS, device, download
from tests.support import ROOT, DataDirCase

SAMPLE = (ROOT / "ota_server" / "firmware" / "firmware_v1.0.1.bin").read_bytes()
MACS = tuple(f"02:00:00:00:00:{number:02x}" for number in range(6))
IMAGES = frozenset(map(meaning, ("v1.0", "v1.1", "v1.2")))
STUCK = Download("v1.2", "a" * 64, 5, NOW_MS - 5000, 10, NOW_MS - 4000, 0)
POLICIES = {
    "plain": {},
    "on hold": {"is_held": True},
    "a pin": {"pins": ({MACS[0]: Pin("v1.0", None)}, {"lab": Pin("v1.2", None)})},
    "groups": {"group_targets": {"lab": "v1.2"}, "keeps_ungrouped": True},
    "a rollout": {"rollouts": {"": Rollout("v1.2", RolloutState.RUNNING, 50.0)}},
    "a stop": {"stopped": {"1.1": Stopped("v1.1", True, None)}},
    "a retry": {"group_targets": {"lab": "v1.2"}, "retries": {MACS[1]: NOW_MS - 1000}},
}
SERVERS = {
    "all slots are free": ServerState(),
    "one is let in": ServerState(taken_slots=4, let_in=frozenset(MACS[:1])),
    "the window is closed": ServerState(closed_window="01:00-05:00"),
    "for development": ServerState(is_development=True),
}
DEVICES = [
    device(version, ago_ms, address=address, download=last)
    for version, ago_ms, address, last in product(
        ("v1.0", "v1.1", "1.1", "v1.2", "factory"),
        (1000, DAY_MS),
        ("10.0.0.9", "127.0.0.1"),
        (None, STUCK, download("v1.1", 1, DAY_MS)),
    )
]


class FleetConditionsTest(DataDirCase):
    def fleet(self, policy: Policy, server: ServerState = SERVERS["all slots are free"]):
        """Return the situation of a fleet with the target v1.1."""
        target = Target("v1.1", "", "firmware_v1.1.bin", 5)
        return FleetSituation(policy, target, "v1.1", "", server, NOW_MS)

    def test_each_device_is_as_if_it_were_the_only_one(self):
        # Where a device is matters to whom a sample is offered.
        self.put_image("v1.1", SAMPLE)
        self.put_image("v1.2", b"image")
        groups = {MACS[1]: ("lab",), MACS[2]: ("lab",)}
        for policy, server in product(POLICIES, SERVERS):
            decided = make_policy(images=IMAGES, groups=groups, **POLICIES[policy])
            fleet = self.fleet(decided, SERVERS[server])
            together = FleetConditions(self.data_dir, fleet, lambda *_: "")
            for one, mac in product(DEVICES, MACS):
                with self.subTest(policy=policy, server=server, mac=mac, device=one):
                    alone = condition_of(
                        mac,
                        one,
                        fleet.situation(mac, one),
                        lambda version: image_on_disk(self.data_dir / "firmware", version),
                    )
                    self.assertEqual(together.of(mac, one), alone)

    def test_a_device_that_is_away_is_outdated_only_if_it_would_be_after_its_return(self):
        together = FleetConditions(self.data_dir, self.fleet(make_policy()), lambda *_: "")
        for version, is_outdated in (("v1.1", False), ("v1.0", True)):
            away = device(version, DAY_MS)
            self.assertEqual(together.of(MACS[0], away).condition, Condition.AWAY)
            self.assertEqual(together.is_outdated(MACS[0], away), is_outdated)

    def test_a_device_that_fell_silent_is_outdated_whatever_it_reported_last(self):
        together = FleetConditions(self.data_dir, self.fleet(make_policy()), lambda *_: "silent")
        self.assertTrue(together.is_outdated(MACS[0], device("v1.1", DAY_MS)))

    def test_what_a_rollout_says_of_a_device_is_asked_for_each(self):
        judged = dict.fromkeys(MACS[:1], "failed")

        def state_of(mac: str, _: Device) -> str:
            return judged.get(mac, "")

        together = FleetConditions(self.data_dir, self.fleet(make_policy()), state_of)
        found = [together.of(mac, device()).condition for mac in MACS[:2]]
        self.assertEqual(found, [Condition.FAILED, Condition.UP_TO_DATE])
