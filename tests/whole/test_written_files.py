"""What commands and the server write: as root, where the system refuses, without room."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.commands.test_release import as_if_served
from tests.support import MAC, ROOT, TIMEOUT_SECONDS, Client, DataDirCase, Process, bare, until

USER = 12345  # the server's user
IMAGE = bytes(range(256)) * 200
as_root = unittest.skipUnless(os.geteuid() == 0, "only root can give files away and mount")

# How a call is refused: Python code that runs before a command or the server.
REFUSE = """
import errno, fcntl, os, resource, stat, sys
def refuse(module, name, number, when=lambda *_: True):
    call = getattr(module, name)
    def refused(*arguments, **named):
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return call(*arguments, **named)
    setattr(module, name, refused)
def is_folder(descriptor, *_):
    return isinstance(descriptor, int) and stat.S_ISDIR(os.fstat(descriptor).st_mode)
"""
REFUSALS = {
    "chmod": 'refuse(os, "chmod", errno.EPERM)',
    "chown": 'refuse(os, "chown", errno.EPERM)',
    "chown in a name space": 'refuse(os, "chown", errno.EINVAL)',
    "time stamps": 'refuse(os, "utime", errno.EPERM)',
    "the room on a disk": 'refuse(os, "statvfs", errno.ENOSYS)',
    "limits": 'refuse(resource, "getrlimit", errno.EPERM)',
    "fsync of a folder": 'refuse(os, "fsync", errno.EINVAL, is_folder)',
    "fsync of a folder, not there": 'refuse(os, "fsync", errno.EOPNOTSUPP, is_folder)',
}
NO_LOCKS = 'refuse(fcntl, "flock", errno.ENOLCK)'
NO_NEW_FILE = """
def is_new(path, flags, *_):
    return flags & os.O_CREAT and not os.path.lexists(path)
refuse(os, "open", errno.ENOSPC, is_new)
"""
BAD_DISK = 'refuse(os, "fsync", errno.EIO, is_folder)'


class WritingCase(DataDirCase):
    """Commands as processes of their own."""

    def run_command(
        self,
        *arguments: str,
        refusal: str = "",
        umask: int = 0o022,
        before: tuple[str, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        code = f"{REFUSE}{refusal}\nfrom ota_server.cli import main\nsys.exit(main())"
        how = ["-c", code] if refusal else ["-m", "ota_server"]
        return subprocess.run(
            [*before, sys.executable, *how, *arguments],
            cwd=ROOT,
            env={**os.environ, "OTA_SERVER_DATA": str(self.data_dir)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            umask=umask,
        )

    def done(self, *arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
        """Run a command that must succeed."""
        done = self.run_command(*arguments, **how)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def failed(self, *arguments: str, **how: object) -> str:
        """Return what a command says that must fail."""
        done = self.run_command(*arguments, **how)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertNotIn("Traceback", done.stderr)
        return bare(done.stderr)

    def build(self, content: bytes = IMAGE) -> str:
        path = self.data_dir / "build.bin"
        path.write_bytes(content)
        return str(path)

    def audited(self) -> list[str]:
        """Return the actions in the audit log."""
        lines = (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()
        return [json.loads(line)["action"] for line in lines]

    def serve(self, code: str | None = None, **env: str) -> Process:
        arguments = ["--data-dir", str(self.data_dir), "--host", "127.0.0.1"]
        server = Process(*arguments, code=code, env=env)
        self.addCleanup(server.kill)
        return server

    def version_told(self, server: Process) -> bytes:
        with Client(server.port) as client:
            client.request("/version.txt")
            return client.answer().body

    def mount(self, options: str) -> None:
        """Put a small disk in the place of the data directory."""
        for name in ("version", "firmware", "log"):
            (self.data_dir / name).rmdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.data_dir], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.data_dir], check=True)
        for name in ("version", "firmware", "log"):
            (self.data_dir / name).mkdir()


@as_root
class RootTest(WritingCase):
    """Commands that root runs in the data directory of another user."""

    def setUp(self) -> None:
        super().setUp()
        self.data_dir.chmod(0o755)
        for path in (self.data_dir, *self.data_dir.iterdir()):
            os.chown(path, USER, USER)

    def paths(self) -> list[Path]:
        return [path for path in self.data_dir.rglob("*") if path.name != "build.bin"]

    def change(self, umask: int) -> None:
        """Have everything made that commands make."""
        source = self.build()
        (self.data_dir / "signature").write_bytes(b"signature")
        how = ["--version", "v1.0.0", "--signature", str(self.data_dir / "signature")]
        self.done("release", "publish", source, *how, umask=umask)
        self.done("release", "activate", "v1.0.0", umask=umask)
        self.done("group", "add", "beta", MAC, umask=umask)
        self.done("device", "label", MAC, "pump house", umask=umask)
        (self.data_dir / "signature").unlink()

    def test_what_says_who_may_act_is_for_the_user_of_the_server_alone(self):
        for umask in (0o077, 0o000):
            self.done("token", "create", f"t{umask}", umask=umask)
            self.done("token", "login", f"t{umask}", umask=umask)
            for name in ("version/tokens.json", "log/sessions.json"):
                status = (self.data_dir / name).stat()
                found = status.st_uid, status.st_gid, oct(stat.S_IMODE(status.st_mode))
                self.assertEqual(found, (USER, USER, "0o600"), name)
        lock = (self.data_dir / "log" / ".sessions.lock").stat()
        self.assertEqual((lock.st_uid, lock.st_gid), (USER, USER))

    def test_it_writes_nothing_through_a_link_of_another_user(self):
        outside = self.data_dir / "outside"
        outside.mkdir()
        (outside / "file").write_bytes(b"as it was\n")
        self.done("device", "label", MAC, "first")  # so that all files are there
        label, serve = ("device", "label", MAC), ("serve", "--port", "0", "--no-admin")
        for name, target, command in (
            ("version/.lock", "new", (*label, "a")),
            ("version/.lock", "file", ("hold",)),
            ("version/.spare_1", "new", (*label, "b")),
            ("log/audit.jsonl", "new", (*label, "c")),
            ("log/audit.jsonl", "file", (*label, "d")),
            ("log/.lock", "new", serve),
            ("log/devices.jsonl", "file", serve),
            ("version", "", (*label, "e")),
            ("log", "", (*label, "f")),
        ):
            with self.subTest(name, target=target), self.linked(name, outside / target) as path:
                done = self.run_command(*command)
                self.assertEqual([each.name for each in outside.iterdir()], ["file"])
                self.assertEqual((outside / "file").read_bytes(), b"as it was\n")
                if name != "version/.spare_1":  # no change needs that
                    self.assertEqual(done.returncode, 1)
                    self.assertIn(str(path), done.stderr)
                    self.assertIn("root does not write through it", done.stderr)

    def test_it_follows_a_link_to_a_folder_that_root_made(self):
        for name in ("version", "log", "firmware"):
            (self.data_dir / name).rename(self.data_dir / f"{name} elsewhere")
            (self.data_dir / name).symlink_to(f"{name} elsewhere")
        self.change(umask=0o022)

    @contextmanager
    def linked(self, name: str, target: Path) -> Iterator[Path]:
        """Put a link, made by the server's user, in the place of a file or folder."""
        path, saved = self.data_dir / name, self.data_dir / f"{name}.saved"
        if path.exists():
            path.rename(saved)
        path.symlink_to(target)
        os.chown(path, USER, USER, follow_symlinks=False)
        try:
            yield path
        finally:
            path.unlink()
            if saved.exists():
                saved.rename(path)

    def test_what_it_makes_belongs_to_the_servers_user_whatever_the_umask_is(self):
        for umask in (0o077, 0o000):
            with self.subTest(umask=oct(umask)):
                for name in ("version", "firmware", "log"):
                    shutil.rmtree(self.data_dir / name)
                self.change(umask)
                self.assertTrue((self.data_dir / "firmware" / "firmware_v1.0.0.bin").exists())
                for path in self.paths():
                    status = path.stat()
                    mode = 0o755 if path.is_dir() else 0o644
                    found = status.st_uid, status.st_gid, oct(stat.S_IMODE(status.st_mode))
                    self.assertEqual(found, (USER, USER, oct(mode)), path)

    def test_a_server_of_another_user_starts_and_serves_it(self):
        for name in ("version", "firmware", "log"):
            (self.data_dir / name).rmdir()
        self.change(0o077)
        # All is imported first: that user may not be able to read Python's own folder.
        code = (
            "import encodings.idna, encodings.utf_8_sig, locale, os, sys;"
            "from ota_server.server import main;"
            f"os.setgroups([]); os.setgid({USER}); os.setuid({USER}); sys.exit(main())"
        )
        server = self.serve(code)
        with Client(server.port) as client:
            client.request("/firmware.bin")
            self.assertEqual(client.answer().body, IMAGE)

    def test_a_journal_that_it_makes_belongs_to_the_servers_user(self):
        server = self.serve()
        self.version_told(server)
        server.end()
        journal = self.data_dir / "log" / "devices.jsonl"
        journal.rename(journal.with_name("devices.000001.jsonl"))
        self.done("device", "forget", MAC, umask=0o077)
        self.assertEqual(journal.stat().st_uid, USER)

    def test_it_gives_away_nothing_that_a_link_leads_to(self):
        for link in ("version/.lock", "log/audit.jsonl", "log/devices.jsonl", "version/.spare_1"):
            with self.subTest(link):
                target = self.data_dir / "of_root"
                target.touch(0o600)
                (self.data_dir / link).unlink(missing_ok=True)
                (self.data_dir / link).symlink_to(target)
                self.run_command("hold")
                self.run_command("unhold")
                status = target.stat()
                self.assertEqual((status.st_uid, stat.S_IMODE(status.st_mode)), (0, 0o600))
                (self.data_dir / link).unlink()

    def test_an_image_that_the_servers_user_cannot_read_is_named(self):
        image = self.put_image("v1.0.0", IMAGE)
        os.chown(image, 0, 0)
        image.chmod(0o600)
        words = f"the server's user cannot read its image; `chmod a+r {image}`"
        refused = self.run_command("release", "activate", "v1.0.0")
        self.assertEqual(refused.returncode, 1)
        self.assertIn(f"v1.0.0 cannot be offered: {words}", refused.stderr)
        done = self.done("release", "activate", "v1.0.0", "--force")
        self.assertIn(words, done.stderr)
        self.assertIn("target, unreadable", self.done("release", "list").stdout)
        verified = self.run_command("release", "verify", "v1.0.0")
        self.assertEqual(verified.returncode, 1)
        image.chmod(0o644)
        with as_if_served(self.data_dir):
            self.assertEqual(self.done("release", "activate", "v1.0.0").stderr, "")
        self.assertNotIn("unreadable", self.done("release", "list").stdout)


class RefusedTest(WritingCase):
    """What is wished for and not needed is refused by the system."""

    COMMANDS = (
        ("release", "publish", "BUILD", "--version", "v1.0.0"),
        ("release", "activate", "v1.0.0"),
        ("group", "add", "beta", MAC),
        ("device", "label", MAC, "pump house"),
        ("pin", "beta", "v1.0.0"),
        ("hold", "--reason", "it reboots"),
        ("unhold",),
        ("retry", MAC),
        ("release", "withdraw", "v1.0.0"),
    )

    def run_all(self, refusal: str) -> None:
        commands = [
            [self.build() if word == "BUILD" else word for word in each] for each in self.COMMANDS
        ]
        code = (
            f"{REFUSE}{refusal}\nfrom ota_server.cli import main\n"
            f"sys.exit(sum(main(command) for command in {commands!r}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "OTA_SERVER_DATA": str(self.data_dir)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_commands_go_on_without_it(self):
        if os.geteuid() == 0:
            for path in (self.data_dir, *self.data_dir.iterdir()):
                os.chown(path, USER, USER)
        for name, refusal in REFUSALS.items():
            with self.subTest(name):
                for folder in ("version", "firmware", "log"):
                    shutil.rmtree(self.data_dir / folder)
                    (self.data_dir / folder).mkdir()
                self.run_all(refusal)
                self.assertEqual(len(self.audited()), len(self.COMMANDS))
                self.assertTrue((self.data_dir / "version" / "pins.json").exists())

    def test_the_server_goes_on_without_it(self):
        self.put_image("v1.0.1", IMAGE)
        self.set_target("v1.0.1")
        for name, refusal in REFUSALS.items():
            with self.subTest(name):
                code = f"{REFUSE}{refusal}\nfrom ota_server.server import main\nsys.exit(main())"
                server = self.serve(code)
                self.assertEqual(self.version_told(server), b"v1.0.1")
                code, log = server.end()
                self.assertEqual((code, "ERROR" in log), (0, False), log)

    def test_a_rollout_goes_on_without_it(self):
        for version in ("v1.0.0", "v2.0.0"):
            self.put_image(version, IMAGE + version.encode())
        if os.geteuid() == 0:
            for path in (self.data_dir, *self.data_dir.iterdir()):
                os.chown(path, USER, USER)
        how = ["--waves", "100", "--count-new", "--min-devices", "1"]
        for name in ("chown", "time stamps", "fsync of a folder"):
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                self.set_target("v1.0.0")
                # Python runs a file of this name first, so the server's controller has it too.
                (Path(folder) / "sitecustomize.py").write_text(f"{REFUSE}{REFUSALS[name]}\n")
                server = self.serve(PYTHONPATH=folder)
                self.assertEqual(self.version_told(server), b"v1.0.0")
                self.done("rollout", "start", "v2.0.0", *how)
                is_told = until(lambda server=server: self.version_told(server) == b"v2.0.0")
                self.done("rollout", "abort")
                self.assertTrue(is_told, server.end()[1])
                server.kill()
                for path in (self.data_dir / "version").glob("*.json"):
                    path.unlink()

    @as_root
    def test_root_without_the_right_to_give_files_away_holds_everything(self):
        for path in (self.data_dir, *self.data_dir.iterdir()):
            os.chown(path, USER, USER)
            path.chmod(0o777)
        for before in (
            ("setpriv", "--bounding-set=-chown"),
            ("unshare", "--user", "--map-root-user"),
        ):
            with self.subTest(before):
                if shutil.which(before[0]) is None:
                    self.skipTest(f"needs {before[0]}")
                self.done("hold", before=before)
                (self.data_dir / "version" / "hold.json").unlink()

    def test_a_disk_that_fails_is_said_with_the_file(self):
        words = f"{self.data_dir / 'log'}: Input/output error"
        self.assertIn(words, self.failed("hold", refusal=BAD_DISK))
        self.assertEqual(self.audited(), [])

    def test_a_file_system_without_locks_is_named(self):
        lock = self.data_dir / "version" / ".lock"
        words = f"{lock}: No locks available: its file system has no file locks"
        self.assertIn(words, self.failed("hold", refusal=NO_LOCKS))
        failing = self.failed("hold", refusal='refuse(fcntl, "flock", errno.EIO)')
        self.assertEqual(failing, f"ota-server: {lock}: Input/output error\n")
        code = f"{REFUSE}{NO_LOCKS}\nfrom ota_server.server import main\nsys.exit(main())"
        server = self.serve(code)
        returned, log = server.end()
        self.assertEqual(returned, 1)
        self.assertIn(f"{self.data_dir / 'log' / '.lock'}: No locks available", log)

    def test_what_cannot_be_read_is_not_taken_for_the_output(self):
        self.serve().end()
        refusal = 'refuse(os, "fstat", errno.EIO)'
        said = self.failed("devices", refusal=refusal)
        self.assertNotIn("the output", said)


class NotDoneTest(WritingCase):
    """A change that fails after its line in the audit log."""

    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.0", IMAGE)
        self.put_image("v2.0.0", IMAGE[1:])
        self.set_target("v1.0.0")

    def block(self, name: str) -> Path:
        """Let a file not be replaced, by a folder in the way of its new content."""
        path = self.data_dir / name
        blocking = path.with_name(f".{path.name}.new")
        blocking.mkdir()
        return blocking

    def test_it_is_followed_by_a_line_that_says_so(self):
        (self.data_dir / "version" / "groups").mkdir()
        for name, action, command in (
            ("version/pins.json", "pin", ("pin", MAC, "v1.0.0")),
            ("version/groups/beta.txt", "group add", ("group", "add", "beta", MAC)),
            ("version/labels.json", "label", ("device", "label", MAC, "pump house")),
            ("version/retries.json", "retry", ("retry", MAC)),
            ("version/version.txt", "activate", ("release", "activate", "v2.0.0")),
            ("version/stopped.json", "withdraw", ("release", "withdraw", "v2.0.0")),
            # Last: a hold adds a line below each table.
            ("version/hold.json", "hold", ("hold",)),
        ):
            with self.subTest(action):
                (self.data_dir / "log" / "audit.jsonl").unlink(missing_ok=True)
                blocking = self.block(name)
                self.assertIn(f"{blocking}: Is a directory", self.failed(*command))
                self.assertEqual(self.audited(), [action, "not done"])
                said = self.done("audit").stdout.splitlines()
                self.assertIn("not done", said[-2])
                self.assertEqual(said[-1], "0 changes in 2 lines")
                blocking.rmdir()
                self.done(*command)
                self.assertEqual(self.audited()[2:], [action])

    def test_a_rollout_that_does_not_begin_is_not_on_record_as_begun(self):
        how = ["--waves", "100", "--count-new", "--min-devices", "1"]
        blocking = self.block("version/rollout.json")
        server = self.serve()
        self.version_told(server)
        done = self.run_command("rollout", "start", "v2.0.0", *how)
        self.assertEqual(done.returncode, 1)
        self.assertIn("rollout.json", done.stderr)
        self.assertEqual(self.audited(), ["rollout start", "not done"])
        blocking.rmdir()

    def test_a_publication_that_fails_is_not_on_record_as_made(self):
        self.block("firmware/firmware_v3.0.0.json")
        self.failed("release", "publish", self.build(), "--version", "v3.0.0")
        self.assertEqual(self.audited(), ["publish", "not done"])


@as_root
class NoMoreFilesTest(WritingCase):
    """A disk on which no further file can be made, though there is room in those that are there."""

    def setUp(self) -> None:
        super().setUp()
        self.mount("nr_inodes=60")
        for version in ("v1.0.0", "v2.0.0"):
            self.put_image(version, IMAGE + version.encode())
        self.set_target("v1.0.0")
        plan = {"id": "1", "version": "v2.0.0", "group": "", "waves": [100]}
        plan |= {"time": "2026-11-24T12:00:00.000Z", "instead_of": "v1.0.0"}
        (self.data_dir / "version" / "rollout.json").write_text(json.dumps(plan))

    def fill(self) -> None:
        number = 0
        try:
            while True:
                (self.data_dir / f"x{number}").touch(exist_ok=False)
                number += 1
        except OSError:
            return

    def test_health_says_so(self):
        self.fill()
        done = self.run_command("health")
        self.assertIn("room for few more files (inodes): 0 of 60; delete some", done.stdout)

    def test_everything_can_be_held(self):
        server = self.serve()
        self.version_told(server)
        self.fill()
        self.done("hold", "--reason", "it reboots")
        self.assertEqual(self.version_told(server), b"v1.0.0")
        self.assertIn("it reboots", (self.data_dir / "version" / "hold.json").read_text())
        self.assertEqual(self.audited(), ["hold"])

    def test_everything_can_be_held_where_nothing_was_made_in_advance(self):
        # Unlike other file systems tmpfs counts a second name as a file.
        (self.data_dir / "version" / ".lock").touch()
        done = self.done("hold", "--reason", "it reboots", refusal=NO_NEW_FILE)
        self.assertIn("hold.json says neither why nor since when", done.stderr)
        self.assertEqual((self.data_dir / "version" / "hold.json").read_bytes(), b"")
        self.done("unhold")
        self.assertTrue((self.data_dir / "version" / ".lock").exists())

    def test_where_not_even_that_can_be_done_it_does_not_say_that_it_was(self):
        self.fill()
        self.assertIn("nothing is on hold; stop the server, or make room", self.failed("hold"))

    def test_what_stops_a_release_works_all_the_same(self):
        self.serve().end()
        self.fill()
        self.done("rollout", "pause")
        self.done("rollout", "abort")
        self.done("release", "withdraw", "v2.0.0")
        self.done("hold")
        stopped = json.loads((self.data_dir / "version" / "stopped.json").read_bytes())
        self.assertEqual(stopped["v2.0.0"]["state"], "withdrawn")
        self.assertIn('"abort"', (self.data_dir / "version" / "rollout.json").read_text())
        actions = ["rollout pause", "rollout abort", "withdraw", "hold"]
        self.assertEqual(self.audited(), actions)

    def test_other_changes_say_what_is_full_and_are_not_on_record_as_made(self):
        self.serve().end()
        self.fill()
        for name, action, command in (
            ("pins.json", "pin", ("pin", MAC, "v1.0.0")),
            ("groups", "group add", ("group", "add", "beta", MAC)),
            ("labels.json", "label", ("device", "label", MAC, "pump house")),
            ("version.txt", "activate", ("release", "activate", "--force", "v2.0.0")),
        ):
            with self.subTest(action):
                before = len(self.audited())
                said = self.failed(*command)
                self.assertIn(f"{self.data_dir / 'version' / name}: No space left", said)
                self.assertIn("no room for one more file: delete some. `hold` still works", said)
                self.assertEqual(self.audited()[before:], [action, "not done"])


@as_root
class SmallDiskTest(WritingCase):
    def test_a_release_is_published_on_a_disk_smaller_than_what_a_large_one_keeps_free(self):
        self.mount("size=48m")
        self.done("release", "publish", self.build(), "--version", "v1.0.0")

    def test_a_disk_of_which_nothing_is_known_is_not_taken_for_a_full_one(self):
        # As FUSE answers for a file system that does not say.
        unknown = "os.statvfs = lambda path: os.statvfs_result((512, 0, 0, 0, 0, 0, 0, 0, 0, 255))"
        how = ["--version", "v1.0.0"]
        self.done("release", "publish", self.build(), *how, refusal=unknown)
        self.assertNotIn("disk", self.run_command("health", refusal=unknown).stdout)

    def test_a_disk_that_would_be_full_takes_it_by_force(self):
        self.mount("size=1m")
        with (self.data_dir / "filler").open("wb") as file:
            file.write(bytes(900_000))
        source = self.build()
        how = ["release", "publish", source, "--version", "v1.0.0"]
        self.assertIn("the disk would fill up", self.failed(*how))
        self.done(*how, "--force")

    def test_a_disk_that_is_full_while_the_image_is_copied_is_said_with_the_file(self):
        self.mount("size=1m")
        with (self.data_dir / "filler").open("wb") as file:
            file.write(bytes(700_000))
        source = self.build(bytes(300_000))
        said = self.failed("release", "publish", source, "--version", "v1.0.0", "--force")
        self.assertIn("firmware/.firmware_v1.0.0.bin", said)
        self.assertEqual([*(self.data_dir / "firmware").iterdir()], [])
