"""The lease of the controller: rollouts go on only as long as it sees what comes of them."""

import logging
import os
import signal
import threading
import time
import unittest
from pathlib import Path

from ota_server.keeper import LOCK_NAME, Keeper
from ota_server.plan import Progress, format_plan
from ota_server.record import format_time
from ota_server.serve import open_service
from ota_server.server import OTAServer
from ota_server.watch import lines_of
from tests.fleet import NEW, OLD, RolloutCase
from tests.support import TRANSPORT, Client, until
from tests.test_controller import children

LEASE_SECONDS = 3.0


class Lines(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(record.getMessage())


@unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
class LeaseTest(RolloutCase):
    """A server in this process, with a controller of its own."""

    def setUp(self):
        super().setUp()
        self.log = Lines()
        logger = logging.getLogger("ota_server.keeper")
        logger.addHandler(self.log)
        self.addCleanup(logger.removeHandler, self.log)
        logger.setLevel(logging.INFO)
        self.addCleanup(logger.setLevel, logging.NOTSET)
        service = open_service(self.data_dir, settle_seconds=0.0)
        self.server = OTAServer(("127.0.0.1", 0), service, transport=TRANSPORT)
        self.keeper = Keeper(
            self.data_dir, service.policies, time.time_ns() // 10**6, (), LEASE_SECONDS
        )
        service.more_chores.append(self.keeper.look_after)
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()

        def stop() -> None:
            self.server.shutdown()
            thread.join()
            self.server.server_close()
            self.keeper.end()
            service.close()

        self.addCleanup(stop)

    def told(self) -> str:
        """Return what one more device is told."""
        fields = {"_br_mac_": "02:00:00:00:01:00", "_br_fwv_": OLD, "Connection": "close"}
        with Client(self.server.server_port) as client:
            client.request("/version.txt", fields)
            return client.answer().body.decode()

    def controller(self) -> int:
        (pid,) = children(os.getpid())
        return pid

    def begin(self) -> None:
        """Begin a rollout that offers the release to all devices."""
        self.devices.ask(self.server.server_port)
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        self.assertTrue(until(lambda: self.told() == NEW), self.log.lines)

    def said(self, words: str) -> int:
        return sum(words in line for line in self.log.lines)

    def test_while_the_controller_hangs_nobody_is_offered_anything_and_it_is_started_again(self):
        self.begin()
        os.kill(self.controller(), signal.SIGSTOP)
        self.assertTrue(until(lambda: self.told() == OLD))
        self.assertTrue(until(lambda: self.said("is killed") == 1))
        self.assertTrue(until(lambda: self.told() == NEW))
        self.assertTrue(until(lambda: self.said("looks after rollouts again") == 1))
        self.assertEqual(self.said("offer nothing new"), 1)

    def test_from_the_start_of_a_server_on_nobody_is_offered_anything_without_a_controller(
        self,
    ):
        lock = self.data_dir / "log" / LOCK_NAME
        lock.mkdir()
        plan = self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        progress = Progress(plan.id, "running", 0, format_time(time.time_ns() // 10**6))
        (self.data_dir / "version" / "progress.json").write_bytes(format_plan(progress))
        self.assertTrue(until(lambda: self.said("the controller ended by exit code 1") == 1))
        self.assertEqual(self.told(), OLD)
        lock.rmdir()
        self.assertTrue(until(lambda: self.told() == NEW))

    def test_while_the_controller_cannot_be_started_nobody_is_offered_anything(self):
        self.begin()
        lock = self.data_dir / "log" / LOCK_NAME
        lock.unlink()
        lock.mkdir()
        os.kill(self.controller(), signal.SIGKILL)
        self.assertTrue(until(lambda: self.told() == OLD))
        lock.rmdir()
        self.assertTrue(until(lambda: self.told() == NEW))

    def test_while_the_controller_cannot_write_nobody_is_offered_anything(self):
        self.begin()
        # Nothing can be put in the place of a folder, which is what a full disk does to others too.
        checkpoint = self.data_dir / "log" / "rollout.checkpoint"
        self.assertTrue(until(checkpoint.is_file))
        checkpoint.unlink()
        (checkpoint / "in the way").mkdir(parents=True)
        self.assertTrue(until(lambda: self.told() == OLD))
        said = [self.said("is killed"), self.said("cannot do its work"), self.said("nobody has")]
        self.assertEqual(said, [0, 1, 0])
        self.assertTrue(until(lambda: "cannot write" in "\n".join(lines_of(self.data_dir, None))))
        (checkpoint / "in the way").rmdir()
        checkpoint.rmdir()
        self.assertTrue(until(lambda: self.told() == NEW))

    def test_a_controller_that_is_killed_and_started_again_leaves_no_gap(self):
        self.begin()
        before = self.controller()
        os.kill(before, signal.SIGKILL)

        def is_another_there() -> bool:
            self.assertEqual(self.told(), NEW)
            return children(os.getpid()) not in ([], [before])

        self.assertTrue(until(is_another_there))

    def test_status_says_that_nobody_looks_after_it(self):
        self.begin()
        lock = self.data_dir / "log" / LOCK_NAME
        self.assertNotIn("cannot write", "\n".join(lines_of(self.data_dir, None)))
        os.kill(self.controller(), signal.SIGSTOP)
        os.utime(lock, (0, 0))
        self.assertIn("cannot write", "\n".join(lines_of(self.data_dir, None)))
