"""The command `audit`, as an operator sees it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

from ota_server import audit
from tests.support import ROOT, DataDirCase


class AuditTest(DataDirCase):
    def on_terminal(self, columns: int) -> list[str]:
        """Return what the command writes to a terminal of so many columns."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-m", "ota_server", "audit", "--data-dir", str(self.data_dir)]
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

    def test_a_narrow_terminal_cuts_what_it_was_changed_to_and_never_what_was_done(self):
        reason = "20 of 20 devices failed: at least 86.1 %, over the limit of 2 %"
        log = self.data_dir / "log"
        audit.note(log, "release withdraw", "v2.0.0", reason=reason)
        audit.note(log, "rollout promote", "v2.0.0", **{"from": "v1.0.0", "to": "v2.0.0"})
        lines = self.on_terminal(80)
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertIn("  release withdraw  ", lines[1])
        self.assertIn("  rollout promote ", lines[2])
        self.assertTrue(lines[1].endswith(".."))
        self.assertIn(reason, self.on_terminal(200)[1])
