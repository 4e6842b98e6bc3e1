"""The audit log: what was not done is not in it as done."""

import json
import logging
from threading import Thread

from ota_server.policy import audit
from tests.journal.test_writer import file_size_limit
from tests.support import DataDirCase


def always(_problem: OSError) -> bool:
    return True


class ActingTest(DataDirCase):
    def test_what_an_operator_of_the_admin_port_does_is_on_record_by_the_name_of_the_token(self):
        logs = self.data_dir / "log"
        with audit.acting_as("anna"):
            self.assertEqual(audit.user(), "anna")
            audit.note(logs, "pin", "a device")
            with audit.acting_as("ben"):
                audit.note(logs, "pin", "another one")
        audit.note(logs, "unpin", "a device")
        entries = audit.entries(logs)
        self.assertEqual([each["user"] for each in entries], ["anna", "ben", audit.user()])
        self.assertEqual([each.get("through") for each in entries], ["admin port"] * 2 + [None])

    def test_another_thread_does_not_act_for_an_operator(self):
        found: list[str] = []
        with audit.acting_as("anna"):
            thread = Thread(target=lambda: found.append(audit.user()))
            thread.start()
            thread.join()
        self.assertNotIn("anna", found)


class NotedTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.logs = self.data_dir / "log"
        self.path = self.logs / audit.FILE_NAME

    def actions(self) -> list[str]:
        return [json.loads(line)["action"] for line in self.path.read_text().splitlines()]

    def fail(self, problem: BaseException, *options: object) -> None:
        """Note a change that fails."""
        with (
            self.assertRaises(type(problem)),
            audit.noted(self.logs, "pin", "a device", *options, to="v1"),
        ):
            raise problem

    def test_the_line_is_there_before_the_change(self):
        with audit.noted(self.logs, "pin", "a device", to="v1"):
            self.assertEqual(self.actions(), ["pin"])
        self.assertEqual(self.actions(), ["pin"])

    def test_a_change_that_fails_or_is_interrupted_is_followed_by_not_done(self):
        for problem in (OSError(5, "bad disk"), KeyboardInterrupt(), ValueError()):
            with self.subTest(repr(problem)):
                self.path.unlink(missing_ok=True)
                self.fail(problem)
                self.assertEqual(self.actions(), ["pin", audit.NOT_DONE])
                self.assertEqual(list(audit.done(audit.entries(self.logs))), [])

    def test_where_that_cannot_be_said_the_line_is_taken_back(self):
        audit.note(self.logs, "hold", "everything")
        before = self.path.read_bytes()
        one_line = file_size_limit(len(before) + 150)
        with self.assertRaises(OSError), one_line, audit.noted(self.logs, "p", "x"):
            raise OSError(28, "full")
        self.assertEqual(self.path.read_bytes(), before)

    def test_a_change_that_is_tried_again_by_itself_leaves_no_line_until_it_is_done(self):
        audit.note(self.logs, "hold", "everything")
        for _ in range(3):
            self.fail(OSError(28, "full"), always, True)
        self.assertEqual(self.actions(), ["hold"])

    def test_a_change_that_must_be_made_is_said_to_be_missing_only_when_it_is_made(self):
        self.path.mkdir()
        with self.assertNoLogs("ota_server", logging.WARNING):
            self.fail(OSError(28, "full"), always)
        with (
            self.assertLogs("ota_server", logging.WARNING) as logged,
            audit.noted(self.logs, "hold", "everything", always),
        ):
            pass
        (line,) = logged.output
        self.assertIn("hold is done, but is not in the audit log: Is a directory", line)
