"""What operators type, read into values."""

import unittest

from ota_server.operations import typed_values as typed
from ota_server.operations.typed_values import BadFields, BadValue


class TypedValuesTest(unittest.TestCase):
    def test_what_can_be_used_becomes_a_value(self):
        for parse, text, value in (
            (typed.parse_share, "2.5 %", 2.5),
            (typed.parse_waves, "1%,10,100 %", (1.0, 10.0, 100.0)),
            (typed.parse_unseen, "2d", 172_800.0),
            (typed.parse_end_time, "1970-01-02", 86_400_000),
            (typed.parse_note, " a \n b ", "a b"),
            (typed.parse_label, "", ""),
            (typed.parse_switch, "ON", True),
            (typed.parse_switch, "", False),
        ):
            with self.subTest(text):
                self.assertEqual(parse(text), value)

    def test_what_cannot_says_why(self):
        for parse, text, said in (
            (typed.parse_version, "a b", "is not a version"),
            (typed.parse_group_name, "001122334455", "is not a group's name"),
            (typed.parse_waves, "\u0661,100", "is not a list of percentages"),
            (typed.parse_share, "2", "type 2%"),
            (typed.parse_device_count, "0", "from 1 to 1000000"),
            (typed.parse_time_limit, "9999d", "up to a year"),
            (typed.parse_unseen, "1h", "from 1d up"),
            (typed.parse_end_time, "soon", "is not a time"),
            (typed.parse_reason, "x" * 501, "give 500 at most"),
            (typed.parse_note, "\u202e", "cannot be shown"),
            (typed.parse_label, " x", "without a blank"),
            (typed.parse_label, "00:11:22:33:44:55", "would be taken for a MAC address"),
        ):
            with self.subTest(text), self.assertRaisesRegex(BadValue, said):
                parse(text)

    def test_fields_are_read_together_and_each_that_is_wrong_is_named(self):
        readers = {"note": typed.from_text(typed.parse_note), "on": typed.from_switch}
        self.assertEqual(typed.read_fields({"note": "x", "on": None}, readers), {"note": "x"})
        with self.assertRaises(BadFields) as refused:
            typed.read_fields({"note": 7, "on": "perhaps", "x" * 99: 1}, readers)
        self.assertEqual([*refused.exception.problems], ["note", "on", "x" * 40])
