"""Exceptions as statuses."""

import errno
import unittest
from http import HTTPStatus

from ota_server.model.refusal import BadPolicy, Misused, Refused
from ota_server.operations.device_filter import BadCursor
from ota_server.operations.device_index import IndexAway
from ota_server.operations.typed_values import BadFields, BadValue
from ota_server.operations.uploads import NoRoom
from ota_server.operator_port.access import unauthorised
from ota_server.operator_port.asked import Malformed
from ota_server.operator_port.authoriser import Denied
from ota_server.operator_port.problems import Problem
from ota_server.operator_port.site import NotHere
from ota_server.operator_port.statuses import as_problem
from ota_server.system.hints import hints
from ota_server.system.locks import Busy


class AsProblemTest(unittest.TestCase):
    def test_each_reaction_has_its_status(self):
        for problem, status in (
            (Problem(HTTPStatus.GONE, "gone"), 410),
            (Denied(HTTPStatus.UNAUTHORIZED, "who", "a token is needed"), 401),
            (NotHere("there is none"), 404),
            (NotHere("another one", HTTPStatus.CONFLICT), 409),
            (Malformed("no JSON"), 400),
            (BadCursor("not one"), 400),
            (BadFields({"version": "say which"}), 400),
            (BadValue("too long"), 400),
            (NoRoom("full"), 507),
            (Refused("in use"), 409),
            (Misused("two options"), 409),
            (BadPolicy("damaged"), 409),
            (IndexAway("made again"), 503),
            (Busy("another command"), 503),
        ):
            with self.subTest(type(problem).__name__):
                found = as_problem(problem)
                self.assertEqual(found.status, status)
                self.assertTrue(found.detail)

    def test_a_refusal_names_commands_as_they_can_be_pasted_and_none_that_was_sent(self):
        found = as_problem(unauthorised("This token has expired."))
        self.assertIn(hints.paste("`token login`"), found.detail)
        sent = as_problem(Denied(HTTPStatus.FORBIDDEN, "Another name", "not known as `hold`"))
        self.assertEqual(sent.detail, "not known as `hold`")

    def test_what_may_be_there_soon_says_when_to_ask_again(self):
        for problem in (IndexAway("x"), Busy("x")):
            self.assertEqual([name for name, _ in as_problem(problem).fields], ["Retry-After"])

    def test_errors_of_the_system_and_bugs_are_logged(self):
        with self.assertLogs("ota_server.operator_port.statuses", "ERROR") as logged:
            full = as_problem(OSError(errno.ENOSPC, "No space left", "/data/x"))
            broken = as_problem(OSError(errno.EIO, "I/O error", "/data/x"))
            bug = as_problem(KeyError("x"))
        self.assertEqual((full.status, broken.status, bug.status), (507, 500, 500))
        self.assertIn("/data/x: No space left", full.detail)
        self.assertNotIn("KeyError", bug.detail)
        self.assertEqual(len(logged.output), 3)
