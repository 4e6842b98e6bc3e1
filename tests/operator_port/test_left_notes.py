"""What an action warns of is shown by the page that follows, once, to whoever acted."""

import unittest

from ota_server.operator_port.authoriser import Operator
from ota_server.operator_port.left_notes import LeftNotes

ANN, BOB = Operator("ann", True, "f1"), Operator("bob", True, "f2")
PATH, WARNING = "/hold", "No server runs."


class LeftNotesTest(unittest.TestCase):
    def setUp(self):
        self.now = 0.0
        self.notes = LeftNotes(lambda: self.now)
        self.notes.leave(ANN, PATH, [WARNING])

    def test_it_is_shown_once(self):
        self.assertEqual(self.notes.take(ANN, PATH), (WARNING,))
        self.assertEqual(self.notes.take(ANN, PATH), ())

    def test_neither_another_page_nor_another_session_takes_it(self):
        other_session = ANN._replace(form_token="f3")
        for operator, path in ((ANN, "/"), (BOB, PATH), (other_session, PATH)):
            self.assertEqual(self.notes.take(operator, path), ())
        self.assertEqual(self.notes.take(ANN, PATH), (WARNING,))

    def test_the_next_action_takes_its_place_also_without_a_warning(self):
        for texts in (["another"], []):
            self.notes.leave(ANN, PATH, [WARNING])
            self.notes.leave(ANN, PATH, texts)
            self.assertEqual(self.notes.take(ANN, PATH), tuple(texts))

    def test_one_that_nobody_came_for_is_not_shown_later(self):
        self.now = 61.0
        self.assertEqual(self.notes.take(ANN, PATH), ())

    def test_of_many_operators_the_newest_have_theirs(self):
        for number in range(1000):
            self.notes.leave(Operator(f"o{number}", True), PATH, [WARNING])
        left = [self.notes.take(Operator(f"o{number}", True), PATH) for number in range(1000)]
        self.assertEqual(sum(bool(each) for each in left), 100)
        self.assertTrue(all(left[-100:]))
