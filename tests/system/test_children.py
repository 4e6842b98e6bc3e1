"""How children ended, where the system or somebody else took that away; and those of nobody."""

import os
import signal
import subprocess
import sys
import unittest
from contextlib import suppress
from pathlib import Path

from ota_server.system.children import UNKNOWN, exit_code, reap_orphans, started
from tests.support import DataDirCase, Process, until

# Becomes the parent of what loses its own, as process 1 is, and gets an orphan.
ADOPT = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "0.1"])
    os._exit(0)
from ota_server.server import main
sys.exit(main())
"""


def children(pid: int) -> list[str]:
    """Return the processes whose parent a process is, also those that are over."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = path.read_text()
            if text.rpartition(")")[2].split()[1] == str(pid):
                found.append(text)
    return found


class ExitCodeTest(unittest.TestCase):
    def ended(self, code: str) -> int | None:
        with subprocess.Popen([sys.executable, "-c", code]) as child:
            self.assertTrue(until(lambda: exit_code(child) is not None))
            return exit_code(child)

    def test_it_is_the_exit_code_or_minus_the_signal(self):
        self.assertEqual(self.ended("pass"), 0)
        self.assertEqual(self.ended("import sys; sys.exit(3)"), 3)
        self.assertEqual(self.ended("import os; os.kill(os.getpid(), 9)"), -signal.SIGKILL)

    def test_a_child_that_runs_has_none(self):
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            self.assertIsNone(exit_code(child))

    def test_one_that_nobody_knows_is_not_0(self):
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            self.assertEqual(self.ended("import sys; sys.exit(3)"), UNKNOWN)
        finally:
            signal.signal(signal.SIGCHLD, before)


class StartedTest(unittest.TestCase):
    def test_who_waits_for_a_child_gets_its_exit_code_though_orphans_are_collected(self):
        child = started(lambda: subprocess.Popen(["sh", "-c", "exit 3"], start_new_session=True))
        # When it has ended, but is not collected.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        reap_orphans()
        self.assertEqual(child.wait(), 3)


@unittest.skipUnless(sys.platform == "linux", "needs /proc and prctl")
class OrphanTest(DataDirCase):
    def test_a_server_that_is_process_1_of_a_container_collects_what_others_left(self):
        server = Process("--data-dir", str(self.data_dir), code=ADOPT)
        self.addCleanup(server.kill)
        self.assertTrue(until(lambda: children(server.process.pid) == []))
        self.assertEqual(server.end()[0], 0)
