"""`backup` and `restore`: a consistent copy of a running server, and back, or nothing at all."""

import errno
import fcntl
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from ota_server.cli import main
from tests.support import ROOT, Client, DataDirCase, Process
from tests.support.fleet import NEW, OLD, Fleet, RolloutCase, read_progress, start_server


class BackupCase(DataDirCase):
    """A data directory with two releases, a group, a pin and a label, and a place for backups."""

    def setUp(self) -> None:
        super().setUp()
        for version in (OLD, NEW):
            image = self.data_dir / f"{version}.image"
            image.write_bytes(version.encode() * 10_000)
            self.run_well("release", "publish", str(image), "--version", version)
            image.unlink()
        self.run_well("release", "activate", OLD)
        self.run_well("group", "add", "lab", "02:00:00:00:00:01")
        self.run_well("pin", "lab", NEW)
        self.run_well("device", "label", "02:00:00:00:00:02", "the attic")
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.backup = self.folder / "ota.tar"
        self.restored = self.folder / "restored"

    def run_command(self, *arguments: str, data_dir: Path | None = None) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed."""
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            code = main([*arguments, "--data-dir", str(data_dir or self.data_dir)])
        return code, printed.getvalue()

    def run_well(self, *arguments: str, data_dir: Path | None = None) -> str:
        code, output = self.run_command(*arguments, data_dir=data_dir)
        self.assertEqual(code, 0, output)
        return output

    def files(self, data_dir: Path) -> dict[str, bytes]:
        """Return all files of a data directory that say something, but for that it was restored."""
        paths = [p for name in ("version", "firmware", "log") for p in (data_dir / name).rglob("*")]
        found = {str(p.relative_to(data_dir)): p.read_bytes() for p in paths if p.is_file()}
        lines = found.get("log/audit.jsonl", b"").splitlines(keepends=True)
        if lines and json.loads(lines[-1])["action"] == "restore":
            found["log/audit.jsonl"] = b"".join(lines[:-1])
        return {name: found[name] for name in found if "/." not in name}

    def serve(self, data_dir: Path, *arguments: str) -> Process:
        return start_server(self, data_dir, *arguments)


class BackupTest(BackupCase):
    def test_all_comes_back_as_it_was(self):
        server = self.serve(self.data_dir)
        Fleet(5).ask(server.port, fetches=False)
        server.end()
        self.run_well("backup", str(self.backup))
        self.run_well("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual(self.files(self.restored), self.files(self.data_dir))
        entry = json.loads((self.restored / "log" / "audit.jsonl").read_bytes().splitlines()[-1])
        self.assertEqual((entry["action"], entry["what"]), ("restore", "ota.tar"))
        self.assertEqual(self.backup.stat().st_mode & 0o777, 0o600)
        for shown in (("devices", "--json"), ("release", "list", "--json"), ("release", "verify")):
            before, after = self.run_well(*shown), self.run_well(*shown, data_dir=self.restored)
            self.assertEqual(after, before)

    def test_tokens_come_back_and_nobody_is_signed_in(self):
        self.assertNotIn("token list", self.restore_to("first"))
        self.run_well("token", "create", "anna")
        self.run_well("token", "login", "anna")
        said = self.restore_to("restored")
        self.assertIn("tokens of the backup are valid, also those revoked since; see `", said)
        tokens = self.restored / "version" / "tokens.json"
        self.assertEqual(tokens.stat().st_mode & 0o777, 0o600)
        listed = [self.run_well("token", "list", data_dir=each) for each in (None, self.restored)]
        self.assertEqual(listed[0], listed[1])
        self.assertTrue((self.data_dir / "log" / "sessions.json").exists())
        self.assertFalse((self.restored / "log" / "sessions.json").exists())

    def restore_to(self, name: str) -> str:
        """Restore a new backup into a folder; return what was said."""
        self.run_well("backup", str(self.backup))
        return self.run_well("restore", str(self.backup), data_dir=self.folder / name)

    def test_while_devices_ask_and_the_journal_rotates_every_whole_record_is_in_it(self):
        server = self.serve(self.data_dir, "--journal-rotate", "1", "--journal-files", "50")
        devices, is_over = Fleet(20), threading.Event()
        devices.ask(server.port, fetches=False)  # all are on record before the first backup

        def ask() -> None:
            with Client(server.port) as client:
                while not is_over.is_set():
                    for mac in devices.versions:
                        client.request("/version.txt", {"_br_mac_": mac, "_br_fwv_": OLD})
                        client.answer()

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for number in range(5):
                self.run_well("backup", str(self.backup))
                target = self.folder / f"restored{number}"
                self.run_well("restore", str(self.backup), data_dir=target)
                for path in (target / "log").glob("devices*.jsonl"):
                    content = path.read_bytes()
                    self.assertEqual(content[-1:], b"\n"[: len(content)])
                    for line in content.splitlines():
                        json.loads(line)
                macs = {row["mac"] for row in map(json.loads, self.devices_of(target))}
                self.assertEqual(macs, {*devices.versions})
        finally:
            is_over.set()
            asking.join()
        self.assertEqual(server.end()[0], 0)

    def devices_of(self, data_dir: Path) -> list[str]:
        return self.run_well("devices", "--json", data_dir=data_dir).splitlines()

    def test_a_server_on_the_restored_directory_tells_devices_the_same(self):
        self.run_well("backup", str(self.backup))
        self.run_well("restore", str(self.backup), data_dir=self.restored)
        server = self.serve(self.restored)
        with Client(server.port) as client:
            for mac, version in (("02:00:00:00:00:01", NEW), ("02:00:00:00:00:02", OLD)):
                client.request("/version.txt", {"_br_mac_": mac, "_br_fwv_": "v0"})
                self.assertEqual(client.answer().body.decode().strip(), version)

    def test_a_backup_that_fails_leaves_the_one_before(self):
        self.run_well("backup", str(self.backup))
        before = self.backup.read_bytes()
        code, output = self.run_command("backup", str(self.backup), data_dir=self.folder / "none")
        self.assertEqual(code, 1, output)
        code, output = self.run_command("backup", str(self.folder / "none" / "ota.tar"))
        self.assertEqual(code, 1)
        self.assertIn("none", output)
        self.assertEqual(self.backup.read_bytes(), before)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["ota.tar"])

    def test_what_is_not_ours_or_of_a_process_stays_out(self):
        (self.data_dir / "version" / ".secret").write_text("x")
        (self.data_dir / "log" / "admission.json").write_text("{}")
        (self.data_dir / "log" / "rollout.checkpoint").write_text("x")
        for end in ("", "-wal", "-shm"):
            (self.data_dir / "log" / f"index.sqlite{end}").write_text("x")
        os.mkfifo(self.data_dir / "firmware" / "pipe")
        self.run_well("backup", str(self.backup))
        with tarfile.open(self.backup) as tar:
            names = tar.getnames()
        self.assertEqual(names[-1], "backup.json")
        self.assertFalse([name for name in names if name.rpartition("/")[2][0] == "."])
        for name in (
            *("log/admission.json", "log/rollout.checkpoint", "firmware/pipe"),
            *("log/index.sqlite", "log/index.sqlite-wal", "log/index.sqlite-shm"),
        ):
            self.assertNotIn(name, names)
        self.assertIn("version/groups/lab.txt", names)

    def test_what_is_no_file_is_left_out_with_a_warning(self):
        folder = self.data_dir / "version"
        for make in (
            lambda path: os.mkfifo(path),
            lambda path: path.mkdir(),
            lambda path: path.symlink_to("nowhere"),
            lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
        ):
            path = folder / "pins.json"
            path.unlink()
            make(path)
            output = self.run_well("backup", str(self.backup))
            self.assertIn(f"left out: {path} is not a regular file", output)
            path.rmdir() if path.is_dir() else path.unlink()
            path.touch()

    def test_it_needs_no_open_file_for_each_group(self):
        groups = self.data_dir / "version" / "groups"
        for number in range(150):
            (groups / f"g{number}.txt").write_text("02:00:00:00:00:01\n")
        command = f"ulimit -n 64; exec {sys.executable} -m ota_server backup {self.backup}"
        command += f" --data-dir {self.data_dir}"
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.run_well("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual(self.files(self.restored), self.files(self.data_dir))

    def test_a_backup_goes_to_standard_output(self):
        command = [sys.executable, "-m", "ota_server", "backup", "-", "--data-dir", self.data_dir]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        self.assertRegex(done.stderr, rb"^standard output: \d+ files, [0-9,]+ bytes\n$")
        self.backup.write_bytes(done.stdout)
        self.run_well("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual((self.restored / "version" / "version.txt").read_text().strip(), OLD)
        self.assertFalse((ROOT / "-").exists())

    def test_a_backup_to_standard_output_that_fails_is_said_to(self):
        command = f"{sys.executable} -m ota_server backup - --data-dir {self.data_dir} > /dev/full"
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("standard output", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_a_link_that_leads_out_is_not_followed(self):
        secret = self.folder / "secret"
        secret.write_bytes(b"what only root may read")
        (self.data_dir / "firmware" / "firmware_v9.bin").symlink_to(secret)
        output = self.run_well("backup", str(self.backup))
        self.assertIn("left out: ", output)
        self.assertIn("firmware_v9.bin is a link that leads out of its folder", output)
        self.assertNotIn(secret.read_bytes(), self.backup.read_bytes())
        before = self.backup.read_bytes()
        for name in (
            "version/pins.txt",
            "version/groups/x.txt",
            "log/x",
            "log/devices.000001.jsonl",
        ):
            path = self.data_dir / name
            path.parent.mkdir(exist_ok=True)
            path.symlink_to(secret)
            with self.subTest(name):
                code, output = self.run_command("backup", str(self.backup))
                self.assertEqual((code, "leads out" in output), (1, True), output)
                self.assertEqual(self.backup.read_bytes(), before)
            path.unlink()

    def test_a_link_within_its_folder_is_followed(self):
        images = self.data_dir / "firmware"
        (images / "sub").mkdir()
        (images / "sub" / "image").write_bytes(b"the image")
        (images / "firmware_v9.bin").symlink_to("sub/image")
        self.run_well("backup", str(self.backup))
        with tarfile.open(self.backup) as tar:
            file = tar.extractfile("firmware/firmware_v9.bin")
            self.assertEqual(file and file.read(), b"the image")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_root_follows_no_folder_to_files_of_another_user(self):
        os.chown(self.data_dir, 1500, 1500)
        (self.folder / "secret.jsonl").write_bytes(b"x")
        shutil.rmtree(self.data_dir / "firmware")
        (self.data_dir / "firmware").symlink_to(self.folder)
        code, output = self.run_command("backup", str(self.backup))
        self.assertEqual((code, "of another user" in output), (1, True), output)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_root_copies_no_second_name_of_a_file_of_another_user(self):
        secret = self.data_dir / "secret"
        secret.write_bytes(b"what only root may read")
        os.link(secret, self.data_dir / "firmware" / "firmware_v9.bin")
        os.chown(self.data_dir / "firmware", 1500, 1500)
        self.assertIn("left out: ", self.run_well("backup", str(self.backup)))
        self.assertNotIn(secret.read_bytes(), self.backup.read_bytes())

    def test_of_two_backups_at_once_each_is_whole(self):
        is_first = [True]

        def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
            if is_first.pop() if is_first else False:
                self.run_well("backup", str(self.backup))  # another one, in the midst of this
                self.run_well("restore", str(self.backup), data_dir=self.folder / "first")
            real(descriptor)

        with mock.patch("os.fsync", fsync):
            self.run_well("backup", str(self.backup))
        self.run_well("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual(
            sorted(path.name for path in self.folder.iterdir()), ["first", "ota.tar", "restored"]
        )

    def test_what_a_killed_backup_left_is_removed_by_the_next(self):
        code = (
            "import os; os.fsync = lambda _: os.kill(os.getpid(), 9); "
            "from ota_server.cli import main; main()"
        )
        arguments = ("backup", str(self.backup), "--data-dir", str(self.data_dir))
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=False)
        self.assertEqual(done.returncode, -9)
        self.assertEqual(len([*self.folder.iterdir()]), 1)
        self.run_well("backup", str(self.backup))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["ota.tar"])

    def test_an_error_of_writing_names_the_backup(self):
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch("os.fsync", side_effect=full):
            code, output = self.run_command("backup", str(self.backup))
        self.assertEqual(code, 1)
        self.assertIn(f"{self.backup}: No space left", output)
        self.assertEqual([*self.folder.iterdir()], [])

    def test_a_place_that_cannot_be_is_refused(self):
        (self.folder / "link").symlink_to(self.data_dir)
        os.mkfifo(self.folder / "pipe")
        for path, text in (
            (self.data_dir / "ota.tar", "in the data directory itself"),
            (self.data_dir / "firmware" / "ota.tar", "in the data directory itself"),
            (self.folder / "link" / "ota.tar", "in the data directory itself"),
            (self.folder / "none" / "ota.tar", f"there is no folder {self.folder / 'none'}"),
            (self.folder, "is not a regular file"),
            (self.folder / "pipe", "is not a regular file"),
        ):
            with self.subTest(path):
                code, output = self.run_command("backup", str(path))
                self.assertEqual((code, text in output), (1, True), output)
        self.assertTrue((self.folder / "pipe").is_fifo())


class RestoreTest(BackupCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_well("backup", str(self.backup))

    def refuse(self, text: str, data_dir: Path | None = None) -> None:
        """Fail unless a restore is refused, and writes nothing."""
        before = self.files(data_dir or self.restored)
        code, output = self.run_command(
            "restore", str(self.backup), data_dir=data_dir or self.restored
        )
        self.assertEqual(code, 1, output)
        self.assertIn(text, output)
        self.assertNotIn("Traceback", output)
        self.assertEqual(self.files(data_dir or self.restored), before)

    def test_a_data_directory_that_is_no_folder_is_refused(self):
        for make in (lambda path: path.symlink_to("nowhere"), lambda path: path.touch()):
            make(self.restored)
            code, output = self.run_command("restore", str(self.backup), data_dir=self.restored)
            self.assertEqual(
                (code, f"{self.restored} is not a folder" in output), (1, True), output
            )
            self.restored.unlink()

    def test_nothing_is_overwritten(self):
        self.refuse("is not empty", self.data_dir)
        (self.restored / "firmware").mkdir(parents=True)
        (self.restored / "firmware" / "firmware_v9.bin").write_bytes(b"x")
        self.refuse("restored is not empty")

    def test_empty_folders_are_no_obstacle(self):
        for name in ("version/groups", "firmware", "log"):
            (self.restored / name).mkdir(parents=True)
        self.run_well("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual(self.files(self.restored), self.files(self.data_dir))

    def test_a_damaged_or_cut_backup_is_found_before_anything_is_written(self):
        whole = self.backup.read_bytes()
        at = whole.index(b"v1.0.0v1.0.0v1.0.0")
        for content in (
            b"",
            b"not a tar",
            whole[: len(whole) // 2],
            whole[: whole.rindex(b"backup.json")],
            whole[:at] + b"X" + whole[at + 1 :],
            whole.replace(b"the attic", b"the cellar"[:9]),
        ):
            self.backup.write_bytes(content)
            with self.subTest(content[:20]):
                self.refuse("")
                self.assertFalse(self.restored.exists())

    def test_a_file_that_would_land_elsewhere_is_refused(self):
        for name, kind in (
            ("../evil", tarfile.REGTYPE),
            ("/etc/evil", tarfile.REGTYPE),
            ("version/../../evil", tarfile.REGTYPE),
            ("log/.lock", tarfile.REGTYPE),
            ("version/version.txt", tarfile.SYMTYPE),
            ("log/x", tarfile.FIFOTYPE),
            ("log/x", tarfile.GNUTYPE_SPARSE),
            ("log/admission.json", tarfile.REGTYPE),
            ("version/groups", tarfile.REGTYPE),
            ("firmware/a\x1b[2Jb", tarfile.REGTYPE),
            ("firmware/a\nb", tarfile.REGTYPE),
            ("other/x", tarfile.REGTYPE),
        ):
            with tarfile.open(self.backup, "w") as tar:
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = kind, "/etc/passwd", 0
                tar.addfile(member, io.BytesIO())
            with self.subTest(name):
                self.refuse("does not belong")
                self.assertFalse(self.restored.exists())

    def test_a_directory_with_a_running_server_is_refused(self):
        self.serve(self.restored)
        code, output = self.run_command("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual((code, "a server runs on" in output), (1, True), output)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_root_gives_away_only_what_it_made_though_the_owner_moves_it(self):
        victim = self.folder / "victim"
        for name in ("version", "firmware", "log"):
            (victim / name).mkdir(parents=True)
        self.restored.mkdir()
        os.chown(self.restored, 1500, 1500)
        moved: list[Path] = []

        def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
            if not moved and (found := [*self.restored.glob(".restoring-*")]):
                moved.extend(found)
                found[0].rename(self.restored / "moved")
                found[0].symlink_to(victim)
            real(descriptor)

        with mock.patch("os.fsync", fsync):
            self.run_command("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual(len(moved), 1)
        for path in (victim, *victim.rglob("*")):
            self.assertEqual(path.stat().st_uid, 0, path)
        self.assertEqual(len([*victim.rglob("*")]), 3)
        self.assertEqual(self.files(self.restored), self.files(self.data_dir))
        for name in ("version", "firmware", "log"):
            for path in (self.restored / name, *(self.restored / name).rglob("*")):
                self.assertEqual(path.stat().st_uid, 1500, path)
                self.assertEqual(path.stat().st_mode & 0o777, 0o755 if path.is_dir() else 0o644)

    def test_what_the_system_refuses_is_done_without(self):
        refused = OSError(errno.EPERM, "Operation not permitted")
        for name in ("os.utime", "os.chmod", "os.chown"):
            target = self.folder / name
            with self.subTest(name), mock.patch(name, side_effect=refused):
                self.run_well("restore", str(self.backup), data_dir=target)
                self.assertEqual(self.files(target), self.files(self.data_dir))

    def test_times_that_mean_nothing_are_ignored(self):
        for number, time_text in enumerate(("inf", "nan", "1e300", "-1e300", "-5", "1e11")):
            with self.subTest(time_text):
                with tarfile.open(self.backup) as old:
                    found = [(m, old.extractfile(m)) for m in old]
                    changed = self.folder / f"{number}.tar"
                    with tarfile.open(changed, "w", format=tarfile.PAX_FORMAT) as new:
                        for member, content in found:
                            member.mtime, member.pax_headers = 0, {"mtime": time_text}
                            new.addfile(member, content)
                target = self.folder / str(number)
                self.run_well("restore", str(changed), data_dir=target)
                age = time.time() - (target / "version" / "version.txt").stat().st_mtime
                self.assertLess(abs(age), 60)

    def kill(self, code: str) -> None:
        """Restore in a process that kills itself."""
        code = f"import os; {code}; from ota_server.cli import main; main()"
        arguments = ("restore", str(self.backup), "--data-dir", str(self.restored))
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=False)
        self.assertEqual(done.returncode, -9)

    def test_what_a_killed_restore_left_is_removed_by_the_next(self):
        self.kill("os.utime = lambda *_: os.kill(os.getpid(), 9)")
        self.assertEqual(len([*self.restored.glob(".restoring-*")]), 1)
        self.run_well("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual(self.files(self.restored), self.files(self.data_dir))
        self.assertEqual([*self.restored.glob(".restoring-*")], [])

    def test_a_half_restore_says_what_to_delete_and_then_goes_through(self):
        self.kill(
            "real = os.rename; os.rename = lambda name, *a, **k: "
            "os.kill(os.getpid(), 9) if name == 'version' else real(name, *a, **k)"
        )
        self.assertTrue(any((self.restored / "log").iterdir()))
        self.refuse("was interrupted halfway; delete products/, log/, firmware/ and .restoring-")
        for path in self.restored.iterdir():
            if path.name != "version":
                shutil.rmtree(path)
        self.run_well("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual(self.files(self.restored), self.files(self.data_dir))

    def test_no_half_of_it_stays_after_an_error_or_an_interrupt(self):
        for problem in (OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()):

            def rename(
                name: str,
                *arguments: str,
                problem: BaseException = problem,
                real: Callable[..., None] = os.rename,
                **folders: int,
            ) -> None:
                if name == "version" and not (self.restored / "version").exists():
                    raise problem
                real(name, *arguments, **folders)

            with self.subTest(repr(problem)), mock.patch("os.rename", rename):
                code, output = self.run_command("restore", str(self.backup), data_dir=self.restored)
                self.assertNotEqual(code, 0, output)
                self.assertEqual([*self.restored.iterdir()], [])

    def test_locks_and_spare_files_are_nothing(self):
        for name in ("version/.lock", "version/.spare_1", "log/.lock", "log/.controller.lock"):
            (self.restored / name).parent.mkdir(parents=True, exist_ok=True)
            (self.restored / name).write_bytes(b" ")
        output = self.run_well("restore", str(self.backup), data_dir=self.restored)
        self.assertEqual(self.files(self.restored), self.files(self.data_dir))
        self.assertIn(f" serve --data-dir {self.restored}`", output)

    def test_a_pipe_in_the_place_of_a_lock_is_not_waited_for(self):
        (self.restored / "log").mkdir(parents=True)
        os.mkfifo(self.restored / "log" / ".lock")
        self.refuse("is not empty")

    def test_one_restore_at_a_time(self):
        self.restored.mkdir()
        descriptor = os.open(self.restored, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.refuse("another restore into")

    def test_a_folder_that_is_a_link_is_not_replaced(self):
        self.restored.mkdir()
        (self.restored / "firmware").symlink_to(self.folder)
        self.refuse("firmware is a link")


class RestoredRolloutTest(RolloutCase):
    def test_a_rollout_goes_on_where_its_data_directory_was_restored(self):
        server = self.serve()
        self.roll_out(waves=(20.0, 100.0), soak_seconds=1.0)
        self.ask_until(server, lambda: len(self.devices.holders) > 3)
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        backup, restored = str(folder / "ota.tar"), folder / "restored"
        with redirect_stdout(io.StringIO()):
            self.assertEqual(main(["backup", backup, "--data-dir", str(self.data_dir)]), 0)
            server.end()
            self.assertEqual(main(["restore", backup, "--data-dir", str(restored)]), 0)
        self.assertEqual(read_progress(restored)["state"], "running")
        server = start_server(self, restored)
        self.ask_until(server, lambda: read_progress(restored).get("state") == "done")
        self.assertEqual({*self.devices.versions.values()}, {NEW})
