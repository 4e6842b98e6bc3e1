"""The lease of the controller: rollouts go on only as long as it sees what comes of them."""

import fcntl
import logging
import os
import signal
import threading
import time
import unittest
from contextlib import suppress
from pathlib import Path

from ota_server.commands.rollout_status import lines_of
from ota_server.device_port.server import OTAServer
from ota_server.device_port.wiring import open_service
from ota_server.model.timestamp import format_time
from ota_server.policy.lease import Lease, lines_of_a_look
from ota_server.policy.rollout_plan import RolloutProgress, format_plan
from ota_server.rollouts.controller_loop import Controller
from ota_server.rollouts.journal_fold import ServerFacts
from ota_server.rollouts.keeper import LOCK_NAME, Keeper, is_attended
from ota_server.system.files import replace
from tests.rollouts.test_mover import children
from tests.support import TRANSPORT, Client, Process, until
from tests.support.fleet import NEW, OLD, RolloutCase

LEASE_SECONDS = 3.0
BETA = "00:11:22:33:44:55"


class Lines(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(record.getMessage())


class HeardTest(unittest.TestCase):
    """What a server takes from the lines that its controller writes."""

    def setUp(self):
        self.lease = Lease(30.0)

    def attended(self, content: bytes, now: float) -> set[str]:
        self.lease.hear(content, now)
        return set(self.lease.attended(now))

    def test_each_rollout_has_a_time_of_its_own(self):
        self.assertEqual(self.attended(b"+\n+beta\n", 0.0), {"", "beta"})
        self.assertEqual(self.attended(b"+\n", 30.0), {"", "beta"})
        self.assertEqual(self.attended(b"+\n", 30.1), {""})
        self.assertEqual(self.attended(b".\n", 60.2), set())
        self.assertEqual(self.attended(b"+beta\n", 60.3), {"beta"})

    def test_a_line_that_comes_in_parts_is_one(self):
        self.assertEqual(self.attended(b"+\n+be", 0.0), {""})
        self.assertEqual(self.attended(b"ta", 0.0), {""})
        self.assertEqual(self.attended(b"\n+gam", 0.0), {"", "beta"})
        self.lease.begin()  # another controller: what the one before it had begun to say is gone
        self.assertEqual(self.attended(b"+ma\n", 0.0), {"", "beta", "ma"})

    def test_a_controller_that_cannot_do_its_work_ends_the_lease_of_all(self):
        self.assertEqual(self.attended(b"+\n+beta\n!\n", 0.0), set())
        self.assertTrue(self.lease.is_failing)
        self.assertEqual(self.attended(b".\n", 0.25), set())
        self.assertTrue(self.lease.is_failing)
        self.assertEqual(self.attended(b"+beta\n", 0.5), {"beta"})
        self.assertFalse(self.lease.is_failing)

    def test_what_is_written_after_a_look_is_what_is_heard(self):
        for groups in ((), ("",), ("beta",), ("", "alpha", "beta")):
            with self.subTest(groups):
                self.lease = Lease(30.0)
                lines = lines_of_a_look(groups, is_sound=True)
                self.assertEqual(self.attended(b"".join(lines), 0.0), set(groups))
                self.assertTrue(lines)
        self.attended(b"".join(lines_of_a_look(("",), is_sound=False)), 0.0)
        self.assertTrue(self.lease.is_failing)


class BehindTest(RolloutCase):
    """A rollout that reads what is on record, beside one that has read all of it."""

    LINES = 200_000  # of 18 bytes, half a second to read; a step takes a twentieth of one

    def setUp(self):
        super().setUp()
        (self.data_dir / "log" / "devices.jsonl").write_bytes(b'{"event": "seal"}\n' * self.LINES)
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text(BETA)
        self.heartbeat, self.theirs = os.pipe()
        for descriptor in (self.heartbeat, self.theirs):
            self.addCleanup(os.close, descriptor)
            os.set_blocking(descriptor, False)
        self.lock = self.data_dir / "log" / LOCK_NAME
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, lock)
        self.controller = Controller(
            self.data_dir, 0.25, ServerFacts(0), lock=lock, heartbeat=self.theirs
        )

    def look(self) -> list[bytes]:
        """Have the controller look once; return what it says."""
        self.wait = self.controller.look()
        return os.read(self.heartbeat, 65536).splitlines(keepends=True)

    def test_it_ends_the_lease_of_no_other(self):
        lease = Lease(0.5)
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        while self.look() != [b"+\n"]:
            self.assertEqual(self.wait, 0.0)
        self.assertEqual((self.state(), self.wait), ("running", 0.25))
        plan = self.roll_out(group="beta", waves=(100.0,))
        path = self.data_dir / "version" / "progress_beta.json"
        path.write_bytes(
            format_plan(
                RolloutProgress(plan.id, "running", 0, format_time(time.time_ns() // 10**6))
            )
        )
        lines = self.look()
        behind = 0
        while lines == [b"+\n"]:
            behind += 1
            # A look takes a second by this clock, so the lease of who says nothing is over soon.
            lease.hear(b"".join(lines), behind)
            self.assertEqual((lease.attended(behind), self.wait), ({""}, 0.0))
            lines = self.look()
        self.assertGreater(behind, 1)
        self.assertEqual((lines, self.wait), ([b"+\n", b"+beta\n"], 0.25))

    def test_while_all_are_behind_it_says_that_it_lives_and_status_that_it_does_not_answer(self):
        plan = self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        path = self.data_dir / "version" / "progress.json"
        path.write_bytes(
            format_plan(
                RolloutProgress(plan.id, "running", 0, format_time(time.time_ns() // 10**6))
            )
        )
        os.utime(self.lock, (0, 0))
        self.assertEqual(self.look(), [b".\n"])
        self.assertFalse(is_attended(self.lock.parent, time.time_ns() // 10**6))
        while self.look() != [b"+\n"]:
            self.assertFalse(is_attended(self.lock.parent, time.time_ns() // 10**6))
        self.assertTrue(is_attended(self.lock.parent, time.time_ns() // 10**6))

    def test_a_sign_of_life_by_a_clock_that_was_ahead_does_not_last_until_then(self):
        now_ms = time.time_ns() // 10**6
        for ahead_seconds, is_so in ((0, True), (5, True), (86400, False)):
            with self.subTest(ahead_seconds=ahead_seconds):
                at = now_ms / 1000 + ahead_seconds
                os.utime(self.lock, (at, at))
                self.assertEqual(is_attended(self.lock.parent, now_ms), is_so)

    def test_a_lock_whose_time_cannot_be_set_ends_no_lease(self):
        self.controller = Controller(
            self.data_dir, 0.25, ServerFacts(0), lock=2**31 - 1, heartbeat=self.theirs
        )
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        with self.assertLogs("ota_server.rollouts.controller_loop", "ERROR") as said:
            lines = self.look()
            while lines != [b"+\n"]:
                self.assertNotIn(b"!\n", lines)
                lines = self.look()
        self.assertEqual(len(said.output), 1)

    def test_a_pipe_that_is_full_stops_nothing(self):
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        with suppress(BlockingIOError):
            while True:
                os.write(self.theirs, b"+\n")
        while self.state() != "running":
            self.controller.look()


class InheritedTest(RolloutCase):
    IGNORING = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "os.execv(sys.executable, [sys.executable, '-m', 'ota_server.server', *sys.argv[1:]])"
    )

    def test_a_server_that_inherits_an_ignored_sigchld_knows_how_its_controller_ended(self):
        (self.data_dir / "log" / LOCK_NAME).mkdir()
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        server = Process("--data-dir", str(self.data_dir), code=self.IGNORING)
        self.addCleanup(server.kill)
        log = server._log
        self.assertTrue(until(lambda: b"the controller ended by" in os.pread(log, 65536, 0)))
        self.assertIn("the controller ended by exit code 1; ", server.end()[1])

    def test_nor_does_it_start_one_again_and_again_that_is_held_out_of_its_lock(self):
        lock = os.open(self.data_dir / "log" / LOCK_NAME, os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        server = Process("--data-dir", str(self.data_dir), code=self.IGNORING)
        self.addCleanup(server.kill)
        self.assertTrue(until(lambda: b"started again in 2 s" in os.pread(server._log, 65536, 0)))
        said = [line for line in server.end()[1].splitlines() if "the controller ended" in line]
        self.assertEqual([line.rpartition("again ")[2] for line in said], ["in 1 s", "in 2 s"])

    @unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
    def test_there_is_no_moment_when_ctrl_c_for_the_server_would_end_its_controller(self):
        self.roll_out(waves=(100.0,), soak_seconds=3600.0)
        server = Process("--data-dir", str(self.data_dir))
        self.addCleanup(server.kill)
        self.assertTrue(until(lambda: children(server.process.pid) != []))
        (controller,) = children(server.process.pid)

        def ignores(signum: int) -> bool:
            masks = dict(
                line.split(":\t")
                for line in Path(f"/proc/{controller}/status").read_text().splitlines()
                if line.startswith("Sig") and line[3:6] in ("Blk", "Ign")
            )
            bit = 1 << (signum - 1)
            ignored, blocked = (int(masks[name], 16) & bit for name in ("SigIgn", "SigBlk"))
            self.assertTrue(ignored or blocked)
            return ignored and not blocked

        for signum in (signal.SIGINT, signal.SIGHUP):
            self.assertTrue(until(lambda: ignores(signum)))  # noqa: B023 - called at once
        self.assertEqual(server.end()[0], 0)


@unittest.skipUnless(Path("/proc/self/stat").exists(), "needs /proc")
class LeaseTest(RolloutCase):
    """A server in this process, with a controller of its own."""

    TAKES_LONG = True

    def setUp(self):
        super().setUp()
        self.log = Lines()
        logger = logging.getLogger("ota_server.rollouts.keeper")
        logger.addHandler(self.log)
        self.addCleanup(logger.removeHandler, self.log)
        logger.setLevel(logging.INFO)
        self.addCleanup(logger.setLevel, logging.NOTSET)
        service = open_service(self.data_dir, settle_seconds=0.0)
        self.server = OTAServer(("127.0.0.1", 0), service, transport=TRANSPORT)
        self.keeper = Keeper(
            self.data_dir,
            service.policies,
            service.offers.attended,
            time.time_ns() // 10**6,
            (),
            LEASE_SECONDS,
        )
        self.server.chores.append(self.keeper.look_after)
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
        progress = RolloutProgress(plan.id, "running", 0, format_time(time.time_ns() // 10**6))
        replace((self.data_dir / "version" / "progress.json"), format_plan(progress))
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
