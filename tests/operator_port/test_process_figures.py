"""What the system says of a process."""

import os
import subprocess
import sys
import time
import unittest

from ota_server.operator_port.process_figures import read_process

SLACK_SECONDS = 60.0
# A program whose name looks like the end of a name in /proc.
NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"a) R 1 (b", 0, 0, 0)
print(flush=True)
sys.stdin.read()
"""


@unittest.skipUnless(sys.platform == "linux", "only Linux says it in files")
class ReadProcessTest(unittest.TestCase):
    def test_this_process_has_memory_time_and_files(self):
        before = read_process(os.getpid())
        with open(os.devnull) as _file:
            now = read_process(os.getpid())
        self.assertGreater(now.resident_bytes, 1_000_000)
        self.assertGreater(now.virtual_bytes, now.resident_bytes)
        self.assertGreater(now.cpu_seconds, 0)
        self.assertEqual(now.open_files, before.open_files + 1)
        self.assertGreaterEqual(now.most_files, now.open_files)
        self.assertTrue(time.time() - 86400 < now.started_seconds < time.time() + SLACK_SECONDS)

    def test_a_process_that_is_gone_has_no_figures(self):
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            ended.wait()
        self.assertIsNone(read_process(ended.pid))

    def test_the_name_of_a_program_changes_nothing(self):
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", NAMED], stdin=pipe, stdout=pipe) as named:
            named.stdout.readline()
            found = read_process(named.pid)
            named.stdin.close()
        self.assertGreater(found.resident_bytes, 1_000_000)
        self.assertLess(abs(found.started_seconds - time.time()), SLACK_SECONDS)
