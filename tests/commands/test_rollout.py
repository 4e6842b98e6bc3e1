"""The `rollout` commands: what they refuse, what they change, what they show."""

import fcntl
import io
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from array import array
from collections.abc import Iterable
from contextlib import redirect_stdout
from typing import Any
from unittest import mock

from ota_server.commands.rollout_preview import print_preview
from ota_server.commands.rollout_status import Screen
from ota_server.commands.rollout_view import status_lines
from ota_server.device_port.window import Standing
from ota_server.journal.record import format_record
from ota_server.model.device import Device, Report
from ota_server.model.refusal import Refused
from ota_server.model.timestamp import format_time
from ota_server.model.version import Target
from ota_server.operations.start_rollout import previewed
from ota_server.policy.audit import entries
from ota_server.policy.decision import cohort_percent, decide
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import (
    RolloutPlan,
    RolloutProgress,
    format_plan,
    parse_plan,
    plan_name,
    progress_name,
)
from ota_server.policy.situation import Situation
from ota_server.rollouts import edits
from ota_server.rollouts.ending import finish
from ota_server.rollouts.preview import ReachedDevices
from ota_server.rollouts.revert import revert
from ota_server.system.files import replace
from ota_server.system.wrapping import wrapped
from tests.releases.test_publish import esp_image
from tests.support import ROOT, TIMEOUT_SECONDS, until
from tests.support.fleet import NEW, OLD, RolloutCase, mac_of, run_command, run_rollout

NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000


class CommandCase(RolloutCase):
    def know(
        self,
        size: int,
        days_ago: float = 0.1,
        version: str = OLD,
        first: int = 0,
        address: str = "192.0.2.7",
        first_seen_ms: int | None = None,
        hours: tuple[float, ...] = (48, 3, 2, 1, 0),
    ) -> None:
        """Put devices on record, each asking so many hours before it was heard from last."""
        with (self.data_dir / "log" / "devices.jsonl").open("ab") as journal:
            seen_ms = NOW_MS - int(days_ago * 24 * HOUR_MS)
            for ago in hours:
                time_ms = seen_ms - int(ago * HOUR_MS)
                device = Device(time_ms, version, time_ms, None, OLD, address, False, None)
                device = device._replace(first_seen_ms=first_seen_ms)
                for number in range(first, first + size):
                    journal.write(format_record("check", mac_of(number), device))

    def run_it(self, *arguments: str) -> tuple[int, str, str]:
        """Run `rollout`; return the exit code, what it printed, and what it complained about."""
        return run_rollout(self.data_dir, *arguments)

    def refused(self, *arguments: str, code: int = 1) -> str:
        """Return what a command that is refused complains about."""
        was = self.run_it(*arguments)
        self.assertEqual(was[0], code, was)
        return was[2]

    def plan(self, name: str = "rollout.json") -> RolloutPlan:
        return parse_plan((self.data_dir / "version" / name).read_bytes())

    def come_to(self, state: str, wave: int = 0, **more: Any) -> None:
        """Write the progress of the rollout to the fleet, as the controller does."""
        progress = RolloutProgress(self.plan().id, state, wave, format_time(NOW_MS), **more)
        path = self.data_dir / "version" / progress_name("")
        replace(path, format_plan(progress))

    def stopped(self) -> dict[str, dict[str, Any]]:
        content = (self.data_dir / "version" / "stopped.json").read_bytes()
        stopped: dict[str, dict[str, Any]] = json.loads(content)
        return stopped


class StartTest(CommandCase):
    def test_it_prints_how_many_active_devices_each_wave_holds(self):
        self.know(100)
        self.know(10, days_ago=8, first=100)
        code, out, _ = self.run_it("start", NEW, "--waves", "10,50,100")
        self.assertEqual(code, 0)
        counts = [int(line.split()[4]) for line in out.splitlines() if line.startswith("wave")]
        self.assertEqual((len(counts), sum(counts)), (3, 100))
        self.assertIn("not heard from for a week, and not counted: 10", out)

    def test_the_plan_is_what_was_typed(self):
        self.know(100)
        self.run_it(
            *("start", NEW, "--waves", "5,100", "--max-failures", "3%"),
            *("--min-devices", "7", "--soak", "90s", "--apply-grace", "2m", "--wave-timeout", "1d"),
            *("--held-unknown", "target", "--count-new"),
        )
        plan = self.plan()
        self.assertEqual((plan.version, plan.instead_of, plan.waves), (NEW, OLD, (5.0, 100.0)))
        self.assertEqual((plan.max_failures, plan.min_devices, plan.soak_seconds), (3.0, 7, 90.0))
        self.assertEqual((plan.grace_seconds, plan.wave_timeout_seconds), (120.0, 86400.0))
        self.assertEqual((plan.held_unknown, plan.count_new), ("target", True))

    def test_a_note_is_shown_while_it_is_on_and_when_it_is_over_whatever_it_holds(self):
        self.know(100)
        note = "  fixes the clock,\n`rollout abort` <b>  "
        self.run_it("start", NEW, "--note", note)
        shown = "note: fixes the clock, `rollout abort` <b>"
        self.assertIn(f"\n  {shown}\n", self.run_it("status")[1])
        self.run_it("abort")
        self.assertIn(f"\n    {shown}\n", self.run_it("history")[1])
        (entry,) = map(json.loads, self.run_it("history", "--json")[1].splitlines())
        self.assertEqual(entry["note"], shown.removeprefix("note: "))

    def test_a_note_has_a_bound_and_no_characters_that_cannot_be_shown(self):
        for note, said in (("x" * 501, "give 500 at most"), ("a\u202eb", "cannot be shown")):
            with self.subTest(said):
                self.assertIn(said, self.refused("start", NEW, "--note", note, code=2))

    def test_it_is_on_the_audit_log_before_it_begins(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        (entry,) = entries(self.data_dir / "log")
        named = [entry[name] for name in ("action", "what", "from", "to", "waves")]
        self.assertEqual(named, ["rollout start", NEW, OLD, NEW, "50,100"])

    def test_what_makes_no_sense_is_refused_with_what_to_do(self):
        self.know(100)
        for arguments, said, code in (
            (["v9"], "publish it first", 1),
            ([OLD], "is the target of the fleet already", 1),
            ([NEW, "--waves", "50,10,100"], "does not rise from above 0", 2),
            ([NEW, "--waves", "10,50"], "from above 0 to 100", 2),
            ([NEW, "--waves", "ten"], "argument --waves: 'ten' is not a list of percentages", 2),
            ([NEW, "--waves", "a,100"], "such as 1,10,50,100", 2),
            (
                [NEW, "--max-failures", "100"],
                "argument --max-failures: '100' is not a percentage",
                2,
            ),
            (
                [NEW, "--max-failures", "2"],
                "argument --max-failures: '2' could be a number of devices: it is a share of them",
                2,
            ),
            ([NEW, "--min-devices", "0"], "argument --min-devices: '0' is not a number", 2),
            ([NEW, "--soak", "400d"], "argument --soak: '400d' is not a duration up to a year", 2),
            ([NEW, "--soak", "10"], "not a duration", 2),
            ([NEW, "--group", "beta"], "there is no group beta", 1),
            ([NEW, "--first-group", "beta"], "there is no group beta", 1),
            ([NEW, "--group", "Beta!"], "not a group's name", 2),
        ):
            with self.subTest(arguments=arguments):
                self.assertIn(said, self.refused("start", *arguments, code=code))
                self.assertFalse((self.data_dir / "version" / "rollout.json").exists())

    def test_a_wave_that_holds_nobody_is_refused_and_better_waves_are_named(self):
        self.know(5)
        said = self.refused("start", NEW, "--waves", "0.1,100")
        self.assertIn("wave 1 (0.1 %) adds no active device", said)
        self.assertIn("leave --waves out, for waves of 5, 100 %, which fit", said)
        said = self.refused("start", NEW, "--waves", "0.1,50,100")
        self.assertIn("try --waves 50,100", said)

    def test_a_first_group_that_the_rollout_leaves_alone_is_refused(self):
        self.know(100)
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text(mac_of(1))
        (self.data_dir / "version" / "targets.json").write_text(json.dumps({"beta": OLD}))
        said = self.refused("start", NEW, "--first-group", "beta")
        self.assertIn(f"group beta has a target of its own, {OLD}, so a rollout to the fleet", said)
        self.assertIn("give --groups-too", said)

    def test_a_group_without_active_devices_is_refused(self):
        self.know(5)
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("00:11:22:33:44:55\n")
        said = self.refused("start", NEW, "--group", "beta")
        self.assertIn("no device of the group beta", said)
        # Not what would give it to the whole fleet.
        self.assertIn(f"`pin beta {NEW}` gives it to the group", said)
        self.assertNotIn("activate", said)

    def test_a_group_that_is_pinned_is_refused_for_that(self):
        self.know(10)
        self.group("beta", range(3))
        self.group("all", range(4))
        for who, asked, remedy in (
            (("beta",), "beta", "`unpin beta`"),
            (("all",), "beta", "`unpin all`"),
            (map(mac_of, range(3)), "beta", f"`unpin {mac_of(0)}`"),
        ):
            for each in who:
                run_command(self.data_dir, "pin", each, OLD)
            said = self.refused("start", NEW, "--group", asked)
            with self.subTest(remedy):
                self.assertIn(f"are pinned, and a pin comes before a rollout: {remedy} first", said)
            (self.data_dir / "version" / "pins.json").unlink()
        self.assertEqual(self.run_it("start", NEW, "--group", "beta")[0], 0)

    def test_a_release_that_was_withdrawn_is_refused(self):
        self.know(100)
        stopped = {NEW: {"state": "withdrawn", "instead_of": OLD, "reason": "it bricks"}}
        (self.data_dir / "version" / "stopped.json").write_text(json.dumps(stopped))
        self.assertIn("was withdrawn (it bricks)", self.refused("start", NEW))

    def test_an_image_for_other_devices_than_those_of_the_target_is_refused_unless_forced(self):
        for version, project in ((OLD, b"pump"), (NEW, b"lamp")):
            self.put_image(version, esp_image(version, project=project))
        self.know(100)
        said = self.refused("start", NEW, "--waves", "50,100")
        self.assertIn("of the project lamp, and the current target is of the project pump", said)
        self.assertIn("; --force does it anyway", said)
        self.assertEqual(self.run_it("start", NEW, "--waves", "50,100", "--force")[0], 0)

    def test_a_group_gets_the_images_of_its_own_target_and_the_fleet_does_not(self):
        for version, project in ((OLD, b"pump"), ("v5", b"lamp"), (NEW, b"lamp")):
            self.put_image(version, esp_image(version, project=project))
        self.know(100)
        self.group("lamps", range(5))
        (self.data_dir / "version" / "targets.json").write_text('{"lamps": "v5"}')
        self.put_image("v6", esp_image("v6", project=b"pump"))
        said = self.refused("start", "v6", "--waves", "50,100", "--groups-too")
        self.assertIn("and the target of the group lamps is of the project lamp", said)
        self.assertIn("of the project lamp", self.refused("start", "v6", "--group", "lamps"))
        self.assertEqual(self.run_it("start", NEW, "--group", "lamps", "--count-new")[0], 0)
        self.assertEqual(self.run_it("start", "v6", "--waves", "50,100")[0], 0)

    def test_a_second_one_is_refused_while_the_first_is_on(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        self.assertIn("`rollout abort` ends it", self.refused("start", NEW, "--waves", "50,100"))

    def added(self, out: str) -> list[int]:
        """Return how many devices each wave adds, as printed."""
        return [int(line.split()[-5]) for line in out.splitlines() if line.startswith("wave ")]

    def test_without_waves_those_that_fit_the_fleet_are_shown_and_taken(self):
        for devices, counts in ((1, [1]), (2, [1, 1]), (3, [1, 2]), (12, [1, 11])):
            with self.subTest(devices=devices):
                self.know(devices)
                code, out, said = self.run_it("start", NEW)
                self.assertEqual((code, self.added(out)), (0, counts), said)
                self.assertEqual(self.plan().counted, tuple(counts))
                self.assertIn(f"waves that fit {devices} active device", out)
                self.run_it("abort")

    def test_a_percentage_is_shown_short_and_kept_exact(self):
        self.know(12)
        plan = RolloutPlan(
            "1", NEW, "", (8.123456789, 100.0), format_time(NOW_MS), OLD, counted=(1, 11)
        )
        out = io.StringIO()
        with redirect_stdout(out):
            found = ReachedDevices(array("d", [8.0, *[9.0] * 11]), bytearray(b"\1" * 12), 0)
            print_preview(previewed(plan, found, {}, has_own_waves=False))
        self.assertIn("wave 1  8.123 %        1 more, 1 in all\n", out.getvalue())
        self.run_it("start", NEW, "--waves", "50.1234,100")
        self.assertEqual(self.plan().waves, (50.1234, 100.0))

    def test_what_is_counted_is_in_the_plan_as_it_is_printed(self):
        self.know(100)
        self.know(10, days_ago=8, first=100)
        _, out, _ = self.run_it("start", NEW, "--waves", "10,50,100")
        self.assertEqual(list(self.plan().counted), self.added(out))
        self.assertEqual(sum(self.plan().counted), 100)

    def group(self, name: str, numbers: Iterable[int]) -> None:
        groups = self.data_dir / "version" / "groups"
        groups.mkdir(exist_ok=True)
        (groups / f"{name}.txt").write_text("".join(f"{mac_of(at)}\n" for at in numbers))

    def test_the_first_group_is_a_wave_before_those_that_are_proposed_for_the_others(self):
        self.know(15)
        self.group("canary", range(3))
        code, out, _ = self.run_it("start", NEW, "--first-group", "canary")
        self.assertEqual((code, self.added(out)), (0, [3, 1, 11]))

    def test_a_first_group_that_is_the_whole_fleet_may_be(self):
        self.know(3)
        self.group("canary", range(3))
        code, out, _ = self.run_it("start", NEW, "--first-group", "canary")
        self.assertEqual((code, self.added(out)), (0, [3, 0]))
        self.run_it("abort")
        said = self.refused("start", NEW, "--first-group", "canary", "--waves", "50,100")
        self.assertIn("the first wave, canary, holds all active devices", said)

    def test_a_wave_in_which_nobody_counts_is_refused_with_the_reason(self):
        new, old = NOW_MS - HOUR_MS, NOW_MS - 48 * HOUR_MS
        self.know(15, first_seen_ms=old)
        self.know(3, first=15, first_seen_ms=new, hours=(0,))
        self.group("canary", range(15, 18))
        said = self.refused("start", NEW, "--first-group", "canary")
        self.assertIn("wave 1 (canary) adds 3 active devices, none of them on record for", said)
        self.assertIn(
            "leave --first-group out, or count new devices too (--count-new) if you know", said
        )
        more = ("--first-group", "canary", "--count-new")
        self.assertEqual(self.run_it("start", NEW, *more)[0], 0)

    def test_where_only_the_first_group_counts_no_waves_are_named_that_would_help(self):
        self.know(3, first_seen_ms=NOW_MS - 48 * HOUR_MS)
        self.know(9, first=3, first_seen_ms=NOW_MS - HOUR_MS, hours=(0,))
        self.group("canary", range(3))
        said = self.refused("start", NEW, "--first-group", "canary")
        self.assertIn(
            "so none counts and the wave would not go on: count new devices too (--count-new)", said
        )

    def test_the_first_wave_that_is_proposed_holds_devices_that_count(self):
        macs = sorted(range(100), key=lambda number: cohort_percent(NEW, mac_of(number)))
        for place, number in enumerate(macs):
            first_seen_ms = NOW_MS - (HOUR_MS if place < 40 else 48 * HOUR_MS)
            self.know(1, first=number, first_seen_ms=first_seen_ms, hours=(0,))
        said = self.refused("start", NEW, "--waves", "10,50,100")
        self.assertRegex(said, r"wave 1 \(10 %\) adds \d+ active devices, none of them on record")
        self.assertIn("try --waves 50,100", said)
        code, out, said = self.run_it("start", NEW)
        self.assertEqual((code, self.added(out)), (0, [60, 40]))
        self.assertIn("of the 60 devices that wave 1 adds, 20 are on record for a day", said)
        self.assertNotIn("wave 2 adds", said)

    def test_a_group_with_a_target_of_its_own_is_named_as_left_alone(self):
        self.know(100)
        self.group("beta", range(30))
        (self.data_dir / "version" / "targets.json").write_text('{"beta": "v1.4.0"}')
        line = "left alone because it has its own target: group beta (v1.4.0, 30 devices); "
        self.assertIn(f"{line}--groups-too includes it\n", self.run_it("start", NEW)[1])
        self.assertFalse(self.plan().groups_too)
        self.run_it("abort")
        said = self.refused("start", NEW, "--first-group", "beta")
        self.assertIn("group beta has a target of its own", said)
        self.assertNotIn("left alone", self.run_it("start", NEW, "--groups-too")[1])
        self.assertTrue(self.plan().groups_too)

    def test_groups_too_is_for_a_rollout_to_the_fleet(self):
        self.know(10)
        self.group("beta", range(3))
        said = self.refused("start", NEW, "--group", "beta", "--groups-too", code=2)
        self.assertIn("--groups-too is for a rollout to the fleet", said)

    def test_a_soak_that_is_shorter_than_the_usual_poll_interval_is_warned_of(self):
        self.know(100)
        _, _, said = self.run_it("start", NEW, "--waves", "50,100", "--soak", "5m")
        self.assertIn("the soak of 5m is shorter than the 1h that half of the devices", said)
        self.assertIn("`rollout change --soak 61m` gives them time", said)

    def test_the_soak_is_measured_by_the_most_devices_and_not_by_the_most_polls(self):
        quick = tuple(minutes / 60 for minutes in range(26 * 60, 0, -1))
        self.know(15, hours=quick, days_ago=0)
        for number in range(15, 300):
            ago = number % 24
            self.know(1, first=number, hours=(ago + 24, ago), days_ago=0)
        _, out, said = self.run_it("start", NEW)
        self.assertIn("95 of 100 devices are slow pollers, which wait for more than 12h", out)
        self.assertIn("the soak of 1h is shorter than the 1d that half of the devices", said)
        self.assertIn("between two checks: each wave takes longer than that", said)
        self.assertEqual(self.plan().counted[0], 30)

    def test_where_all_poll_often_no_rhythm_is_spoken_of(self):
        self.know(100)
        _, out, said = self.run_it("start", NEW, "--soak", "2h")
        self.assertNotIn("slow pollers", out)
        self.assertNotIn("soak", said)

    def test_devices_that_report_no_version_are_warned_of(self):
        self.know(3)
        self.know(14, version="-", first=3)
        code, _, warnings = self.run_it("start", NEW, "--waves", "100")
        self.assertEqual(code, 0)
        self.assertIn("14 of the 17 devices report no version: their updates cannot be", warnings)
        self.assertIn("put the version into the URL", warnings)

    def test_a_data_directory_without_a_server_is_warned_of(self):
        self.know(100)
        self.assertIn("no server runs", self.run_it("start", NEW, "--waves", "50,100")[2])

    def test_a_fleet_that_is_new_is_refused_unless_it_is_to_count(self):
        server = self.serve()
        self.devices.ask(server.port)
        self.assertIn("(--count-new)", self.refused("start", NEW, "--waves", "50,100"))
        self.assertFalse((self.data_dir / "version" / "rollout.json").exists())
        code, _, said = self.run_it("start", NEW, "--waves", "50,100", "--count-new")
        self.assertEqual(code, 0)
        self.assertNotIn("no server runs", said)

    def test_a_journal_that_is_kept_for_an_hour_makes_no_new_fleet(self):
        self.know(50, first_seen_ms=NOW_MS - 48 * HOUR_MS, hours=(1, 0))
        self.know(7, first=50, first_seen_ms=NOW_MS - HOUR_MS, hours=(1, 0))
        code, out, _ = self.run_it("start", NEW, "--waves", "50,100")
        self.assertEqual(code, 0)
        self.assertIn("known for less than a day, and not counted without --count-new: 7\n", out)

    def test_a_fleet_that_is_new_is_refused_though_the_journal_is_old(self):
        self.know(1, days_ago=8)
        self.know(50, first=1, first_seen_ms=NOW_MS - HOUR_MS)
        self.assertIn("(--count-new)", self.refused("start", NEW, "--waves", "50,100"))

    def test_a_fleet_behind_one_address_is_no_cause_to_warn(self):
        self.know(100)
        _, _, said = self.run_it("start", NEW, "--waves", "50,100")
        self.assertNotIn("address", said)

    def test_a_hold_is_warned_of(self):
        self.know(100)
        (self.data_dir / "version" / "hold.json").write_text('{"reason": "it bricks"}')
        said = "everything is on hold: it bricks; no device is offered anything until `unhold`"
        self.assertIn(said, self.run_it("start", NEW, "--waves", "50,100")[2])
        self.run_it("pause")
        self.assertIn(said, self.run_it("resume")[2])
        self.come_to("running")
        self.assertIn(said, self.run_it("promote")[2])

    def test_a_broken_version_txt_is_refused_and_what_is_wrong_is_said(self):
        self.know(100)
        self.set_target("v 1")
        said = self.refused("start", NEW, "--waves", "50,100")
        self.assertIn("version.txt holds no version: 'v 1'", said)
        self.assertFalse((self.data_dir / "version" / "rollout.json").exists())

    def test_who_has_a_release_from_an_aborted_rollout_belongs_to_the_next_one(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        self.run_it("abort")
        self.assertEqual(self.stopped()[NEW]["state"], "aborted")
        self.assertEqual(self.run_it("start", NEW, "--waves", "50,100")[0], 0)
        self.assertEqual(self.stopped(), {})


class ChangeTest(CommandCase):
    def setUp(self):
        super().setUp()
        self.know(100)
        self.run_it("start", NEW, "--waves", "10,50,100")

    def test_pause_and_resume_are_what_the_plan_says(self):
        self.assertEqual(self.run_it("pause")[0], 0)
        self.assertEqual((self.plan().wanted, self.plan().resumed), ("pause", 0))
        self.assertIn("paused already", self.refused("pause"))
        self.assertEqual(self.run_it("resume")[0], 0)
        self.assertEqual((self.plan().wanted, self.plan().resumed), ("run", 1))
        self.assertIn("not paused", self.refused("resume"))

    def test_resume_goes_on_from_the_target_as_it_is_now(self):
        self.come_to("paused", reason="somebody changed version.txt")
        self.set_target("v1.5.0")
        self.assertEqual(self.run_it("resume")[0], 0)
        self.assertEqual(self.plan().instead_of, "v1.5.0")

    def test_resume_never_begins_from_the_release_of_the_rollout_itself(self):
        self.come_to("paused", reason="somebody changed version.txt")
        self.set_target(NEW)
        self.assertEqual(self.run_it("resume")[0], 0)
        self.assertEqual(self.plan().instead_of, OLD)

    def test_there_is_no_revert_to_the_release_of_the_rollout_itself(self):
        self.know(30, days_ago=0.05, version=NEW)
        self.come_to("running", wave=1)
        self.set_target(NEW)
        plan = self.plan()
        for instead_of in (OLD, NEW):
            with self.subTest(instead_of):
                self.write_plan(plan._replace(instead_of=instead_of))
                said = self.refused("abort", "--revert")
                self.assertIn(f"{NEW} is the target itself; `release rollback` goes back", said)

    def test_another_data_directory_is_left_alone(self):
        self.data_dir = self.data_dir / "elsewhere"
        for command in ("pause", "resume", "promote", "abort", "status"):
            with self.subTest(command):
                self.assertIn("is --data-dir right?", self.refused(command))
        self.assertFalse(self.data_dir.exists())

    def test_a_group_without_a_rollout_is_told_from_no_rollout(self):
        for command in ("status", "pause", "resume", "promote", "abort"):
            with self.subTest(command):
                said = self.refused(command, "--group", "nope")
                self.assertIn("no rollout to group nope; there is one to the fleet", said)

    def test_resume_of_one_that_was_halted_says_what_to_do(self):
        self.come_to("halted", reason="5 of 9 devices failed")
        said = self.refused("resume")
        self.assertIn("5 of 9 devices failed", said)
        self.assertIn("rollout abort --revert", said)

    def test_what_is_said_about_a_group_never_moves_the_fleet(self):
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("\n".join(mac_of(number) for number in range(50)))
        self.run_it("abort")
        self.run_it("start", NEW, "--group", "beta", "--waves", "50,100")
        plan = self.plan("rollout_beta.json")
        said = [self.refused("start", NEW, "--group", "beta", "--waves", "50,100")]
        self.run_it("pause", "--group", "beta")
        said.append(self.refused("pause", "--group", "beta"))
        said.append(self.refused("promote", "--group", "beta"))
        for state in ("paused", "halted", "aborted", "done"):
            progress = RolloutProgress(plan.id, state, 0, format_time(NOW_MS), "so it is")
            path = self.data_dir / "version" / progress_name("beta")
            replace(path, format_plan(progress))
            said.append(self.run_it("status", "--group", "beta")[1])
            said.append("".join(self.run_it("resume", "--group", "beta")[1:]))
            if state == "done":
                said.append(self.refused("abort", "--revert", "--group", "beta"))
        for text in said:
            with self.subTest(text):
                commands = re.findall("`(rollout|release) ([^`]*)`", text)
                moving = [each for each in commands if each[1] != "status"]
                self.assertTrue(all("--group beta" in each[1] for each in moving), moving)
        self.assertGreater(sum("--group beta" in text for text in said), 6)

    def test_limits_are_changed_while_it_goes_on(self):
        self.come_to("running", wave=1)
        code, out, _ = self.run_it(
            "change", "--soak", "10m", "--apply-grace", "1h", "--max-failures", "5%"
        )
        self.assertEqual(code, 0)
        self.assertIn("goes on with soak 10m, apply grace 1h, max. failures 5 %", out)
        plan = self.plan()
        limits = (plan.soak_seconds, plan.grace_seconds, plan.max_failures, plan.wanted)
        self.assertEqual(limits, (600.0, 3600.0, 5.0, "run"))
        entry = entries(self.data_dir / "log")[-1]
        self.assertEqual(
            (entry["action"], entry["from"]),
            ("rollout change", "soak 1h, apply grace 15m, max. failures 2 %"),
        )

    def test_a_change_to_what_is_so_already_is_not_on_the_audit_log(self):
        self.come_to("running", wave=1)
        self.assertEqual(self.run_it("change", "--soak", "5m")[0], 0)
        count = len(entries(self.data_dir / "log"))
        self.assertIn("it is so already: soak 5m", self.refused("change", "--soak", "5m"))
        self.assertEqual(len(entries(self.data_dir / "log")), count)
        self.assertEqual(self.run_it("change", "--soak", "5m", "--max-failures", "3%")[0], 0)

    def test_a_change_without_anything_or_of_what_is_over_is_refused(self):
        self.come_to("running")
        self.assertIn("say what to change", self.refused("change", code=2))
        self.come_to("done")
        self.assertIn("is over", self.refused("change", "--soak", "1m"))

    def test_promote_opens_the_next_wave(self):
        self.come_to("running", wave=1)
        self.assertEqual(self.run_it("promote")[:2], (0, "wave 3 of 3 opens, 100 %\n"))
        self.assertEqual(self.plan().promoted, 2)

    def test_promote_in_the_last_wave_ends_the_rollout_without_those_that_are_missing(self):
        self.come_to("running", wave=2)
        code, out, _ = self.run_it("promote")
        self.assertEqual(code, 0)
        self.assertEqual(
            out, "wave 3 is the last: the rollout ends without the devices that are missing\n"
        )
        self.assertEqual(self.plan().promoted, 3)
        moved = [(entry["from"], entry["to"]) for entry in entries(self.data_dir / "log")[1:]]
        self.assertEqual(moved, [("wave 3", "end")])
        said = self.refused("promote")
        self.assertIn("the rollout ends already without devices that are missing", said)
        self.assertEqual(len(entries(self.data_dir / "log")), 2)

    def test_a_pause_that_would_come_again_is_not_resumed(self):
        self.come_to("paused", reason="1 of 12 devices did not do well", lifts=True)
        self.assertIn("it would pause again: 1 of 12 devices", self.refused("resume"))

    def test_promote_ends_a_pause_of_an_operator_where_a_person_is_asked(self):
        self.come_to("paused", asks=(mac_of(1),), lifts=True)
        self.run_it("pause")
        self.assertEqual(self.run_it("promote")[0], 0)
        self.assertEqual((self.plan().wanted, self.plan().promoted), ("run", 1))

    def test_abort_keeps_those_that_have_it_where_they_are(self):
        self.come_to("running")
        self.assertEqual(self.run_it("abort")[0], 0)
        self.assertEqual(self.plan().wanted, "abort")
        entry = self.stopped()[NEW]
        self.assertEqual((entry["state"], entry["instead_of"]), ("aborted", OLD))
        self.assertIn("it was aborted", self.refused("pause"))

    def test_a_revert_shows_the_number_of_devices_and_is_a_rollout_of_its_own(self):
        self.know(30, days_ago=0.05, version=NEW)
        self.come_to("running", wave=1)
        code, out, _ = self.run_it("abort", "--revert")
        self.assertEqual((code, out.splitlines()[0]), (0, f"30 devices on {NEW} to take back"))
        plan = self.plan()
        wanted = (plan.version, plan.reverts, plan.is_revert, plan.wanted, plan.instead_of)
        self.assertEqual(wanted, (OLD, NEW, True, "run", OLD))
        # Of those that it took back some may be bricked: it waits for no number of them.
        self.assertEqual(plan.counted, ())
        self.assertEqual(self.stopped()[NEW]["state"], "aborted")
        self.come_to("running", wave=1)
        for version in (NEW, OLD):
            why = run_command(self.data_dir, "why", mac_of(0), "--version", version)[1]
            self.assertIn(f"the revert to {OLD}", why)
            self.assertNotIn("the rollout of", why)

    def test_a_revert_drops_waves_that_hold_nobody(self):
        self.write_plan(self.plan()._replace(waves=(0.01, 50.0, 100.0), counted=(1, 49, 50)))
        self.know(30, days_ago=0.05, version=NEW)
        self.come_to("running", wave=1)
        self.assertEqual(self.run_it("abort", "--revert")[0], 0)
        plan = self.plan()
        self.assertEqual(plan.waves, (50.0, 100.0))

    def test_a_revert_has_quick_limits_of_its_own(self):
        self.write_plan(self.plan()._replace(waves=(1.0, 10.0, 50.0, 100.0), soak_seconds=86400.0))
        self.know(300, days_ago=0.05, version=NEW)
        self.come_to("running", wave=1)
        self.assertEqual(self.run_it("abort", "--revert")[0], 0)
        self.assertEqual((self.plan().waves, self.plan().soak_seconds), ((10.0, 100.0), 300.0))

    def test_a_revert_never_takes_the_rollout_that_is_on_for_the_one_that_was_halted(self):
        self.come_to("running")
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("\n".join(mac_of(number) for number in range(50)))
        self.run_it("start", NEW, "--group", "beta", "--waves", "50,100")
        plan = self.plan("rollout_beta.json")
        progress = RolloutProgress(plan.id, "halted", 0, format_time(NOW_MS), "bad")
        replace((self.data_dir / "version" / progress_name("beta")), format_plan(progress))
        self.assertIn("abort --revert --group beta", self.run_it("status", "--group", "beta")[1])
        said = self.refused("abort", "--revert")
        self.assertIn("say which one", said)
        self.assertEqual(self.plan().wanted, "run")

    def test_a_revert_that_was_aborted_has_no_revert(self):
        self.know(30, days_ago=0.05, version=NEW)
        self.come_to("running", wave=1)
        self.run_it("abort", "--revert")
        self.run_it("abort")
        said = self.refused("pause")
        self.assertIn("the revert was aborted; `rollout start VERSION`", said)
        self.assertNotIn("--revert", said)

    def test_a_halted_release_has_a_revert_too(self):
        self.know(30, days_ago=0.05, version=NEW)
        self.come_to("halted", reason="bad")
        stopped = {NEW: {"state": "withdrawn", "instead_of": OLD}}
        (self.data_dir / "version" / "stopped.json").write_text(json.dumps(stopped))
        self.assertEqual(self.run_it("abort", "--revert")[0], 0)
        self.assertEqual(self.stopped(), stopped)
        self.assertEqual(self.plan().reverts, NEW)

    def halt_beta(self, **more: Any) -> None:
        """Have a rollout to the group beta halted, besides that to the fleet."""
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("\n".join(mac_of(number) for number in range(50)))
        plan = self.plan()._replace(id="beta", group="beta", **more)
        progress = RolloutProgress("beta", "halted", 0, format_time(NOW_MS), "bad")
        for name, content in ((plan_name, plan), (progress_name, progress)):
            replace((self.data_dir / "version" / name("beta")), format_plan(content))

    def hinted(self, *arguments: str) -> list[str]:
        """Return the command with `--revert` that a command names first, as it is typed."""
        out, err = run_command(self.data_dir, *arguments)[1:]
        found = re.search("`(rollout abort --revert[^`]*)`", out)
        assert found is not None, out + err
        return shlex.split(found[1])

    def test_the_way_back_that_is_named_is_the_one_to_type_where_a_group_was_halted_too(self):
        self.know(30, days_ago=0.05, version=NEW)
        self.come_to("halted", reason="bad")
        self.halt_beta()
        self.assertIn("say which one", self.refused("abort", "--revert"))
        for shown in (("status",), ("health",), ("rollout", "status", "--group", "")):
            with self.subTest(shown):
                self.assertEqual(self.hinted(*shown)[-2:], ["--group", ""])
        self.assertEqual(self.hinted("rollout", "status", "--group", "beta")[-1], "beta")
        self.assertIn("it was halted (bad)", self.refused("resume"))
        code, _, said = run_command(self.data_dir, *self.hinted("status"))
        self.assertEqual((code, self.plan().reverts), (0, NEW), said)

    def test_what_takes_the_devices_of_a_group_on_after_a_halt_is_said(self):
        self.come_to("running")
        self.halt_beta()
        until = "stay on it until a rollout to the fleet or another target takes them on"
        self.assertIn(until, self.run_it("status", "--group", "beta")[1])
        self.come_to("halted", reason="bad")
        self.assertNotIn(until, self.run_it("status", "--group", "")[1])

    def test_so_is_what_goes_on_after_a_pause(self):
        self.come_to("running")
        self.halt_beta()
        self.assertEqual(self.run_it("pause", "--group", "")[0], 0)
        self.assertIn("`rollout resume --group ''` goes on", self.run_it("status")[1])

    def test_a_rollout_that_was_answered_already_is_not_asked_about(self):
        self.know(30, days_ago=0.05, version=NEW)
        self.come_to("halted", reason="bad")
        self.halt_beta(instead_of="v0.5.0")  # it has another target since
        self.assertNotIn("--group", self.hinted("status"))
        self.assertEqual(self.run_it("abort", "--revert")[0], 0)
        self.assertEqual(self.plan().reverts, NEW)

    def test_the_way_back_ends_the_alarm_also_where_no_device_is_left_to_take_back(self):
        self.know(3)
        self.come_to("done", wave=2)
        self.halt_beta()
        self.assertEqual(self.hinted("health")[-2:], ["--group", "beta"])
        code, out, said = run_command(self.data_dir, *self.hinted("health"))
        self.assertEqual((code, "it is over" in out), (0, True), said)
        self.assertNotIn("halted", run_command(self.data_dir, "health")[1])
        self.assertNotIn("needs a person: the rollout", run_command(self.data_dir, "status")[1])
        code, shown, _ = self.run_it("status", "--group", "beta")
        self.assertEqual(code, 0)
        self.assertIn(": halted", shown)
        self.assertNotIn("abort --revert", shown)
        self.assertIn("rollout start VERSION --group beta", shown)

    def test_there_is_no_revert_from_what_nobody_runs_or_what_is_done(self):
        self.come_to("running")
        said = self.refused("abort", "--revert")
        self.assertIn(
            f"no device runs {NEW}, so there is nothing to take back; `rollout abort`", said
        )
        self.assertEqual(self.plan().wanted, "run")
        # A halt advises it, and what it is for is so already.
        self.come_to("halted", reason="bad")
        code, out, _ = self.run_it("abort", "--revert")
        self.assertEqual(code, 0)
        self.assertIn("there is nothing to take back; it is over", out)
        self.set_target("v3.0.0")
        code, out, _ = self.run_it("abort", "--revert")
        self.assertEqual(code, 0)
        self.assertIn(f"no device is kept on {NEW}, so there is nothing to take back", out)
        self.set_target(OLD)
        self.come_to("done", wave=2)
        self.assertIn("release rollback", self.refused("abort", "--revert"))

    def test_where_several_are_on_one_has_to_be_named(self):
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("\n".join(mac_of(number) for number in range(50)))
        self.run_it("start", NEW, "--group", "beta", "--waves", "50,100")
        self.assertIn("--group beta", self.refused("pause"))
        self.assertEqual(self.run_it("pause", "--group", "beta")[0], 0)
        self.assertEqual(self.plan("rollout_beta.json").wanted, "pause")
        self.assertEqual(self.run_it("pause", "--group", "")[0], 0)
        self.assertEqual(self.plan().wanted, "pause")

    def test_each_change_is_on_the_audit_log(self):
        self.come_to("running")
        for command in ("pause", "resume", "promote", "abort"):
            self.run_it(command)
        found = entries(self.data_dir / "log")
        actions = [entry["action"] for entry in found]
        names = ("start", "pause", "resume", "promote", "abort")
        self.assertEqual(actions, [f"rollout {name}" for name in names])
        moved = [(entry["from"], entry["to"]) for entry in found[1:4]]
        expected = [("running", "paused"), ("paused", "running"), ("wave 1", "wave 2")]
        self.assertEqual(moved, expected)

    def test_a_pause_is_on_the_audit_log_with_what_it_was_before(self):
        self.run_it("pause")
        self.run_it("resume")
        self.come_to("paused", reason="the image is missing", resumed=1)
        self.run_it("pause")
        found = [each for each in entries(self.data_dir / "log") if "pause" in each["action"]]
        self.assertEqual([each["from"] for each in found], ["waiting", "paused"])

    def test_two_operators_at_once_leave_whole_files_and_each_change_on_record(self):
        done: list[str] = []

        def operate() -> None:
            for change in (edits.pause, edits.resume) * 50:
                try:
                    change(self.data_dir, None)
                    done.append("")
                except Refused:
                    continue

        operators = [threading.Thread(target=operate) for _ in range(2)]
        for operator in operators:
            operator.start()
        while any(operator.is_alive() for operator in operators):
            self.plan()  # it can be read at any moment
        for operator in operators:
            operator.join()
        changes = entries(self.data_dir / "log")[1:]
        self.assertEqual(len(changes), len(done))
        self.assertEqual(
            self.plan().resumed, sum(entry["action"] == "rollout resume" for entry in changes)
        )


class StatusTest(CommandCase):
    def test_without_a_rollout_it_says_how_one_begins(self):
        self.assertIn("`rollout start VERSION` begins one", self.refused("status"))

    def test_it_shows_each_wave_with_its_counts(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "10,50,100")
        before = ({"active": 10, "updated": 10},)
        counts = {"active": 50, "updated": 25, "downloading": 3, "failed": 1, "silent": 2}
        self.come_to("running", wave=1, counts=counts, before=before)
        code, out, _ = self.run_it("status")
        lines = out.splitlines()
        self.assertEqual(code, 0)
        self.assertIn("rollout of v2.0.0 to the fleet, instead of v1.0.0: running", lines[0])
        self.assertIn("[########################]  done: 10 of 10 updated", lines[3])
        self.assertIn("[############............]  since", lines[4])
        self.assertIn("25 of 50 updated, 3 downloading, 1 failed, 2 silent", lines[4])
        self.assertIn("to come", lines[5])

    def test_a_broken_plan_is_named_in_words_with_what_to_do(self):
        path = self.data_dir / "version" / "rollout.json"
        plan = RolloutPlan("1", NEW, "", (100.0,), format_time(NOW_MS), OLD)._asdict()
        for content, words in (
            ("{", "is not JSON: "),
            ('{"id": "1"}', "it lacks version, group, waves, time, instead_of; "),
            (json.dumps({**plan, "waves": "ten"}), "a value in it is of the wrong type; "),
            (
                json.dumps({**plan, "waves": [100, 50]}),
                "waves have to rise, and the last one has to be 100; ",
            ),
        ):
            path.write_text(content)
            with self.subTest(content=content):
                for command in ("status", "pause", "abort"):
                    said = self.refused(command)
                    self.assertIn(f"{path} is no", said)
                    self.assertIn(words, said)
                    self.assertIn("; fix it, or delete it: that ends the rollout", said)
                    self.assertNotIn("__new__", said)

    def test_what_is_no_file_in_the_place_of_a_plan_is_said(self):
        path = self.data_dir / "version" / "rollout.json"
        for make, undo in ((path.mkdir, path.rmdir), (lambda: os.mkfifo(path), path.unlink)):
            make()
            said = self.refused("status")
            self.assertIn(f"{path} is not a regular file in its folder; fix it, or delete", said)
            undo()

    def shown(self, progress: RolloutProgress, **more: Any) -> str:
        plan = RolloutPlan("1", NEW, "", (50.0, 100.0), format_time(NOW_MS), OLD)
        return "\n".join(status_lines(plan, progress, NOW_MS, **more))

    def test_a_bar_shows_all_that_a_wave_is_for_and_not_only_who_was_heard_from(self):
        counts = {"active": 3, "updated": 3, "reach": 20}
        text = self.shown(RolloutProgress("1", "running", 0, format_time(NOW_MS), counts=counts))
        self.assertIn(f"[{'#' * 3}{'.' * 21}]", text)
        self.assertIn("3 of 20 updated, 17 not heard from since it opened", text)

    def test_where_it_asks_about_devices_it_says_what_lists_them(self):
        progress = RolloutProgress("1", "running", 0, format_time(NOW_MS), asks=(mac_of(1),))
        self.assertIn("`rollout devices` lists the devices", self.shown(progress))

    def test_a_wave_that_was_passed_shows_its_true_share(self):
        counts = {"active": 10, "updated": 5, "reach": 20}
        progress = RolloutProgress("1", "running", 1, format_time(NOW_MS), before=(counts,))
        self.assertIn(f"[{'#' * 6}{'.' * 18}]  passed: 5 of 20 updated", self.shown(progress))

    def test_a_wave_that_never_opened_is_not_to_come_once_it_is_over(self):
        for state, words in (("running", "to come"), ("done", "not opened")):
            with self.subTest(state):
                self.assertIn(
                    words, self.shown(RolloutProgress("1", state, 0, format_time(NOW_MS)))
                )

    def test_it_shows_what_the_open_wave_waits_for(self):
        progress = RolloutProgress("1", "running", 1, format_time(NOW_MS), waiting="20 are needed")
        self.assertIn("\n  wave 2 waits: 20 are needed\n", self.shown(progress))
        plan = RolloutPlan("1", NEW, "", (100.0,), format_time(NOW_MS), OLD, wanted="pause")
        self.assertNotIn("20 are needed", "\n".join(status_lines(plan, progress, NOW_MS)))

    def test_it_shows_what_keeps_a_release_from_being_withdrawn_and_names_no_resume(self):
        progress = RolloutProgress(
            "1", "paused", 0, format_time(NOW_MS), "3 failed", waiting="not yet: x"
        )
        text = self.shown(progress)
        self.assertIn("  3 failed\n  not yet: x\n", text)
        self.assertNotIn("resume", text)

    def test_it_says_under_the_headline_that_everything_is_on_hold(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        (self.data_dir / "version" / "hold.json").write_text("{}")
        line = "  everything is on hold: no device is offered anything; `unhold` ends that"
        self.assertEqual(self.run_it("status")[1].splitlines()[1], line)

    def test_a_revert_that_is_over_names_no_revert(self):
        back = RolloutPlan(
            "1", OLD, "", (100.0,), format_time(NOW_MS), OLD, is_revert=True, reverts=NEW
        )
        for state in ("aborted", "halted"):
            with self.subTest(state):
                progress = RolloutProgress("1", state, 0, format_time(NOW_MS))
                text = "\n".join(status_lines(back, progress, NOW_MS))
                self.assertNotIn("--revert", text)
                self.assertIn("`rollout start VERSION`", text)

    def test_it_says_why_one_is_halted_and_what_to_do(self):
        plan = RolloutPlan("1", NEW, "", (100.0,), format_time(NOW_MS), OLD)
        progress = RolloutProgress("1", "halted", 0, format_time(NOW_MS), "3 of 9 devices failed")
        text = "\n".join(status_lines(plan, progress, NOW_MS))
        self.assertIn("3 of 9 devices failed", text)
        self.assertIn("abort --revert", text)

    def test_the_clocks_of_one_that_is_over_stop_and_the_headline_says_when_it_ended(self):
        opened = format_time(NOW_MS + 60_000)
        plan = RolloutPlan("1", NEW, "", (100.0,), format_time(NOW_MS), OLD)
        for state, wanted in (("halted", "run"), ("aborted", "run"), ("running", "abort")):
            progress = RolloutProgress("1", state, 0, opened, counts={"active": 9})
            for now_ms in (NOW_MS + 100_000, NOW_MS + 7_200_000):
                with self.subTest(state, now_ms=now_ms):
                    each = plan._replace(wanted=wanted)
                    lines = status_lines(each, progress, now_ms, ended_ms=NOW_MS + 70_000)
                    ago = "30s ago" if now_ms == NOW_MS + 100_000 else "1h ago"
                    state_shown = "halted" if state == "halted" else "aborted"
                    self.assertRegex(lines[0], f": {state_shown} {ago}, begun ")
                    self.assertIn("open for 10s: 0 of 9 updated", "\n".join(lines))
        halted = RolloutProgress("1", "halted", 0, opened)
        at_once = status_lines(plan, halted, NOW_MS + 70_000, ended_ms=NOW_MS + 60_000)
        self.assertIn("open for 0s", "\n".join(at_once))

    def test_status_exits_with_1_after_a_halt_until_there_is_another_target(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        self.come_to("halted", reason="3 of 9 devices failed")
        self.assertEqual(self.run_it("status")[0], 1)
        (self.data_dir / "version" / "version.txt").write_text("v3")
        self.assertEqual(self.run_it("status")[0], 0)

    def test_status_shows_the_limits_while_it_is_on(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100", "--soak", "90m", "--max-failures", "0.5%")
        self.come_to("running")
        limits = "limits: soak 90m, apply-grace 15m, max-failures 0.5%, min-devices 20"
        self.assertIn(f"  {limits}, wave-timeout 7d", self.run_it("status")[1].splitlines())
        self.come_to("done", wave=1)
        self.assertNotIn("limits", self.run_it("status")[1])

    def test_status_knows_when_a_rollout_ended(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        self.come_to("halted", wave=0)
        for name in ("rollout.json", "progress.json"):
            os.utime(self.data_dir / "version" / name, ns=((NOW_MS - 240_000) * 10**6,) * 2)
        # The tests began some minutes ago at most.
        self.assertRegex(self.run_it("status")[1].splitlines()[0], r": halted \d+m ago, begun ")
        (line,) = self.run_it("status", "--json")[1].splitlines()
        ended = format_time(NOW_MS - 240_000)
        self.assertEqual(json.loads(line)["end_time"], ended)

    def test_a_closed_window_is_named_as_what_devices_wait_for(self):
        plan = RolloutPlan("1", NEW, "", (50.0, 100.0), format_time(NOW_MS), OLD)
        progress = RolloutProgress("1", "running", 0, format_time(NOW_MS), waiting="0 of the 4")
        closed = "outside the maintenance window 03:00-03:30 (UTC): until it opens, devices are"
        for is_open in (False, True):
            with self.subTest(is_open=is_open):
                hours = Standing(window="03:00-03:30 (UTC)", is_open=is_open)
                lines = status_lines(plan, progress, NOW_MS, standing=hours)
                self.assertEqual(closed in "\n".join(lines), not is_open)

    def test_it_says_how_many_devices_never_meet_the_window(self):
        plan = RolloutPlan("1", NEW, "", (100.0,), format_time(NOW_MS), OLD)
        standing = Standing(None, "01:00-05:00", False, 12)
        text = "\n".join(status_lines(plan, None, NOW_MS, standing=standing))
        self.assertIn("12 never ask within the window 01:00-05:00", text)
        self.assertIn("--window-overdue", text)

    def test_json_has_an_object_a_line(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        (line,) = self.run_it("status", "--json")[1].splitlines()
        fields = json.loads(line)
        self.assertEqual((fields["version"], fields["state"]), (NEW, "waiting"))

    def test_watch_ends_when_the_rollout_does(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        self.come_to("done", wave=1)
        code, out, _ = self.run_it("status", "--watch")
        self.assertEqual(code, 0)
        self.assertIn("done", out)

    def test_watch_ends_with_1_where_what_was_watched_ended_badly(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        self.come_to("halted", reason="3 of 9 devices failed")
        self.assertEqual(self.run_it("status", "--watch")[0], 1)
        self.come_to("running")
        self.run_it("abort")
        self.assertEqual(self.run_it("status", "--watch")[0], 1)

    def test_on_a_narrow_terminal_lines_are_wrapped_and_nothing_is_lost(self):
        line = "  3 of 9 devices failed: see `why MAC` of each, and mind --wave-timeout"
        rows = wrapped(line, 30)
        self.assertGreater(len(rows), 2)
        self.assertLessEqual(max(map(len, rows)), 30)
        self.assertTrue(all(row.startswith("    ") for row in rows[1:]))
        self.assertEqual(" ".join(" ".join(rows).split()), line.strip())
        self.assertIn("--wave-timeout", "\n".join(rows))
        self.assertEqual(wrapped("", 30), [""])

    def test_watch_draws_over_all_rows_that_it_drew_before_also_on_a_narrow_terminal(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        self.come_to("paused", reason="word " * 30)
        terminal, other = pty.openpty()
        self.addCleanup(os.close, terminal)
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 40, 0, 0))
        command = [sys.executable, "-m", "ota_server", "rollout", "status", "--watch"]
        process = subprocess.Popen(
            [*command, "--data-dir", str(self.data_dir)], cwd=ROOT, stdout=other, stderr=other
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        os.close(other)
        shown = b""

        def is_drawn_twice() -> bool:
            nonlocal shown
            shown += os.read(terminal, 65536)
            if shown.endswith(b"\x1b[J"):
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 25, 0, 0))
            return re.search(rb"\x1b\[\d+F", shown) is not None

        self.assertTrue(until(is_drawn_twice))
        first, up, _ = re.split(rb"\x1b\[(\d+)F", shown)[:3]
        rows = first.removeprefix(b"\x1b[?25l").split(b"\x1b[K\r\n")[:-1]
        # The window was made narrower meanwhile, so that what was drawn before takes more rows.
        self.assertEqual(int(up), sum(-(-len(row) // 25) or 1 for row in rows))
        self.assertGreater(int(up), len(rows))
        self.assertTrue(25 < max(map(len, rows)) < 40)
        self.assertEqual(first.count(b"word"), 30)

    def test_watch_says_how_many_lines_did_not_fit(self):
        out = io.StringIO()
        size = os.terminal_size((40, 6))
        with redirect_stdout(out), mock.patch("shutil.get_terminal_size", return_value=size):
            Screen().show([f"line {number}" for number in range(9)])
        rows = re.findall(r"(.*)\x1b\[K\n", out.getvalue())
        self.assertEqual(rows[-2:], ["line 3", ".. 5 more lines: make the window taller"])
        self.assertEqual(len(rows), 5)

    def test_watch_leaves_the_terminal_clean(self):
        self.know(100)
        self.run_it("start", NEW, "--waves", "50,100")
        command = [sys.executable, "-m", "ota_server", "rollout", "status", "--watch"]
        terminal, other = pty.openpty()
        self.addCleanup(os.close, terminal)
        process = subprocess.Popen(
            [*command, "--data-dir", str(self.data_dir)], cwd=ROOT, stdout=other, stderr=other
        )
        os.close(other)
        shown = b""

        def read() -> bool:
            nonlocal shown
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                return True  # the other side is closed
            return shown.count(b"rollout of") >= 2

        self.assertTrue(until(read))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT_SECONDS), 130)
        until(lambda: read() and shown.endswith(b"\x1b[?25h"), 2.0)
        self.assertTrue(shown.startswith(b"\x1b[?25l") and shown.endswith(b"\x1b[?25h"), shown)
        self.assertNotIn(b"Traceback", shown)


class WayBackTest(RolloutCase):
    def test_devices_go_back_and_nobody_is_kept_at_the_end(self):
        server = self.serve()
        self.devices.ask(server.port)
        plan = self.roll_out(waves=(50.0, 100.0), soak_seconds=3600.0)
        self.ask_until(server, lambda: NEW in self.devices.versions.values())
        edits.abort(self.data_dir, None, format_time(NOW_MS))
        self.assertTrue(until(lambda: self.state() == "aborted"))
        self.devices.ask(server.port)
        self.assertIn(NEW, self.devices.versions.values())
        back = plan._replace(id="back", version=OLD, reverts=NEW, is_revert=True, soak_seconds=0.3)
        revert(self.data_dir, back, format_time(NOW_MS))
        self.ask_until(server, lambda: self.state() == "done")
        self.assertEqual(set(self.devices.versions.values()), {OLD})
        self.assertEqual(json.loads((self.data_dir / "version" / "stopped.json").read_bytes()), {})
        self.assertEqual((self.data_dir / "version" / "version.txt").read_text(), OLD)

    def give_target(self, version: str) -> list[str]:
        """Give a group of ten devices a target of its own; return the devices."""
        members = list(self.devices.versions)[:10]
        (self.data_dir / "version" / "groups").mkdir()
        (self.data_dir / "version" / "groups" / "beta.txt").write_text("\n".join(members))
        (self.data_dir / "version" / "targets.json").write_text(json.dumps({"beta": version}))
        return members

    def test_who_has_the_release_as_the_target_of_its_group_is_not_taken_back(self):
        members = self.give_target(NEW)
        server = self.serve()
        self.devices.ask(server.port)
        plan = self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        self.ask_until(server, lambda: set(self.devices.versions.values()) == {NEW})
        self.devices.ask(server.port)  # the revert counts those that have said that they run it
        # A soak in which all devices ask: it is done once twenty of them have run it for so long.
        back = plan._replace(id="back", version=OLD, reverts=NEW, is_revert=True, soak_seconds=2.0)
        revert(self.data_dir, back, format_time(NOW_MS))
        self.ask_until(server, lambda: self.state() == "done")
        self.devices.ask(server.port)
        on_new = [mac for mac, version in self.devices.versions.items() if version == NEW]
        self.assertEqual(on_new, members)
        self.assertEqual(self.progress()["counts"]["reach"], 50)

    def test_after_it_nobody_is_kept_on_a_withdrawn_release_by_the_target_of_a_group(self):
        # Its devices got the release, then the group a target, then the release was halted.
        members = self.give_target("v1.5.0")
        self.put_image("v1.5.0", b"image")
        stopped = self.data_dir / "version" / "stopped.json"
        entry = {"state": "withdrawn", "instead_of": OLD, "group_targets": {"beta": "v1.5.0"}}
        stopped.write_text(json.dumps({NEW: entry}))
        target = Target(OLD, "", f"firmware_{OLD}.bin", 1000)
        report = Report(members[0], NEW)
        back = self.roll_out(id="back", version=OLD, reverts=NEW, is_revert=True)
        self.assertEqual(
            decide(report, Situation(PolicyFiles(self.data_dir).current(), target)).version, NEW
        )
        finish(self.data_dir, back)
        (self.data_dir / "version" / "rollout.json").unlink()
        decision = decide(report, Situation(PolicyFiles(self.data_dir).current(), target))
        self.assertEqual(decision.version, "v1.5.0")
