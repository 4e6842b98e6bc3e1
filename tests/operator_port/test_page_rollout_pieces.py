"""What pages show of rollouts."""

import unittest

from ota_server.operations.rollout_words import WaveFacts
from ota_server.operator_port.page_rollout_pieces import time_of, wave_bar


class WaveBarTest(unittest.TestCase):
    def test_all_devices_of_a_wave_are_in_its_bar(self):
        counts = {"reach": 10, "active": 9, "updated": 4, "failed": 1, "silent": 1, "undecided": 2}
        shown = wave_bar(WaveFacts(50, None, "open", counts=counts, updated=4, devices=10))
        for words in ("4 devices updated", "2 devices on the way", "1 device failed"):
            self.assertIn(f"<title>{words}</title>", shown)
        self.assertIn("<title>2 devices not told yet</title>", shown)

    def test_a_wave_to_come_has_an_empty_bar(self):
        self.assertIn("<title>to come</title>", wave_bar(WaveFacts(100, None, "to come")))


class TimeTest(unittest.TestCase):
    def test_a_time_that_was_edited_is_text(self):
        self.assertEqual(time_of("<soon>", 0), "<soon>")
        self.assertIn("datetime=", str(time_of("2026-01-02T03:04:05Z", 0)))
