"""The model of fleets: rollouts of good and bad releases end as they should."""

import contextlib
import functools
import io
import tempfile
import unittest
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from benchmarks import rollout_model
from benchmarks.fleet_model import MADE_UP_AT, SCENARIOS, ModelFleet, ModelScenario
from benchmarks.fleet_shapes import DAY_MS, HOUR_MS, MINUTE_MS, SHAPES, Shape
from benchmarks.rollout_model import ModelOutcome, is_right, matrix, run, table, verdict
from ota_server.model.timestamp import format_time, parse_time

# Of these, the first wave holds thirty: enough to go on, enough to halt.
DEVICES = 1500
SEEDS = (1, 2)
# Of these, the first wave holds enough that twenty made-up ones are no reason to ask a person.
NOT_ASKED_ABOUT = 5000
START_MS = 1_790_000_000_000
GOOD = SCENARIOS[0]
CANNOT_BOOT = next(each for each in SCENARIOS if each.name == "30 % cannot boot it")
BRICKED = next(each for each in SCENARIOS if each.bricked)
NO_POWER = next(each for each in SCENARIOS if "no power" in each.name)
FORGED = next(each for each in SCENARIOS if each.is_good and each.forged)
SPOKEN_FOR = next(each for each in SCENARIOS if each.is_good and each.spoken_for)


def shape(name: str) -> Shape:
    """Return the shape of a name."""
    return next(each for each in SHAPES if each.name == name)


def outcome(scenario=GOOD, **fields) -> ModelOutcome:
    """Return what came of a run: a release that reached all in time, but for these fields."""
    usual = ModelOutcome(scenario.name, "homes", 0, "done", 1000, 10, 30, 1.0, 5.0, 104.0, "")
    return usual._replace(**fields)


@functools.cache
def ran(scenario: ModelScenario, seed: int) -> ModelOutcome:
    """Return what came of a run, which is the same whichever test asks."""
    return run(scenario, seed, devices=DEVICES)


class BadReleaseTest(unittest.TestCase):
    TAKES_LONG = True

    # In one class, so in one process, for what `ran` keeps.
    def test_bad_releases_are_halted_before_many_devices_have_them(self):
        for scenario in SCENARIOS:
            if scenario.is_good or scenario.only_from:
                continue
            for seed in SEEDS:
                with self.subTest(scenario.name, seed=seed):
                    outcome = ran(scenario, seed)
                    self.assertTrue(is_right(scenario, outcome), outcome)

    def test_the_same_seed_is_the_same_run(self):
        self.assertEqual(ran(BRICKED, 2), run(BRICKED, 2, devices=DEVICES))

    def test_a_controller_that_is_killed_again_and_again_decides_the_same(self):
        for scenario in (GOOD, *(each for each in SCENARIOS if each.bricked)):
            with self.subTest(scenario.name):
                killed = run(scenario, 2, devices=DEVICES, is_killed=True)
                self.assertEqual(ran(scenario, 2), killed)


class GoodReleaseTest(unittest.TestCase):
    def test_a_good_release_reaches_all(self):
        outcome = ran(GOOD, 0)
        self.assertTrue(is_right(GOOD, outcome), outcome)

    def test_an_honest_fleet_that_stays_where_it_is_needs_no_guard(self):
        for scenario in (GOOD, CANNOT_BOOT, BRICKED):
            with self.subTest(scenario.name):
                proven = run(scenario, 0, devices=DEVICES, devices_proven=True)
                self.assertEqual(ran(scenario, 0), proven)

    def test_proven_devices_need_not_be_waited_for_where_they_move(self):
        guarded, proven = (
            run(GOOD, 0, shape("mobile"), devices_proven=proven) for proven in (False, True)
        )
        self.assertTrue(is_right(GOOD, proven), proven)
        self.assertLess(proven.hours, guarded.hours)


class NoVersionTest(unittest.TestCase):
    def test_a_good_release_reaches_all_though_some_say_no_version(self):
        scenario = replace(GOOD, name="all is well, a tenth says no version", unseen=0.1)
        outcome = run(scenario, 0, devices=DEVICES)
        self.assertTrue(is_right(scenario, outcome), outcome)
        self.assertEqual(outcome.state, "done")

    def test_a_bad_release_is_halted_by_the_others(self):
        for bad in (CANNOT_BOOT, BRICKED):
            for share in (0.1, 0.5):
                name = f"{bad.name}, {share} say no version"
                with self.subTest(name):
                    scenario = replace(bad, name=name, unseen=share)
                    outcome = run(scenario, 0, devices=DEVICES)
                    self.assertTrue(is_right(scenario, outcome), outcome)

    def test_where_nobody_says_a_version_it_waits_for_a_person(self):
        scenario = replace(CANNOT_BOOT, name="nobody says a version", unseen=1.0)
        outcome = run(scenario, 0, devices=NOT_ASKED_ABOUT)
        self.assertEqual(outcome.state, "paused")
        self.assertIn("say no version", outcome.reason)
        self.assertLess(outcome.had, NOT_ASKED_ABOUT / 10)


class ForgedTest(unittest.TestCase):
    def test_twenty_forged_macs_neither_halt_nor_pause_a_good_release(self):
        outcome = run(FORGED, 0, devices=NOT_ASKED_ABOUT)
        self.assertTrue(is_right(FORGED, outcome), outcome)
        self.assertEqual(outcome.state, "done")

    def test_without_the_guard_forged_macs_halt_a_good_release(self):
        for devices_proven, state in ((False, "paused"), (True, "halted")):
            with self.subTest(devices_proven=devices_proven):
                outcome = run(FORGED, 0, shape("10 sites of 10"), devices_proven=devices_proven)
                self.assertEqual(outcome.state, state)


class EachShapeTest(unittest.TestCase):
    def test_a_release_can_be_rolled_out_over_each_shape(self):
        for each in SHAPES[1:]:
            if each.slowest_ms == DAY_MS:
                continue  # takes days, and so does the test
            with self.subTest(each.name):
                outcome = run(CANNOT_BOOT, 1, each)
                self.assertIn(outcome.state, ("halted", "paused"))
                self.assertLess(outcome.had, each.devices / 2)


class VerdictTest(unittest.TestCase):
    def test_a_good_release_has_to_reach_all_in_time(self):
        for fields, right in (
            ({}, True),
            ({"promoted": 1}, True),
            ({"reached": 0.99}, False),
            ({"hours": 105.0}, False),
            ({"state": "halted", "reason": "3 failed"}, False),
            ({"state": "paused", "reason": "3 failed", "asks": 1, "wave_devices": 20}, False),
            ({"state": "running"}, False),
        ):
            with self.subTest(**fields):
                self.assertEqual(is_right(GOOD, outcome(**fields)), right)

    def test_a_bad_release_is_halted_or_a_small_wave_asks(self):
        asks = {"state": "paused", "reason": "2 failed", "asks": 2, "wave_devices": 20}
        for fields, right in (
            ({}, False),
            ({"state": "halted"}, True),
            ({"state": "halted", "had": 30}, True),
            ({"state": "halted", "had": 31}, False),
            (asks, True),
            (asks | {"had": 31}, False),
            (asks | {"wave_devices": 50}, False),
            (asks | {"asks": 0}, False),
        ):
            with self.subTest(**fields):
                self.assertEqual(is_right(BRICKED, outcome(BRICKED, **fields)), right)

    def test_a_pause_with_a_reason_is_right_where_one_address_speaks_for_all(self):
        for reason, right in (("one address speaks for 9 devices", True), ("", False)):
            paused = outcome(SPOKEN_FOR, state="paused", reason=reason)
            self.assertEqual(is_right(SPOKEN_FOR, paused), right)

    def test_a_pause_that_names_the_forger_is_right_where_many_are_made_up(self):
        reason = f"20 devices at {MADE_UP_AT} failed"
        for devices, text, right in ((1000, reason, True), (1001, reason, False), (999, "", False)):
            paused = outcome(FORGED, state="paused", reason=text, devices=devices)
            with self.subTest(text, devices=devices):
                self.assertEqual(is_right(FORGED, paused), right)

    def test_the_tables_count_what_went_wrong(self):
        outcomes = [
            outcome(),
            outcome(state="halted", seed=1),
            outcome(CANNOT_BOOT, state="halted", had=31),
        ]
        self.assertEqual(verdict(outcomes), (1, 1))
        lines = table(outcomes).splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("1/2", lines[1])
        rows = [[cell.strip() for cell in row.split("|")] for row in matrix(outcomes).splitlines()]
        self.assertEqual(rows[0], ["", "", "homes", ""])
        self.assertEqual(
            rows[2:], [["", "good", "1/2, 5 h", ""], ["", CANNOT_BOOT.name, "1/1, 31 of 30", ""]]
        )

    def test_all_shapes_are_written_as_markdown(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            file = Path(folder) / "shapes.md"
            options = [
                "--other-seeds",
                "1",
                "--shape",
                "one NAT",
                "--scenario",
                "cannot boot it; one",
            ]
            with contextlib.redirect_stderr(io.StringIO()):
                rollout_model.main([*options, "--processes", "1", "--markdown", str(file)])
            self.assertEqual(len(file.read_text("utf-8").splitlines()), 3)


class OperatorTest(unittest.TestCase):
    """What a person does who is asked about devices."""

    def rollout(self, scenario, asks_for):
        """Return a rollout that asks about some devices of its fleet, after the first look."""
        fleet = ModelFleet(scenario, 0, shape("5 sites of 40"), rollout_model._START_MS)
        waves = (50.0, 100.0)
        fleet.forge(waves[0])
        rollout = rollout_model._Rollout(fleet, rollout_model._plan(fleet, "r", waves))
        rollout.now_ms += HOUR_MS
        rollout.look()
        asks = tuple(device.mac for device in fleet._devices if asks_for(device))
        self.assertTrue(asks)
        rollout.progress = rollout.progress._replace(asks=asks)
        return rollout

    def test_one_goes_on_once_without_devices_that_have_no_power(self):
        rollout = self.rollout(NO_POWER, lambda device: device.site == 0)
        rollout._answer()
        rollout._answer()
        self.assertEqual((rollout.plan.promoted, rollout.promoted), (1, 1))

    def test_one_does_not_go_on_without_devices_that_are_alive(self):
        rollout = self.rollout(NO_POWER, lambda device: device.site <= 1)
        rollout._answer()
        self.assertEqual((rollout.plan.promoted, rollout.promoted), (-1, 0))

    def test_one_does_not_go_on_without_devices_that_are_bricked(self):
        rollout = self.rollout(BRICKED, lambda device: device.is_bricked)
        rollout._answer()
        self.assertEqual(rollout.promoted, 0)


class ShapeTest(unittest.TestCase):
    def history(self, each, scenario=GOOD):
        """Return the addresses of each device before the start, with the times of its polls."""
        fleet = ModelFleet(scenario, 0, each, START_MS)
        fleet.forge(30.0)
        polls = defaultdict(list)
        for record in fleet.history():
            if record["event"] == "check":
                polls[record["mac"]].append((parse_time(record["time"]), record["address"]))
        return fleet, polls

    def test_devices_share_as_many_addresses_as_the_shape_says(self):
        for name, addresses, least, most in (
            ("one NAT", 1, 60, 60),
            ("3 addresses", 3, 66, 67),
            ("5 sites of 40", 5, 40, 40),
            ("10 sites of 10", 10, 10, 10),
            ("20 shops of 50", 20, 50, 50),
            ("homes of three", 334, 3, 3),
            ("one proxy", 1, 1000, 1000),
            ("mixed rhythms", 1000, 1, 1),
        ):
            _, polls = self.history(shape(name))
            at = defaultdict(set)
            for mac, heard in polls.items():
                for _, address in heard:
                    at[address].add(mac)
            sizes = [len(macs) for macs in at.values()]
            with self.subTest(name):
                self.assertEqual((len(at), min(sizes), max(sizes)), (addresses, least, most))

    def test_each_device_polled_four_times_and_was_known_for_two_days(self):
        for each in SHAPES:
            small = replace(each, devices=min(each.devices, 300))
            _, polls = self.history(small)
            with self.subTest(each.name):
                self.assertEqual(len(polls), small.devices)
                self.assertTrue(all(len(heard) >= 4 for heard in polls.values()))
                last = max(time for heard in polls.values() for time, _ in heard)
                self.assertLess(last, START_MS)
                self.assertGreaterEqual(small.known_ms, 2 * DAY_MS)

    def test_a_mobile_device_changes_its_address_within_a_day_before_the_start(self):
        _, polls = self.history(replace(shape("mobile"), devices=50))
        for heard in polls.values():
            self.assertGreater(len({address for _, address in heard}), 2)

    def test_a_home_gets_another_address_once_a_day_that_no_other_home_has_then(self):
        each = replace(shape("daily change"), devices=30, addresses=10)
        fleet = ModelFleet(GOOD, 0, each, START_MS)
        fleet.history()
        homes = [[], []]
        for days, found in enumerate(homes):
            for device in fleet._devices:
                fleet._settle(device, START_MS + days * DAY_MS)
                found.append(device.address)
            self.assertEqual(len(set(found)), 10)
            for number in range(10):
                self.assertEqual(len(set(found[number::10])), 1)
        self.assertTrue(all(before != after for before, after in zip(*homes, strict=True)))
        for minute in range(0, 3 * 24 * 60, 7):
            for device in fleet._devices:
                fleet._settle(device, START_MS + DAY_MS + minute * MINUTE_MS)
            self.assertEqual(len({device.address for device in fleet._devices}), 10)

    def test_stands_are_those_of_devices_that_nobody_made_up(self):
        fleet, _ = self.history(shape("mixed rhythms"), FORGED)
        stands = fleet.stands()
        self.assertEqual(len(stands), 1000)
        self.assertAlmostEqual(sum(is_slow for _, is_slow in stands) / 1000, 0.95, delta=0.03)

    def test_made_up_devices_are_in_the_first_wave_at_an_address_that_is_nobodys_home(self):
        fleet, polls = self.history(shape("one NAT"), FORGED)
        at = {mac for mac, heard in polls.items() if heard[0][1] == MADE_UP_AT}
        self.assertEqual(len(at), 20)
        first = sum(percent < 30 for percent, _ in fleet.stands())
        self.assertEqual(fleet.counted((30.0, 100.0)), (first + 20, 60 - first))

    def test_one_site_has_no_power_or_a_twentieth_of_all(self):
        for name, share in (("5 sites of 40", 0.2), ("homes of three", 0.003), ("mobile", 0.05)):
            fleet, _ = self.history(shape(name), NO_POWER)
            dark = sum(fleet.is_lost(device.mac, START_MS + HOUR_MS) for device in fleet._devices)
            with self.subTest(name):
                self.assertAlmostEqual(dark / len(fleet._devices), share, delta=0.02)

    def test_a_bad_release_may_reach_the_waves_up_to_the_first_device_that_it_harms(self):
        # One that is silent may have been unplugged: there it takes two.
        for scenario, needed in ((CANNOT_BOOT, 1), (BRICKED, 2)):
            with self.subTest(scenario.name):
                fleet = ModelFleet(scenario, 0, shape("one NAT"), START_MS)
                harmed = (each.percent for each in fleet._devices if fleet._is_harmed(each))
                last = sorted(harmed)[needed - 1]
                below = sum(percent < last for percent, _ in fleet.stands())
                self.assertEqual(fleet.exposed_at_most((last, last + 1e-9, 100.0)), below + 1)
                self.assertEqual(fleet.exposed_at_most((100.0,)), 60)

    def test_while_a_rollout_is_paused_nobody_is_told_to_run_the_release(self):
        fleet = ModelFleet(GOOD, 0, shape("one NAT"), START_MS)
        fleet.history()
        for is_offered in (False, True):
            now_ms = START_MS + HOUR_MS * (1 + is_offered)
            records = fleet.records_until(now_ms, 100.0, is_offered=is_offered)
            told = any(record["target_version"] == fleet.release for record in records)
            self.assertEqual(told, is_offered)
            self.assertLess(records[-1]["time"], format_time(now_ms))
