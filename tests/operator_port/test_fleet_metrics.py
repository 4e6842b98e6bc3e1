"""Metrics of products: devices once each, versions that cannot break the format, rollouts."""

import random
import unittest

from ota_server.evaluation.device_case import DeviceState
from ota_server.evaluation.tally import Tally
from ota_server.operator_port.exposition import exposition
from ota_server.operator_port.fleet_metrics import (
    MOST_ROLLOUTS,
    MOST_VERSIONS,
    OUTCOMES,
    ROLLOUT_STATES,
    fleet_families,
)
from ota_server.operator_port.metrics_input import FleetFigures, ProductFigures, RolloutFigures
from ota_server.policy.device_state import Condition
from tests.support.metrics import FLEET, ROLLOUT, read_metrics


def of_products(*products: ProductFigures):
    """Return the metrics of these products."""
    return read_metrics(exposition(fleet_families(products)))


def versions_of(versions: dict[str, int]) -> dict[str, float]:
    """Return how many devices report which version, as the metric says it."""
    found = of_products(ProductFigures(fleet=FleetFigures({}, versions)))
    return {dict(labels)["version"]: n for labels, n in found["ota_devices_by_version"].items()}


class DevicesTest(unittest.TestCase):
    def test_each_state_has_a_sample_and_they_add_up_to_the_fleet(self):
        states = {each: number for number, each in enumerate(Condition)}
        found = of_products(ProductFigures(fleet=FleetFigures(states, {})))["ota_devices"]
        self.assertEqual(len(found), len(Condition))
        self.assertEqual(sum(found.values()), sum(states.values()))
        self.assertEqual(found[(("state", "up_to_date"),)], states[Condition.UP_TO_DATE])

    def test_those_that_an_update_should_reach_have_samples_of_the_same_states(self):
        fleet = FleetFigures({Condition.BEHIND: 5}, {}, counted={Condition.BEHIND: 3})
        found = of_products(ProductFigures(fleet=fleet))
        self.assertEqual(found["ota_devices"][(("state", "behind"),)], 5)
        self.assertEqual(found["ota_counted_devices"][(("state", "behind"),)], 3)
        self.assertEqual({*found["ota_counted_devices"]}, {*found["ota_devices"]})

    def test_devices_that_are_not_counted_yet_have_no_samples(self):
        found = of_products(ProductFigures(fleet=None))
        self.assertNotIn("ota_devices", found)
        self.assertNotIn("ota_devices_by_version", found)
        self.assertIn("ota_hold", found)

    def test_the_nine_most_frequent_versions_are_named_and_others_are_one(self):
        found = versions_of({f"v{number}": number for number in range(1, 21)})
        self.assertEqual(len(found), MOST_VERSIONS + 1)
        self.assertEqual(found["v20"], 20)
        self.assertEqual(found["other"], sum(range(1, 12)))

    def test_other_is_there_before_it_is_needed(self):
        self.assertEqual(versions_of({}), {"other": 0})

    def test_a_device_that_says_it_runs_other_is_one_of_the_others(self):
        self.assertEqual(versions_of({"other": 3, "v1": 1}), {"v1": 1, "other": 3})

    def test_hostile_versions_add_up_and_break_nothing(self):
        source = random.Random(3)
        characters = '"\\\n\r\0{}, =\u202e\ud800<é'
        for _ in range(100):
            versions = {
                "".join(source.choices(characters, k=source.randint(0, 3))): source.randint(1, 9)
                for _ in range(30)
            }
            with self.subTest(ascii(versions)):
                found = versions_of(versions)
                self.assertEqual(sum(found.values()), sum(versions.values()))
                self.assertLessEqual(len(found), MOST_VERSIONS + 1)


class ProductsTest(unittest.TestCase):
    def test_a_product_has_a_label_and_the_default_one_none(self):
        found = of_products(ProductFigures(""), ProductFigures("plug", is_held=True))
        self.assertEqual(found["ota_hold"], {(): 0, (("product", "plug"),): 1})

    def test_what_is_held_says_since_when(self):
        found = of_products(ProductFigures(is_held=True, held_since_ms=1500))
        self.assertEqual(found["ota_hold_since_timestamp_seconds"], {(): 1.5})

    def test_pins_and_times_of_the_fleet_are_told(self):
        found = of_products(ProductFigures(fleet=FLEET))
        self.assertEqual(found["ota_pinned_devices"], {(): 1})
        self.assertEqual(found["ota_devices_as_of_timestamp_seconds"], {(): 1})
        self.assertEqual(found["ota_device_last_seen_timestamp_seconds"], {(): 2})


class RolloutsTest(unittest.TestCase):
    def test_without_a_rollout_its_states_and_outcomes_are_zero(self):
        found = of_products(ProductFigures())
        states = {dict(labels)["state"]: n for labels, n in found["ota_rollout_state"].items()}
        self.assertEqual(states, {each: each == "none" for each in ROLLOUT_STATES})
        self.assertEqual({*found["ota_rollout_devices"].values()}, {0})
        self.assertEqual(found["ota_rollout_waits_for_person"], {(): 0})
        self.assertNotIn("ota_rollout_info", found)

    def test_a_rollout_is_in_one_state(self):
        for state in ROLLOUT_STATES:
            found = of_products(ProductFigures(rollouts=(ROLLOUT._replace(state=state),)))
            with self.subTest(state):
                samples = found["ota_rollout_state"]
                self.assertEqual(samples[(("state", state),)], 1)
                self.assertEqual(sum(samples.values()), 1)

    def test_a_rollout_to_a_group_is_one_beside_that_to_the_fleet(self):
        group = ROLLOUT._replace(group="beta", wave=1)
        found = of_products(ProductFigures("plug", rollouts=(ROLLOUT, group)))
        self.assertEqual(
            found["ota_rollout_wave"],
            {(("product", "plug"),): 2, (("product", "plug"), ("group", "beta")): 1},
        )

    def test_what_became_of_devices_is_told_and_unknown_words_are_not(self):
        rollout = ROLLOUT._replace(outcomes={"updated": 4, "failed": 1, 'x"': 9, "active": 5})
        found = of_products(ProductFigures(rollouts=(rollout,)))["ota_rollout_devices"]
        self.assertEqual(found[(("outcome", "updated"),)], 4)
        self.assertEqual(found[(("outcome", "failed"),)], 1)
        self.assertEqual(len(found), len(OUTCOMES))

    def test_what_would_be_silent_anyway_is_told(self):
        rollout = ROLLOUT._replace(outcomes={"silent": 4, "silent_anyway": 3})
        found = of_products(ProductFigures(rollouts=(rollout,)))
        self.assertEqual(found["ota_rollout_silent_anyway"], {(): 3})

    def test_outcomes_are_words_of_the_evaluation_that_the_progress_has(self):
        self.assertLessEqual({*OUTCOMES}, {*DeviceState} & {*Tally._fields})
        rest = {*DeviceState} & {*Tally._fields} - {*OUTCOMES}
        self.assertEqual(rest, set())

    def test_rollouts_that_cannot_be_read_are_said_to_be_so(self):
        found = of_products(ProductFigures(rollouts=None))
        self.assertEqual(found["ota_rollouts_readable"], {(): 0})
        self.assertNotIn("ota_rollout_state", found)

    def test_so_many_groups_have_a_bound(self):
        groups = tuple(RolloutFigures(f"g{number}", "v1", "done") for number in range(300))
        found = of_products(ProductFigures(rollouts=groups))
        self.assertEqual(len(found["ota_rollout_wave"]), MOST_ROLLOUTS)
