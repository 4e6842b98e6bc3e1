"""The server as its own process: what it says, its exit codes, signals, kill -9."""

import hashlib
import json
import os
import random
import re
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from ota_server.device_port.admission_status import read_serving
from ota_server.policy.rollout_plan import RolloutPlan, format_plan, plan_name
from ota_server.system.data_dir import product_dir
from ota_server.system.files import replace
from tests.support import (
    DEVICE,
    MAC,
    ROOT,
    TIMEOUT_SECONDS,
    Client,
    DataDirCase,
    Process,
    bare,
    request_head,
    until,
)

MIB = 1024 * 1024


class ProcessCase(DataDirCase):
    """A data directory with an image of 8 MiB, and servers on it."""

    IMAGE: bytes
    images: tempfile.TemporaryDirectory[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.IMAGE = random.Random(0).randbytes(8 * MIB)
        cls.addClassCleanup(delattr, cls, "IMAGE")
        # One file for all tests: a fresh one is hashed only when it is two seconds old.
        cls.images = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.images.cleanup)
        (Path(cls.images.name) / "firmware_v1.0.1.bin").write_bytes(cls.IMAGE)

    def setUp(self) -> None:
        super().setUp()
        (self.data_dir / "firmware").rmdir()
        (self.data_dir / "firmware").symlink_to(self.images.name)
        self.set_target("v1.0.1")

    def serve(self, *arguments: str, **more: dict[str, str]) -> Process:
        """Start a server that ends with the test."""
        server = Process("--data-dir", str(self.data_dir), *arguments, **more)
        self.addCleanup(server.kill)
        return server

    def client(self, server: Process, receive_buffer: int | None = None) -> Client:
        """Return a client that ends with the test."""
        client = Client(server.port, receive_buffer=receive_buffer)
        self.addCleanup(client.sock.close)
        return client

    def assert_cannot_start(self, server: Process, *words: str) -> None:
        """Expect exit code 1 and one clear line."""
        code, log = server.end()
        self.assertEqual((code, server.banner), (1, ""))
        (line,) = log.splitlines()
        for word in words:
            self.assertIn(word, line)


def is_listening(server: Process) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


class StartTest(ProcessCase):
    def read_banner(self, server: Process, mark: str) -> str:
        """Return all that the server has said at its start, up to the line with `mark`."""
        for line in server.process.stdout:
            server.banner += line
            if mark in line:
                break
        return server.banner

    def test_it_says_where_it_listens_and_what_it_serves(self):
        first = self.serve()
        client = self.client(first)
        client.request("/version.txt")
        client.answer()
        first.kill()
        server = self.serve("--host", "127.0.0.1")
        banner = self.read_banner(server, "SHA-256")
        for text in (
            f"http://127.0.0.1:{server.port}/",
            "v1.0.1",
            "firmware_v1.0.1.bin",
            str(len(self.IMAGE)),
            hashlib.sha256(self.IMAGE).hexdigest(),
            str(self.data_dir / "log" / "devices.jsonl"),
            "known devices: 1",
        ):
            self.assertIn(text, banner)
        self.assertNotIn("WARNING", banner)
        self.assertNotIn("sample", banner)
        self.assertNotIn("limits", banner)

    def test_it_says_which_limits_are_in_force(self):
        options = ["--max-downloads", "50", "--max-rate", "1M", "--max-download-rate", "1500"]
        options += ["--window", "01:00-05:00", "--window-zone", "UTC", "--window-overdue", "7d"]
        banner = self.read_banner(self.serve(*options), "limits")
        self.assertIn(
            "  limits     50 downloads at once, 1M bytes/s in all, 1500 bytes/s each, downloads "
            "begin 01:00-05:00 (UTC), or after 7d of waiting for that\n",
            banner,
        )

    def test_it_says_that_version_txt_is_missing_and_what_to_do(self):
        (self.data_dir / "version" / "version.txt").unlink()
        banner = bare(self.read_banner(self.serve(), "version/version.txt\n"))
        self.assertIn("WARNING", banner)
        self.assertIn("no restart is needed", banner)
        self.assertIn(str(self.data_dir / "version" / "version.txt"), banner)
        self.assertIn("503", banner)
        for command in ("`release publish FILE --version V`", "`release activate V`"):
            self.assertIn(command, banner)

    def test_it_says_that_the_image_is_missing_and_what_to_do(self):
        self.set_target("v7")
        banner = self.read_banner(self.serve(), "copy the image")
        self.assertIn("WARNING", banner)
        self.assertIn("firmware_v7.bin", banner)

    def test_it_says_how_many_lines_of_the_journal_are_bad_and_serves(self):
        journal = self.data_dir / "log" / "devices.jsonl"
        journal.write_bytes(b"no record\n" + bytes(100) + b"\n\xff\xfe\n" + b'{"torn":')
        server = self.serve()
        self.assertIn("skipped: 4", self.read_banner(server, "bad lines"))
        client = self.client(server)
        client.request("/version.txt")
        self.assertEqual(client.answer().status, 200)
        last = journal.read_bytes().splitlines()[-1]
        self.assertEqual(json.loads(last)["mac"], MAC)

    def test_the_folders_are_made_where_they_are_missing(self):
        server = Process("--data-dir", str(self.data_dir / "new" / "place"))
        self.addCleanup(server.kill)
        self.assertGreater(server.port, 0)
        folders = {path.name for path in (self.data_dir / "new" / "place").iterdir()}
        self.assertEqual(folders, {"version", "firmware", "log"})

    def test_it_answers_by_ipv4_and_ipv6_and_writes_ipv4_addresses_plain(self):
        server = self.serve()
        for host in ("127.0.0.1", "::1"):
            with Client(server.port, host) as client:
                client.request("/version.txt")
                self.assertEqual(client.answer().status, 200)
        addresses = {record["address"] for record in self.records(event="check")}
        self.assertEqual(addresses, {"127.0.0.1", "::1"})

    def test_the_environment_sets_the_default_data_directory(self):
        server = Process(env={"OTA_SERVER_DATA": str(self.data_dir)})
        self.addCleanup(server.kill)
        self.assertIn(str(self.data_dir), server.banner)

    def test_the_serve_command_is_the_same_server(self):
        code = (
            "import sys; from ota_server.cli import main; sys.exit(main(['serve', *sys.argv[1:]]))"
        )
        server = self.serve(code=code)
        client = self.client(server)
        client.request("/version.txt")
        self.assertEqual(client.answer().body, b"v1.0.1")
        self.assertEqual(server.end()[0], 0)


class CannotStartTest(ProcessCase):
    def test_a_port_that_is_taken_is_one_line_and_exit_code_1(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            server = self.serve("--host", "127.0.0.1", "--port", port)
            words = "perhaps another ota_server has it: give another --port"
            self.assert_cannot_start(server, "cannot listen", port, words)

    def test_a_host_that_is_not_ours_is_one_line_and_exit_code_1(self):
        self.assert_cannot_start(self.serve("--host", "192.0.2.1"), "cannot listen", "192.0.2.1")

    def test_a_host_that_is_no_name_is_one_line_and_exit_code_1(self):
        self.assert_cannot_start(self.serve("--host", "no name at all"), "cannot listen")

    def test_a_second_server_on_the_same_data_is_one_line_and_exit_code_1(self):
        first = self.serve()
        self.assertTrue(until(lambda: read_serving(self.data_dir / "log").pid))
        which = f"(process {first.process.pid}, port {first.port}); stop it first"
        self.assert_cannot_start(self.serve(), f"another server runs on {self.data_dir} {which}")
        self.assertTrue(is_listening(first))

    def test_a_data_directory_that_cannot_be_written_is_one_line_and_exit_code_1(self):
        file = self.data_dir / "file"
        file.write_bytes(b"")
        other = self.data_dir / "other" / "log"
        (other / "devices.jsonl").mkdir(parents=True)
        third = self.data_dir / "third"
        (third / "log" / ".lock").mkdir(parents=True)
        for data_dir in (file, file / "below", other.parent, third):
            with self.subTest(data_dir=data_dir):
                server = self.serve("--data-dir", str(data_dir))
                self.assert_cannot_start(server, "data directory", str(data_dir), "--data-dir")

    def test_a_failed_start_gives_the_lock_back(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.serve("--host", "127.0.0.1", "--port", str(taken.getsockname()[1])).end()
        self.assertGreater(self.serve().port, 0)


class OptionTest(ProcessCase):
    """Options reach what they are for."""

    def check(self, server: Process, version: str = "v1.0.0") -> bytes:
        client = self.client(server)
        client.request("/version.txt", {**DEVICE, "_br_fwv_": version})
        return client.answer().body

    def test_verbose_logs_each_check(self):
        for options, is_logged in ((["-v"], True), ([], False)):
            with self.subTest(options):
                server = self.serve(*options)
                self.check(server)
                for _ in range(3):
                    client = self.client(server)
                    client.request("/version.txt", {**DEVICE, "_br_mac_": "24:6f:28:ab:cd"})
                    self.assertEqual(client.answer().status, 401)
                log = server.end()[1]
                self.assertEqual("runs v1.0.0, is told v1.0.1" in log, is_logged)
                refused = log.count("401 for 127.0.0.1: _br_mac_ malformed: '24:6f:28:ab:cd' (")
                self.assertEqual(refused, 3 if is_logged else 1)

    def test_unknown_devices_keep_their_version(self):
        for value, told in (("keep", b"v1.0.0"), ("target", b"v1.0.1")):
            with self.subTest(value):
                server = self.serve("--unknown-devices", value)
                self.assertEqual(self.check(server), told)
                server.end()

    def test_the_interval_keeps_records_that_say_nothing_new_out_of_the_journal(self):
        server = self.serve("--record-interval", "60")
        for _ in range(3):
            self.check(server, "v1.0.1")
        server.end()
        self.assertEqual(len(self.records(event="check")), 1)


class DevelopmentTest(ProcessCase):
    def plan(self, group: str = "", product: str = "") -> None:
        plan = RolloutPlan("id", "v2", group, (100.0,), "2026-11-24T00:00:00.000Z", "v1.0.1")
        folder = product_dir(self.data_dir, product) / "version"
        folder.mkdir(parents=True, exist_ok=True)
        replace((folder / plan_name(group)), format_plan(plan))

    def test_it_is_said_at_the_start_and_no_rollout_begins_meanwhile(self):
        server = self.serve("--development")
        self.assertTrue(until((self.data_dir / "log" / "admission.json").exists))
        for command in (("start", "v1.0.0"), ("abort", "--revert")):
            with self.subTest(command):
                words = ("-m", "ota_server", "rollout", *command)
                done = run(*words, OTA_SERVER_DATA=str(self.data_dir))
                self.assertEqual(done.returncode, 1)
                self.assertIn("the server runs with --development", done.stderr)
        server.end()
        self.assertIn("--development: devices may fetch", server.banner)

    def test_it_is_refused_while_a_rollout_is_on(self):
        self.plan()
        self.assert_cannot_start(self.serve("--development"), "a rollout is on", "rollout abort")
        self.assertGreater(self.serve().port, 0)

    def test_what_the_refusal_advises_lets_it_start_without_a_server_meanwhile(self):
        for groups, product in ((["beta"], ""), (["", "gamma"], ""), ([""], "plug")):
            with self.subTest(groups, product=product):
                for group in groups:
                    self.plan(group, product)
                for _ in groups:
                    code, log = self.serve("--development").end()
                    self.assertEqual(code, 1)
                    advice = re.search("`(rollout abort.*?)`", bare(log))
                    words = ("-m", "ota_server", *shlex.split(advice[1]))
                    done = run(*words, OTA_SERVER_DATA=str(self.data_dir))
                    self.assertEqual(done.returncode, 0, done.stderr)
                server = self.serve("--development")
                self.assertGreater(server.port, 0)
                server.end()


class UsageTest(DataDirCase):
    def test_help_names_each_option_with_its_default(self):
        shown = run("-m", "ota_server.server", "--help")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        text = " ".join(shown.stdout.split())
        for part in (
            "--host",
            "all interfaces",
            "--port",
            "7777",
            "--data-dir",
            "OTA_SERVER_DATA",
            "--idle-timeout",
            "15",
            "--grace",
            "30",
            "--max-connections",
            "--max-devices",
            "2000000",
            "examples:",
        ):
            self.assertIn(part, text)

    def test_a_bad_option_is_exit_code_2_and_says_what_was_wrong(self):
        for arguments in (
            ("--port", "65536"),
            ("--port", "+80"),
            ("--port", "8\u0660"),
            ("--grace", "-1"),
            ("--grace", "nan"),
            ("--idle-timeout", "soon"),
            ("--max-connections", "0"),
            ("--max-devices", "1e6"),
            ("--record-interval", "0"),
            ("--record-interval", "3601"),
            ("--unknown-devices", "none"),
            ("--nonsense",),
            ("surplus",),
        ):
            with self.subTest(arguments=arguments):
                shown = run("-m", "ota_server.server", *arguments)
                self.assertEqual(shown.returncode, 2)
                self.assertIn(arguments[0], shown.stderr)
                self.assertNotIn("Traceback", shown.stderr)


class SignalTest(ProcessCase):
    def begin_download(self, server: Process) -> Client:
        """Return a client that has read the head of a long download and no more."""
        client = self.client(server, receive_buffer=4096)
        client.request("/firmware.bin")
        client.read_until(b"\r\n\r\n")
        return client

    def test_sigterm_and_sigint_end_it_with_exit_code_0(self):
        for signum in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signum=signum):
                server = self.serve()
                client = self.client(server)
                client.request("/version.txt")
                client.answer()
                began = time.monotonic()
                code, log = server.end(signum)
                self.assertEqual(code, 0, log)
                self.assertNotIn("Traceback", log)
                self.assertIn("all records are written", log)
                # An idle connection does not hold the exit.
                self.assertLess(time.monotonic() - began, 5)

    def test_signals_up_to_its_very_end_are_no_failure(self):
        server = self.serve()
        self.assertTrue(until(lambda: server.process.poll() is not None or self.terminate(server)))
        self.assertEqual(server.end()[0], 0)

    def terminate(self, server: Process) -> bool:
        """Send SIGTERM once more; False: it has not ended yet."""
        server.process.send_signal(signal.SIGTERM)
        return False

    def test_a_download_may_finish_within_the_grace(self):
        server = self.serve()
        client = self.begin_download(server)
        server.process.send_signal(signal.SIGTERM)
        self.assertTrue(until(lambda: not is_listening(server)))
        self.assertEqual(client.read(len(self.IMAGE)), self.IMAGE)
        self.assertEqual(client.read_all(), b"")
        client.sock.close()
        self.assertEqual(server.end()[0], 0)
        (record,) = self.records(event="download")
        self.assertEqual((record["complete"], record["bytes_sent"]), (True, len(self.IMAGE)))

    def test_a_grace_of_0_cuts_downloads_and_records_them(self):
        server = self.serve("--grace", "0")
        self.begin_download(server)
        began = time.monotonic()
        self.assertEqual(server.end()[0], 0)
        self.assertLess(time.monotonic() - began, 4)
        (record,) = self.records(event="download")
        self.assertFalse(record["complete"])
        self.assertLess(record["bytes_sent"], len(self.IMAGE))

    def test_a_second_signal_ends_it_at_once(self):
        server = self.serve()
        self.begin_download(server)
        server.process.send_signal(signal.SIGTERM)
        self.assertTrue(until(lambda: not is_listening(server)))
        self.assertIsNone(server.process.poll())
        began = time.monotonic()
        self.assertEqual(server.end()[0], 0)
        self.assertLess(time.monotonic() - began, 4)
        (record,) = self.records(event="download")
        self.assertFalse(record["complete"])

    def test_a_flood_of_connections_does_not_hold_up_the_exit(self):
        server = self.serve("--max-connections", "20")
        ended = threading.Event()

        def flood() -> None:
            while not ended.is_set():
                try:
                    socket.create_connection(("127.0.0.1", server.port)).close()
                except OSError:
                    ended.wait(0.01)

        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            self.assertTrue(until(lambda: is_listening(server)))
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(timeout=TIMEOUT_SECONDS), 0)
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def test_requests_that_arrived_before_the_signal_are_answered(self):
        server = self.serve()
        clients = [self.client(server) for _ in range(30)]
        for client in clients:
            client.send(request_head("/version.txt") * 3)
        for client in clients:
            client.sock.recv(1, socket.MSG_PEEK)
        code, _ = server.end()
        self.assertEqual(code, 0)
        answered = sum(client.read_all().count(b"\r\n\r\nv1.0.1") for client in clients)
        self.assertGreaterEqual(answered, len(clients))
        self.assertEqual(len(self.records(event="check")), answered)

    def test_sighup_has_the_journal_opened_by_its_name_again(self):
        server = self.serve()
        client = self.client(server)
        client.request("/version.txt")
        client.answer()
        journal = self.data_dir / "log" / "devices.jsonl"
        journal.rename(self.data_dir / "moved.jsonl")
        server.process.send_signal(signal.SIGHUP)
        self.assertTrue(until(lambda: journal.exists() and bool(self.records(event="snapshot"))))
        self.assertEqual([r["mac"] for r in self.records(event="device")], [MAC])
        client.request("/version.txt")
        client.answer()
        self.assertEqual(len(self.records(event="check")), 1)
        self.assertEqual(server.end()[0], 0)

    def test_a_journal_that_was_deleted_is_written_anew_within_a_second(self):
        server = self.serve()
        client = self.client(server)
        client.request("/version.txt")
        client.answer()
        journal = self.data_dir / "log" / "devices.jsonl"
        written_after: list[float] = []
        for _ in range(3):  # a busy machine may make one of them late
            began = time.monotonic()
            journal.unlink()
            self.assertTrue(until(journal.exists))
            written_after.append(time.monotonic() - began)
            self.assertTrue(until(lambda: bool(self.records(event="snapshot"))))
        self.assertLess(min(written_after), 1.0)
        self.assertEqual([r["mac"] for r in self.records(event="device")], [MAC])


def children_used() -> float:
    """Return the processor time of the processes that this one has started and collected."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class KillTest(ProcessCase):
    TAKES_LONG = True
    ROUNDS = 50
    CLIENTS = 8
    START_SECONDS = 2.0

    def test_whatever_was_answered_before_a_kill_is_on_record_exactly_once(self):
        chance = random.Random(20261123)
        answered: set[str] = set()
        started_after: list[float] = []
        used: list[float] = []
        for number in range(self.ROUNDS):
            began, used_before = time.monotonic(), children_used()
            server = self.serve()
            started_after.append(time.monotonic() - began)
            self.assertGreater(server.port, 0)
            threads = [
                threading.Thread(target=self.check_on, args=(server, number, client, answered))
                for client in range(self.CLIENTS)
            ]
            for thread in threads:
                thread.start()
            # Not the moment when the first is answered, nor any other that the server could know.
            select.select([], [], [], chance.uniform(0.0, 0.15))
            server.kill()
            used.append(children_used() - used_before)
            for thread in threads:
                thread.join()
        server = self.serve()
        self.assertIn(f"known devices: {self.CLIENTS}", server.banner)
        self.assertEqual(server.end()[0], 0)
        # A busy machine makes a start late, but no start waits for something or computes for long.
        self.assertLess(min(started_after), self.START_SECONDS)
        self.assertLess(max(used), self.START_SECONDS)
        self.assertGreater(len(answered), self.ROUNDS)
        on_record, bad_lines = self.checks_on_record()
        # The kernel ends the write of a killed process between two pages: one torn line a kill.
        self.assertLessEqual(bad_lines, self.ROUNDS)
        self.assertEqual([check for check in answered if on_record[check] != 1], [])
        self.assertEqual([check for check, count in on_record.items() if count > 1], [])

    def check_on(self, server: Process, number: int, client: int, answered: set[str]) -> None:
        """Check until the server is gone; the version that is reported names the check."""
        try:
            with Client(server.port) as connection:
                for count in range(10**6):
                    version = f"{number}.{client}.{count}"
                    fields = {"_br_mac_": f"02000000000{client}", "_br_fwv_": version}
                    connection.request("/version.txt", fields)
                    if connection.answer().body != b"v1.0.1":
                        return
                    answered.add(version)
        except (OSError, AssertionError, ValueError):
            return  # killed, in the middle of a reply perhaps

    def checks_on_record(self) -> tuple[Counter[str], int]:
        checks: Counter[str] = Counter()
        bad_lines = 0
        for path in (self.data_dir / "log").glob("devices*.jsonl"):
            for line in path.read_bytes().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    bad_lines += 1
                    continue
                if record["event"] == "check":
                    checks[record["firmware_version"]] += 1
        return checks, bad_lines


class StandardStreamTest(ProcessCase):
    def test_nobody_has_to_read_what_it_says(self):
        self.put_image("v2", b"fresh, so that it is announced late")
        self.set_target("v2")
        server = self.serve()
        server.process.stdout.close()
        client = self.client(server)
        # The image is announced once it is hashed, and this waits for that too.
        client.request("/firmware.bin", {**DEVICE, "Connection": "close"})
        self.assertEqual(client.answer().status, 200)
        with open(os.devnull) as nothing:
            server.process.stdout = nothing
            code, log = server.end()
        self.assertEqual(code, 0, log)
        self.assertNotIn("Traceback", log)
        self.assertNotIn("Exception", log)
