"""`status` and `health`: one screen, the same with a server, without one, and on damaged files."""

import fcntl
import io
import json
import os
import pty
import pwd
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from ota_server.cli import main
from ota_server.journal.record import format_record
from ota_server.model.device import Device, Download
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.rollouts.history import note_end
from ota_server.rollouts.outcome_list import ListedDevice
from ota_server.system.files import replace
from tests.support import (
    DEVICE,
    MAC,
    ROOT,
    TIMEOUT_SECONDS,
    Answer,
    Client,
    DataDirCase,
    Process,
    bare,
    until,
)
from tests.support.fleet import mac_of, start_server

NOW_MS = time.time_ns() // 1_000_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
OLD, NEW = "v1.0.0", "v2.0.0"
USER = 12345  # the server's user
PLAN = RolloutPlan("1", NEW, "", (10.0, 100.0), format_time(NOW_MS), OLD)


class StatusCase(DataDirCase):
    """A data directory with two releases, of which the old one is the target."""

    def setUp(self) -> None:
        super().setUp()
        for version in (OLD, NEW):
            self.put_image(version, b"image " * 1000)
        self.set_target(OLD)

    def run_it(self, *words: str) -> tuple[int, str]:
        """Run a command in this process; return its exit code and what it printed, all of it."""
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            try:
                code = main([*words, "--data-dir", str(self.data_dir)])
            except SystemExit as end:
                code = int(end.code or 0)
        self.assertNotIn("Traceback", out.getvalue())
        return code, bare(out.getvalue())

    def fields(self) -> dict[str, Any]:
        """Return the status for programs."""
        fields: dict[str, Any] = json.loads(self.run_it("status", "--json")[1])
        return fields

    def about(self) -> list[str]:
        """Return what the warnings are about that need a person."""
        return [each["about"] for each in self.fields()["warnings"] if each["needs_person"]]

    def know(self, number: int, version: str = OLD, seen_ms: int = 0, **fields: Any) -> None:
        """Put a device on record, heard from so long ago."""
        time_ms = NOW_MS - seen_ms
        device = Device(time_ms, version, time_ms, None, OLD, "192.0.2.7", False, None, time_ms)
        with (self.data_dir / "log" / "devices.jsonl").open("ab") as journal:
            journal.write(format_record("check", mac_of(number), device._replace(**fields)))

    def roll_out(self, state: str = "running", wave: int = 0, **fields: Any) -> None:
        """Write a rollout to the fleet, and how far it is."""
        progress = RolloutProgress("1", state, wave, format_time(NOW_MS))  # type: ignore[arg-type]
        for name, content in (("rollout", PLAN), ("progress", progress._replace(**fields))):
            replace((self.data_dir / "version" / f"{name}.json"), format_plan(content))

    def decide(self, name: str, content: object) -> None:
        """Write a file into version/, as an operator may."""
        (self.data_dir / "version" / name).write_text(json.dumps(content))

    def serve(self, *arguments: str) -> Process:
        """Start a server, and wait until it says of itself how it is."""
        server = start_server(self, self.data_dir, *arguments)
        until((self.data_dir / "log" / "admission.json").exists)
        return server


class WellTest(StatusCase):
    def test_local_times_have_their_offset(self):
        (self.data_dir / "version" / "hold.json").write_text('{"time":"2026-11-29T02:00:00Z"}')
        text = self.run_it("status", "--local")[1]
        self.assertRegex(text, r"2026-11-\d\dT\d\d:00:00[+-]\d\d:\d\d")
        self.assertNotRegex(text, r"\dZ")

    def test_where_all_is_well_it_says_so_and_health_prints_nothing(self):
        self.know(1)
        self.serve()
        code, text = self.run_it("status")
        self.assertEqual((code, text.splitlines()[0]), (0, "all is well: nothing needs a person"))
        self.assertRegex(text, r"\nserver +runs since \d{4}-\d\d-\d\dT[\d:]+Z \((now|\d+s ago)\)")
        self.assertRegex(text, rf"\ntarget +{OLD} \(5.9 KiB\)\n")
        self.assertRegex(text, r"\n +1  up to date\n")
        self.assertEqual(text.splitlines()[-1].split(), ["hold", "none"])
        self.assertEqual(self.run_it("health"), (0, ""))

    def test_it_says_on_which_port_and_since_when_the_server_runs(self):
        self.serve()
        server = self.fields()["server"]
        self.assertTrue(server["runs"])
        self.assertGreater(server["port"], 0)
        self.assertGreaterEqual(server["since"], format_time(NOW_MS - MINUTE_MS))

    def test_a_server_that_hangs_is_not_well(self):
        server = self.serve()
        os.kill(server.process.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, server.process.pid, signal.SIGCONT)
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
        self.assertEqual(self.run_it("health"), (0, ""))
        minutes_ago = time.time() - 75
        os.utime(self.data_dir / "log" / "admission.json", (minutes_ago, minutes_ago))
        code, text = self.run_it("health")
        self.assertEqual(code, 1)
        self.assertRegex(text, r"^server: the server has given no sign of life for 1m 1\ds")
        self.assertRegex(
            self.run_it("status")[1], r"\nserver +runs since [^,]*, no sign of life for 1m 1\ds"
        )
        self.assertIn(self.fields()["server"]["quiet_seconds"], range(75, 95))


class PersonTest(StatusCase):
    def needs(self, about: str, text: str) -> None:
        """Check that something needs a person, and that all say so."""
        code, shown = self.run_it("status")
        self.assertEqual(code, 1, shown)
        code, lines = self.run_it("health")
        self.assertEqual(code, 1)
        line = next(line for line in lines.splitlines() if text in line)
        self.assertTrue(line.startswith(f"{about}: "), line)
        self.assertIn(text.split()[0], shown)

    def test_a_server_that_does_not_run_needs_a_person(self):
        self.needs("server", "no server runs")
        self.assertIn("does not run: this is what the files say", self.run_it("status")[1])

    def test_a_running_rollout_that_waits_for_a_person_needs_one_until_it_is_promoted(self):
        self.serve()
        missing = "0 of the 1 device that are needed; missing: 02:00:00:00:00:01 (not heard from)"
        self.roll_out(waiting=missing, asks=(mac_of(1),))
        self.assertEqual(self.run_it("rollout", "status")[0], 1)
        self.needs("rollout", f"waits for a person: {missing}")
        self.assertEqual(self.run_it("rollout", "promote")[0], 0)
        self.assertEqual(
            [self.run_it(*each)[0] for each in (("rollout", "status"), ("health",))], [0, 0]
        )

    def test_a_full_table_harms_no_known_device_and_needs_a_person_who_is_told_the_command(self):
        for number, seen_ms in ((1, 0), (2, 100 * DAY_MS)):
            self.know(number, seen_ms=seen_ms)
        self.put_image(NEW, b"another" * 1000)
        self.set_target(NEW)
        server = self.serve("--max-devices", "2")

        def ask(number: int, path: str, version: str = OLD, **fields: str) -> Answer:
            with Client(server.port) as client:
                who = {"_br_mac_": mac_of(number), "_br_fwv_": version}
                client.request(path, {**who, **fields})
                return client.answer()

        def resumed(number: int) -> str:
            return ask(number, "/firmware.bin", Range="bytes=100-").fields["x-firmware-version"]

        for number in range(100, 200):  # strangers, or new devices
            self.assertEqual(ask(number, "/version.txt").body, NEW.encode())
        for number in (1, 100):
            self.assertEqual(ask(number, "/firmware.bin", Range="bytes=0-99").status, 206)
        self.set_target(OLD)
        self.assertTrue(until(lambda: ask(1, "/version.txt", NEW).body == OLD.encode()))
        # Who is on record resumes what it began; this is what the others do not have.
        self.assertEqual([resumed(number) for number in (1, 100)], [NEW, OLD])
        self.assertTrue(self.records(mac=mac_of(1), previous_version=OLD))
        self.assertEqual(self.records(mac=mac_of(100)), [])
        self.assertTrue(until(lambda: self.run_it("health")[0] == 1))
        self.needs("devices", "the table of devices is full")
        self.assertIn("`device forget --unseen 90d`", " ".join(self.run_it("status")[1].split()))
        self.assertEqual(self.run_it("device", "forget", "--unseen", "90d")[0], 0)
        self.assertTrue(until(lambda: self.run_it("health") == (0, "")))
        ask(100, "/version.txt")
        self.assertTrue(self.records(mac=mac_of(100)))

    def test_a_hold_needs_a_person_and_is_the_last_line(self):
        self.run_it("hold", "--reason", "it bricks")
        self.needs("hold", "it bricks; `unhold` ends that")
        last = self.run_it("status")[1].splitlines()[-1]
        self.assertRegex(last, r"^hold +everything is on hold since [-\dT:]+Z by \S+: it bricks$")

    def test_a_hold_by_a_clock_that_was_ahead_is_not_since_a_time_that_is_to_come(self):
        self.run_it("hold")
        path = self.data_dir / "version" / "hold.json"
        path.write_text(re.sub(r'"time": "\d{4}', '"time": "2999', path.read_text()))
        said = self.run_it("status")[1].splitlines()[-1]
        self.assertRegex(said, r"^hold +everything is on hold since 2\d{3}-")
        self.assertNotIn("2999", said)

    def test_a_target_without_an_image_needs_a_person(self):
        self.set_target("v9.0.0")
        self.needs("target", "there is no image of v9.0.0")

    def test_a_target_that_is_missing_or_broken_needs_a_person(self):
        (self.data_dir / "version" / "version.txt").unlink()
        self.needs("target", "devices are answered 503 (version.txt is missing)")
        self.set_target("two\nlines")
        self.needs("target", "version.txt has more than one line")

    def test_a_withdrawn_target_needs_a_person(self):
        self.run_it("release", "withdraw", OLD)
        self.needs("target", f"the target {OLD} was withdrawn")

    def test_an_image_that_is_missing_for_a_pin_needs_a_person(self):
        self.run_it("pin", mac_of(1), NEW)
        (self.data_dir / "firmware" / f"firmware_{NEW}.bin").unlink()
        self.needs("image", f"firmware_{NEW}.bin is missing or empty")

    def test_a_halted_rollout_needs_a_person_until_there_is_another_target(self):
        self.roll_out("halted", reason="5 of 20 devices failed")
        self.needs("rollout", f"the rollout of {NEW} was halted: 5 of 20 devices failed")
        self.set_target("v1.5.0")
        self.assertNotIn("rollout", self.about())

    def test_a_halted_revert_needs_a_person_until_there_is_another_target(self):
        self.roll_out("halted", reason="5 of 20 devices failed")
        back = PLAN._replace(version=OLD, is_revert=True, reverts=NEW)
        replace((self.data_dir / "version" / "rollout.json"), format_plan(back))
        self.needs("rollout", f"the revert to {OLD} was halted: 5 of 20 devices failed")
        self.set_target("v1.5.0")
        self.assertNotIn("rollout", self.about())

    def test_a_rollout_that_waits_for_a_person_says_so_with_what_to_do(self):
        self.roll_out("paused", reason="paused by an operator")
        self.needs("rollout", f"the rollout of {NEW} waits for a person: paused by an operator")
        self.assertIn("`rollout resume`", self.run_it("health")[1])

    def test_a_rollout_that_goes_on_needs_nobody(self):
        self.roll_out("running", counts={"updated": 3, "reach": 5, "active": 5})
        self.assertEqual(self.about(), ["server"])
        text = self.run_it("status")[1]
        self.assertRegex(text, rf"\nrollout +{NEW} to the fleet: running, begun ")
        self.assertRegex(text, r"\n +wave 1 of 2, 10 %: 3 of 5 updated\n")

    def test_a_rollout_that_is_done_leaves_after_a_day(self):
        self.roll_out("done")
        self.assertEqual(len(self.fields()["rollouts"]), 1)
        for name in ("rollout", "progress"):
            path, two_days = self.data_dir / "version" / f"{name}.json", 2 * 86_400
            os.utime(path, (time.time() - two_days, time.time() - two_days))
        self.assertEqual(self.fields()["rollouts"], [])


class UnservedTest(StatusCase):
    """An image is where it should be, and the running server cannot serve it."""

    CANDIDATE = b"other " * 1000  # as long as those of the releases

    def setUp(self) -> None:
        super().setUp()
        (self.data_dir / "build").write_bytes(b"build " * 1000)
        self.publish("v3.0.0")
        self.run_it("release", "activate", "v3.0.0")

    def publish(self, version: str, *options: str) -> None:
        source = str(self.data_dir / "build")
        self.assertEqual(
            self.run_it("release", "publish", source, "--version", version, *options)[0], 0
        )

    def check(self, version: str, text: str) -> None:
        """Check that the server does not offer a release, and that all say why."""
        self.assertTrue(until(lambda: text in self.run_it("health")[1]), self.run_it("health"))
        self.assertEqual(self.run_it("health")[0], 1)
        self.assertIn(text, " ".join(self.run_it("status")[1].split()))
        self.assertEqual(self.told(), OLD)
        with Client(self.port) as client:
            client.request("/firmware.bin", {**DEVICE, "_br_fwv_": OLD})
            self.assertEqual(client.answer().status, 404)
        why = " ".join(self.run_it("why", MAC, "--version", OLD)[1].split())
        self.assertIn(f"is told {OLD} because {text}", why)
        self.assertIn("answered 404", why)
        listed = self.run_it("release", "list")[1]
        self.assertRegex(listed, rf"(?m)^{version}.*\bnot served\b")
        self.assertIn(text, self.run_it("release", "show", version)[1])

    def told(self) -> str:
        with Client(self.port) as client:
            client.request("/version.txt", {**DEVICE, "_br_fwv_": OLD})
            return client.answer().body.decode()

    def start(self, code: str | None = None) -> None:
        self.port = start_server(self, self.data_dir, code=code).port
        until((self.data_dir / "log" / "admission.json").exists)

    def test_an_altered_target_is_offered_to_nobody_until_it_is_restored(self):
        self.start()
        self.assertEqual(self.run_it("health"), (0, ""))
        self.put_image("v3.0.0", self.CANDIDATE)
        self.check("v3.0.0", "firmware_v3.0.0.bin is not the image that was published")
        self.publish("v3.0.0")
        self.assertTrue(until(lambda: self.run_it("health") == (0, "")))
        self.assertTrue(until(lambda: self.told() == "v3.0.0"))

    def test_an_altered_release_to_which_a_device_is_pinned(self):
        self.run_it("release", "activate", OLD)
        self.run_it("pin", MAC, "v3.0.0")
        self.put_image("v3.0.0", self.CANDIDATE)
        self.start()
        self.check("v3.0.0", "firmware_v3.0.0.bin is not the image that was published")

    def test_an_altered_target_of_a_group(self):
        self.run_it("release", "activate", OLD)
        self.run_it("group", "add", "beta", MAC)
        self.decide("targets.json", {"beta": "v3.0.0"})
        self.put_image("v3.0.0", self.CANDIDATE)
        self.start()
        self.check("v3.0.0", "firmware_v3.0.0.bin is not the image that was published")

    def test_an_altered_stepping_stone(self):
        self.publish("v4.0.0", "--via", "v3.0.0")
        self.run_it("release", "activate", "v4.0.0")
        self.put_image("v3.0.0", self.CANDIDATE)
        self.start()
        self.check("v3.0.0", "firmware_v3.0.0.bin is not the image that was published")

    def test_an_altered_target_is_named_also_where_no_server_runs(self):
        self.put_image("v3.0.0", self.CANDIDATE)
        text = "firmware_v3.0.0.bin is not the image that was published: publish the same build"
        for arguments in ("health", "status", "release list", f"why {MAC} --version {OLD}"):
            with self.subTest(arguments):
                self.assertIn(text, " ".join(self.run_it(*arguments.split())[1].split()))

    @unittest.skipUnless(os.geteuid() == 0, "only root can read what the server's user cannot")
    def test_a_target_that_the_servers_user_could_not_read_is_named_where_no_server_runs(self):
        image = self.data_dir / "firmware" / "firmware_v3.0.0.bin"
        image.chmod(0o600)
        os.chown(self.data_dir / "log", USER, USER)
        for arguments in (("health",), ("why", MAC, "--version", OLD)):
            with self.subTest(arguments):
                self.assertIn(f"`chmod a+r {image}`", self.run_it(*arguments)[1])
        self.run_it("release", "activate", OLD, "--force")
        self.run_it("pin", MAC, "v3.0.0", "--force")
        self.assertIn(f"`chmod a+r {image}`: {MAC} is pinned to it", self.run_it("health")[1])

    @unittest.skipUnless(os.geteuid() == 0, "only root can read what the server's user cannot")
    def test_a_target_that_the_servers_user_cannot_read(self):
        self.data_dir.chmod(0o755)
        for path in (self.data_dir, *self.data_dir.rglob("*")):
            os.chown(path, USER, USER)
        image = self.data_dir / "firmware" / "firmware_v3.0.0.bin"
        os.chown(image, 0, 0)
        image.chmod(0o600)
        # The codecs first: this user may not be able to read the library.
        codecs = "from encodings import ascii, idna, utf_8_sig"
        become = f"{codecs}; import locale, os, sys; os.setgid({USER}); os.setuid({USER})"
        self.start(f"from ota_server.server import main; {become}; sys.exit(main())")
        self.check("v3.0.0", "firmware_v3.0.0.bin cannot be read by the server")
        image.chmod(0o644)
        self.assertTrue(until(lambda: self.run_it("health") == (0, "")))
        self.assertEqual(self.told(), "v3.0.0")


class DevicesTest(StatusCase):
    def test_the_numbers_add_up(self):
        took = Download(OLD, "a" * 64, 6000, NOW_MS - 3 * 3_600_000, 1, NOW_MS - 2 * 3_600_000, 0)
        self.know(1)
        self.know(2, "v0.9.0")
        self.know(3, "v0.9.0", download=took)
        self.know(4, "v0.9.0", 3 * 3_600_000, download=took)
        self.know(5, seen_ms=2 * DAY_MS)
        self.know(7, "-", download=took)
        self.run_it("hold")
        self.know(6, "v0.8.0")
        devices = self.fields()["devices"]
        expected = {"silent": 1, "failed": 1, "away": 1, "undecided": 1, "held back": 2}
        self.assertEqual(devices["conditions"], {**expected, "behind": 0, "up to date": 1})
        self.assertEqual(devices["total"], sum(devices["conditions"].values()))
        self.assertEqual(devices["total"], sum(devices["versions"].values()))
        self.assertEqual(devices["held_back_by"], {"the hold": 2})

    def test_many_versions_are_summed_up(self):
        for number in range(20):
            self.know(number, f"v0.{number}")
        text = self.run_it("status")[1]
        self.assertRegex(text, r"\n +16  16 other versions\n")

    def test_a_device_that_failed_is_worth_knowing_and_not_all_is_well(self):
        took = Download(OLD, "a" * 64, 6000, NOW_MS - 3 * 3_600_000, 1, NOW_MS - 2 * 3_600_000, 0)
        self.know(7, "v0.9.0", download=took)
        self.serve()
        code, text = self.run_it("status")
        first, second = text.splitlines()[:2]
        self.assertEqual((code, first), (0, "nothing needs a person; 1 thing is worth knowing:"))
        self.assertIn("1 device failed:", second)
        self.assertNotIn("all is well", text)
        self.assertIn(mac_of(7), self.run_it("devices", "--state", "failed")[1])
        self.assertEqual(self.run_it("health"), (0, ""))
        self.know(8, "v0.9.0", download=took)
        self.assertIn("2 devices failed:", self.run_it("status")[1])

    def test_a_device_that_waits_for_the_loop_breaker_is_named_with_what_to_do(self):
        waits = Download(OLD, "a" * 64, 6000, NOW_MS - 5000, 3, NOW_MS - 4000, 0)
        self.know(7, "v0.9.0", download=waits)
        self.serve()
        self.assertEqual(self.fields()["devices"]["waiting_to_retry"], [mac_of(7)])
        self.assertEqual(self.fields()["devices"]["stuck"], [])
        shown = self.run_it("status")[1]
        self.assertRegex(shown, rf"1 told to wait: [^:]*:\s+{mac_of(7)};\s+`why MAC`")

    def test_a_hold_from_a_clock_that_was_ahead_began_now(self):
        (self.data_dir / "version" / "hold.json").write_text('{"time": "2040-01-01T00:00:00Z"}')
        for words in (("status",), ("status", "--json"), ("release", "list"), ("hold",)):
            with self.subTest(words):
                self.assertNotIn("2040", self.run_it(*words)[1])

    def test_what_to_do_about_a_file_of_another_kind_is_said_once(self):
        for name, rest in (("labels.json", "no labels are shown"), ("pins.json", "what it held")):
            with self.subTest(name):
                path = self.data_dir / "version" / name
                path.symlink_to("/etc/hosts")
                shown = " ".join(self.run_it("status")[1].split())
                self.assertIn(f"is not a regular file in its folder; move it away; {rest}", shown)
                self.assertNotIn("repair it", shown)
                path.unlink()

    def test_silent_devices_are_named_beside_those_that_failed(self):
        took = Download(OLD, "a" * 64, 6000, NOW_MS - 3 * 3_600_000, 1, NOW_MS - 2 * 3_600_000, 0)
        self.know(7, "v0.9.0", download=took)
        for number in (8, 9):
            self.know(number, "v0.9.0", 3 * 3_600_000, download=took)
        text = " ".join(self.run_it("status")[1].split())
        self.assertIn("1 device failed: `devices --state failed` lists it", text)
        self.assertIn("2 devices fell silent: `devices --state silent` lists them", text)

    def test_why_and_the_column_say_how_a_device_failed_or_fell_silent(self):
        took = Download(OLD, "a" * 64, 6000, NOW_MS - 3 * 3_600_000, 1, NOW_MS - 2 * 3_600_000, 0)
        self.know(7, "v0.9.0", download=took)
        self.know(8, "v0.9.0", 3 * 3_600_000, download=took)
        self.know(9)
        for number, state, said in (
            (7, "failed", f"it had the whole image of {OLD}, and reports v0.9.0"),
            (8, "silent", f"it had the whole image of {OLD}, and nothing was heard since"),
        ):
            with self.subTest(state):
                why = " ".join(self.run_it("why", mac_of(number))[1].split())
                self.assertIn(f"state {state}: {said}", why)
                fields = json.loads(self.run_it("why", mac_of(number), "--json")[1])
                self.assertEqual(fields["state"], state)
                shown = self.run_it("devices", "--csv", "--columns", "mac,reason")[1]
                self.assertIn(f'{mac_of(number)},"{said}"', shown)
        self.assertRegex(self.run_it("why", mac_of(9))[1], r"\nstate +up to date\n")
        if_it_did = self.run_it("why", mac_of(8), "--version", OLD)[1]
        self.assertNotIn("state ", if_it_did)

    def test_a_device_that_failed_and_runs_its_target_is_not_outdated(self):
        self.know(7, OLD)
        listed = ListedDevice(mac_of(7), "failed", "", OLD, format_time(NOW_MS), "192.0.2.7")
        note_end(self.data_dir, PLAN, None, [listed], NOW_MS)
        self.roll_out("halted", counts={"failed": 1})
        self.assertIn(mac_of(7), self.run_it("devices", "--state", "failed")[1])
        self.assertNotIn(mac_of(7), self.run_it("devices", "--outdated")[1])

    def test_a_device_that_is_stuck_is_named_with_what_to_do(self):
        stuck = Download(OLD, "a" * 64, 6000, NOW_MS - 5000, 10, NOW_MS - 4000, 0)
        self.know(7, "v0.9.0", download=stuck)
        self.know(8, "v0.9.0")
        self.assertEqual(self.fields()["devices"]["stuck"], [mac_of(7)])
        self.assertRegex(self.run_it("status")[1], rf"1 stuck: [^:]*:\s+{mac_of(7)};")


class DamageTest(StatusCase):
    """Each file that cannot be read is a warning, and all else is shown."""

    def check(self, needs_person: bool, *names: str) -> None:
        """Check that a status names these, and shows the rest."""
        code, text = self.run_it("status")
        self.assertEqual(code, 1)  # no server runs
        flat = " ".join(text.split())
        for name in names:
            self.assertIn(name, flat)
        self.assertRegex(text, r"\ndisk +\d")
        self.assertIn("\nhold ", text)
        self.assertEqual(any(name in self.run_it("health")[1] for name in names), needs_person)

    def test_a_data_directory_that_is_empty(self):
        for path in sorted(self.data_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        self.check(True, "version is not there", "there is no target", "0 on record")

    def test_a_folder_that_is_not_there_is_wrong_usage(self):
        for command in ("status", "health"):
            out = io.StringIO()
            with redirect_stderr(out):
                code = main([command, "--data-dir", str(self.data_dir / "nowhere")])
            self.assertEqual(code, 2)
            self.assertIn("is not a folder", out.getvalue())

    @unittest.skipUnless(os.geteuid() == 0, "only root may run as another user")
    def test_a_user_who_may_not_read_it_gets_one_line_and_no_alarm(self):
        # All is imported first: that user may not be able to read Python's own folder.
        code = (
            "import os, sys; from ota_server.cli import main, make_parser; make_parser('status');"
            "os.setgroups([]); os.setuid(65534); sys.exit(main())"
        )
        os.chown(self.data_dir, pwd.getpwnam("daemon").pw_uid, -1)
        for closed in (".", "version", "firmware", "log"):
            for command in ("status", "health"):
                with self.subTest(closed, command=command):
                    self.data_dir.chmod(0o755)
                    (self.data_dir / closed).chmod(0o700)
                    done = subprocess.run(
                        [sys.executable, "-c", code, command, "--data-dir", str(self.data_dir)],
                        cwd=ROOT,
                        capture_output=True,
                        text=True,
                        timeout=TIMEOUT_SECONDS,
                    )
                    (self.data_dir / closed).chmod(0o755)
                    said = f"{self.data_dir / closed} cannot be read: Permission denied; run this"
                    self.assertEqual((done.returncode, done.stdout), (2, ""))
                    self.assertTrue(done.stderr.startswith(f"ota-server: {said}"), done.stderr)
                    self.assertIn("root", done.stderr)
                    self.assertEqual("(sudo -u daemon)" in done.stderr, closed == ".")

    def test_each_file_of_the_policy(self):
        (self.data_dir / "version" / "groups").mkdir()
        for name, needs_person in (
            ("pins.json", True),
            ("targets.json", True),
            ("stopped.json", True),
            ("retries.json", True),
            ("groups/beta.txt", True),
            ("rollout.json", True),
            ("labels.json", False),
        ):
            for content in (b"\xff\x00{", b"[1", b'{"devices": 7}'):
                path = self.data_dir / "version" / name
                with self.subTest(name, content=content):
                    self.know(1)
                    path.write_bytes(content)
                    self.check(needs_person, name, "1 on record")
                path.unlink()

    def test_something_else_in_the_place_of_a_file(self):
        for name in ("version/pins.json", "version/labels.json", "version/hold.json", "log/.lock"):
            with self.subTest(name):
                path = self.data_dir / name
                path.mkdir()
                self.check("labels" not in name, os.path.basename(name).removesuffix(".json"))
                path.rmdir()

    def test_a_file_in_the_place_of_a_folder(self):
        for name in ("version", "firmware", "log"):
            with self.subTest(name):
                folder = self.data_dir / name
                folder.rename(self.data_dir / "away")
                folder.write_bytes(b"a file")
                self.check(True, name)
                folder.unlink()
                (self.data_dir / "away").rename(folder)

    def test_a_journal_that_is_something_else(self):
        path = self.data_dir / "log" / "devices.000001.jsonl"
        os.mkfifo(path)
        self.check(True, f"{path} cannot be read: not a regular file")

    def test_the_journal(self):
        path = self.data_dir / "log" / "devices.jsonl"
        self.know(1)
        with path.open("ab") as journal:
            journal.write(b"\x00\xff rubbish\n{}\n")
        self.know(2)
        self.check(False, "not records, and were skipped: 2", "2 on record")
        path.unlink()
        path.symlink_to("nowhere")
        self.check(False, "0 on record")

    def test_other_files_in_log(self):
        for name in ("rejected.jsonl", "admission.json", "audit.jsonl", "rollout.checkpoint"):
            for content in (b"", b"\x00\xff", b'{"serving": [1]}\n', b"[" * 100_000):
                with self.subTest(name, content=content[:9]):
                    (self.data_dir / "log" / name).write_bytes(content)
                    self.assertEqual(self.run_it("status")[0], 1)
                    self.assertIsInstance(self.fields()["warnings"], list)


class ScreenTest(StatusCase):
    def assert_fits(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.assertLessEqual(len(line), 80, line)

    def test_it_fits_80_columns_and_breaks_no_command(self):
        reason = "a reason that is as long as people write it at night " * 4
        self.run_it("hold", "--reason", reason.strip())
        self.roll_out(
            "halted", reason="5 of 20 devices failed: " + ", ".join(map(mac_of, range(9)))
        )
        self.know(1)
        text = self.run_it("status")[1]
        self.assert_fits([line for line in text.splitlines() if str(self.data_dir) not in line])
        self.assertIn("`rollout abort --revert`", " ".join(text.split()))

    def test_it_shows_what_somebody_wrote_into_a_file_without_control_characters(self):
        hold = {"time": "x", "user": "\x1b[31m", "reason": "\x07beep\nline"}
        (self.data_dir / "version" / "hold.json").write_text(json.dumps(hold))
        self.assertIsNone(re.search(r"[\x00-\x09\x0b-\x1f]", self.run_it("status")[1]))

    def test_on_a_terminal_health_wraps_between_words(self):
        self.run_it("hold", "--reason", "a long reason " * 9)
        lines = self.on_terminal(80, "health", code=1)
        self.assert_fits([line for line in lines if str(self.data_dir) not in line])
        self.assertRegex("\n".join(lines), r"(?m)^hold +everything is on hold")

    def test_watch_draws_no_line_in_two_until_it_is_interrupted(self):
        self.run_it("hold", "--reason", "a long reason " * 9)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        command = [sys.executable, "-m", "ota_server", "status", "--watch"]
        command += ["--data-dir", str(self.data_dir)]
        with subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            written = b""
            while written.count(b"everything is on hold") < 4:  # two screens
                written += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(TIMEOUT_SECONDS), 130)
        os.close(ours)
        lines = re.sub(rb"\x1b\[[?0-9]*[A-Za-z]", b"", written).decode().splitlines()
        reasons = [line for line in lines if "reason a long" in line]
        self.assertGreaterEqual(len(reasons), 4)
        for line in reasons:
            self.assertRegex(line, r"^(            |  hold      |hold        )\S")


class HoldEverywhereTest(StatusCase):
    def test_it_is_the_last_line_of_every_table_and_not_in_json(self):
        self.know(1)
        self.roll_out()
        self.run_it("hold", "--reason", "it bricks")
        for words in (
            ("devices",),
            ("devices", mac_of(1)),
            ("devices", "--rejected"),
            ("release", "list"),
            ("group", "list"),
            ("audit",),
            ("rollout", "status"),
            ("status",),
        ):
            with self.subTest(words):
                last = self.run_it(*words)[1].splitlines()[-1]
                self.assertRegex(last, "everything is on hold since .* by .*: it bricks")
                if words != ("status",):
                    self.assertNotIn("on hold since", self.run_it(*words, "--json")[1])

    def test_on_a_terminal_it_wraps_between_words(self):
        self.know(1)
        self.run_it("hold", "--reason", "a long reason " * 9)
        lines = self.on_terminal(80, "devices")[2:]
        self.assertGreater(len(lines), 2)
        words = " ".join(lines).replace(";", "").split()
        self.assertEqual((words.count("reason"), words[-2:]), (9, ["ends", "that"]))

    def test_it_is_in_the_banner_and_in_the_log(self):
        self.run_it("hold", "--reason", "it bricks")
        server = start_server(self, self.data_dir)
        assert server.process.stdout is not None
        line = next(line for line in server.process.stdout if "WARNING" in line)
        self.assertRegex(line, "WARNING +everything is on hold since .*: it bricks")
        until((self.data_dir / "log" / "admission.json").exists)
        self.assertRegex(server.end()[1], "WARNING everything is on hold since .*: it bricks")
