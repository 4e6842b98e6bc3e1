"""Prometheus' text format: nothing that a label holds can break a line."""

import random
import unittest

from ota_server.operator_port.exposition import (
    MOST_LABEL_CHARACTERS,
    Sample,
    counter,
    exposition,
    gauge,
    histogram,
    label_text,
)
from tests.support.metrics import read_metrics

HOSTILE = (
    '"',
    "\\",
    "\n",
    "\r",
    "\0",
    "{",
    "}",
    ",",
    "=",
    " ",
    "#",
    "\u202e",
    "\ud800",
    "é",
    "\x85",
)


class ExpositionTest(unittest.TestCase):
    def test_a_family_has_help_type_and_samples(self):
        text = exposition([counter("ota_things_total", "Things.", [Sample(3, {"kind": "a"})])])
        self.assertEqual(
            text,
            "# HELP ota_things_total Things.\n"
            "# TYPE ota_things_total counter\n"
            'ota_things_total{kind="a"} 3\n',
        )

    def test_a_value_needs_no_labels(self):
        for value, written in ((7, "7"), (True, "1"), (0.5, "0.5"), (1.7e9, "1700000000.0")):
            with self.subTest(value):
                text = exposition([gauge("ota_thing", "A thing.", value)])
                self.assertTrue(text.endswith(f"\nota_thing {written}\n"))

    def test_a_family_without_samples_is_left_out(self):
        self.assertEqual(exposition([gauge("a", "A.", None), gauge("b", "B.", [])]), "")

    def test_a_label_without_a_value_is_left_out(self):
        text = exposition([gauge("ota_thing", "A.", [Sample(1, {"product": "", "state": "x"})])])
        self.assertIn('\nota_thing{state="x"} 1\n', text)

    def test_a_help_text_of_two_lines_is_one(self):
        self.assertIn("# HELP a A\\nb\\\\.\n", exposition([gauge("a", "A\nb\\.", 1)]))

    def test_the_buckets_of_a_histogram_add_up(self):
        text = exposition([histogram("ota_x_seconds", "X.", (0.1, 1.0), (2, 0, 3), 9.5)])
        found = read_metrics(text)
        self.assertEqual(
            found["ota_x_seconds_bucket"],
            {(("le", "0.1"),): 2, (("le", "1.0"),): 2, (("le", "+Inf"),): 5},
        )
        self.assertEqual(found["ota_x_seconds_count"], {(): 5})
        self.assertEqual(found["ota_x_seconds_sum"], {(): 9.5})

    def test_hostile_labels_stay_one_label_in_one_line(self):
        source = random.Random(7)
        for _ in range(500):
            label = "".join(source.choices(HOSTILE, k=source.randint(1, 12)))
            with self.subTest(ascii(label)):
                text = exposition([gauge("ota_thing", "A.", [Sample(1, {"version": label})])])
                text.encode("utf-8")
                ((labels, value),) = read_metrics(text)["ota_thing"].items()
                self.assertEqual((len(labels), labels[0][0], value), (1, "version", 1))

    def test_a_long_label_is_cut(self):
        self.assertEqual(len(label_text("x" * 1000)), MOST_LABEL_CHARACTERS)

    def test_backslashes_and_quotes_can_be_read_back(self):
        text = exposition([gauge("ota_thing", "A.", [Sample(1, {"version": 'a\\n"b'})])])
        self.assertIn('ota_thing{version="a\\\\n\\"b"} 1\n', text)
