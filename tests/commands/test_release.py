"""The `release` commands, as an operator types them, and what a server that runs makes of them."""

import contextlib
import hashlib
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from ota_server.cli import main
from ota_server.journal.record import format_record
from ota_server.model.device import Device
from ota_server.model.timestamp import format_time, parse_time
from ota_server.policy import audit
from ota_server.policy.rollout_plan import RolloutPlan
from ota_server.system.clock import now_ms
from ota_server.system.locks import LOCK_NAME, is_served, take_lock
from tests.releases.test_publish import esp_image
from tests.support import DEVICE, MAC, ROOT, TIMEOUT_SECONDS, Client, DataDirCase, ServerCase, bare
from tests.support.commands import call

NAMES = ("publish", "list", "show", "verify", "remove", "withdraw", "activate", "rollback")
COLUMNS = ["VERSION", "SIZE", "PUBLISHED", "STATE", "IMAGE", "NOTES"]
OTHER_MAC = "00:11:22:33:44:66"

SHIPPED = ROOT / "ota_server" / "firmware"


class Done(NamedTuple):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def as_if_served(data_dir: Path) -> Iterator[None]:
    """Let a server seem to run: else commands warn that none does."""
    logs = data_dir / "log"
    if not logs.is_dir() or is_served(logs):
        yield
        return
    lock = take_lock(logs / LOCK_NAME)
    try:
        yield
    finally:
        os.close(lock)


class Commands:
    """What tests of the commands share; beside a case with a data directory."""

    data_dir: Path

    def run_release(self, *arguments: str) -> Done:
        """Run `release ...` in this process, a tenth of the time of one of its own."""
        out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        name, *rest = arguments
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            as_if_served(self.data_dir),
        ):
            try:
                code = main(["release", name, "--data-dir", str(self.data_dir), *rest])
            except SystemExit as ended:
                code = int(ended.code or 0)
        out.seek(0)
        return Done(code, bare(out.read()), bare(err.getvalue()))

    def run_process(self, *arguments: str) -> Done:
        """Run `python -m ota_server release ...` as an operator does."""
        done = subprocess.run(
            [sys.executable, "-m", "ota_server", "release", *arguments],
            cwd=ROOT,
            env={**os.environ, "OTA_SERVER_DATA": str(self.data_dir)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        return Done(done.returncode, bare(done.stdout), bare(done.stderr))

    def release(self, *arguments: str) -> str:
        """Return what a command prints; fails where it does."""
        done = self.run_release(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", done.stderr
        return done.stdout

    def refused(self, *arguments: str, code: int = 1) -> str:
        """Return why a command is refused; fails where it is not, or changes something."""
        before = self.files()
        done = self.run_release(*arguments)
        assert done.returncode == code, (done.returncode, done.stderr)
        assert self.files() == before
        return done.stderr

    def files(self) -> dict[str, bytes]:
        """Return what may be changed."""
        paths = [*self.data_dir.glob("version/*"), *self.data_dir.glob("firmware/*")]
        found = {str(path): path.read_bytes() for path in paths if path.is_file()}
        log = self.data_dir / "log" / audit.FILE_NAME
        found["audit"] = log.read_bytes() if log.exists() else b""
        found.pop(str(self.data_dir / "version" / LOCK_NAME), None)
        return found

    def build(self, content: bytes) -> str:
        path = self.data_dir / "app.bin"
        path.write_bytes(content)
        return str(path)

    def publish(self, *versions: str) -> None:
        """Publish images that hold their own version."""
        for version in versions:
            self.release(
                "publish", self.build(f"image of {version}".encode()), "--version", version
            )

    def decide(self, name: str, content: object) -> None:
        """Write a file of the policy."""
        path = self.data_dir / "version" / name
        path.write_text(json.dumps(content))

    @property
    def version_txt(self) -> str:
        return (self.data_dir / "version" / "version.txt").read_text()

    @property
    def stopped(self) -> dict[str, dict[str, object]]:
        return json.loads((self.data_dir / "version" / "stopped.json").read_bytes())


class CommandsCase(Commands, DataDirCase):
    """Commands without a server."""


class HelpTest(CommandsCase):
    def test_each_command_has_help_with_examples(self):
        all_helped = self.run_process("--help").stdout
        for name in NAMES:
            with self.subTest(name):
                self.assertIn(name, all_helped)
                helped = self.release(name, "--help")
                self.assertIn("examples:", helped)
                self.assertIn(f"release {name}", helped)

    def test_help_fits_a_terminal_of_80_columns(self):
        self.enterContext(mock.patch.dict(os.environ, COLUMNS="80"))
        for command in (
            ("--help",),
            *((name, "--help") for name in NAMES),
        ):
            with self.subTest(command):
                lines = self.run_process(*command).stdout.splitlines()
                self.assertEqual([line for line in lines if len(line) > 80], [])

    def test_they_work_as_an_operator_types_them(self):
        source = self.build(b"an image")
        with as_if_served(self.data_dir):
            published = self.run_process("publish", source, "--version", "v1.0.0")
        self.assertEqual((published.returncode, published.stderr), (0, ""))
        self.assertEqual(self.run_process("activate", "v1.0.0").returncode, 0)
        self.assertIn("target", self.run_process("list").stdout)
        self.assertEqual(self.run_process("verify").returncode, 0)
        refused = self.run_process("remove", "v1.0.0")
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertEqual(refused.stderr.count("\n"), 1)

    def test_a_data_directory_that_is_new_or_not_served_is_worth_a_question(self):
        source = self.build(b"an image")
        warned = f"no server runs on {self.data_dir}; is --data-dir right?"
        for command in (("publish", source, "--version", "v1.0.0"), ("activate", "v1.0.0")):
            self.assertIn(warned, self.run_process(*command).stderr)
        self.data_dir = self.data_dir / "nope"
        said = self.run_process("publish", source, "--version", "v1.0.0").stderr
        self.assertIn(f"{self.data_dir} was not a data directory, and is one now; is --data", said)

    def test_a_version_that_is_none_is_wrong_usage(self):
        for name in ("show", "verify", "remove", "withdraw", "activate"):
            with self.subTest(name):
                self.assertIn("is not a version", self.refused(name, "v 1", code=2))

    def test_a_stone_that_is_missing_for_direct_versions_is_wrong_usage(self):
        source = self.build(b"an image")
        wrong = ("publish", source, "--version", "v1", "--direct-from", "v0.*")
        self.assertIn("--via", self.refused(*wrong, code=2))

    def test_another_folder_than_a_data_directory_is_refused(self):
        self.data_dir = self.data_dir / "nowhere"
        for arguments in (("list",), ("show", "v1"), ("verify",), ("activate", "v1")):
            with self.subTest(arguments):
                done = self.run_release(*arguments)
                self.assertEqual(done.returncode, 1)
                self.assertIn("is --data-dir right?", done.stderr)
        self.assertFalse(self.data_dir.exists())


class PublishTest(CommandsCase):
    def test_it_says_what_it_did_and_what_to_do_next(self):
        said = self.release("publish", self.build(b"an image"), "--version", "v1.0.0")
        self.assertIn("v1.0.0: 8 bytes, SHA-256 ", said)
        self.assertIn("`release activate v1.0.0`", said)

    def test_the_same_bytes_once_more_are_no_failure(self):
        self.publish("v1.0.0")
        again = self.release("publish", self.build(b"image of v1.0.0"), "--version", "v1.0.0")
        self.assertIn("already there", again)

    def test_of_the_same_bytes_it_says_what_was_updated(self):
        self.publish("v1.0.0")
        source = self.build(b"image of v1.0.0")
        again = self.release("publish", source, "--version", "v1.0.0", "--notes", "mends it")
        self.assertIn("the image is already there; updated: notes\n", again)
        self.assertIn("mends it", self.release("list"))

    def test_a_signature_that_was_not_checked_is_said_to_be_so(self):
        signature = self.data_dir / "app.sig"
        signature.write_bytes(b"signature")
        source = self.build(b"an image")
        said = self.release("publish", source, "--version", "v1", "--signature", str(signature))
        self.assertIn("signature: stored, not checked (give --verify-key)\n", said)

    def test_what_a_release_holds_besides_its_image_is_said_and_shown(self):
        path = self.data_dir / "fs.bin"
        path.write_bytes(b"littlefs")
        image = self.build(b"image")
        arguments = ("publish", image, "--version", "v1.0.0", "--filesystem", str(path))
        said = self.run_release(*arguments)
        sha256 = hashlib.sha256(b"littlefs").hexdigest()
        self.assertIn(f"filesystem: 8 bytes, SHA-256 {sha256}\n", said.stdout)
        self.assertIn(f"8 bytes, SHA-256 {sha256}", self.run_release("show", "v1.0.0").stdout)
        fields = json.loads(self.run_release("show", "v1.0.0", "--json").stdout)
        self.assertEqual(fields["filesystem"]["sha256"], sha256)
        self.assertIn("image + file system", self.run_release("list").stdout)
        (self.data_dir / "firmware" / "filesystem_v1.0.0.bin").write_bytes(b"altered.")
        self.assertIn("filesystem_v1.0.0.bin was altered", self.run_release("verify").stdout)

    def test_a_folder_of_files_is_a_release(self):
        folder = self.data_dir / "app"
        folder.mkdir()
        (folder / "main.py").write_bytes(b"print(1)")
        self.assertIn("give --version", self.run_release("publish", str(folder)).stderr)
        done = self.run_release("publish", str(folder), "--version", "v1.0.0")
        self.assertIn("image: tar archive\nfiles: main.py\n", done.stdout)
        self.assertIn("main.py", self.run_release("show", "v1.0.0").stdout)
        (fields,) = map(json.loads, self.run_release("list", "--json").stdout.splitlines())
        self.assertEqual([each["path"] for each in fields["files"]], ["main.py"])

    def test_a_version_that_was_withdrawn_and_removed_is_withdrawn_still(self):
        self.publish("v1.0.0")
        self.release("withdraw", "v1.0.0")
        self.release("remove", "v1.0.0")
        source = self.build(b"image of v1.0.0")
        done = self.run_release("publish", source, "--version", "v1.0.0")
        self.assertEqual(done.returncode, 0)
        self.assertIn("v1.0.0 is still withdrawn", done.stderr)
        self.assertIn("`release withdraw --undo v1.0.0`", done.stderr)

    def test_a_progress_bar_is_on_a_terminal_alone(self):
        main, other = pty.openpty()
        self.addCleanup(os.close, main)
        source = self.build(bytes(5 << 20))
        command = [sys.executable, "-m", "ota_server", "release", "publish", source]
        try:
            subprocess.run(
                [*command, "--version", "v1", "--data-dir", str(self.data_dir)],
                cwd=ROOT,
                stderr=other,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        finally:
            os.close(other)
        shown = os.read(main, 65536)
        self.assertIn(b"copying v1", shown)
        self.assertIn(b"100%", shown)


class ListTest(CommandsCase):
    def test_the_table_shows_states_and_notes(self):
        self.publish("v1.0.0", "v1.1.0")
        notes = "a long line of notes, which nobody wants to read in a table of releases"
        self.release("publish", self.build(b"new"), "--version", "v1.2.0", "--notes", notes)
        self.release("activate", "v1.0.0")
        self.release("activate", "v1.1.0")
        lines = self.release("list").splitlines()
        self.assertEqual(lines[0].split(), COLUMNS)
        self.assertEqual([line.split()[0] for line in lines[1:4]], ["v1.2.0", "v1.1.0", "v1.0.0"])
        self.assertIn("a long line", lines[1])
        self.assertNotIn("releases", lines[1])
        self.assertIn("target", lines[2])
        self.assertIn("previous", lines[3])
        self.assertEqual(lines[4], "3 releases")

    def test_a_broken_version_txt_is_warned_of(self):
        self.publish("v1.0.0")
        self.set_target("v 1")
        done = self.run_release("list")
        self.assertEqual(done.returncode, 0)
        self.assertIn("version.txt holds no version: 'v 1'", done.stderr)

    def test_json_is_an_object_a_line(self):
        self.publish("v1.0.0")
        self.put_image("v2.0.0", b"copied by hand")
        found = [json.loads(line) for line in self.release("list", "--json").splitlines()]
        by_version = {each["version"]: each for each in found}
        self.assertEqual(by_version["v1.0.0"]["size"], len("image of v1.0.0"))
        self.assertEqual(by_version["v2.0.0"]["states"], [])

    def test_show_names_what_needs_a_release(self):
        self.publish("v1.0.0")
        self.release("activate", "v1.0.0")
        self.decide("pins.json", {"devices": {MAC: {"version": "1.0.0"}}})
        shown = self.release("show", "1.0.0")
        self.assertIn(f"the target, what the device {MAC} is pinned to", shown)
        self.assertEqual(json.loads(self.release("show", "v1.0.0", "--json"))["version"], "v1.0.0")

    def test_a_release_that_is_not_there_cannot_be_shown(self):
        self.assertIn("`release list`", self.refused("show", "v9"))


class VerifyTest(CommandsCase):
    def setUp(self) -> None:
        super().setUp()
        self.publish("v1.0.0", "v1.1.0")

    def test_what_is_as_it_was_published_is_right(self):
        said = self.release("verify")
        self.assertEqual(said.count("as it was published"), 2)

    def test_an_altered_image_is_named(self):
        self.put_image("v1.1.0", b"image of v1.1.1")
        done = self.run_release("verify")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"v1\.1\.0: its image was altered: its SHA-256 is \w{64}")
        self.assertIn("1 of 2 missing or altered", done.stderr)
        self.assertEqual(self.run_release("verify", "v1.0.0").returncode, 0)

    def test_an_image_of_another_size_is_named(self):
        self.put_image("v1.1.0", b"short")
        self.assertIn("it has 5 bytes, not 15", self.run_release("verify", "v1.1.0").stdout)

    def test_a_missing_image_is_named(self):
        (self.data_dir / "firmware" / "firmware_v1.1.0.bin").unlink()
        done = self.run_release("verify")
        self.assertEqual(done.returncode, 1)
        self.assertIn("v1.1.0: its image is missing", done.stdout)

    def test_an_altered_signature_is_named(self):
        signature = self.data_dir / "app.sig"
        signature.write_bytes(b"signature")
        source = self.build(b"an image")
        self.release("publish", source, "--version", "v3", "--signature", str(signature))
        self.assertIn("v3: as it was published", self.release("verify", "v3"))
        (self.data_dir / "firmware" / "firmware_v3.bin.sig").write_bytes(b"altered")
        done = self.run_release("verify", "v3")
        self.assertEqual(done.returncode, 1)
        self.assertIn("v3: its signature was altered", done.stdout)
        self.assertIn("publish the same build with its --signature", done.stdout)
        self.assertIn("its signature was altered", self.refused("activate", "v3"))

    def test_a_manifest_may_begin_with_a_byte_order_mark(self):
        path = self.data_dir / "firmware" / "firmware_v1.1.0.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        self.assertIn("as it was published", self.release("verify", "v1.1.0"))

    def test_an_image_without_a_manifest_is_named(self):
        self.put_image("v2.0.0", b"copied by hand")
        done = self.run_release("verify", "v2.0.0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("has no manifest", done.stdout)
        self.assertIn("v2.0.0: copied in by hand: there is nothing", self.release("verify"))


class RemoveTest(CommandsCase):
    def setUp(self) -> None:
        super().setUp()
        self.publish("v1.0.0", "v1.1.0", "v1.2.0")

    def test_all_files_of_a_release_that_nothing_needs_are_deleted(self):
        (self.data_dir / "firmware" / "firmware_v1.0.0.bin.sig").write_bytes(b"signature")
        self.assertIn("v1.0.0 was removed", self.release("remove", "1.0.0"))
        self.assertEqual(list(self.data_dir.glob("firmware/*1.0.0*")), [])
        self.assertEqual(audit.entries(self.data_dir / "log")[-1]["action"], "remove")

    def test_the_target_and_the_one_before_are_refused(self):
        self.release("activate", "v1.0.0")
        self.release("activate", "v1.1.0")
        self.assertIn("the target", self.refused("remove", "1.1.0"))
        self.assertIn("the previous target", self.refused("remove", "1.0.0"))

    def test_what_a_pin_names_is_refused(self):
        self.decide("pins.json", {"devices": {MAC: {"version": "1.0.0"}}})
        self.assertIn(f"the device {MAC} is pinned to", self.refused("remove", "v1.0.0"))
        self.decide("pins.json", {"groups": {"beta": {"version": "v1.0.0"}}})
        self.assertIn("the group beta is pinned to", self.refused("remove", "v1.0.0"))

    def test_a_pin_that_is_over_does_not_matter(self):
        pin = {"version": "v1.0.0", "until": "2020-01-01T00:00:00Z"}
        self.decide("pins.json", {"devices": {MAC: pin}})
        self.release("remove", "v1.0.0")

    def test_the_target_of_a_group_is_refused(self):
        self.decide("targets.json", {"beta": "v1.0.0"})
        self.assertIn("the target of the group beta", self.refused("remove", "v1.0.0"))

    def test_what_a_rollout_brings_is_refused_until_that_is_over(self):
        plan = {
            "id": "1",
            "version": "v1.0.0",
            "group": "",
            "waves": [100],
            "time": "2026-11-24T12:00:00.000Z",
            "instead_of": None,
        }
        self.decide("rollout.json", plan)
        self.assertIn("a rollout to the fleet", self.refused("remove", "v1.0.0"))
        self.decide("rollout.json", {**plan, "wanted": "abort"})
        self.release("remove", "v1.0.0")

    def test_a_stone_is_refused(self):
        source = self.build(b"another")
        self.release("publish", source, "--version", "v2.0.0", "--via", "v1.0.0")
        self.assertIn("the stepping stone to v2.0.0", self.refused("remove", "v1.0.0"))
        self.release("remove", "v2.0.0")
        self.release("remove", "v1.0.0")

    def test_nothing_is_removed_while_version_txt_is_broken(self):
        self.set_target("v 1")
        self.assertIn("last good target", self.refused("remove", "v1.0.0"))

    def test_what_is_not_there_is_refused(self):
        self.assertIn("there is no release v9", self.refused("remove", "v9"))


class TargetTest(CommandsCase):
    def setUp(self) -> None:
        super().setUp()
        self.publish("v1.0.0", "v1.1.0", "v1.2.0")

    def test_the_target_is_written_as_the_old_one_ended(self):
        self.release("activate", "v1.0.0")
        self.assertEqual(self.version_txt, "v1.0.0")
        self.set_target("v1.0.0\r\n")
        self.release("activate", "v1.1.0")
        self.assertEqual(self.version_txt, "v1.1.0\n")

    def test_the_target_is_spelled_as_it_was_published(self):
        self.release("activate", "1.1.0")
        self.assertEqual(self.version_txt, "v1.1.0")

    def test_it_says_from_and_to(self):
        self.release("activate", "v1.0.0")
        said = self.release("activate", "v1.1.0")
        self.assertEqual(said, "the target is v1.1.0; it was v1.0.0\n")
        entry = audit.entries(self.data_dir / "log")[-1]
        self.assertEqual((entry["from"], entry["to"]), ("v1.0.0", "v1.1.0"))

    def test_rolled_back_twice_it_is_the_one_before_the_last_two(self):
        for version in ("v1.0.0", "v1.1.0", "v1.2.0"):
            self.release("activate", version)
        self.assertEqual(self.release("rollback"), "the target is v1.1.0; it was v1.2.0\n")
        self.assertEqual(self.release("rollback"), "the target is v1.0.0; it was v1.1.0\n")
        self.assertIn("`release activate VERSION`", self.refused("rollback"))

    def test_a_target_that_was_edited_by_hand_is_rolled_back_to_the_one_activated_before(self):
        self.release("activate", "v1.0.0")
        self.set_target("v1.2.0")
        self.assertEqual(self.release("rollback"), "the target is v1.0.0; it was v1.2.0\n")

    def test_a_target_that_could_not_be_written_is_none_to_go_back_to(self):
        self.release("activate", "v1.0.0")
        self.release("activate", "v1.1.0")
        in_the_way = self.data_dir / "version" / ".version.txt.new"
        in_the_way.mkdir()
        done = self.run_release("activate", "v1.2.0")
        self.assertEqual(done.returncode, 1)
        self.assertIn(".version.txt.new", done.stderr)
        in_the_way.rmdir()
        self.assertEqual(self.release("rollback"), "the target is v1.0.0; it was v1.1.0\n")

    def test_a_release_without_an_image_is_refused(self):
        (self.data_dir / "firmware" / "firmware_v1.1.0.bin").unlink()
        self.assertIn("no image of v1.1.0", self.refused("activate", "v1.1.0"))
        self.assertIn("`release publish", self.refused("activate", "v9"))

    def test_a_release_whose_manifest_cannot_be_used_is_refused(self):
        (self.data_dir / "firmware" / "firmware_v1.1.0.json").write_text("{")
        self.assertIn("its manifest is not JSON", self.refused("activate", "v1.1.0"))

    def test_an_altered_image_is_refused(self):
        self.put_image("v1.1.0", b"image of v1.1.1")
        self.assertIn("was altered", self.refused("activate", "v1.1.0"))

    def test_a_withdrawn_release_is_refused_until_that_is_lifted(self):
        self.release("withdraw", "v1.1.0")
        self.assertIn("`release withdraw --undo v1.1.0`", self.refused("activate", "v1.1.0"))
        self.release("withdraw", "--undo", "v1.1.0")
        self.release("activate", "v1.1.0")

    def test_it_clears_the_targets_of_groups_and_names_them(self):
        self.decide("targets.json", {"beta": "v1.0.0"})
        said = self.release("activate", "v1.1.0")
        self.assertIn("group beta had v1.0.0 and gets v1.1.0 too\n", said)
        self.assertEqual(json.loads(self.files()[str(self.data_dir / "version/targets.json")]), {})

    def test_rolled_back_groups_have_the_targets_again_that_they_lost(self):
        call("group", "add", "beta", "02:00:00:00:00:01", "--data-dir", str(self.data_dir))
        self.release("activate", "v1.0.0")
        self.decide("targets.json", {"beta": "v1.2.0", "gone": "v1.2.0"})
        self.release("activate", "v1.1.0")
        said = self.release("rollback")
        self.assertIn("the target is v1.0.0; it was v1.1.0\n", said)
        self.assertIn("group beta has v1.2.0 again\n", said)
        targets = json.loads(self.files()[str(self.data_dir / "version/targets.json")])
        self.assertEqual(targets, {"beta": "v1.2.0"})

    def test_during_a_rollout_to_the_fleet_it_is_refused_unless_forced(self):
        plan = {
            "id": "1",
            "version": "v1.2.0",
            "group": "",
            "waves": [100],
            "time": "2026-11-24T12:00:00.000Z",
            "instead_of": None,
        }
        self.decide("rollout.json", plan)
        self.assertIn("end it by `rollout abort` first", self.refused("activate", "v1.1.0"))
        done = self.run_release("activate", "v1.1.0", "--force")
        self.assertEqual(done.returncode, 0)
        self.assertIn("the rollout of v1.2.0 is still there", done.stderr)
        self.assertIn("rollout.json", " ".join(self.files()))

    def test_during_a_rollout_of_the_same_release_it_says_how_that_ends(self):
        plan = RolloutPlan("1", "v1.2.0", "", (100.0,), "2026-11-24T12:00:00.000Z", None)
        self.decide("rollout.json", plan._asdict())
        said = self.refused("activate", "v1.2.0")
        self.assertIn("will end by itself", said)
        self.assertIn("`rollout abort`, then `release activate v1.2.0`", said)

    def test_what_is_the_target_already_is_said_to_be_so_and_is_no_change(self):
        self.release("activate", "v1.1.0")
        before = self.files()
        self.assertEqual(self.release("activate", "v1.1.0"), "v1.1.0 is already the target\n")
        self.assertEqual(self.files(), before)

    def test_what_is_the_target_already_is_given_to_groups_all_the_same(self):
        self.release("activate", "v1.1.0")
        self.decide("targets.json", {"beta": "v1.0.0"})
        said = self.release("activate", "v1.1.0")
        self.assertIn("v1.1.0 is already the target", said)
        self.assertIn("group beta had v1.0.0 and gets v1.1.0 too", said)
        self.assertEqual(json.loads(self.files()[str(self.data_dir / "version/targets.json")]), {})

    def test_a_withdrawn_target_to_go_back_to_is_refused_naming_another_way(self):
        self.release("activate", "v1.0.0")
        self.release("activate", "v1.1.0")
        self.release("withdraw", "v1.0.0")
        said = self.refused("rollback")
        self.assertIn("v1.0.0 was withdrawn; `release activate VERSION` sets another", said)

    def test_a_hold_is_warned_of(self):
        self.release("activate", "v1.0.0")
        self.decide("hold.json", {"reason": "it bricks"})
        for arguments in (("activate", "v1.1.0"), ("rollback",)):
            done = self.run_release(*arguments)
            self.assertEqual(done.returncode, 0)
            said = "everything is on hold: it bricks; no device is offered anything until `unhold`"
            self.assertIn(said, done.stderr)

    def test_a_policy_that_cannot_be_read_is_refused(self):
        (self.data_dir / "version" / "stopped.json").write_text("{")
        self.assertIn("stopped.json cannot be used", self.refused("activate", "v1.1.0"))


class WithdrawTest(CommandsCase):
    def setUp(self) -> None:
        super().setUp()
        self.publish("v1.0.0", "v1.1.0")
        self.release("activate", "v1.0.0")

    def test_it_is_on_record_with_its_reason_and_the_target(self):
        self.release("withdraw", "1.1.0", "--reason", "loses its settings")
        entry = self.stopped["v1.1.0"]
        self.assertEqual((entry["state"], entry["instead_of"]), ("withdrawn", "v1.0.0"))
        self.assertEqual(entry["reason"], "loses its settings")
        self.assertIn("withdrawn", self.release("list"))

    def test_of_the_target_it_is_said_that_there_should_be_another(self):
        said = self.release("withdraw", "v1.0.0")
        self.assertIn("it is still the target", said)
        self.assertEqual(self.version_txt, "v1.0.0")

    def test_of_the_target_of_a_group_no_command_for_the_whole_fleet_is_advised(self):
        self.decide("targets.json", {"beta": "v1.1.0"})
        said = self.release("withdraw", "v1.1.0")
        self.assertIn("`rollout start VERSION --group beta` brings it another", said)
        self.assertNotIn("activate", said)

    def test_what_names_it_still_is_said_each_with_what_to_do(self):
        plan = RolloutPlan("1", "v1.1.0", "", (100.0,), "2026-11-24T12:00:00.000Z", None)
        self.decide("rollout.json", plan._asdict())
        self.decide("pins.json", {"devices": {MAC: {"version": "v1.1.0"}}})
        said = self.release("withdraw", "v1.1.0")
        self.assertIn(f"it is still what the device {MAC} is pinned to, what a rollout", said)
        self.assertIn("; `unpin WHO` ends a pin; the rollout will be halted\n", said)
        self.assertNotIn("release activate", said)

    def test_show_says_why_and_when(self):
        self.release("withdraw", "v1.1.0", "--reason", "loses its settings")
        shown = self.release("show", "v1.1.0")
        self.assertRegex(shown, r"withdrawn reason +loses its settings\n")
        self.assertRegex(shown, r"withdrawn time +20\d\d-")
        fields = json.loads(self.release("show", "v1.1.0", "--json"))
        self.assertEqual(fields["withdrawn_reason"], "loses its settings")
        self.assertEqual(fields["withdrawn_time"], self.stopped["v1.1.0"]["time"])
        fields = json.loads(self.release("show", "v1.0.0", "--json"))
        self.assertIsNone(fields["withdrawn_time"])

    def test_twice_it_is_refused(self):
        self.release("withdraw", "v1.1.0")
        self.assertIn("is already withdrawn", self.refused("withdraw", "v1.1.0"))

    def test_what_is_not_there_is_refused(self):
        self.assertIn("there is no release v9", self.refused("withdraw", "v9"))
        self.assertIn("was not withdrawn", self.refused("withdraw", "--undo", "v1.0.0"))

    def test_an_aborted_rollout_is_forgotten_by_an_activation(self):
        self.decide("stopped.json", {"v1.1.0": {"state": "aborted", "instead_of": "v1.0.0"}})
        self.release("activate", "v1.0.0")
        self.assertEqual(self.stopped, {})


class RemarksTest(Commands, DataDirCase):
    """What devices are told to run, and will not get, or not stay on."""

    def setUp(self) -> None:
        super().setUp()
        for version in ("v1.0.0", "v1.0.1"):
            self.put_image(version, (SHIPPED / f"firmware_{version}.bin").read_bytes())
        self.put_image("v1.1.0", esp_image("v1.1.0"))
        self.put_image("v1.1.1", esp_image("v1.1.0"))
        self.set_target("v1.0.1")

    def warned(self, *words: str) -> str:
        """Return what a command says that is done, and warns."""
        err = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            self.assertEqual(main([*words, "--data-dir", str(self.data_dir)]), 0, err.getvalue())
        return " ".join(bare(err.getvalue()).split())

    def test_an_image_that_says_another_version_is_remarked_on(self):
        words = "the image of v1.1.1 says that it is version v1.1.0"
        for command in (
            ("pin", MAC, "v1.1.1"),
            ("release", "activate", "v1.1.1"),
            ("rollout", "start", "v1.1.1", "--group", "beta"),
        ):
            with self.subTest(command):
                if command[0] == "rollout":
                    self.warned("unpin", MAC)
                    self.warned("group", "add", "beta", MAC)
                    device = Device(
                        now_ms(), "v1.1.0", now_ms(), None, None, "192.0.2.7", False, None, 0
                    )
                    journal = self.data_dir / "log" / "devices.jsonl"
                    journal.write_bytes(format_record("check", MAC, device))
                    self.warned("release", "activate", "v1.1.0")
                self.assertIn(words, self.warned(*command))

    def test_not_where_that_is_on_record_or_true(self):
        self.release("publish", self.build(esp_image("1.2")), "--version", "v1.2")
        self.release(
            "publish", self.build(esp_image("b7")), "--version", "v1.3", "--reports-as", "b7"
        )
        for version in ("v1.1.0", "v1.2", "v1.3"):
            with self.subTest(version), as_if_served(self.data_dir):
                self.assertEqual(self.warned("release", "activate", version), "")

    def test_the_shipped_sample_is_remarked_on_by_all_that_tell_devices_to_run_it(self):
        words = "v1.0.1 is the shipped sample: it is offered to clients on this machine only"
        self.warned("release", "activate", "v1.1.0")
        for command in (("release", "rollback"), ("release", "activate", "v1.0.1")):
            with self.subTest(command):
                self.assertIn(words, self.warned(*command))
        self.assertIn(words, self.warned("pin", MAC, "v1.0.1"))
        status = json.loads(self.shown("status", "--json"))
        texts = [each["text"] for each in status["warnings"]]
        self.assertIn("the target v1.0.1 is the shipped sample", " ".join(texts))
        self.assertTrue(status["target"]["is_sample"])
        self.warned("release", "activate", "v1.1.0")
        self.assertNotIn("sample", self.shown("status"))

    def shown(self, *words: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            main([*words, "--data-dir", str(self.data_dir)])
        return out.getvalue()


class RunningServerTest(Commands, ServerCase):
    """A server with the target v1.0.1, in this process, and commands beside it."""

    def told(self, reported: str, mac: str = MAC) -> str:
        answer = self.get("/version.txt", {"_br_mac_": mac, "_br_fwv_": reported})
        return answer.body.decode()

    def fetched(self, reported: str = "v1.0.0") -> bytes:
        return self.get("/firmware.bin", {**DEVICE, "_br_fwv_": reported}).body

    def test_an_activation_is_told_at_the_next_request(self):
        self.assertEqual(self.told("v1.0.0"), "v1.0.1")
        self.publish("v2.0.0")
        self.release("activate", "v2.0.0")
        self.assertEqual(self.told("v1.0.0"), "v2.0.0")
        self.assertEqual(self.fetched(), b"image of v2.0.0")

    def test_an_altered_image_is_not_found_and_the_log_says_so(self):
        self.publish("v2.0.0")
        self.release("activate", "v2.0.0")
        self.assertEqual(self.fetched(), b"image of v2.0.0")
        self.put_image("v2.0.0", b"image of v2.0.1")
        with self.assertLogs("ota_server", "ERROR") as logged:
            answer = self.get("/firmware.bin")
        self.assertEqual(answer.status, 404)
        self.assertIn("is not the one that was published", "".join(logged.output))
        self.assertEqual(self.get("/firmware/firmware_v2.0.0.bin").status, 404)

    def test_an_altered_image_by_its_name_is_in_the_log_too(self):
        self.publish("v2.0.0")
        self.put_image("v2.0.0", b"image of v2.0.1")
        with self.assertLogs("ota_server", "ERROR") as logged:
            self.assertEqual(self.get("/firmware/firmware_v2.0.0.bin").status, 404)
        self.assertIn("no image by its name for 127.0.0.1", "".join(logged.output))

    def test_a_withdrawn_image_is_not_found_by_name(self):
        self.assertEqual(self.get("/firmware/firmware_v1.0.0.bin").status, 200)
        self.release("withdraw", "v1.0.0")
        self.assertEqual(self.get("/firmware/firmware_v1.0.0.bin").status, 404)
        self.release("withdraw", "--undo", "v1.0.0")
        self.assertEqual(self.get("/firmware/firmware_v1.0.0.bin").status, 200)

    def test_it_is_sent_at_once_when_the_withdrawal_is_undone(self):
        for path in ("/firmware/firmware_v1.0.1.bin", "/firmware.bin"):
            with self.subTest(path):
                self.assertEqual(self.get(path).status, 200)
                self.release("withdraw", "v1.0.1")
                self.server.service.offers.look_after()  # which is done each second
                self.release("withdraw", "--undo", "v1.0.1")
                self.assertEqual(self.get(path).body, self.IMAGE)

    def test_devices_stay_on_a_release_whose_withdrawal_is_undone(self):
        self.publish("v2.0.0", "v3.0.0")
        for before in ({}, {"v2.0.0": {"state": "withdrawn", "instead_of": "v1.0.1"}}):
            with self.subTest(before=before):
                if before:
                    self.decide("stopped.json", before)
                else:
                    self.release("withdraw", "v2.0.0")
                self.release("withdraw", "--undo", "v2.0.0")
                self.assertEqual(self.told("v2.0.0"), "v2.0.0")
                self.assertEqual(self.get("/firmware/firmware_v2.0.0.bin").status, 200)
        self.release("activate", "v3.0.0")
        self.assertEqual(self.told("v2.0.0"), "v3.0.0")

    def test_of_a_target_that_is_withdrawn_and_reinstated_nothing_is_left(self):
        self.release("withdraw", "v1.0.1")
        self.release("withdraw", "--undo", "v1.0.1")
        self.assertEqual(json.loads((self.data_dir / "version/stopped.json").read_text()), {})

    def test_a_withdrawn_target_is_offered_to_nobody(self):
        self.release("withdraw", "v1.0.1")
        self.assertEqual(self.told("v1.0.0"), "v1.0.0")
        self.assertEqual(self.told("v1.0.1"), "v1.0.1")

    def test_devices_stay_on_a_withdrawn_release_until_another_target_is_activated(self):
        self.publish("v2.0.0", "v3.0.0")
        self.release("withdraw", "v2.0.0")
        self.assertEqual(self.told("v2.0.0"), "v2.0.0")
        self.release("activate", "v3.0.0")
        self.assertEqual(self.told("v2.0.0"), "v3.0.0")

    def test_devices_on_a_withdrawn_target_go_to_the_one_that_it_is_rolled_back_to(self):
        self.publish("v2.0.0")
        self.release("activate", "v2.0.0")
        self.release("withdraw", "v2.0.0")
        self.assertEqual(self.told("v2.0.0"), "v2.0.0")
        self.release("rollback")
        self.assertEqual(self.told("v2.0.0"), "v1.0.1")

    def test_devices_on_a_stopped_release_move_when_the_same_target_is_activated_again(self):
        self.publish("v2.0.0", "v3.0.0")
        self.decide("stopped.json", {"v2.0.0": {"state": "aborted", "instead_of": "v1.0.1"}})
        self.release("withdraw", "v3.0.0")
        self.assertEqual(self.told("v2.0.0"), "v2.0.0")
        self.assertEqual(self.told("v3.0.0", OTHER_MAC), "v3.0.0")
        self.release("activate", "v1.0.1")
        self.assertEqual(self.told("v2.0.0"), "v1.0.1")
        self.assertEqual(self.told("v3.0.0", OTHER_MAC), "v1.0.1")

    def test_after_a_rollback_if_none_match_gets_the_older_image(self):
        self.publish("v2.0.0")
        self.release("activate", "v2.0.0")
        newer = self.get("/firmware.bin")
        self.release("rollback")
        since = {"If-None-Match": newer.fields["etag"], "If-Modified-Since": newer.fields["date"]}
        answer = self.get("/firmware.bin", {**DEVICE, **since})
        self.assertEqual((answer.status, answer.body), (200, self.IMAGE))

    def test_order_never_decides(self):
        self.publish("v1.9", "v1.10")
        for reported, target in (("v1.9", "v1.10"), ("v1.10", "v1.9")):
            with self.subTest(target):
                self.release("activate", target)
                self.assertEqual(self.told(reported), target)

    def test_a_device_that_leaves_out_the_v_is_told_its_own_spelling(self):
        self.publish("v1.0")
        self.release("activate", "v1.0")
        self.assertEqual(self.told("1.0"), "1.0")

    def test_a_release_that_is_being_downloaded_is_not_removed(self):
        self.release("publish", self.build(bytes(8 << 20)), "--version", "v3.0.0")
        self.publish("v2.0.0")
        self.release("activate", "v3.0.0")
        with Client(self.port, receive_buffer=4096) as client:
            client.request("/firmware.bin")
            client.read_until(b"\r\n\r\n")
            for version in ("v2.0.0", "v1.0.1", "v2.0.0"):
                self.release("activate", version)
            self.assertIn(f"is being downloaded: {MAC}", self.refused("remove", "v3.0.0"))

    def test_a_release_that_its_device_has_got_is_removed_at_once(self):
        self.publish("v2.0.0")
        self.release("activate", "v2.0.0")
        self.assertEqual(self.get("/firmware.bin").status, 200)
        self.stop()
        self.publish("v3.0.0")
        for version in ("v1.0.1", "v3.0.0", "v1.0.1", "v3.0.0"):
            self.release("activate", version)
        self.release("remove", "v2.0.0")

    def journal_of(self, version: str, *events: dict[str, object]) -> None:
        """Write a journal: what one device did with a release an hour ago; the server stops."""
        self.get("/version.txt")
        self.stop()
        (line,) = self.records(event="check")
        line |= {"status": 200, "time": format_time(parse_time(line["time"]) - 3_600_000)}
        sha256 = json.loads(self.release("show", version, "--json"))["sha256"]
        begin = {"event": "begin", "download_sha256": sha256}
        end = {"event": "download", "release_sha256": sha256}
        records = [
            {**line, **(begin if each["event"] == "begin" else end), **each} for each in events
        ]
        lines = [json.dumps(each, separators=(",", ":")) for each in records]
        (self.data_dir / "log" / "devices.jsonl").write_text("\n".join(lines) + "\n")

    def test_a_download_that_has_not_ended_counts(self):
        self.publish("v2.0.0")
        self.journal_of("v2.0.0", {"event": "begin"}, {"event": "begin"}, {"event": "download"})
        self.assertIn(f"is being downloaded by {MAC}", self.refused("remove", "v2.0.0"))

    def test_a_download_by_the_same_mac_in_another_product_is_another(self):
        self.publish("v2.0.0", "v3.0.0")
        whole = {"event": "download", "product": "plug", "complete": True}
        self.journal_of("v2.0.0", {"event": "begin"}, {"event": "begin", "product": "plug"}, whole)
        self.assertIn(f"is being downloaded by {MAC}", self.refused("remove", "v2.0.0"))
        path = self.data_dir / "log" / "devices.jsonl"
        path.write_text(path.read_text().replace('"product":""', '"product":"plug"'))
        self.release("remove", "v2.0.0")

    def test_a_download_that_has_not_ended_counts_for_a_day(self):
        self.publish("v2.0.0")
        self.journal_of("v2.0.0", {"event": "begin", "time": "2020-01-01T00:00:00.000Z"})
        self.release("remove", "v2.0.0")

    def test_a_download_by_a_clock_that_was_ahead_does_not_count_until_then(self):
        self.publish("v2.0.0")
        self.journal_of("v2.0.0", {"event": "begin", "time": "2999-01-01T00:00:00.000Z"})
        self.release("remove", "v2.0.0")

    def test_downloads_that_have_ended_do_not_count_after_ten_minutes(self):
        self.publish("v2.0.0")
        self.journal_of("v2.0.0", {"event": "begin"}, {"event": "download", "complete": False})
        self.release("remove", "v2.0.0")

    def test_a_whole_download_ends_what_a_killed_server_left(self):
        self.publish("v2.0.0")
        whole = {"event": "download", "complete": True}
        self.journal_of("v2.0.0", {"event": "begin"}, {"event": "begin"}, whole)
        self.release("remove", "v2.0.0")

    def test_a_head_is_no_download_that_has_to_end(self):
        self.publish("v2.0.0")
        self.journal_of("v2.0.0", {"event": "begin", "method": "HEAD"})
        self.release("remove", "v2.0.0")
