"""What an action asks before it is done."""

import unittest

from ota_server.operator_port.access import NOBODY
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.html import html_of
from ota_server.operator_port.questions import FORCE_FIELD, Question, question_form
from tests.operator_port.test_pieces import asked
from tests.support.pages import PageReader

STOPS = Question(("It stops all.",), "Hold", is_danger=True)


def shown(question: Question, by: Asked | None = None) -> PageReader:
    form = question_form(by or asked(), question, "/hold", "/back", {"key": ["a", "b"]})
    return PageReader(html_of(form))


class QuestionTest(unittest.TestCase):
    def test_a_dangerous_action_has_another_button_and_a_way_back(self):
        page = shown(STOPS)
        self.assertEqual([each["class"] for each in page.all("button")], ["danger"])
        self.assertEqual([each["href"] for each in page.all("a")], ["/back"])
        plain = shown(STOPS._replace(is_danger=False))
        self.assertEqual([each["class"] for each in plain.all("button")], ["main"])

    def test_the_button_sends_what_is_meant_with_the_token_of_the_session(self):
        sent = [(each["name"], each["value"]) for each in shown(STOPS).all("input")]
        self.assertEqual(sent, [("form_token", 'to"ken'), ("key", "a"), ("key", "b")])

    def test_what_speaks_against_it_is_said_and_needs_a_tick(self):
        page = shown(STOPS._replace(doubts=("it is for another chip",)))
        self.assertIn("It is for another chip.", page.text)
        (box,) = page.all("input", type="checkbox")
        self.assertEqual((box["name"], "checked" in box), (FORCE_FIELD, False))

    def test_who_may_not_act_reads_it_and_has_no_button(self):
        nobody = Asked(asked().request, asked().peer, {}, NOBODY)
        page = shown(STOPS._replace(doubts=("it is for another chip",)), nobody)
        self.assertIn("It stops all.", page.text)
        self.assertIn("It is for another chip.", page.text)
        self.assertEqual([*page.all("button"), *page.all("form")], [])


if __name__ == "__main__":
    unittest.main()
