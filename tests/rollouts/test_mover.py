"""The controller, as the server starts it: rollouts go on, stop and end by themselves."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

from ota_server.journal.record import format_record
from ota_server.model.device import Device
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, RolloutState
from ota_server.rollouts.files import read_plan, write_progress
from ota_server.rollouts.journal_fold import ServerFacts
from ota_server.rollouts.mover import RolloutMover
from tests.support import ROOT, TIMEOUT_SECONDS, Client, until
from tests.support.fleet import IMAGES, NEW, OLD, Fleet, RolloutCase, mac_of, run_command


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that are not over."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(folder.name))
    return found


def is_there(pid: int) -> bool:
    """Say whether a process is there, and not over."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class ControllerTest(RolloutCase):
    TAKES_LONG = True

    def setUp(self):
        super().setUp()
        self.server = self.serve()
        self.devices.ask(self.server.port)

    def wave(self) -> int:
        return int(self.progress().get("wave", -1))

    def updated(self) -> int:
        return int(self.progress().get("counts", {}).get("updated", 0))

    def stopped(self) -> dict[str, dict[str, str]]:
        try:
            return json.loads((self.data_dir / "version" / "stopped.json").read_bytes())
        except FileNotFoundError:
            return {}

    def target(self) -> str:
        return (self.data_dir / "version" / "version.txt").read_text()

    def test_devices_that_report_another_label_halt_it_and_the_note_cures_that(self):
        label = "2.0.0-dirty"
        self.roll_out(waves=(100.0,))
        was_seen = False

        def is_halted_after_a_round() -> bool:
            nonlocal was_seen
            self.devices.ask(self.server.port)
            for mac, version in self.devices.versions.items():
                self.devices.versions[mac] = label if version == NEW else version
            was_seen = was_seen or self.progress().get("counts", {}).get("mislabelled", 0) > 0
            return self.state() == "halted"

        self.assertTrue(until(is_halted_after_a_round), self.progress())
        self.assertTrue(was_seen)
        reason = self.progress()["reason"]
        self.assertIn(f"report {label}, which is not a release", reason)
        (note,) = self.progress()["notes"]
        self.assertIn(f"`release publish FILE --version {NEW} --reports-as {label}`", note)
        image = self.data_dir / "new.bin"
        image.write_bytes(IMAGES[NEW])
        options = ("--version", NEW, "--reports-as", label)
        for command in (
            ("release", "publish", str(image), *options),
            ("release", "withdraw", "--undo", NEW),
            ("rollout", "start", NEW, "--count-new", "--waves", "100", "--soak", "1s"),
        ):
            code, _, said = run_command(self.data_dir, *command)
            self.assertEqual(code, 0, said)
        self.ask_until(self.server, lambda: self.state() == "done")

    def test_a_good_release_reaches_all_and_becomes_the_target(self):
        self.roll_out()
        self.ask_until(self.server, lambda: self.state() == "done")
        self.assertEqual(set(self.devices.versions.values()), {NEW})
        self.assertEqual(self.target(), NEW)
        audit = (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()
        entry = json.loads(audit[-1])
        written = [entry[name] for name in ("user", "action", "from", "to")]
        self.assertEqual(written, ["controller", "activate", OLD, NEW])

    def test_no_more_than_the_open_wave_gets_a_release(self):
        self.roll_out(waves=(10.0, 100.0), soak_seconds=3600.0)
        self.ask_until(self.server, lambda: self.updated() > 3)
        for _ in range(3):
            self.devices.ask(self.server.port)
        self.assertLess(len(self.devices.downloads), 20)

    def test_a_release_that_devices_fail_on_is_withdrawn_and_no_download_begins_after_that(self):
        self.roll_out(waves=(20.0, 100.0))
        self.ask_until(
            self.server, lambda: self.state() == "halted", boots=lambda mac: mac[-1] < "3"
        )
        self.assertIn("failed", self.progress()["reason"])
        self.assertEqual(self.stopped()[NEW]["state"], "withdrawn")
        begun = len(self.records(event="begin"))
        for _ in range(3):
            self.devices.ask(self.server.port)
        self.assertEqual(len(self.records(event="begin")), begun)
        self.assertLess(len(self.devices.holders), 20)

    def told(self) -> str:
        """Return what one more device is told."""
        fields = {"_br_mac_": "02:00:00:00:01:00", "_br_fwv_": OLD, "Connection": "close"}
        with Client(self.server.port) as client:
            client.request("/version.txt", fields)
            return client.answer().body.decode()

    def waiting(self) -> str:
        return str(self.progress().get("waiting", ""))

    def fail_until(self, words: str) -> None:
        """Have all devices fail on the release, until the rollout waits for something."""
        self.ask_until(
            self.server,
            lambda: words in self.waiting(),
            boots=lambda _mac: False,
        )

    def lock(self) -> int:
        """Hold the lock of commands, as one does that was stopped by Ctrl-Z."""
        descriptor = os.open(self.data_dir / "version" / ".lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def test_a_broken_list_of_what_was_stopped_keeps_no_bad_release_going(self):
        stopped = self.data_dir / "version" / "stopped.json"
        stopped.write_text('{"v0.9.0": {"state": "withdrawn", "instead_of": null}}')
        self.roll_out(waves=(100.0,))
        self.ask_until(self.server, lambda: self.state() == "running", fetches=False)
        stopped.write_text('{"v0.9.0": {"state": "withdrawn", "instead_of": null},}')
        self.fail_until("not withdrawn yet")
        self.assertEqual((self.state(), self.told()), ("paused", OLD))
        self.assertIn("stopped.json", self.waiting())
        self.assertIn("failed", self.progress()["reason"])
        stopped.write_text('{"v0.9.0": {"state": "withdrawn", "instead_of": null}}')
        self.assertTrue(until(lambda: self.state() == "halted"))
        self.assertEqual(self.waiting(), "")
        self.assertEqual(set(self.stopped()), {"v0.9.0", NEW})

    def test_a_command_that_holds_the_lock_keeps_no_bad_release_going_and_no_other_rollout(self):
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("00:11:22:33:44:55\n")
        self.roll_out(waves=(100.0,))
        lock = self.lock()
        self.fail_until("not withdrawn yet: another command holds")
        self.assertEqual((self.state(), self.told()), ("paused", OLD))
        self.roll_out(group="beta", waves=(100.0,))
        name = "progress_beta.json"
        self.assertTrue(until(lambda: self.progress(name).get("state") == "running"))
        os.close(lock)
        self.assertTrue(until(lambda: self.state() == "halted"))

    @unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
    def test_a_controller_that_is_killed_before_it_could_withdraw_halts_it_all_the_same(self):
        self.roll_out(waves=(100.0,))
        lock = self.lock()
        self.fail_until("not withdrawn yet")
        (pid,) = children(self.server.process.pid)
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(until(lambda: children(self.server.process.pid) not in ([], [pid])))
        self.assertEqual((self.state(), self.told()), ("paused", OLD))
        os.close(lock)
        self.assertTrue(until(lambda: self.state() == "halted"))
        self.assertIn("failed", self.stopped()[NEW]["reason"])

    def test_the_end_waits_for_a_command_and_comes_when_that_is_done(self):
        self.roll_out(waves=(100.0,))
        lock = self.lock()
        self.ask_until(self.server, lambda: "is not the target yet" in self.waiting())
        self.assertEqual((self.state(), self.target()), ("paused", OLD))
        os.close(lock)
        self.assertTrue(until(lambda: self.state() == "done"))
        self.assertEqual(self.target(), NEW)

    def test_behind_a_proxy_offers_that_come_to_nothing_halt_it(self):
        self.server.end()
        self.server = self.serve("--buffering-proxy")
        self.roll_out(waves=(20.0, 100.0))
        self.ask_until(self.server, lambda: self.state() == "halted", fetches=False)
        self.assertIn("failed", self.progress()["reason"])

    def test_after_a_halt_who_runs_the_release_is_told_to_stay(self):
        self.roll_out(waves=(20.0, 100.0))
        self.ask_until(
            self.server, lambda: self.state() == "halted", boots=lambda mac: mac[-1] < "3"
        )
        before = dict(self.devices.versions)
        self.assertIn(NEW, before.values())
        self.devices.ask(self.server.port)
        self.assertEqual(self.devices.versions, before)

    def test_a_version_file_that_somebody_changed_pauses_and_is_never_overwritten(self):
        plan = self.roll_out(soak_seconds=3600.0)
        self.ask_until(self.server, lambda: self.wave() == 0)
        self.put_image("v1.5.0", b"by hand" * 999)
        self.set_target("v1.5.0")
        self.assertTrue(until(lambda: self.state() == "paused"))
        self.assertIn("somebody changed version.txt", self.progress()["reason"])
        self.write_plan(plan._replace(soak_seconds=0.0))
        self.devices.ask(self.server.port)
        self.assertEqual(self.target(), "v1.5.0")

    def test_where_somebody_made_its_release_the_target_by_hand_it_is_done(self):
        self.roll_out(soak_seconds=3600.0)
        self.assertTrue(until(lambda: self.state() == "running"))
        self.set_target(NEW)
        self.assertTrue(until(lambda: self.state() == "done"))
        self.assertEqual(self.progress()["reason"], "")

    def test_where_its_release_became_the_target_of_its_group_it_is_done_also_after_a_pause(self):
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("00:11:22:33:44:55\n")
        self.roll_out(group="beta", wanted="pause")
        name = "progress_beta.json"
        self.assertTrue(until(lambda: self.progress(name).get("state") == "paused"))
        (self.data_dir / "version" / "targets.json").write_text(json.dumps({"beta": NEW}))
        self.assertTrue(until(lambda: self.progress(name)["state"] == "done"))
        self.assertEqual((self.progress(name)["reason"], self.target()), ("", OLD))

    def test_a_pause_ends_when_an_operator_has_it_go_on(self):
        plan = self.roll_out(wave_timeout_seconds=0.5, soak_seconds=3600.0)
        self.assertTrue(until(lambda: self.state() == "paused"))
        self.assertIn("did not go on within", self.progress()["reason"])
        self.write_plan(plan._replace(resumed=1, soak_seconds=0.3, wave_timeout_seconds=60.0))
        self.ask_until(self.server, lambda: self.state() == "done")
        self.assertEqual(self.progress()["resumed"], 1)

    def test_an_image_that_is_missing_pauses(self):
        self.roll_out(soak_seconds=3600.0)
        self.assertTrue(until(lambda: self.state() == "running"))
        (self.data_dir / "firmware" / f"firmware_{NEW}.bin").unlink()
        self.assertTrue(until(lambda: self.state() == "paused"))
        self.assertIn("missing", self.progress()["reason"])
        self.put_image(NEW, IMAGES[NEW])
        self.assertTrue(until(lambda: self.state() == "running"), "it goes on by itself")
        self.assertEqual(self.progress()["reason"], "")

    def test_an_image_that_is_not_the_one_that_was_published_pauses(self):
        manifest = {"version": NEW, "sha256": "0" * 64, "md5": "0" * 32, "size": 13000}
        path = self.data_dir / "firmware" / f"firmware_{NEW}.json"
        path.write_text(json.dumps({**manifest, "time": format_time(0)}))
        self.roll_out()
        self.assertTrue(until(lambda: self.state() == "paused"))
        self.assertIn("not the one that was published", self.progress()["reason"])
        status = run_command(self.data_dir, "rollout", "status")[1]
        self.assertNotIn("rollout resume", status)
        self.assertIn("it goes on by itself when that is fixed", status)
        said = run_command(self.data_dir, "rollout", "resume")[2]
        self.assertIn("it would pause again: the image of v2.0.0 is not the one", said)
        path.unlink()
        self.assertTrue(until(lambda: self.state() == "running"), "it goes on by itself")

    def test_promote_in_the_last_wave_makes_it_the_target_and_asks_nobody(self):
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        self.assertTrue(until(lambda: self.state() == "running"))
        code, out, err = run_command(self.data_dir, "rollout", "promote")
        self.assertEqual(code, 0, err)
        self.assertIn("the rollout ends without the devices that are missing", out)
        self.assertTrue(until(lambda: self.state() == "done"))
        self.assertEqual(self.target(), NEW)

    def test_a_release_that_an_operator_withdraws_is_halted(self):
        self.roll_out(soak_seconds=3600.0)
        self.assertTrue(until(lambda: self.state() == "running"))
        stopped = {NEW: {"state": "withdrawn", "instead_of": OLD, "reason": "smells"}}
        (self.data_dir / "version" / "stopped.json").write_text(json.dumps(stopped))
        self.assertTrue(until(lambda: self.state() == "halted"))
        self.assertEqual(self.progress()["reason"], "smells")

    def test_a_rollout_to_a_group_ends_with_a_target_of_its_own(self):
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        members = list(self.devices.versions)[:10]
        (groups / "beta.txt").write_text("\n".join(members))
        self.roll_out(group="beta", waves=(100.0,))
        self.ask_until(
            self.server, lambda: self.progress("progress_beta.json").get("state") == "done"
        )
        self.devices.ask(self.server.port)
        targets = json.loads((self.data_dir / "version" / "targets.json").read_bytes())
        on_it = [mac for mac, version in self.devices.versions.items() if version == NEW]
        self.assertEqual((targets, on_it, self.target()), ({"beta": NEW}, members, OLD))

    def give_target(self, version: str | None) -> list[str]:
        """Give a group of ten devices a target of its own, or take it away; return the devices."""
        groups = self.data_dir / "version" / "groups"
        groups.mkdir(exist_ok=True)
        members = list(self.devices.versions)[:10]
        (groups / "beta.txt").write_text("\n".join(members))
        temporary = self.data_dir / "version" / "targets.new"
        temporary.write_text(json.dumps({} if version is None else {"beta": version}))
        temporary.replace(self.data_dir / "version" / "targets.json")
        return members

    def group_targets(self) -> dict[str, str]:
        return json.loads((self.data_dir / "version" / "targets.json").read_bytes())

    def test_a_group_with_a_target_of_its_own_stays_on_it_while_the_fleet_is_rolled_out_and_after(
        self,
    ):
        members = self.give_target(OLD)
        self.roll_out()
        self.ask_until(self.server, lambda: self.state() == "done")
        self.devices.ask(self.server.port)
        on_old = [mac for mac, version in self.devices.versions.items() if version == OLD]
        self.assertEqual(
            (on_old, self.target(), self.group_targets()), (members, NEW, {"beta": OLD})
        )
        counts = self.progress()["counts"]
        self.assertEqual((counts["reach"], counts["updated"]), (50, 50))

    def test_with_groups_too_it_reaches_such_a_group_and_takes_its_target_away(self):
        self.give_target(OLD)
        self.roll_out(groups_too=True)
        self.ask_until(self.server, lambda: self.state() == "done")
        self.devices.ask(self.server.port)
        self.assertEqual(set(self.devices.versions.values()), {NEW})
        self.assertEqual((self.target(), self.group_targets()), (NEW, {}))

    def test_a_target_that_a_group_gets_or_loses_in_mid_rollout_counts_at_once(self):
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)

        def reach() -> int:
            return int(self.progress().get("counts", {}).get("reach", 0))

        self.give_target(None)
        self.ask_until(self.server, lambda: reach() == 60)
        members = self.give_target(OLD)
        self.ask_until(self.server, lambda: reach() == 50)
        self.devices.ask(self.server.port)
        self.assertEqual({self.devices.versions[mac] for mac in members}, {OLD})
        self.assertEqual((self.state(), self.progress()["counts"]["failed"]), ("running", 0))
        self.give_target(None)
        self.ask_until(self.server, lambda: reach() == 60)

    @unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
    def test_one_that_is_killed_goes_on_with_the_same_counts(self):
        self.roll_out(waves=(50.0, 100.0), soak_seconds=3600.0)
        versions = self.devices.versions
        self.ask_until(
            self.server, lambda: 20 < self.updated() == list(versions.values()).count(NEW)
        )
        updated = self.updated()
        before = self.progress()
        (pid,) = children(self.server.process.pid)
        os.kill(pid, signal.SIGKILL)
        (self.data_dir / "version" / "progress.json").unlink()
        self.assertTrue(until(lambda: bool(self.progress())))
        self.assertTrue(until(lambda: self.progress()["counts"]["updated"] == updated))
        self.devices.ask(self.server.port)
        after = self.progress()
        self.assertEqual((after["wave"], after["wave_time"]), (before["wave"], before["wave_time"]))
        self.assertEqual({**after["counts"], "soaked": 0}, {**before["counts"], "soaked": 0})
        self.assertEqual(len(self.devices.downloads), updated)

    def test_a_server_that_is_killed_goes_on_where_it_was(self):
        plan = self.roll_out(waves=(50.0, 100.0), soak_seconds=3600.0)
        self.ask_until(self.server, lambda: self.updated() > 20)
        wave_time = self.progress()["wave_time"]
        self.server.kill()
        self.server = self.serve()
        self.write_plan(plan._replace(soak_seconds=0.3))
        self.assertEqual(self.progress()["wave_time"], wave_time)
        self.ask_until(self.server, lambda: self.state() == "done")
        self.assertEqual(len(self.devices.downloads), 60)

    @unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
    def test_it_ends_with_its_server_however_that_ends(self):
        for signum in (signal.SIGKILL, signal.SIGTERM):
            with self.subTest(signal=signum):
                self.roll_out(soak_seconds=3600.0)
                self.assertTrue(until(lambda: bool(children(self.server.process.pid))))
                (pid,) = children(self.server.process.pid)
                self.server.end(signum)
                self.assertTrue(until(lambda pid=pid: not is_there(pid)))
                self.server = self.serve()

    @unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
    def test_it_runs_only_while_a_rollout_is_on(self):
        self.assertEqual(children(self.server.process.pid), [])
        self.roll_out()
        self.ask_until(self.server, lambda: self.state() == "done")
        self.assertTrue(until(lambda: not children(self.server.process.pid)))
        self.assertEqual(self.server.end()[0], 0)
        self.assertNotIn("controller ended", self.server.log)


class AloneTest(RolloutCase):
    def start(self) -> "subprocess.Popen[str]":
        """Start a controller without a server."""
        command = [sys.executable, "-m", "ota_server.controller", "--data-dir", str(self.data_dir)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: "subprocess.Popen[str]") -> None:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stderr):
            assert stream is not None
            stream.close()

    def test_two_never_run_on_one_data_directory(self):
        self.roll_out()
        self.start()
        self.assertTrue(until(lambda: self.state() == "running"))
        second = self.start()
        _, said = second.communicate(timeout=TIMEOUT_SECONDS)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another controller already runs on", said)

    def test_it_ends_by_itself_where_there_is_nothing_to_do(self):
        self.assertEqual(self.start().wait(TIMEOUT_SECONDS), 0)

    def test_it_ends_when_its_input_does(self):
        self.roll_out()
        process = self.start()
        self.assertTrue(until(lambda: self.state() == "running"))
        assert process.stdin is not None
        process.stdin.close()
        self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)

    def test_a_plan_that_cannot_be_read_is_said_and_the_others_go_on(self):
        (self.data_dir / "version" / "rollout_beta.json").write_text("no plan")
        self.roll_out()
        process = self.start()
        self.assertTrue(until(lambda: self.state() == "running"))
        process.terminate()
        _, said = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertIn("rollout_beta.json is not JSON", said)
        self.assertEqual(process.returncode, 0)

    def test_a_progress_that_was_deleted_or_garbled_is_written_anew(self):
        self.roll_out()
        self.start()
        self.assertTrue(until(lambda: self.state() == "running"))
        path = self.data_dir / "version" / "progress.json"
        whole = path.read_bytes()
        path.write_text("{garbage")
        self.assertTrue(until(lambda: path.read_bytes() == whole))
        path.unlink()
        self.assertTrue(until(lambda: path.exists() and path.read_bytes() == whole))

    def test_a_folder_that_is_away_for_a_moment_ends_nothing(self):
        self.roll_out()
        process = self.start()
        self.assertTrue(until(lambda: self.state() == "running"))
        assert process.stderr is not None
        version = self.data_dir / "version"
        version.rename(self.data_dir / "elsewhere")
        while "stand still" not in (line := process.stderr.readline()):
            self.assertNotIn("Traceback", line)
            self.assertNotEqual(line, "")
        (self.data_dir / "elsewhere").rename(version)
        (version / "progress.json").unlink()
        self.assertTrue(until(lambda: self.state() == "running"))
        process.terminate()
        self.assertNotIn("Traceback", process.communicate(timeout=TIMEOUT_SECONDS)[1])
        self.assertEqual(process.returncode, 0)

    def test_a_journal_that_is_lost_begins_the_soak_anew_and_that_is_said(self):
        journal = self.data_dir / "log" / "devices.jsonl"
        journal.write_text('{"event": "seal"}\n' * 100)
        self.roll_out()
        process = self.start()
        self.assertTrue(until(lambda: self.state() == "running"))
        wave_time = self.progress()["wave_time"]
        journal.unlink()
        journal.write_text('{"event": "seal"}\n')
        process.kill()
        self.assertTrue(until(lambda: process.poll() is not None))
        again = self.start()
        self.assertTrue(until(lambda: self.progress()["wave_time"] > wave_time))
        again.terminate()
        self.assertIn("was moved, cut or deleted", again.communicate(timeout=TIMEOUT_SECONDS)[1])


class TimeTest(RolloutCase):
    """One rollout, moved by this test at times that it says."""

    def setUp(self):
        super().setUp()
        self.now_ms = parse_time("2026-11-24T12:00:00.000Z")
        plan = self.roll_out(soak_seconds=3600.0, wave_timeout_seconds=7 * 86400.0)
        self.begin(plan)

    def begin(self, plan: RolloutPlan) -> None:
        policies = PolicyFiles(self.data_dir)
        self.mover = RolloutMover(
            self.data_dir, plan, policies, ServerFacts(self.now_ms), self.now_ms
        )
        self.addCleanup(self.mover.close, self.now_ms)

    def after(self, seconds: float) -> str:
        """Return the state so many seconds after the start."""
        # It reads for 50 ms at a time, which is not all of the journal on a busy machine.
        while self.mover.step(self.now_ms + int(seconds * 1000), 100.0 + seconds):
            pass
        return self.state()

    def test_a_target_that_is_being_written_in_place_pauses_nothing(self):
        self.assertEqual(self.after(0), "running")
        self.set_target("")
        self.assertEqual([self.after(10), self.after(11.9)], ["running"] * 2)
        self.set_target(OLD)
        self.assertEqual([self.after(12.5), self.after(20)], ["running"] * 2)
        self.set_target("")
        self.assertEqual([self.after(30), self.after(32.1)], ["running", "paused"])

    def test_a_wave_that_has_just_opened_asks_about_nobody_however_long_all_were_quiet(self):
        for seconds in range(-9000, -600, 60):
            self.hear(seconds)
        plan = self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        self.mover.close(self.now_ms)
        policies, facts = PolicyFiles(self.data_dir), ServerFacts(self.now_ms - 10_000_000)
        self.mover = RolloutMover(self.data_dir, plan, policies, facts, self.now_ms)
        self.addCleanup(self.mover.close, self.now_ms)
        for seconds, asked in ((0, 0), (170, 0), (300, 3)):
            self.assertEqual(self.after(seconds), "running")
            self.assertEqual(len(self.progress()["asks"]), asked, self.progress())

    def test_after_a_hold_or_a_pause_it_asks_about_nobody_before_devices_could_ask(self):
        self.mover.close(self.now_ms)
        for how in ("hold", "pause"):
            with self.subTest(how):
                plan = self.roll_out(id=how, waves=(100.0,), soak_seconds=600.0)
                for seconds in range(-9000, 0, 60):
                    self.hear(seconds)
                self.begin(plan)
                self.assertEqual(self.after(0), "running")
                stop = ("hold",) if how == "hold" else ("rollout", "pause")
                self.assertEqual(run_command(self.data_dir, *stop)[0], 0)
                self.mover.change(read_plan(self.data_dir, "") or plan)
                for seconds in range(0, 3000, 60):
                    self.hear(seconds)
                    self.after(seconds + 1)
                    self.assertEqual(self.progress()["asks"], [])
                go_on = ("unhold",) if how == "hold" else ("rollout", "resume")
                self.assertEqual(run_command(self.data_dir, *go_on)[0], 0)
                self.mover.change(read_plan(self.data_dir, "") or plan)
                for seconds in range(3000, 4000, 60):
                    self.hear(seconds)
                    self.assertEqual(self.after(seconds + 1), "running")
                    if seconds < 3500:
                        self.assertEqual(self.progress()["asks"], [])
                self.assertEqual(len(self.progress()["asks"]), 3)
                self.mover.close(self.now_ms)

    def test_after_a_restore_it_asks_about_nobody_before_devices_could_ask(self):
        plan = self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        for seconds in range(-9000, -6000, 60):
            self.hear(seconds)
        opened = format_time(self.now_ms - 9_000_000)
        progress = RolloutProgress(plan.id, RolloutState.RUNNING, 0, opened)
        write_progress(self.data_dir, "", progress)
        self.begin(plan)  # without a checkpoint, which no backup has
        for seconds, asked in ((0.1, 0), (170, 0), (300, 3)):
            self.assertEqual(self.after(seconds), "running")
            self.assertEqual(len(self.progress()["asks"]), asked, self.progress())

    def hear(self, seconds: float, count: int = 3) -> None:
        """Put checks of devices on record, so many seconds after the start."""
        now_ms = self.now_ms + int(seconds * 1000)
        device = Device(now_ms, OLD, now_ms, None, NEW, "192.0.2.7", False, None)
        with (self.data_dir / "log" / "devices.jsonl").open("ab") as journal:
            journal.writelines(format_record("check", mac_of(n), device) for n in range(count))

    def test_a_rollout_that_a_clock_which_was_ahead_began_counts_from_now_on(self):
        later = format_time(self.now_ms + 365 * 86_400_000)
        self.begin(self.roll_out(time=later, id="ahead", waves=(100.0,)))
        self.assertEqual(self.after(0), "running")
        self.hear(5)
        self.after(10)
        self.assertEqual(self.progress()["counts"]["active"], 3)

    def test_a_wave_that_a_clock_which_was_ahead_opened_has_its_time_from_now_on(self):
        plan = self.roll_out(id="ahead", wave_timeout_seconds=86400.0)
        later = format_time(self.now_ms + 365 * 86_400_000)
        write_progress(self.data_dir, "", RolloutProgress("ahead", "running", 0, later))
        self.begin(plan)
        with self.assertLogs("ota_server", "WARNING"):
            self.assertEqual(self.after(0), "running")
        self.assertEqual(self.progress()["wave_time"], format_time(self.now_ms))
        self.assertEqual([self.after(86300), self.after(86500)], ["running", "paused"])

    def checkpoint_times(self, *seconds: float) -> list[bool]:
        """Return at which of these times, after the start, the checkpoint is written."""
        path, found = self.data_dir / "log" / "rollout.checkpoint", []
        for each in seconds:
            before = path.stat().st_ino
            self.after(each)
            found.append(path.stat().st_ino != before)
        return found

    def test_a_checkpoint_is_written_seldom_while_nothing_happens(self):
        self.after(0)
        self.assertEqual(self.checkpoint_times(6, 30, 59, 70), [False, False, False, True])
        self.hear(71)
        self.assertEqual(self.checkpoint_times(72, 76), [False, True])

    def test_a_large_checkpoint_is_written_seldom(self):
        with mock.patch("ota_server.rollouts.mover._CHECKPOINT_BYTES_A_SECOND", 10):
            self.after(0)
            self.hear(1)
            self.after(6)
            self.hear(7)
            size = (self.data_dir / "log" / "rollout.checkpoint").stat().st_size
            self.assertGreater(size, 500)
            self.assertEqual(self.checkpoint_times(16, 40), [False, False])
            self.hear(41)
            self.assertEqual(self.checkpoint_times(700), [True])

    def test_a_clock_that_jumps_ends_the_time_of_no_wave(self):
        self.assertEqual(self.after(0), "running")
        month = 30 * 86400
        self.mover.note_clock_jump(self.now_ms + month * 1000)
        self.assertEqual([self.after(month), self.after(month + 6 * 86400)], ["running"] * 2)
        self.assertEqual(self.after(month + 7 * 86400), "paused")


class OtherFolderTest(RolloutCase):
    def test_it_is_found_from_whatever_folder_the_server_was_started(self):
        (self.data_dir / "ota_server").mkdir()
        (self.data_dir / "ota_server" / "__init__.py").write_text("raise SystemExit(9)\n")
        code = (
            f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); import ota_server.server as it; "
            f"os.chdir({str(self.data_dir)!r}); it.main(sys.argv[1:])"
        )
        server = self.serve(code=code)
        Fleet(3).ask(server.port)
        self.roll_out()
        self.assertTrue(until(lambda: self.state() == "running"), server.log)
