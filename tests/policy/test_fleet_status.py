"""What a person has to do, by what was found: a table of situations."""

import unittest
from typing import Any

from ota_server.policy.device_state import HELD_BY
from ota_server.policy.fleet_status import (
    DeviceCounts,
    DiskFacts,
    FleetFacts,
    FleetWarning,
    RolloutFacts,
    TargetFacts,
    assess,
)
from ota_server.policy.reason import Reason
from ota_server.policy.situation import ServerState, Serving
from ota_server.policy.text import Hold

NOW_MS = 1_800_000_000_000
GIB = 1024**3
RUNS = ServerState(runs=True)
SERVING = Serving(1, NOW_MS - 600_000, "", 7777, GIB)
TARGET = TargetFacts("v1.0", "firmware_v1.0.bin", 1000)


def facts(**found: Any) -> FleetFacts:
    """Return facts of a server and a fleet that are well, but for what was found."""
    well: dict[str, Any] = {"server": RUNS, "serving": SERVING, "target": TARGET}
    return FleetFacts(NOW_MS, "/srv/ota", **{**well, **found})


def rollout(state: str = "running", **fields: Any) -> dict[str, Any]:
    return {"rollouts": (RolloutFacts("", "v2.0", state, NOW_MS, **fields),)}


class AssessTest(unittest.TestCase):
    def test_a_server_and_a_fleet_that_are_well_need_nobody(self):
        for found in (
            {},
            rollout(),
            rollout("waiting"),
            rollout("resuming"),
            rollout("done"),
            rollout("aborted"),
            rollout("halted", is_answered=True),
            {**rollout(is_attended=False), "serving": SERVING._replace(since_ms=NOW_MS - 1000)},
            {"disks": (DiskFacts("/", 40 * GIB, 3 * GIB), DiskFacts("/tiny", 10**7, 10**6))},
            {"disks": (DiskFacts("/", 40 * GIB, 3 * GIB, 10**6, 1000),)},
            {"disks": (DiskFacts("/tiny", 10**7, 10**6, 100, 5),)},
            {"hold": None, "rejected": (9, 2)},
            {"quiet_ms": 15_000},
        ):
            with self.subTest(found):
                self.assertEqual(assess(facts(**found)).warnings, ())

    def test_what_needs_a_person_says_what_and_what_to_do(self):
        for about, text, remedy, found in (
            ("server", "no server runs on /srv/ota", "serve", {"server": ServerState()}),
            (
                "hold",
                "everything is on hold: it bricks",
                "unhold",
                {"hold": Hold(reason="it bricks")},
            ),
            ("journal", "cannot write", "room", {"server": RUNS._replace(is_journal_failing=True)}),
            ("server", "sign of life for 1m 15s", "kill -CONT", {"quiet_ms": 75_000}),
            ("devices", "is full", "forget", {"server": RUNS._replace(is_table_full=True)}),
            ("policy", "offers nothing", "log", {"server": RUNS._replace(is_policy_usable=False)}),
            ("target", "answered 503", "activate", {"target": TargetFacts()}),
            ("target", "no image", "activate", {"target": TARGET._replace(problem="no image")}),
            ("target", "withdrawn", "activate", {"target": TARGET._replace(is_withdrawn=True)}),
            ("rollout", "was halted: 5 failed", "--revert", rollout("halted", reason="5 failed")),
            (
                "rollout",
                "waits for a person: no image",
                "resume",
                rollout("paused", reason="no image", waits_for_person=True),
            ),
            (
                "rollout",
                "waits for a person: 1 is missing",
                "rollout promote",
                rollout(waits_for_person=True, to_do="`rollout promote`", waiting="1 is missing"),
            ),
            ("rollout", "stands still", "log", rollout(is_attended=False)),
            (
                "disk",
                "1.0 GiB of 40 GiB",
                "make room",
                {"disks": (DiskFacts("/", 40 * GIB, GIB - 1),)},
            ),
            ("disk", "nearly full", "make room", {"disks": (DiskFacts("/", 10**7, 10**5),)}),
            (
                "disk",
                "few more files (inodes): 0 of 2,000",
                "delete",
                {"disks": (DiskFacts("/", 40 * GIB, 3 * GIB, 2000, 0),)},
            ),
        ):
            with self.subTest(text):
                (warning,) = assess(facts(**found)).needs_person
                self.assertEqual(warning.about, about)
                self.assertIn(text, warning.text)
                self.assertIn(remedy, warning.remedy)

    def test_what_to_do_about_devices_is_told_once(self):
        reason, to_do = "2 of 5 did not do well: a, b", "`rollout promote` goes on without these"
        found = rollout("paused", reason=reason, to_do=to_do, waits_for_person=True)
        (warning,) = assess(facts(**found)).needs_person
        self.assertEqual(warning.remedy, to_do)

    def test_a_hint_names_the_group_that_it_is_for(self):
        group = RolloutFacts("beta", "v2.0", "paused", NOW_MS, waits_for_person=True)
        (warning,) = assess(facts(rollouts=(group,))).needs_person
        self.assertIn("`rollout resume --group beta`", warning.remedy)

    def test_a_pause_of_an_operator_needs_nobody_else(self):
        paused = assess(facts(**rollout("paused", reason="paused by an operator")))
        (warning,) = paused.warnings
        self.assertEqual(paused.needs_person, ())
        self.assertIn("is paused: paused by an operator", warning.text)
        self.assertIn("`rollout resume`", warning.remedy)

    def test_what_needs_nobody_comes_after_what_needs_a_person(self):
        found = (FleetWarning("log", "a", needs_person=False), FleetWarning("log", "b"))
        devices = DeviceCounts(1, stuck=("00:11:22:33:44:55",), bad_lines=3)
        status = assess(facts(found=found, devices=devices, unmet=4, hold=Hold()))
        self.assertEqual([each.needs_person for each in status.warnings], [True] * 2 + [False] * 4)

    def test_devices_that_stay_on_a_stopped_release_are_worth_knowing(self):
        devices = DeviceCounts(30, causes={HELD_BY[Reason.STOPPED]: 21})
        (warning,) = assess(facts(devices=devices)).warnings
        self.assertIn("21 devices stay on a release that was stopped", warning.text)
        self.assertIn("`rollout abort --revert`", warning.remedy)
        self.assertFalse(warning.needs_person)
        halted = assess(facts(devices=devices, **rollout("halted")))
        self.assertEqual([each.about for each in halted.warnings], ["rollout"])
