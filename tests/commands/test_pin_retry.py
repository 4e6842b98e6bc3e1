"""The commands that steer a server, as an operator calls them, and what `why` says."""

import json
import os
import subprocess
import time
import unittest
from collections.abc import Callable
from unittest import mock

from ota_server.model.device import Device, Report
from ota_server.model.version import SAMPLES
from ota_server.policy import edits
from ota_server.policy.explain import Explanation, in_words
from ota_server.policy.gather import explain_device
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.policy.text import Who
from tests.device_port.test_dialects import ESP32, ESP8266, basic
from tests.device_port.test_dialects import MAC as UPDATER_MAC
from tests.journal.test_writer import file_size_limit
from tests.support import MAC, ROOT, Client, ServerCase
from tests.support.commands import call

OTHER = "a0:b1:c2:d3:e4:f5"
TIME = "2026-11-24T12:00:00.000Z"


class CommandCase(ServerCase):
    """A data directory with the target v1.0.1, an image of v1.0.0, and no server by itself."""

    def run_command(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on the data directory of this test."""
        return call(*arguments, given=given, env={"OTA_SERVER_DATA": str(self.data_dir)})

    def lines(self, *arguments: str, given: str = "") -> list[str]:
        """Return the lines of a run that must succeed without a warning."""
        done = self.run_command(*arguments, given=given)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def assert_refused(self, code: int, words: str, *arguments: str, given: str = "") -> None:
        """Expect an exit code, nothing on standard output, and a pattern in what is said."""
        done = self.run_command(*arguments, given=given)
        self.assertEqual((done.returncode, done.stdout), (code, ""))
        self.assertRegex(done.stderr, words)
        self.assertNotIn("Traceback", done.stderr)

    def pins(self) -> dict[str, dict[str, dict[str, str | None]]]:
        return json.loads((self.data_dir / "version" / "pins.json").read_text())

    def see(self, mac: str = MAC) -> None:
        """Have a device on record."""
        self.get("/version.txt", {"_br_mac_": mac, "_br_fwv_": "v1.0.0"})


class HelpTest(CommandCase):
    def test_it_fits_a_terminal_of_80_columns(self):
        self.enterContext(mock.patch.dict(os.environ, COLUMNS="80"))
        for command in ("pin", "unpin", "hold", "unhold", "retry"):
            with self.subTest(command):
                lines = self.lines(command, "--help")
                self.assertEqual([line for line in lines if len(line) > 80], [])


class PinTest(CommandCase):
    def test_a_device_is_pinned_and_unpinned(self):
        self.see()
        self.assertEqual(self.lines("pin", MAC, "1.0.0"), [f"{MAC} is pinned to v1.0.0"])
        self.assertEqual(self.pins()["devices"], {MAC: {"version": "v1.0.0", "until": None}})
        expected = [f"{MAC} is no longer pinned to v1.0.0"]
        self.assertEqual(self.lines("unpin", "001122334455"), expected)
        self.assertEqual(self.pins()["devices"], {})

    def test_the_end_of_a_pin_is_shown_as_it_was_understood(self):
        self.see()
        (line,) = self.lines("pin", MAC, "v1.0.0", "--until", "2999-01-31+02:00")
        self.assertEqual(line, f"{MAC} is pinned to v1.0.0 until 2999-01-30T22:00:00Z")
        self.assertEqual(self.pins()["devices"][MAC]["until"], "2999-01-30T22:00:00Z")

    def test_a_device_that_is_not_on_record_is_pinned_with_a_warning(self):
        done = self.run_command("pin", OTHER, "v1.0.0")
        self.assertEqual((done.returncode, done.stdout), (0, f"{OTHER} is pinned to v1.0.0\n"))
        self.assertRegex(done.stderr, f"^ota-server: warning: {OTHER} is not on record; .*\n$")

    def test_what_makes_no_sense_is_refused(self):
        (self.data_dir / "version" / "stopped.json").write_text('{"1.0.0": {"state": "withdrawn"}}')
        for code, words, arguments in (
            (1, "v9 is not a release here: .*firmware_v9.bin; publish it first", (MAC, "v9")),
            (1, "v1.0.0 was withdrawn, .*give another release", (MAC, "v1.0.0")),
            (1, "there is no group beta; .*`group add beta MAC` makes one", ("beta", "v1.0.1")),
            (1, "is past; give a time in the future", (MAC, "v1.0.1", "--until", "2020-01-01")),
            (2, "'00:11' is neither a MAC address", ("00:11", "v1.0.1")),
            (2, "'../x' is not a version", (MAC, "../x")),
            (2, "'soon' is not a time", (MAC, "v1.0.1", "--until", "soon")),
        ):
            with self.subTest(arguments):
                self.assert_refused(code, words, "pin", *arguments)
        self.assertFalse((self.data_dir / "version" / "pins.json").exists())
        self.assertFalse((self.data_dir / "log" / "audit.jsonl").exists())

    def test_what_is_not_pinned_cannot_be_unpinned(self):
        self.assert_refused(1, f"{MAC} is not pinned; ", "unpin", MAC)

    def test_a_broken_file_is_not_overwritten_and_what_is_wrong_is_said(self):
        path = self.data_dir / "version" / "pins.json"
        for content, words in (
            ("{", "is not JSON: .*line 1 column 2"),
            ('{"devices": {"00:11": {"version": "v1"}}}', "'00:11' is not a MAC address"),
        ):
            path.write_text(content)
            for command in (("pin", MAC, "v1.0.0"), ("unpin", MAC)):
                with self.subTest(content=content, command=command):
                    self.assert_refused(1, f"{path} {words}.*; fix it first", *command)
                    self.assertEqual(path.read_text(), content)

    def test_a_folder_that_is_no_data_directory_is_left_alone(self):
        self.data_dir = self.data_dir / "elsewhere"
        for command in (("hold",), ("pin", MAC, "v1"), ("why", MAC), ("group", "list"), ("audit",)):
            with self.subTest(command):
                self.assert_refused(1, "is --data-dir right?", *command)
        self.assertFalse(self.data_dir.exists())


class GroupTest(CommandCase):
    def test_devices_are_added_listed_and_removed(self):
        more = ("group", "add", "beta")
        self.assertEqual(self.lines(*more, "001122334455"), [f"{MAC} added to group beta"])
        self.assertEqual(
            self.lines(*more, MAC, "A0-B1-C2-D3-E4-F5"),
            [f"{OTHER} added to group beta", f"{MAC} already in group beta"],
        )
        self.assertEqual(self.lines("group", "list", "beta"), [MAC, OTHER])
        self.assertEqual(
            self.lines("group", "remove", "beta", MAC), [f"{MAC} removed from group beta"]
        )
        self.assertEqual(self.lines("group", "list", "beta"), [OTHER])

    def test_a_file_in_the_place_of_the_folder_is_named_with_what_to_do(self):
        path = self.data_dir / "version" / "groups"
        path.write_text("")
        words = f"{path} is not a folder; move it away, and `group add NAME MAC` makes it"
        self.assert_refused(1, words, "group", "add", "beta", MAC)
        done = self.run_command("group", "list")
        self.assertEqual(done.returncode, 1)
        self.assertIn(words, done.stderr)

    def test_macs_come_from_standard_input(self):
        given = f"# the lab\n{MAC}\n\nA0B1.C2D3.E4F5 # window\n"
        self.assertEqual(
            self.lines("group", "add", "beta", "-", given=given), ["2 devices added to group beta"]
        )

    def test_a_wrong_line_of_standard_input_changes_nothing(self):
        words = "standard input line 2 is not a MAC address: 'x'; nothing was changed"
        self.assert_refused(2, words, "group", "add", "beta", "-", given=f"{MAC}\nx\n")
        self.assertFalse((self.data_dir / "version" / "groups").exists())

    def test_groups_are_listed_with_their_pins_and_targets(self):
        self.lines("group", "add", "beta", MAC, OTHER)
        self.lines("group", "add", "alpha", MAC)
        self.lines("pin", "beta", "v1.0.0", "--until", "2999-01-31")
        (self.data_dir / "version" / "targets.json").write_text('{"alpha": "v1.0.1"}')
        self.assertEqual(
            self.lines("group", "list"),
            [
                "GROUP  DEVICES  PIN                                TARGET",
                "alpha  1        -                                  v1.0.1",
                "beta   2        v1.0.0 until 2999-01-31T00:00:00Z  -",
                "2 groups",
            ],
        )
        first = json.loads(self.lines("group", "list", "--json")[0])
        names = ("group", "devices", "pin", "pin_until", "target_version")
        self.assertEqual(first, dict(zip(names, ("alpha", 1, None, None, "v1.0.1"), strict=True)))

    def test_a_broken_list_is_named_and_the_others_are_shown(self):
        self.lines("group", "add", "beta", MAC)
        path = self.data_dir / "version" / "groups" / "alpha.txt"
        path.write_text("all")
        done = self.run_command("group", "list")
        self.assertEqual((done.returncode, "beta   1" in done.stdout), (1, True))
        self.assertIn(f"{path} line 1 is not a MAC address: 'all'; fix it first", done.stderr)
        self.assert_refused(1, "fix it first", "group", "add", "alpha", MAC)
        self.assertEqual(path.read_text(), "all")

    def test_what_makes_no_sense_is_refused(self):
        self.lines("group", "add", "beta", MAC)
        for code, words, arguments in (
            (1, "none of these is in group beta; .*`group list beta`", ("remove", "beta", OTHER)),
            (1, "there is no group gamma", ("remove", "gamma", MAC)),
            (1, "there is no group gamma", ("list", "gamma")),
            (2, "'../x' is not a group's name", ("add", "../x", MAC)),
            (2, "'a0b1c2d3e4f5' is not a group's name", ("add", "a0b1c2d3e4f5", MAC)),
            (2, "'all' is not a MAC address", ("add", "beta", "all")),
            (2, "PART", ()),
        ):
            with self.subTest(arguments):
                self.assert_refused(code, words, "group", *arguments)


class NoServerTest(CommandCase):
    """What stops something may be typed for the wrong folder."""

    def test_what_stops_something_says_that_no_server_runs(self):
        words = f"ota-server: warning: no server runs on {self.data_dir}; is --data-dir right?\n"
        roll_out(100)(self)
        commands = (("hold",), ("unhold",), ("rollout", "pause"), ("rollout", "abort"))
        for command in commands:
            with self.subTest(command):
                done = self.run_command(*command)
                self.assertEqual((done.returncode, done.stderr), (0, words))


class FullDiskTest(CommandCase):
    """No file of a command may grow: writing fails, and a name can still be made."""

    def run_without_room(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with file_size_limit(0):
            return self.run_command(*arguments)

    def run_without_audit(self, *arguments: str) -> None:
        """Run a command that has room for all but its line in the audit log."""
        with (self.data_dir / "log" / "audit.jsonl").open("wb") as file:
            file.truncate(1024 * 1024)
        with file_size_limit(1024 * 1024):
            done = self.run_command(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("is not in the audit log", done.stderr)

    def test_everything_can_be_held(self):
        done = self.run_without_room("hold", "--reason", "it reboots")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "everything is on hold; `unhold` ends that\n")
        self.assertIn("is not in the audit log", done.stderr)
        self.assertEqual((self.data_dir / "version" / "hold.json").read_bytes(), b"")
        self.assertEqual(self.get("/version.txt").body, b"v1.0.0")

    def test_a_hold_without_room_leaves_what_is_on_record_of_the_one_that_is_on(self):
        self.run_command("hold", "--reason", "it reboots")
        before = (self.data_dir / "version" / "hold.json").read_bytes()
        self.assertEqual(self.run_without_room("hold", "--reason", "it burns").returncode, 0)
        self.assertEqual((self.data_dir / "version" / "hold.json").read_bytes(), before)

    def test_other_changes_say_which_file_and_what_to_do(self):
        done = self.run_without_room("pin", MAC, "v1.0.0")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"audit\.jsonl: .*; make room\. `hold` still works")

    def test_a_release_is_withdrawn_though_that_cannot_be_put_on_record(self):
        self.run_without_audit("release", "withdraw", "v1.0.0")
        self.assertIn('"withdrawn"', (self.data_dir / "version" / "stopped.json").read_text())

    def test_a_release_is_removed_and_a_hold_ended_though_that_cannot_be_put_on_record(self):
        self.put_image("v0.9.0", b"an old image")
        self.run_command("hold")
        self.run_without_audit("release", "remove", "v0.9.0")
        self.run_without_audit("unhold")
        left = [path.name for path in self.data_dir.glob("*/*")]
        self.assertNotIn("firmware_v0.9.0.bin", left)
        self.assertNotIn("hold.json", left)

    def test_a_rollout_is_paused_and_aborted_though_that_cannot_be_put_on_record(self):
        roll_out(100)(self)
        for part in ("pause", "abort"):
            self.run_without_audit("rollout", part)
        self.assertIn('"aborted"', (self.data_dir / "version" / "stopped.json").read_text())

    def test_what_commands_need_is_there_once_a_server_has_run(self):
        self.start()
        for path in ("version/.lock", "log/audit.jsonl"):
            with self.subTest(path):
                self.assertEqual((self.data_dir / path).stat().st_size, 0)


class AuditTest(CommandCase):
    def change(self) -> None:
        edits.add_members(self.data_dir, "beta", [MAC])
        edits.pin(self.data_dir, Who("groups", "beta"), "v1.0.0", None)
        edits.pin(self.data_dir, Who("groups", "beta"), "v1.0.1", None)
        edits.hold(self.data_dir, "it reboots")

    def test_what_is_no_file_in_its_place_is_said(self):
        path = self.data_dir / "log" / "audit.jsonl"
        path.mkdir()
        self.assert_refused(1, f"{path}: not a regular file", "audit")

    def test_it_shows_who_did_what_the_newest_last(self):
        self.change()
        header, *rows, count, _ = self.lines("audit")
        self.assertEqual(header.split(), ["TIME", "WHO", "ACTION", "WHAT", "FROM", "TO"])
        self.assertEqual(count, "4 changes")
        user = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ  \S+@\S+ +"
        for row, rest in zip(
            rows,
            (
                f"group add  beta        -       {MAC}",
                "pin        group beta  -       v1.0.0",
                "pin        group beta  v1.0.0  v1.0.1",
                "hold       everything  -       it reboots",
            ),
            strict=True,
        ):
            self.assertRegex(row, f"^{user}{rest}$")

    def test_the_newest_ones_alone_and_for_programs(self):
        self.change()
        (line,) = self.lines("audit", "--json", "--limit", "1")
        entry = json.loads(line)
        self.assertEqual((entry["action"], entry["reason"]), ("hold", "it reboots"))
        self.assert_refused(2, "would show nothing", "audit", "--limit", "0")

    def test_without_a_change_it_is_empty(self):
        self.assertEqual(self.lines("audit")[-1], "0 changes")

    def test_hostile_lines_are_left_out_and_move_no_cursor(self):
        with (self.data_dir / "log" / "audit.jsonl").open("w") as file:
            file.write("[" * 100_000 + '\n{"time": 5}\n\0\n')
            file.write(json.dumps({"time": TIME, "action": "\x1b[2J", "what": ["x"]}) + "\n")
        output = self.lines("audit")
        self.assertEqual(output[-1], "1 change")
        self.assertNotIn("\x1b", "".join(output))

    def test_a_change_that_cannot_be_put_on_record_is_not_made(self):
        (self.data_dir / "log" / "audit.jsonl").mkdir()
        self.assert_refused(1, "audit.jsonl: Is a directory", "hold")
        self.assertFalse((self.data_dir / "version" / "hold.json").exists())

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_what_root_writes_belongs_to_the_owner_of_the_folders(self):
        for folder in ("version", "log"):
            os.chown(self.data_dir / folder, 12345, 12345)
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        self.change()
        for path in ("version/.lock", "version/pins.json", "version/groups/beta.txt"):
            with self.subTest(path):
                self.assertEqual((self.data_dir / path).stat().st_uid, 12345)
        self.assertEqual((self.data_dir / "log" / "audit.jsonl").stat().st_uid, 12345)
        self.assertEqual((self.data_dir / "version" / "pins.json").stat().st_mode & 0o777, 0o644)


def write(case: ServerCase, name: str, content: str | bytes) -> None:
    """Put a file into version/ by rename."""
    path = case.data_dir / "version" / name
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name("temporary")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def roll_out(percent: float, state: str = "running") -> Callable[[ServerCase], None]:
    def put(case: ServerCase) -> None:
        waves = (percent, 100.0) if percent < 100 else (100.0,)
        plan = RolloutPlan("id1", "v1.2", "", waves, TIME, "v1.0.1")
        write(case, "rollout.json", format_plan(plan))
        write(case, "progress.json", format_plan(RolloutProgress("id1", state, 0, TIME)))

    return put


PINS = f'{{"devices": {{"{MAC}": {{"version": "%s"}}}}}}'
POLICIES: dict[str, Callable[[ServerCase], None]] = {
    "nothing decided": lambda case: None,
    "hold": lambda case: write(case, "hold.json", ""),
    "a pin": lambda case: write(
        case, "pins.json", f'{{"devices": {{"{MAC}": {{"version": "v1.2"}}}}}}'
    ),
    "a pin on a missing image": lambda case: write(
        case, "pins.json", f'{{"devices": {{"{MAC}": {{"version": "v9"}}}}}}'
    ),
    "a group": lambda case: (
        write(case, "groups/beta.txt", MAC),
        write(case, "targets.json", '{"beta": "v1.2"}'),
    )[0],
    "the target withdrawn": lambda case: write(
        case, "stopped.json", '{"v1.0.1": {"state": "withdrawn"}}'
    ),
    "a rollout to one in a million": roll_out(0.0001),
    "a rollout to all": roll_out(100),
    "a rollout that was halted": roll_out(100, "halted"),
    "no version.txt": lambda case: (case.data_dir / "version" / "version.txt").unlink(),
    "the image of the target is missing": lambda case: (
        case.data_dir / "firmware" / "firmware_v1.0.1.bin"
    ).unlink(),
    "a target spelled another way": lambda case: case.set_target("1.0.1\n"),
    "a broken file": lambda case: write(case, "pins.json", "{"),
    "a broken manifest": lambda case: (
        (case.data_dir / "firmware" / "firmware_v1.0.1.json").write_text("{}") and None
    ),
}


class WhyTest(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.2", b"third " * 1000)

    def explain(self, reported: str, is_local: bool = True) -> Explanation:
        now_ms = time.time_ns() // 1_000_000
        address = "127.0.0.1" if is_local else "192.0.2.7"
        device = Device(now_ms, reported, now_ms, None, None, address, False, None)
        return explain_device(self.data_dir, Report(MAC, reported), device, now_ms)

    def test_it_says_what_the_server_answers(self):
        reports = ("v1.0.0", "1.0.1", "v1.2", "factory 7")
        for name, put in POLICIES.items():
            with self.subTest(name):
                case = WhyTest("test_it_says_what_the_server_answers")
                case.setUp()
                try:
                    put(case)
                    case.compare(self, reports)
                finally:
                    case.doCleanups()

    def compare(self, outer: unittest.TestCase, reports: tuple[str, ...]) -> None:
        """Ask a server and `why` the same."""
        for reported in reports:
            fields = {"_br_mac_": MAC, "_br_fwv_": reported}
            answer = self.get("/version.txt", fields)
            found = self.explain(reported)
            status, version = 503, "No target version."
            if found.decision is not None:
                status, version = 200, found.decision.version
            outer.assertEqual(
                (answer.status, answer.body.decode().rstrip("\n")), (status, version), reported
            )
            image = self.get("/firmware.bin", fields)
            outer.assertEqual(image.status == 200, may_have_image(found), (reported, found))
            if image.status == 200:
                released = image.fields["x-firmware-version"]
                outer.assertEqual(found.image.name, f"firmware_{released}.bin")

    def test_it_shows_the_device_the_decision_and_the_image(self):
        self.see()
        edits.add_members(self.data_dir, "beta", [MAC])
        edits.pin(self.data_dir, Who("devices", MAC), "v1.2", 32_503_680_000_000)
        shown = [line for line in self.lines("why", MAC) if not line.startswith("reports")]
        self.assertEqual(
            shown,
            [
                f"device       {MAC}",
                "state        behind",
                "groups       beta",
                "pin          v1.2 until 3000-01-01T00:00:00Z",
                "fleet target v1.0.1",
                "is told      v1.2",
                "because      it is pinned to v1.2",
                "image        firmware_v1.2.bin, 6000 bytes",
            ],
        )

    def test_it_says_at_which_percentage_the_turn_of_a_device_comes(self):
        roll_out(1)(self)
        lines = self.lines("why", MAC, "--version", "v1.0.0")
        self.assertIn("rollout      v1.2, running at 1 %: its turn comes at 5.81 %", lines)
        self.assertIn(
            "because      held back: the rollout of v1.2 is at 1 %, its turn comes at 5.81 %", lines
        )

    def test_it_says_that_the_wave_of_its_group_is_the_first_and_that_a_paused_one_offers_nothing(
        self,
    ):
        edits.add_members(self.data_dir, "lab", [MAC])
        paused = "; the rollout is paused and offers nothing new"
        for state, first_group, percent, said in (
            ("running", "lab", 0, "running: it is in the first wave, that of the group lab"),
            ("paused", "lab", 0, f"paused: it is in the first wave, that of the group lab{paused}"),
            (
                "paused",
                "lab",
                50,
                f"paused: it is in the first wave, that of the group lab{paused}",
            ),
            ("paused", None, 50, f"paused at 50 %: its turn has come at 5.81 %{paused}"),
            ("paused", None, 1, "paused at 1 %: its turn comes at 5.81 %"),
        ):
            with self.subTest(said):
                waves = (float(percent), 100.0) if percent else (100.0,)
                plan = RolloutPlan("1", "v1.2", "", waves, TIME, "v1.0.1", first_group)
                is_later = first_group is not None and percent > 0
                progress = RolloutProgress("1", state, int(is_later), TIME)
                write(self, "rollout.json", format_plan(plan))
                write(self, "progress.json", format_plan(progress))
                lines = self.lines("why", MAC, "--version", "v1.0.0")
                self.assertIn(f"rollout      v1.2, {said}", lines)

    def test_it_says_that_the_rollout_leaves_the_group_of_a_device_alone(self):
        roll_out(100)(self)
        edits.add_members(self.data_dir, "beta", [MAC])
        write(self, "targets.json", '{"beta": "v1.0.1"}')
        lines = self.lines("why", MAC, "--version", "v1.0.0")
        words = "the target of its group beta, which the rollout of v1.2 leaves alone"
        self.assertIn(f"because      {words}", lines)
        self.assertEqual([line for line in lines if line.startswith("rollout ")], [])

    def test_it_says_what_a_device_counts_as_under_the_rollout(self):
        self.see()
        self.stop()
        roll_out(100)(self)
        self.see()
        self.stop()
        lines = self.lines("why", MAC)
        place = next(n for n, line in enumerate(lines) if line.startswith("rollout "))
        self.assertRegex(lines[place + 1], "^counts as    too new: it was not known for a day ")
        (line,) = self.lines("why", MAC, "--json")
        self.assertEqual(json.loads(line)["case"], "too_new")

    def test_it_says_why_everything_is_on_hold(self):
        edits.hold(self.data_dir, "it reboots")
        lines = self.lines("why", MAC, "--version", "v1.0.0")
        self.assertIn("because      everything is on hold: it reboots", lines)
        self.assertIn("image        none now: /firmware.bin is answered 503", lines)

    def test_it_says_how_each_updater_is_told_that_there_is_no_image(self):
        edits.hold(self.data_dir, "it reboots")
        self.start()
        kinds = (
            (ESP8266, "304"),
            (ESP32, "304"),
            ((*ESP8266, "x-ESP8266-version: 14.1.0(tasmota)"), "404"),
            (("User-Agent: curl/8.5.0", basic(UPDATER_MAC)), "503"),
        )
        for lines, status in kinds:
            with self.subTest(lines[0]):
                with Client(self.port) as client:
                    head = "\r\n".join(("GET /firmware.bin HTTP/1.0", *lines, "", ""))
                    client.send(head.encode())
                    self.assertEqual(str(client.answer().status), status)
                shown = self.lines("why", UPDATER_MAC)
                self.assertIn(f"image        none now: /firmware.bin is answered {status}", shown)

    def test_for_programs_it_is_one_object(self):
        self.see()
        (line,) = self.lines("why", MAC, "--json")
        fields = json.loads(line)
        names = ("mac", "firmware_version", "address", "target_version", "release", "reason")
        self.assertEqual(
            [fields[name] for name in names],
            [MAC, "v1.0.0", "127.0.0.1", "v1.0.1", "v1.0.1", "the target of the fleet"],
        )

    def test_a_device_that_is_not_on_record_needs_a_version(self):
        self.assert_refused(1, f"{MAC} is not on record; --version TEXT shows", "why", MAC)
        lines = self.lines("why", MAC, "--version", "factory 7")
        self.assertIn("reports      factory 7 (it is not on record)", lines)
        self.assertIn("is told      v1.0.1", lines)

    def test_what_makes_no_sense_is_refused(self):
        for words, arguments in (
            ("'beta' is not a MAC address", ("beta",)),
            ("cannot be reported by a device", (MAC, "--version", "é")),
            ("cannot be reported by a device", (MAC, "--version", "")),
        ):
            with self.subTest(arguments):
                self.assert_refused(2, words, "why", *arguments)

    def test_the_shipped_sample_is_for_the_servers_machine_alone(self):
        for path in sorted((ROOT / "ota_server" / "firmware").glob("firmware_v*.bin")):
            self.put_image(path.stem.removeprefix("firmware_"), path.read_bytes())
        self.assertTrue(SAMPLES)
        self.assertEqual(self.explain("v1.0.0").decision.version, "v1.0.1")
        elsewhere = self.explain("v1.0.0", is_local=False).decision
        self.assertEqual(elsewhere.version, "v1.0.0")
        self.assertIn("shipped sample", in_words(elsewhere.cause))


def may_have_image(found: Explanation) -> bool:
    return found.decision is not None and found.image is not None
