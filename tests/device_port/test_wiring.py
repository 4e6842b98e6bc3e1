"""What the server says at its start about a system that lacks something."""

import unittest
from pathlib import Path

from ota_server.rollouts.keeper import COMPLETION_UNKNOWN
from tests.support import DEVICE, Client, DataDirCase, Process, until
from tests.support.fleet import Fleet, RolloutCase

# As in a sandbox that lets only known calls through.
REFUSING = """
import errno, fcntl, sys, termios
real = fcntl.ioctl
def ioctl(descriptor, request, *more):
    if request == termios.TIOCOUTQ:
        raise OSError(errno.EINVAL, "Invalid argument")
    return real(descriptor, request, *more)
fcntl.ioctl = ioctl
from ota_server.server import main
sys.exit(main(sys.argv[1:]))
"""


class UnknownAcknowledgementsTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.1", bytes(50_000))
        self.set_target("v1.0.1")

    def log_of(self, code: str | None) -> str:
        """Return what a server logs that sends one image."""
        server = Process("--data-dir", str(self.data_dir), "--grace", "0", code=code)
        self.addCleanup(server.kill)
        with Client(server.port) as client:
            client.request("/firmware.bin", {**DEVICE, "Connection": "close"})
            self.assertEqual(len(client.answer().body), 50_000)
        return server.end()[1]

    def test_that_nobody_knows_what_has_arrived_is_said_at_the_start(self):
        first, *_ = self.log_of(REFUSING).splitlines()
        self.assertIn("SIOCOUTQ: Invalid argument", first)
        self.assertIn("--buffering-proxy", first)

    def test_it_is_not_said_elsewhere(self):
        self.assertNotIn("SIOCOUTQ", self.log_of(None))


@unittest.skipUnless(Path("/proc/self/task").exists(), "needs /proc")
class UnknownToRolloutsTest(RolloutCase):
    def test_rollouts_do_not_wait_for_downloads_to_be_complete(self):
        server = self.serve(code=REFUSING)
        Fleet(3).ask(server.port)
        self.roll_out()
        pid = server.process.pid

        def commands() -> list[str]:
            tasks = Path(f"/proc/{pid}/task").glob("*/children")
            found = " ".join(each.read_text() for each in tasks).split()
            return [Path(f"/proc/{child}/cmdline").read_text() for child in found]

        self.assertTrue(until(lambda: any(COMPLETION_UNKNOWN in each for each in commands())))
