"""How many requests are answered at once, and how many bodies are kept."""

import unittest
from contextlib import ExitStack

from ota_server.operator_port.answer_turns import AnswerTurns
from ota_server.operator_port.problems import Problem

MEBIBYTE = 1024 * 1024


class AnswerTurnsTest(unittest.TestCase):
    def test_strangers_are_answered_a_few_at_a_time(self):
        turns = AnswerTurns(patience_seconds=0.0)
        with ExitStack() as stack:
            with self.assertRaises(Problem) as caught:
                for _ in range(100):
                    stack.enter_context(turns.answering_stranger())
            self.assertEqual(caught.exception.status, 503)
            self.assertEqual(dict(caught.exception.fields), {"Retry-After": "5"})
            stack.close()
            with turns.answering_stranger():
                pass

    def test_bodies_have_room_together(self):
        turns = AnswerTurns()
        with ExitStack() as stack:
            with self.assertRaises(Problem) as caught:
                for _ in range(100):
                    stack.enter_context(turns.keeping(4 * MEBIBYTE))
            self.assertEqual(caught.exception.status, 503)
            with turns.keeping(4096):  # a short one has room always
                pass
            stack.close()
            with turns.keeping(4 * MEBIBYTE):
                pass
