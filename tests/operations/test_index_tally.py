"""The counts of the device index: what changes is taken out of one, and put into another."""

import sqlite3
import unittest

from ota_server.operations.device_filter import Stage
from ota_server.operations.index_row import (
    NO_MARKS,
    NO_STATE,
    IndexedState,
    IndexRow,
    make_row,
)
from ota_server.operations.index_schema import _TABLES
from ota_server.operations.index_tally import SPAN_MS, IndexTally
from ota_server.policy.device_state import Condition
from ota_server.policy.reason import Cause, Reason
from tests.support.index import NEW, OLD, a_device, key_of

NOW_MS = 1_800_000_000_000
SPAN = NOW_MS // SPAN_MS


def row(version: str, condition: Condition | None) -> IndexRow:
    state = IndexedState(
        condition, Cause(Reason.TARGET), None, Stage.NONE, False, False, None, None
    )
    return make_row(key_of(1), a_device(NOW_MS, version), state, NO_MARKS, None, NOW_MS)


class TallyTest(unittest.TestCase):
    def setUp(self) -> None:
        self.database = sqlite3.connect(":memory:")
        self.addCleanup(self.database.close)
        self.database.executescript(_TABLES)
        self.tally = IndexTally()

    def all_of(self, table: str) -> list[tuple[object, ...]]:
        self.tally.write(self.database)
        return self.database.execute(
            f"SELECT * FROM {table} WHERE devices ORDER BY 1, 2, 3"
        ).fetchall()

    def test_a_device_moves_from_one_count_to_another(self):
        old, new = row(OLD, Condition.BEHIND), row(NEW, Condition.UP_TO_DATE)
        self.tally.count(None, old, NOW_MS)
        self.assertEqual([each[-1] for each in self.all_of("state_tally")], [1])
        self.tally.count(old, new, NOW_MS + SPAN_MS)
        self.assertEqual(self.all_of("version_tally"), [("", NEW, 1)])
        self.assertEqual([each[1] for each in self.all_of("state_tally")], [6])
        self.assertEqual(
            self.all_of("version_changes"),
            [("", SPAN, OLD, 1), ("", SPAN + 1, NEW, 1), ("", SPAN + 1, OLD, -1)],
        )
        self.tally.count(new, None, NOW_MS + SPAN_MS)
        self.assertEqual((self.all_of("version_tally"), self.all_of("state_tally")), ([], []))

    def test_what_comes_and_goes_between_two_writes_leaves_nothing(self):
        old, new = row(OLD, Condition.BEHIND), row(NEW, Condition.UP_TO_DATE)
        self.tally.count(None, old, NOW_MS)
        self.tally.count(old, new, NOW_MS)
        self.tally.count(new, old, NOW_MS)
        self.assertEqual(self.all_of("version_tally"), [("", OLD, 1)])
        self.assertEqual(self.all_of("version_changes"), [("", SPAN, OLD, 1)])

    def test_a_device_of_a_product_that_is_not_there_has_a_version_and_no_state(self):
        gone = make_row("plug/x", a_device(NOW_MS), NO_STATE, NO_MARKS, None, NOW_MS)
        self.tally.count(None, gone, None)
        self.assertEqual(self.all_of("state_tally"), [])
        self.assertEqual(self.all_of("version_tally"), [("plug", NEW, 1)])
        self.assertEqual(self.all_of("version_changes"), [])

    def test_changes_are_kept_for_a_hundred_days(self):
        spans_a_day = 24 * 3600 * 1000 // SPAN_MS
        for day in (0, 90, 101):
            self.tally.change("", NOW_MS + day * spans_a_day * SPAN_MS, NEW, 1)
            self.tally.write(self.database)
        spans = [each[1] for each in self.all_of("version_changes")]
        self.assertEqual(spans, [SPAN + 90 * spans_a_day, SPAN + 101 * spans_a_day])

    def test_a_span_has_so_many_versions_at_most_and_those_go_on_being_counted(self):
        for turn in range(2):
            for number in range(600):
                self.tally.change("", NOW_MS, f"v{turn}.{number}", 1)
            self.tally.write(self.database)
        self.tally.change("", NOW_MS, "v0.0", 1)
        self.tally.change("", NOW_MS, "v2.0", 1)
        self.tally.change("plug", NOW_MS, "v2.0", 1)
        changes = self.all_of("version_changes")
        self.assertEqual(len(changes), 101)
        self.assertIn(("", SPAN, "v0.0", 2), changes)
        self.assertIn(("plug", SPAN, "v2.0", 1), changes)
