"""Files in log/ that no server wrote: edited, damaged, or put there to do harm."""

import hashlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ota_server.journal.record import format_record
from ota_server.model.device import Device, Download
from tests.support import (
    DEVICE,
    MAC,
    ROOT,
    TIMEOUT_SECONDS,
    Client,
    DataDirCase,
    ServerCase,
    request_head,
    until,
)

MIB = 1024 * 1024
NOW_MS = 1_760_000_000_000
# More than any of these commands may take, and less than the files of NULs below.
MOST_BYTES = 300 * MIB
NULS_BYTES = 400 * MIB

GOOD = format_record(
    "check", MAC, Device(NOW_MS, "v1.0.0", NOW_MS, None, "v1.0.1", "192.0.2.7", False, None)
)
GOOD_TIME = b'"2025-10-09T08:53:20.000Z"'


def changed(old: bytes, new: bytes) -> bytes:
    """Return the good line, as a later one of the same device, with one thing changed."""
    line = GOOD.replace(b"v1.0.0", b"v6.6.6")
    assert old in line, line
    return line.replace(old, new)


def with_tail(tail: bytes) -> bytes:
    """Return a later line of the device that ends in these fields."""
    return changed(b"}\n", b"," + tail + b"}\n")


def command(*arguments: str) -> list[str]:
    """Return the command line of a server or of an operator's command."""
    return [sys.executable, "-m", *arguments]


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process had up to now; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 0 if found is None else int(found[1]) * 1024


class LogCase(DataDirCase):
    """Files in log/, and commands on them that must come to an end."""

    @property
    def log_dir(self) -> Path:
        """The folder of the journal."""
        return self.data_dir / "log"

    def devices(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the `devices` command."""
        return subprocess.run(
            command("ota_server", "devices", "--data-dir", str(self.data_dir), *arguments),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    def begin(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process that ends with the test."""
        process = subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def begin_server(self) -> subprocess.Popen[bytes]:
        """Start a server; return when it has said something or ended."""
        process = self.begin(
            command(
                *("ota_server.server", "--port", "0", "--no-admin"),
                *("--data-dir", str(self.data_dir)),
            )
        )
        ready, _, _ = select.select([process.stdout], [], [], TIMEOUT_SECONDS)
        self.assertTrue(ready, "the start hangs")
        return process

    def port_of(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the port of a server that has begun to talk; None where it ended instead."""
        for line in process.stdout:
            if b"listening" in line:
                return int(line.split(b"//")[1].split(b"/")[0].rsplit(b":", 1)[1])
        return None


class BadLineTest(LogCase, ServerCase):
    def assert_bad(self, *bad_lines: bytes) -> None:
        """Expect each of the lines to be bad: the line before it of its device stays in force."""
        macs = [MAC[:-2] + f"{number:02x}" for number in range(len(bad_lines))]
        journal = self.log_dir / "devices.jsonl"
        journal.write_bytes(
            b"".join(
                (GOOD + line).replace(MAC.encode(), mac.encode())
                for mac, line in zip(macs, bad_lines, strict=True)
            )
        )
        shown = self.devices("--csv")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        rows = [row[:24] for row in shown.stdout.splitlines()[1:]]
        self.assertEqual(rows, [f"{mac},v1.0.0" for mac in macs])
        self.assertIn(str(len(bad_lines)), shown.stderr)
        fleet = self.start().service.fleet
        self.assertEqual((fleet.bad_lines, len(fleet)), (len(bad_lines), len(macs)))
        self.assertTrue(until(lambda: b'"event":"snapshot"' in journal.read_bytes(), 5.0))
        self.stop()
        devices = self.records(event="device", firmware_version="v1.0.0")
        self.assertEqual([device["mac"] for device in devices], macs)

    def test_a_time_that_cannot_be_written_back_does_not_replace_an_older_line(self):
        seen, update = b'"last_seen_time":' + GOOD_TIME, b'"update_time":null'
        self.assert_bad(
            changed(seen, b'"last_seen_time":"9999-12-31T23:59:59.999-23:00"'),
            changed(seen, b'"last_seen_time":"0001-01-01T00:00:00.000+14:00"'),
            changed(update, b'"update_time":"0001-01-01T00:00:00Z"'),
        )

    def test_a_day_that_its_year_does_not_have_does_not_replace_an_older_line(self):
        self.assert_bad(changed(GOOD_TIME, b'"2025-02-29T12:00:00.000Z"'))

    def test_a_tail_that_makes_no_record_does_not_replace_an_older_line(self):
        self.assert_bad(
            with_tail(b'"download_sha256":5'),
            with_tail(b'"last_seen_time":"never"'),
        )

    def test_a_line_that_names_two_devices_is_a_bad_one(self):
        self.assert_bad(with_tail(b'"mac":"02:00:00:00:00:01"'))

    def test_a_line_of_megabytes_is_a_bad_one(self):
        self.assert_bad(
            changed(b"v6.6.6", b"v" * (5 * MIB)),
            with_tail(b'"note":"%b"' % (b"n" * (8 * MIB))),
        )


class PathTest(LogCase, ServerCase):
    def test_a_version_in_the_journal_leads_to_no_file_outside_of_the_folder(self):
        secret = b"secret " * 1000
        (self.data_dir / "secret.bin").write_bytes(secret)
        (self.data_dir / "firmware" / "firmware_x").mkdir()
        sha256 = hashlib.sha256(secret).hexdigest()
        download = Download("x/../../secret", sha256, len(secret), NOW_MS)
        device = Device(NOW_MS, "v1.0.0", NOW_MS, None, "v1.0.1", "192.0.2.7", False, download)
        (self.log_dir / "devices.jsonl").write_bytes(format_record("begin", MAC, device))
        self.start()
        answer = self.get("/firmware.bin", {**DEVICE, "Range": "bytes=1-"})
        self.assertNotIn(b"secret", answer.body)
        self.assertIn(answer.status, (206, 404))


class PipeTest(LogCase):
    """A pipe in the place of a file: to open it, or to write to it, can take for ever."""

    def assert_holds_up_nothing(self, name: str, *arguments: str) -> None:
        """Expect the start to go well or say why not, and `devices` to end."""
        os.mkfifo(self.log_dir / name)
        process = self.begin_server()
        port = self.port_of(process)
        if port is not None:
            # More records than a pipe takes.
            with Client(port) as client:
                for _ in range(20):
                    client.send(request_head("/version.txt") * 30)
                    for _ in range(30):
                        self.assertEqual(client.answer().status, 503)
            process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=TIMEOUT_SECONDS)
        self.assertNotIn(b"Traceback", log)
        self.assertEqual(process.returncode, 0 if port else 1)
        if port is None:
            (line,) = log.splitlines()
            self.assertIn(name.encode(), line)
        self.assertNotIn("Traceback", self.devices(*arguments).stderr)

    def test_a_rotated_journal_that_is_a_pipe_does_not_hold_up_the_start(self):
        self.assert_holds_up_nothing("devices.000001.jsonl", MAC)

    def test_a_list_of_rejected_requests_that_is_a_pipe_does_not_hold_up_the_start(self):
        self.assert_holds_up_nothing("rejected.jsonl", "--rejected")

    def test_a_journal_that_is_a_pipe_holds_up_nobody(self):
        self.assert_holds_up_nothing("devices.jsonl")


class MemoryTest(LogCase):
    """A file of NULs, as a power cut leaves them: one line without an end."""

    def put_nuls(self, name: str) -> None:
        with open(self.log_dir / name, "wb") as file:
            file.write(GOOD)
            file.truncate(NULS_BYTES)

    def assert_small(self, process: subprocess.Popen[bytes], peak: int = 0) -> None:
        """Expect a process to end well, and never to have taken much memory.

        Args:
            peak: what it took before it was told to end: it may have ended by now.
        """
        # Not by ru_maxrss where it can be helped: on Linux that begins with the memory of whoever
        # started the process, which is this one with all of its tests.
        peaks = [peak]

        def has_ended() -> bool:
            peaks.append(peak_bytes(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                if sys.platform == "darwin":
                    peaks.append(usage.ru_maxrss)
            return bool(pid)

        self.assertTrue(until(has_ended), "it did not end")
        self.assertEqual(process.returncode, 0)
        self.assertGreater(max(peaks), MIB)
        self.assertLess(max(peaks), MOST_BYTES)

    def test_the_history_of_a_device_does_not_take_a_damaged_journal_into_memory(self):
        self.put_nuls("devices.jsonl")
        arguments = ("ota_server", "devices", "--data-dir", str(self.data_dir), MAC)
        self.assert_small(self.begin(command(*arguments)))

    def test_the_list_of_rejected_requests_is_not_taken_into_memory_when_damaged(self):
        self.put_nuls("rejected.jsonl")
        arguments = ("ota_server", "devices", "--data-dir", str(self.data_dir), "--rejected")
        self.assert_small(self.begin(command(*arguments)))

    def test_a_start_does_not_take_damaged_files_into_memory(self):
        self.put_nuls("devices.jsonl")
        self.put_nuls("rejected.jsonl")
        process = self.begin_server()
        self.assertIsNotNone(self.port_of(process))
        peak = peak_bytes(process.pid)
        process.send_signal(signal.SIGTERM)
        self.assert_small(process, peak)
