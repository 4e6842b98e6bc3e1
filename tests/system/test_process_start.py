"""What a process inherits from whoever started it: each door sets it right, whatever that is."""

import array
import fcntl
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import termios
import unittest

from tests.support import DEVICE, ROOT, TIMEOUT_SECONDS, Client, DataDirCase, Process, until

# Does something and becomes what `sys.argv` names, which inherits the consequences.
BECOME = """\
import os, resource, signal, sys
{}
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
BECOME_SERVER = BECOME.replace("executable, *", "executable, '-m', 'ota_server.server', *")
# Sends itself a signal at the first import that takes long.
AT_AN_IMPORT = """\
import os, runpy, sys
class AtAnImport:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "argparse":
            sys.meta_path.remove(AtAnImport)
            os.kill(os.getpid(), {signum})
sys.meta_path.insert(0, AtAnImport)
sys.modules.pop("argparse", None)
runpy.run_module("{module}", run_name="__main__", alter_sys=True)
"""
COMMANDS = (
    ("devices",),
    ("devices", "--json"),
    ("audit",),
    ("release", "list"),
    ("hold",),
    ("--help",),
    ("nonsense",),
)


class InheritCase(DataDirCase):
    """Processes that inherit something from a Python that does something first."""

    def command(
        self, inherited: str, *arguments: str, shell: str = 'exec "$@"', **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the data directory after some code, from a shell that may redirect."""
        become = [sys.executable, "-c", BECOME.format(inherited), "-m", "ota_server", *arguments]
        return subprocess.run(
            ["sh", "-c", shell, "sh", *become],
            cwd=ROOT,
            env={**os.environ, "OTA_SERVER_DATA": str(self.data_dir), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )

    def serve(self, inherited: str, *arguments: str, **options: object) -> Process:
        """Start a server after some code; it ends with the test."""
        code = BECOME_SERVER.format(inherited)
        server = Process("--data-dir", str(self.data_dir), *arguments, code=code, **options)
        self.addCleanup(server.kill)
        return server


class SignalTest(InheritCase):
    def at_an_import(self, module: str, signum: int, *arguments: str) -> tuple[int, str]:
        """Return how a program ends that gets a signal while it loads, and what it says."""
        code = AT_AN_IMPORT.format(module=module, signum=int(signum))
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            env={**os.environ, "OTA_SERVER_DATA": str(self.data_dir)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        return done.returncode, done.stderr

    def test_a_signal_to_end_while_a_server_loads_is_a_quiet_end(self):
        for module, arguments in (("ota_server.server", ()), ("ota_server", ("serve",))):
            for signum in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(module=module, signum=signum):
                    ended = self.at_an_import(module, signum, *arguments, "--port", "0")
                    self.assertEqual(ended, (0, ""))

    def test_sighup_while_a_server_loads_does_not_end_it(self):
        code = AT_AN_IMPORT.format(module="ota_server.server", signum=int(signal.SIGHUP))
        server = Process("--data-dir", str(self.data_dir), code=code)
        self.addCleanup(server.kill)
        self.assertGreater(server.port, 0)
        self.assertEqual(server.end()[0], 0)

    def test_ctrl_c_while_a_command_loads_is_no_traceback(self):
        self.assertEqual(
            self.at_an_import("ota_server", signal.SIGINT, "devices"), (-signal.SIGINT, "")
        )

    def test_ctrl_c_and_a_hangup_while_the_controller_loads_are_not_for_it(self):
        for signum in (signal.SIGINT, signal.SIGHUP):
            with self.subTest(signum=signum):
                # Its standard input is closed, so it has nothing to do and ends.
                self.assertEqual(self.at_an_import("ota_server.controller", signum), (0, ""))

    def test_a_server_that_inherits_blocked_signals_ends_by_them(self):
        for signum in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signum=signum):
                server = self.serve(
                    "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
                )
                self.assertEqual(server.end(signum)[0], 0)

    def test_a_command_that_inherits_a_blocked_sigterm_ends_by_it(self):
        inherited = (
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
            "os.kill(os.getpid(), signal.SIGTERM)"
        )
        self.assertEqual(self.command(inherited, "hold").returncode, -signal.SIGTERM)

    def test_a_command_that_inherits_an_ignored_sigint_goes_on(self):
        # A shell without job control starts what ends in `&` so.
        inherited = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
        code = BECOME.format(inherited)
        lock = os.open(self.data_dir / "version" / ".lock", os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-c", code, "-m", "ota_server", "hold"]
        command += ["--data-dir", str(self.data_dir)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            self.assertTrue(until(lambda: is_open(process.pid, ".lock")))
            process.send_signal(signal.SIGINT)  # the kernel drops what is ignored, at once
            fcntl.flock(lock, fcntl.LOCK_UN)
            self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)


def is_open(pid: int, name: str) -> bool:
    """Return whether a process has a file of that name open."""
    folder = f"/proc/{pid}/fd"
    try:
        links = [os.readlink(f"{folder}/{each}") for each in os.listdir(folder)]
    except OSError:
        return not os.path.isdir("/proc/self/fd")
    return any(os.path.basename(link) == name for link in links)


class StreamTest(InheritCase):
    def test_a_command_without_standard_streams_does_what_it_does_with_them(self):
        for arguments in COMMANDS:
            whole = self.command("", *arguments)
            for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
                with self.subTest(arguments=arguments, closed=closed):
                    done = self.command("", *arguments, shell=f'exec "$@" {closed}')
                    self.assertEqual(done.returncode, whole.returncode, done.stderr)
                    self.assertNotIn(b"Traceback", done.stderr)
                    if "2>" not in closed:
                        self.assertEqual(done.stderr, whole.stderr)

    def test_a_child_of_a_server_without_standard_error_has_one(self):
        code = (
            "import os, subprocess, sys\nfrom ota_server.system import process_start\n"
            "process_start.begin()\n"
            "sys.exit(subprocess.call([sys.executable, '-c', 'import os; os.fstat(2)']))"
        )
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
        self.assertEqual(subprocess.run(command, cwd=ROOT).returncode, 0)

    def test_all_is_printed_to_a_pipe_that_does_not_wait(self):
        # Another program that has the same pipe may have made it so.
        devices = 2000
        journal = self.data_dir / "log" / "devices.jsonl"
        journal.write_text("".join(map(line_of, range(devices))))
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        nearly_full = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) - 8192
        command = [sys.executable, "-m", "ota_server", "devices", "--json"]
        command += ["--data-dir", str(self.data_dir)]
        with subprocess.Popen(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE) as process:
            os.close(writer)
            full = array.array("i", [0])

            def is_full_or_over() -> bool:
                fcntl.ioctl(reader, termios.FIONREAD, full)
                return full[0] > nearly_full or process.poll() is not None

            self.assertTrue(until(is_full_or_over))
            with open(reader, "rb") as file:
                lines = file.read().splitlines()
            self.assertEqual((process.wait(TIMEOUT_SECONDS), process.stderr.read()), (0, b""))
        self.assertEqual(len(lines), devices)

    def test_a_path_that_the_encoding_does_not_have_is_printed_in_another_way(self):
        folder = os.fsencode(self.data_dir) + b"/data \xff \xc3\xa9"
        for encoding in ("ascii", "utf-8"):
            with self.subTest(encoding=encoding):
                server = Process(
                    *("--data-dir", os.fsdecode(folder)),
                    env={"PYTHONIOENCODING": f"{encoding}:strict"},
                )
                self.addCleanup(server.kill)
                self.assertIn("data \\udcff ", server.banner)
                code, log = server.end()
                self.assertEqual(code, 0, log)
                self.assertNotIn("Traceback", log)
                done = self.command(
                    "",
                    *("devices", "--data-dir", os.fsdecode(folder) + "/nothing"),
                    PYTHONIOENCODING=f"{encoding}:strict",
                )
                self.assertEqual(done.returncode, 1)
                self.assertNotIn(b"Traceback", done.stderr)

    def test_a_path_that_is_not_utf_8_does_not_end_the_log_of_the_server(self):
        folder = os.fsencode(self.data_dir) + b"/\xff"
        os.makedirs(folder + b"/version")
        with open(folder + b"/version/version.txt", "w") as file:
            file.write("v 9")
        server = Process("--data-dir", os.fsdecode(folder))
        self.addCleanup(server.kill)
        code, log = server.end()
        self.assertEqual(code, 0)
        self.assertIn("\\udcff/version/version.txt", log)
        self.assertIn("all records are written", log)


def line_of(number: int) -> str:
    """Return the line of a device."""
    time_text = "2026-01-01T00:00:00.000Z"
    fields = {
        "event": "check",
        "time": time_text,
        "mac": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
    }
    fields |= {"firmware_version": "v1", "target_version": "v1", "address": "192.0.2.1"}
    fields |= {"last_seen_time": time_text, "update_time": None, "first_seen_time": time_text}
    return json.dumps(fields) + "\n"


class MaskTest(InheritCase):
    def test_what_a_server_makes_its_owner_may_read_and_write(self):
        for umask in (0o777, 0o027):
            with self.subTest(umask=oct(umask)):
                shutil.rmtree(self.data_dir / "log")
                self.assertEqual(self.serve(f"os.umask({umask})").end()[0], 0)
                for path, mode in (("log", 0o700), ("log/devices.jsonl", 0o600)):
                    found = stat.S_IMODE((self.data_dir / path).stat().st_mode)
                    self.assertEqual((oct(found & 0o700), found & 0o022), (oct(mode), 0), path)


class FolderTest(InheritCase):
    def test_a_working_directory_that_was_deleted_matters_to_no_command(self):
        inherited = (
            f"sys.path[:0] = ['{ROOT}']; os.environ['PYTHONPATH'] = '{ROOT}'\n"
            "import tempfile; folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder)"
        )
        for arguments in COMMANDS[:5]:
            with self.subTest(arguments):
                done = self.command(inherited, *arguments)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn(b"Traceback", done.stderr)


class ZoneTest(InheritCase):
    def test_a_window_in_a_time_zone_that_the_system_does_not_know_is_refused(self):
        window = ("--window", "01:00-05:00")
        for zone in ("Europe/Berlln", ":Nowhere", "/no/such/file"):
            with self.subTest(zone):
                code, log = self.serve(f"os.environ['TZ'] = {zone!r}", *window).end()
                self.assertEqual(code, 2)
                (line,) = log.splitlines()
                self.assertIn("give --window-zone", line)
        for zone in ("", "UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "<+03>-3"):
            with self.subTest(zone):
                server = self.serve(f"os.environ['TZ'] = {zone!r}", *window)
                self.assertEqual(server.end()[0], 0)
        server = self.serve("os.environ['TZ'] = 'Nowhere'", *window, "--window-zone", "UTC")
        self.assertEqual(server.end()[0], 0)


class LimitTest(InheritCase):
    def limited(self, name: str, limit: int, *arguments: str) -> Process:
        inherited = f"resource.setrlimit(resource.RLIMIT_{name}, ({limit}, {limit}))"
        return self.serve(inherited, *arguments)

    def test_with_few_descriptors_several_devices_are_served_and_it_is_said(self):
        self.set_target("v1.0.1")
        for limit in (64, 129):
            with self.subTest(limit=limit):
                server = self.limited("NOFILE", limit)
                clients = [Client(server.port) for _ in range(limit // 2)]
                for client in clients:
                    self.addCleanup(client.sock.close)
                    client.request("/version.txt")
                self.assertEqual({client.answer().status for client in clients}, {200})
                with Client(server.port) as another:
                    another.request("/version.txt")
                    self.assertEqual(another.answer().status, 503)
                code, log = server.end()
                self.assertEqual(code, 0)
                (warning,) = (line for line in log.splitlines() if "limit of open files" in line)
                self.assertIn(f"WARNING only {limit // 2} connections at once", warning)
                self.assertIn(f"is {limit};", warning)

    def test_enough_descriptors_are_not_worth_a_word(self):
        self.assertNotIn("open files", self.limited("NOFILE", 1024).end()[1])

    def test_too_few_descriptors_are_one_line_and_exit_code_1(self):
        server = self.limited("NOFILE", 32)
        code, log = server.end()
        self.assertEqual((code, server.banner), (1, ""))
        (line,) = log.splitlines()
        self.assertIn("the limit of open files is 32", line)

    def test_a_limit_that_will_end_it_or_its_journal_is_said(self):
        for name, limit, words in (
            ("CPU", 3600, "after 3600 s of processor time"),
            ("FSIZE", 1024 * 1024, "1048576 bytes at most"),
        ):
            with self.subTest(name):
                self.assertIn(words, self.limited(name, limit).end()[1])
        smaller = self.limited("FSIZE", 8 * 1024 * 1024, "--journal-rotate", "4")
        self.assertNotIn("at most", smaller.end()[1])


@unittest.skipUnless(hasattr(resource, "RLIMIT_NPROC"), "this system does not limit threads")
class ThreadTest(DataDirCase):
    # Loaded before it becomes a user that may not read it. Root has no such limit.
    CODE = """\
import encodings.idna, locale, os, resource, sys
from ota_server import server
if os.geteuid() == 0:
    os.chown(sys.argv[sys.argv.index("--data-dir") + 1], {user}, {user})
    for name in ("version", "firmware", "log"):
        os.chown(os.path.join(sys.argv[sys.argv.index("--data-dir") + 1], name), {user}, {user})
    os.setgid({user}); os.setuid({user})
resource.setrlimit(resource.RLIMIT_NPROC, ({limit}, {limit}))
sys.exit(server.main())
"""
    USER = 54321

    def test_a_server_that_can_start_no_threads_or_too_few_ends_and_says_why(self):
        for limit in range(6):
            with self.subTest(limit=limit):
                code = self.CODE.format(user=self.USER, limit=limit)
                server = Process("--data-dir", str(self.data_dir), code=code)
                self.addCleanup(server.kill)
                status = self.status(server)
                code, log = server.end()
                self.assertNotIn("Traceback", log)
                self.assertEqual(code, 1 if status is None else 0, log)
                if status is None:
                    self.assertIn("raise the limit of processes", log)
                elif status == 503:  # a thread for each connection, and none left for this one
                    self.assertIn("connections are refused with 503: can't start new thread", log)
                else:
                    self.assertEqual(status, 200)

    def status(self, server: Process) -> int | None:
        """Return the status that a device gets; None if there was none and the server ended."""
        try:
            with Client(server.port) as client:
                client.request("/healthz", DEVICE)
                return client.answer().status
        except (OSError, AssertionError, ValueError):
            server.process.wait(TIMEOUT_SECONDS)
            return None
