"""A temporary data directory, and commands on it."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.client import until

# A command in a message as it can be pasted, with the data directory that was given.
_PASTED = re.compile(r"`[^`\n]*? -m ota_server ([^`\n]*?)(?: --data-dir [^`\n]*)?`")
# What the user nobody is called in numbers.
NOBODY = 65534
ROOT = Path(__file__).resolve().parent.parent.parent


def bare(output: str) -> str:
    """Return output with the commands in it as the code has them: `hold`, however it was called."""
    return _PASTED.sub(r"`\1`", output)


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

    def on_terminal(self, columns: int, *arguments: str, code: int = 0) -> list[str]:
        """Return what a command on this data directory writes to a terminal of so many columns."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-m", "ota_server", *arguments]
        command += ["--data-dir", str(self.data_dir)]
        environment = {name: each for name, each in os.environ.items() if name != "COLUMNS"}
        streams = {"stdout": theirs, "stderr": theirs}
        with subprocess.Popen(command, cwd=ROOT, env=environment, **streams) as process:
            os.close(theirs)
            written = b""
            try:
                while part := os.read(ours, 65536):
                    written += part
            except OSError:
                pass  # how Linux says that the other side of a terminal was closed
            finally:
                os.close(ours)
        self.assertEqual(process.returncode, code)
        return bare(written.decode()).splitlines()

    def put_image(self, version: str, content: bytes) -> Path:
        """Put an image into firmware/, by rename."""
        temporary = self.data_dir / "firmware" / f"{version}.tmp"
        temporary.write_bytes(content)
        path = self.data_dir / "firmware" / f"firmware_{version}.bin"
        temporary.replace(path)
        return path

    @contextmanager
    def unreadable(self, path: Path) -> Iterator[None]:
        """Make a file or folder one that this process may not read, root or not."""
        self.data_dir.chmod(0o755)
        mode = path.stat().st_mode
        path.chmod(0)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)
            path.chmod(mode)

    def records(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the records of devices in the current journal that have these fields."""
        journal = self.data_dir / "log" / "devices.jsonl"
        content = b""

        def is_whole() -> bool:
            nonlocal content
            content = journal.read_bytes()
            return content[-1:] in (b"", b"\n")

        # A server may be in the middle of a write. What stays half is an error below.
        until(is_whole, 2.0)
        records = [json.loads(line) for line in content.splitlines()]
        return [
            record
            for record in records
            # A snapshot is written beside what devices do, and on a busy machine after it.
            if record["event"] not in ("device", "snapshot") or "event" in wanted
            if all(record.get(name) == value for name, value in wanted.items())
        ]
