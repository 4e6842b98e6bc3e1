"""Signals at bad moments, standard streams that are broken or closed, hosts that are no names."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import unittest
from functools import partial
from pathlib import Path

from ota_server.journal.record import format_record
from ota_server.model.device import Device
from tests.support import (
    DEVICE,
    MAC,
    ROOT,
    TIMEOUT_SECONDS,
    Client,
    DataDirCase,
    Process,
    request_head,
    until,
)

SERVE = "from ota_server.server import main; sys.exit(main())\n"

IMAGE: bytes
firmware_dir: Path


def setUpModule() -> None:
    # One file for all tests: a fresh one is hashed only when it is two seconds old.
    global IMAGE, firmware_dir
    IMAGE = random.Random(1).randbytes(8 * 1024 * 1024)
    firmware_dir = Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    (firmware_dir / "firmware_v1.0.1.bin").write_bytes(IMAGE)


class SignalCase(DataDirCase):
    """A data directory with an image of 8 MiB, and servers on it."""

    def setUp(self) -> None:
        super().setUp()
        (self.data_dir / "firmware").rmdir()
        (self.data_dir / "firmware").symlink_to(firmware_dir)
        self.set_target("v1.0.1")

    def serve(self, *arguments: str, code: str | None = None) -> Process:
        """Start a server that ends with the test."""
        server = Process("--data-dir", str(self.data_dir), *arguments, code=code)
        self.addCleanup(server.kill)
        return server

    def begin(self, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start a server without waiting for what it says; it ends with the test."""
        log = self.enterContext(tempfile.TemporaryFile())
        process = subprocess.Popen(
            [
                *prefix,
                *(sys.executable, "-m", "ota_server.server", "--port", "0", "--no-admin"),
                *("--data-dir", str(self.data_dir), *arguments),
            ],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.log_fd = log.fileno()
        return process

    def said(self) -> str:
        """Return what the process that was begun last has said up to now."""
        # At a place of its own: by a seek it would go on writing from there.
        return os.pread(self.log_fd, 1024 * 1024, 0).decode()


class StandardStreamTest(SignalCase):
    def test_a_log_that_nobody_reads_any_more_does_not_keep_it_from_draining(self):
        code = "import os, sys\nr, w = os.pipe(); os.dup2(w, 2); os.close(w); os.close(r)\n" + SERVE
        server = self.serve(code=code)
        with Client(server.port, receive_buffer=4096) as client:
            client.request("/firmware.bin")
            client.read_until(b"\r\n\r\n")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(client.read(len(IMAGE)), IMAGE)
            self.assertEqual(client.read_all(), b"")
        self.assertEqual(server.end()[0], 0)
        (record,) = self.records(event="download")
        self.assertEqual((record["complete"], record["bytes_sent"]), (True, len(IMAGE)))

    def test_no_text_gets_into_a_file_that_took_the_place_of_a_closed_stream(self):
        lock, journal = (self.data_dir / "log" / name for name in (".lock", "devices.jsonl"))
        for closed in ("<&- >&- 2>&-", "2>&-"):
            with self.subTest(closed=closed):
                for path in (lock, journal):
                    path.unlink(missing_ok=True)
                process = self.begin(prefix=("sh", "-c", f'exec "$@" {closed}', "sh"))
                self.assertTrue(
                    until(lambda: journal.is_file() and b'"snapshot"' in journal.read_bytes())
                )
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)
                self.assertEqual(lock.read_bytes(), b"")
                (line,) = journal.read_bytes().splitlines()
                self.assertEqual(json.loads(line)["event"], "snapshot")


class BacklogTest(SignalCase):
    CLIENTS = 900

    def setUp(self) -> None:
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        wanted = max(soft, 2048)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))

    def test_requests_that_wait_to_be_accepted_at_the_signal_are_answered(self):
        server = self.serve()
        server.process.send_signal(signal.SIGSTOP)
        clients = []
        for number in range(self.CLIENTS):
            client = Client(server.port)
            self.addCleanup(client.sock.close)
            client.send(request_head("/version.txt", {**DEVICE, "_br_mac_": f"02{number:010x}"}))
            clients.append(client)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        self.assertEqual(server.end(signal.SIGCONT)[0], 0)
        answered = 0
        for client in clients:
            try:
                answered += client.read_all().endswith(b"\r\n\r\nv1.0.1")
            except ConnectionResetError:
                continue
        self.assertEqual(answered, self.CLIENTS)
        self.assertEqual(len(self.records(event="check")), self.CLIENTS)


class EarlySignalTest(SignalCase):
    """The start is slow enough to be met by a signal: it has a long journal to read."""

    LINES = 100_000

    def setUp(self) -> None:
        super().setUp()
        ms = 1_760_000_000_000
        line = format_record(
            "check", MAC, Device(ms, "v1.0.0", ms, None, "v1.0.1", "192.0.2.7", False, None)
        )
        tenth = b"".join(
            line.replace(MAC.encode(), b"02:00:00:%02x:%02x:%02x" % tuple(n.to_bytes(3)))
            for n in range(self.LINES // 10)
        )
        (self.data_dir / "log" / "devices.jsonl").write_bytes(tenth * 10)

    def begin_up_to(self, moment: str) -> subprocess.Popen[str]:
        """Start a server and return at a moment of its start."""
        (self.data_dir / "log" / ".lock").unlink(missing_ok=True)
        process = self.begin()
        is_there = {
            "lock": (self.data_dir / "log" / ".lock").exists,
            # Or later: a fast machine may have read it between two looks.
            "journal": lambda: self.reads_journal(process.pid) or bool(self.said()),
            "banner": lambda: bool(self.said()),
        }
        self.assertTrue(until(is_there[moment]))
        return process

    def reads_journal(self, pid: int) -> bool:
        journal = self.data_dir / "log" / "devices.jsonl"
        folder = Path("/proc", str(pid), "fd")
        if not folder.exists():
            return True  # no such folder on this system: a moment as good as any
        try:
            links = [os.readlink(path) for path in folder.iterdir()]
        except OSError:
            return False
        return links.count(str(journal.resolve())) > 1

    def test_a_signal_to_end_ends_it_without_a_traceback_at_any_moment_of_the_start(self):
        for signum, moment in (
            (signal.SIGINT, "lock"),
            (signal.SIGINT, "journal"),
            (signal.SIGINT, "banner"),
            (signal.SIGTERM, "lock"),
        ):
            with self.subTest(signum=signum, moment=moment):
                process = self.begin_up_to(moment)
                process.send_signal(signum)
                code = process.wait(TIMEOUT_SECONDS)
                self.assertNotIn("Traceback", self.said())
                self.assertEqual(code, 0)

    def test_sighup_ends_it_at_no_moment_of_the_start(self):
        for moment in ("lock", "journal"):
            with self.subTest(moment=moment):
                process = self.begin_up_to(moment)
                process.send_signal(signal.SIGHUP)
                self.assertTrue(until(partial(self.has_started_or_ended, process)))
                self.assertIsNone(process.poll(), self.said())
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)
                self.assertNotIn("Traceback", self.said())

    def has_started_or_ended(self, process: subprocess.Popen[str]) -> bool:
        return "journal" in self.said() or process.poll() is not None


class HostTest(SignalCase):
    def test_a_host_that_cannot_be_a_name_is_one_line_and_exit_code_1(self):
        for host in ("a..b", "ä" * 70, "\udcff"):
            with self.subTest(host=host):
                server = self.serve("--host", host)
                code, log = server.end()
                self.assertEqual((code, server.banner), (1, ""), log)
                (line,) = log.splitlines()
                self.assertIn("cannot listen", line)
