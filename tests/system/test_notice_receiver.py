"""Who is told: what a command gets, that nothing waits for it, and that it cannot run wild."""

import json
import logging
import os
import resource
import sys
import time
from typing import Any
from unittest import mock

from ota_server.model.notice import Delivery
from ota_server.system.notice_lane import MOST_NOTICES
from ota_server.system.notice_receiver import Receiver, ShellCommand, command_receiver
from tests.support import DataDirCase, until

LOG = "ota_server.system"


def for_seconds(text: str, seconds: float) -> Receiver:
    """Return the receiver that a command is which is killed after some time."""
    return Receiver(ShellCommand(text, seconds))


class CommandTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.out = self.data_dir / "out"

    def told(self) -> list[dict[str, Any]]:
        """Return the notices that the command has got."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def test_it_gets_each_notice_as_a_line_of_json_on_its_standard_input(self):
        command = command_receiver(f"cat >> {self.out}")
        command.tell({"event": "rollout_halted", "text": 'it\'s "bad"; $(touch x)'})
        command.tell({"event": "journal_works"})
        command.end()
        self.assertEqual(
            [each["event"] for each in self.told()], ["rollout_halted", "journal_works"]
        )

    def test_what_it_prints_and_how_it_fails_is_logged(self):
        command = command_receiver("cat > /dev/null; echo sent; printf 'b\\033ad\\n' >&2; exit 3")
        with self.assertLogs(LOG, logging.INFO) as logs:
            command.tell({"event": "rollout_waits"})
            command.end()
        self.assertEqual(
            [record.getMessage() for record in logs.records],
            [
                "--notify-command (rollout_waits): sent",
                "--notify-command (rollout_waits): b?ad",
                "--notify-command (rollout_waits) ended by exit code 3",
            ],
        )

    def test_nothing_waits_for_a_command_that_hangs_and_reads_nothing(self):
        command = command_receiver(f"echo > {self.out}; exec sleep 600")
        began = time.monotonic()
        for _ in range(MOST_NOTICES):
            command.tell({"event": "rollout_moved", "text": "x" * 200_000})
        self.assertLess(time.monotonic() - began, 1)
        until(self.out.exists)
        self.assertEqual(command.end(), MOST_NOTICES)  # and kills it
        # None of the notices that still waited has begun another one.
        self.assertRaises(ChildProcessError, os.waitpid, -1, os.WNOHANG)

    def test_what_it_prints_without_end_is_not_kept_in_memory(self):
        command = for_seconds("yes", 0.5)
        before = resource.getrusage(resource.RUSAGE_SELF)
        with self.assertLogs(LOG, logging.ERROR) as logs:
            command.tell({"event": "rollout_moved"})
            command.end()
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.assertIn("was killed", logs.output[0])
        self.assertLess(after.ru_maxrss - before.ru_maxrss, 8 * 1024)  # KiB
        self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 0.2)

    def test_one_that_prints_much_and_reads_much_gets_all_and_ends(self):
        command = command_receiver(f"head -c 1000000 /dev/zero | tr '\\0' y; cat > {self.out}")
        with self.assertLogs(LOG, logging.INFO) as logs:
            command.tell({"event": "rollout_moved", "text": "x" * 200_000})
            command.end()
        self.assertEqual(self.told()[0]["text"], "x" * 200_000)
        self.assertEqual(len(logs.records), 1)
        self.assertTrue(logs.records[0].getMessage().endswith(": " + "y" * 200))

    def test_a_command_that_takes_too_long_is_killed_with_its_children(self):
        command = for_seconds("sleep 600 & sleep 600", 0.05)
        with self.assertLogs(LOG, logging.ERROR) as logs:
            command.tell({"event": "rollout_moved"})
            command.end()
        self.assertIn("ran for more than 0.05 s, and was killed", logs.output[0])

    def test_it_is_limited_in_rate_and_what_was_refused_can_be_told_later(self):
        command = Receiver(ShellCommand(f"cat >> {self.out}"), most_notices=2, per_seconds=0.3)
        with self.assertLogs(LOG, logging.WARNING) as logs:
            taken = [command.tell({"event": "rollout_moved"}) for _ in range(1000)]
        self.assertEqual((taken.count(True), len(logs.output)), (2, 1))
        self.assertTrue(until(lambda: command.tell({"event": "rollout_ended"})))
        command.end()
        self.assertEqual(len(self.told()), 3)

    def test_an_alarm_waits_neither_for_a_command_that_hangs_nor_for_what_used_up_the_rate(self):
        command = command_receiver(
            f"read line; case $line in *moved*) sleep 600;; esac; echo $line >> {self.out}"
        )
        while command.tell({"event": "rollout_moved"}):
            pass
        self.assertTrue(command.tell({"event": "rollout_halted"}, is_alarm=True))
        self.assertTrue(until(self.out.exists))
        self.assertEqual(command.end(), MOST_NOTICES)

    def test_only_a_command_that_ends_well_was_told(self):
        for text, is_told in (
            ("exit 0", True),
            ("exec <&-; exit 0", True),  # it closes its input at once
            ("trap '' TERM; exit 0", True),
            ("sleep 3 > /dev/null 2>&1 < /dev/null & exit 0", True),
            ("exit 1", False),
            ("kill -9 $$", False),
            ("/nowhere/command", False),
            ("echo warm; sleep 3 & exit 0", True),  # its child keeps its output open
            ("sleep 3 & exit 1", False),
            (str(self.out), False),  # not executable
            ("if", False),
            ("head -c 2000000 /dev/zero", True),
            ("trap '' TERM; sleep 600", False),
            ("exec > /dev/null 2>&1; exec sleep 600", False),
        ):
            with self.subTest(text):
                self.out.touch()
                told: list[Delivery] = []
                command = for_seconds(text, 1.9 if is_told else 0.3)
                with self.assertLogs(LOG, logging.WARNING) as logs:
                    logging.getLogger(LOG).warning("")
                    big = {"event": "rollout_moved", "text": "x" * 200_000}
                    command.tell(big, when_ended=told.append)
                    self.assertEqual(command.end(), 0)
                self.assertEqual([each.is_told for each in told], [is_told])
                self.assertEqual(not any(each.problem for each in told), is_told)
                self.assertEqual(len(logs.output) == 1, is_told)

    def test_one_that_leaves_a_child_with_its_output_behind_ends_also_where_it_cannot_be_killed(
        self,
    ):
        # The child has a session of its own.
        text = "import os, sys, time; os.fork() or os.setsid(); time.sleep(3)"
        command = for_seconds(f'{sys.executable} -c "{text}"', 0.5)
        with self.assertLogs(LOG, logging.ERROR) as logs:
            command.tell({"event": "rollout_moved"})
            self.assertEqual(command.end(), 0)
        self.assertIn("was killed", logs.output[0])

    def test_a_child_that_keeps_the_output_of_its_command_open_holds_up_no_further_notice(self):
        children = self.out.with_name("children")
        command = command_receiver(
            f"cat >> {self.out}; echo told; sleep 600 & echo $! >> {children}"
        )
        self.addCleanup(lambda: [os.kill(int(pid), 9) for pid in children.read_text().split()])
        with self.assertLogs(LOG, logging.INFO) as logs:
            for _ in range(3):
                command.tell({"event": "rollout_moved"})
            self.assertTrue(until(lambda: self.out.exists() and len(self.told()) == 3))
            self.assertEqual(command.end(), 0)
        self.assertEqual([line.partition(": ")[2] for line in logs.output], ["told"] * 3)

    def test_a_command_that_was_killed_is_not_killed_again_by_its_number(self):
        command = for_seconds("exec sleep 600", 0.05)
        with self.assertLogs(LOG, logging.ERROR):
            command.tell({"event": "rollout_moved"})
            command.end()
        lane = command._lanes[0]
        with mock.patch("os.killpg") as killpg:
            lane._kill()
        killpg.assert_not_called()
