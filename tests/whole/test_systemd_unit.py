"""The documented unit for systemd: how much it takes away, and that the server does without it.

There is no systemd to start it in a test, so what the unit forbids is set up without it as far as a
process can, and the system calls that the unit would refuse are looked for in a trace.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.support import ROOT, TRANSPORT, Process, until
from tests.support.fleet import NEW, Fleet, RolloutCase
from tests.support.real_clients import needs

PAGE = ROOT / "docs" / "deployment.md"
MOST_EXPOSURE = 3.0
# Nothing can be written to but the data directory, /proc has processes alone, and nothing has any
# privileges: root without them, since the Python of a test may lie where others cannot read.
CONFINED = """
set -e
mount --bind "$DATA" "$DATA"
mount -o remount,ro,bind /
mount -t proc -o subset=pid,hidepid=invisible proc /proc
exec setpriv --bounding-set=-all --inh-caps=-all "$@"
"""


def documented_unit() -> str:
    """Return the unit that the page has."""
    return re.search(r"```ini\n(\[Unit\].*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]


def settings(name: str) -> list[str]:
    """Return the values of a setting of the unit."""
    return re.findall(rf"^{name}=(.*)$", documented_unit(), re.MULTILINE)


def can_confine() -> bool:
    """Return whether this machine lets a test make a /proc and mounts of its own.

    Where it does not, as in some containers, the trace has to do.
    """
    command = ["unshare", "-m", "sh", "-c", "mount -t proc -o subset=pid proc /proc"]
    return os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode


def system_calls(of: str) -> set[str]:
    """Return the system calls of a group of systemd's."""
    command = ["systemd-analyze", "syscall-filter", of]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^    ([@\w-]+)$", listed, re.MULTILINE)
    groups = [system_calls(name) for name in names if name.startswith("@")]
    return {name for name in names if not name.startswith("@")}.union(*groups)


@needs("systemd-analyze")
class UnitTest(unittest.TestCase):
    def analyze(self, what: str, *options: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder) / "ota_server.service"
            unit.write_text(documented_unit())
            command = ["systemd-analyze", what, *options, str(unit)]
            done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout + done.stderr

    def test_it_is_exposed_little(self):
        said = self.analyze("security", "--offline=true")
        exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1]
        self.assertLessEqual(float(exposure), MOST_EXPOSURE)

    def test_every_line_of_it_is_understood(self):
        self.assertNotRegex(self.analyze("verify"), "Unknown|Failed to parse|ignoring")


@needs("systemd-analyze", "strace", "setpriv", "unshare")
class ConfinedTest(RolloutCase):
    """A whole rollout by a server that is confined as the unit says, and traced."""

    def serve_confined(self, trace: Path) -> Process:
        command = ["setpriv", "--no-new-privs", "strace", "-D", "-f", "-qq", "-o", str(trace)]
        if can_confine():
            confine = ["unshare", "-m", "--propagation", "private", "sh", "-c", CONFINED, "sh"]
            command = [*confine, *command]
        command += [sys.executable, "-m", "ota_server.server"]
        code = f"import os, sys; os.execvp({command[0]!r}, {command!r} + sys.argv[1:])"
        environment = {"DATA": str(self.data_dir)}
        options = ["--data-dir", str(self.data_dir), "--buffering-proxy"]
        server = Process(*options, code=code, env=environment)
        self.addCleanup(server.kill)
        return server

    def test_a_rollout_works_and_nothing_that_the_unit_forbids_is_called(self):
        trace = self.data_dir / "trace"
        server = self.serve_confined(trace)
        self.devices = Fleet(20)
        # A trace slows the server down: with a short soak devices would seem to have fallen silent.
        self.roll_out(waves=(100.0,), soak_seconds=3.0)
        self.ask_until(server, lambda: self.state() == "done")
        self.assertEqual(self.devices.downloads.count(NEW), len(self.devices.versions))
        code, log = server.end()
        self.assertEqual(code, 0, log)
        self.assertNotRegex(log, "WARNING (?!rollout of)|ERROR")
        end = re.compile(rf"^{server.process.pid} +exit_group", re.MULTILINE)
        self.assertTrue(until(lambda: end.search(trace.read_text(errors="replace")) is not None))
        self.check_trace(trace.read_text(errors="replace"))

    def check_trace(self, calls: str) -> None:
        """Fail if the unit forbids one of these calls."""
        named = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>)", calls, re.MULTILINE))
        self.assertIn("sendfile" if TRANSPORT == "epoll" else "pread64", named)
        self.assertIn("execve", named)  # the controller
        filters = settings("SystemCallFilter")
        allowed = set().union(*(system_calls(each) for each in filters if each[0] == "@"))
        allowed -= set().union(*(system_calls(each[1:]) for each in filters if each[0] == "~"))
        as_root = {"chown", "fchown"}  # `give_to_owner`, which does nothing for other users
        self.assertEqual(named - allowed - as_root, set())
        families = set(re.findall(r"\bsocket(?:pair)?\((AF_\w+)", calls))
        self.assertLessEqual(families, set(settings("RestrictAddressFamilies")[0].split()))
        self.assertNotRegex(calls, "PROT_WRITE[^),]*PROT_EXEC")  # MemoryDenyWriteExecute
        self.assertNotRegex(calls, "CLONE_NEW")  # RestrictNamespaces
        self.assertNotRegex(calls, r"\bpersonality\(")  # LockPersonality
        self.assertNotRegex(calls, "SCHED_FIFO|SCHED_RR")  # RestrictRealtime
        self.assertNotRegex(calls, r"= -1 (?:EROFS|EPERM)")
