"""What streams are told, also when they come back."""

import threading
import unittest

from ota_server.operator_port.changes import MOST_STREAMS, Changes


class ChangesTest(unittest.TestCase):
    def setUp(self):
        self.changes = Changes(1_000)

    def kinds(self, last_id: int) -> list[str]:
        return [each.kind for each in self.changes.after(last_id, 0)]

    def test_who_waits_is_told_of_what_comes(self):
        begun = self.changes.last_id
        told: list[str] = []
        waiting = threading.Thread(
            target=lambda: told.extend(each.kind for each in self.changes.after(begun, 10))
        )
        waiting.start()
        self.changes.note("hold", product="")
        waiting.join()
        self.assertEqual(told, ["hold"])

    def test_who_comes_back_is_told_what_was_missed(self):
        begun = self.changes.last_id
        for kind in ("devices", "rollouts"):
            self.changes.note(kind)
        self.assertEqual(self.kinds(begun), ["devices", "rollouts"])
        self.assertEqual(self.kinds(begun + 1), ["rollouts"])
        self.assertEqual(self.kinds(begun + 2), [])

    def test_who_was_away_for_too_long_looks_at_everything_again(self):
        begun = self.changes.last_id
        for _ in range(2000):
            self.changes.note("devices")
        for last_id in (begun, 0, self.changes.last_id + 1, 10**30):
            with self.subTest(last_id):
                self.assertEqual(self.kinds(last_id), ["all"])

    def test_an_id_of_a_process_before_this_one_is_not_known(self):
        before = Changes(900)
        before.note("devices")
        self.changes.note("hold")
        self.assertEqual(self.kinds(before.last_id), ["all"])

    def test_there_is_room_for_a_number_of_streams(self):
        taken = [self.changes.begin_stream() for _ in range(MOST_STREAMS + 1)]
        self.assertEqual(taken, [True] * MOST_STREAMS + [False])
        self.changes.end_stream()
        self.assertTrue(self.changes.begin_stream())
