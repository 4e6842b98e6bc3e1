"""Messages as sentences."""

import unittest

from ota_server.operator_port.sentences import sentence


class SentenceTest(unittest.TestCase):
    def test_a_word_at_the_beginning_gets_a_capital_and_a_name_does_not(self):
        for text, expected in (
            ("there is no target", "There is no target."),
            ("v1.0.0 is the target", "v1.0.0 is the target."),
            ("version: say which", "version: say which."),
            ("no, it is not.", "No, it is not."),
            ("is --data-dir right?", "Is --data-dir right?"),
            ("/data/x cannot be read", "/data/x cannot be read."),
            ("wave 2 waits: a", "Wave 2 waits: a."),
            ("2024.1 is withdrawn", "2024.1 is withdrawn."),
            ("`rollout resume` goes on", "`rollout resume` goes on."),
            ("", "."),
        ):
            with self.subTest(text):
                self.assertEqual(sentence(text), expected)


if __name__ == "__main__":
    unittest.main()
