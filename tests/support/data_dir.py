"""A temporary data directory, and commands on it."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import unittest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


class DataDirCase(unittest.TestCase):
    """A temporary data directory."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data_dir = Path(folder.name)
        for name in ("version", "firmware", "log"):
            (self.data_dir / name).mkdir()

    def set_target(self, content: str | bytes) -> None:
        """Write version.txt, by rename as an editor does."""
        content = content.encode() if isinstance(content, str) else content
        temporary = self.data_dir / "version" / "version.tmp"
        temporary.write_bytes(content)
        temporary.replace(self.data_dir / "version" / "version.txt")

    def on_terminal(self, columns: int, *arguments: str) -> list[str]:
        """Return what a command on this data directory writes to a terminal of so many columns."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-m", "ota_server", *arguments]
        command += ["--data-dir", str(self.data_dir)]
        environment = {name: each for name, each in os.environ.items() if name != "COLUMNS"}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs) as process:
            os.close(theirs)
            written = b""
            try:
                while part := os.read(ours, 65536):
                    written += part
            except OSError:
                pass  # how Linux says that the other side of a terminal was closed
            finally:
                os.close(ours)
        self.assertEqual(process.returncode, 0)
        return written.decode().splitlines()

    def put_image(self, version: str, content: bytes) -> Path:
        """Put an image into firmware/, by rename."""
        temporary = self.data_dir / "firmware" / f"{version}.tmp"
        temporary.write_bytes(content)
        path = self.data_dir / "firmware" / f"firmware_{version}.bin"
        temporary.replace(path)
        return path

    def records(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the records of devices in the current journal that have these fields."""
        lines = (self.data_dir / "log" / "devices.jsonl").read_bytes().splitlines()
        records = [json.loads(line) for line in lines]
        return [
            record
            for record in records
            if record["event"] != "snapshot" or "event" in wanted
            if all(record.get(name) == value for name, value in wanted.items())
        ]
