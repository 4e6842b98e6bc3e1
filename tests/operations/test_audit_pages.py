"""Who changed what and who was rejected, the newest first, page by page."""

import json

from ota_server.operations.audit_pages import (
    AuditEntry,
    audit_page,
    rejected_entries,
    words_of_change,
)
from ota_server.policy import audit
from tests.support import DataDirCase


class AuditPagesTest(DataDirCase):
    def note(self, *actions: str) -> None:
        for action in actions:
            audit.note(self.data_dir / "log", action, "v1")

    def pages(self, limit: int) -> list[AuditEntry]:
        """Return all entries, read page by page."""
        found, before = [], None
        while True:
            page = audit_page(self.data_dir, limit, before)
            self.assertLessEqual(len(page.entries), limit)
            found += page.entries
            if (before := page.older) is None:
                return found

    def test_pages_of_any_size_are_the_whole_log_the_newest_first(self):
        self.note(*map(str, range(25)))
        for limit in (1, 2, 7, 25, 100):
            with self.subTest(limit):
                actions = [entry.action for entry in self.pages(limit)]
                self.assertEqual(actions, [str(each) for each in reversed(range(25))])

    def test_a_page_goes_on_where_the_one_before_ended_while_the_log_grows(self):
        self.note("a", "b", "c")
        older = audit_page(self.data_dir, 1).older
        self.note("d")
        (entry,) = audit_page(self.data_dir, 1, older).entries
        self.assertEqual(entry.action, "b")

    def test_a_change_that_failed_is_one_entry_that_says_so(self):
        self.note("a", "b", audit.NOT_DONE, "c")
        for limit in (1, 9):
            made = [(entry.action, entry.is_made) for entry in self.pages(limit)]
            self.assertEqual(made, [("c", True), ("b", False), ("a", True)])

    def test_an_entry_says_who_and_from_what_to_what(self):
        details = {"from": "v0", "to": "v1", "group_targets": {"beta": "v2"}}
        audit.note(self.data_dir / "log", "activate", "v1", **details)
        (entry,) = audit_page(self.data_dir, 1).entries
        self.assertEqual((entry.before, entry.after), ("v0, beta v2", "v1"))
        self.assertEqual(entry.who, f"{entry.fields['user']}@{entry.fields['host']}")
        self.assertEqual(words_of_change({"reason": "why"}), ("", "why"))

    def test_lines_that_are_no_entries_are_left_out(self):
        self.note("a")
        with (self.data_dir / "log" / "audit.jsonl").open("ab") as log:
            log.write(b'{"time": 7}\n["time"]\n{"time": "\n')
        self.assertEqual([entry.action for entry in self.pages(2)], ["a"])

    def test_without_a_log_there_is_an_empty_page(self):
        self.assertEqual(audit_page(self.data_dir, 5), ((), None))


class RejectedTest(DataDirCase):
    def test_the_newest_is_first(self):
        for second in (1, 3, 2):
            time = f"2026-01-01T00:00:0{second}Z"
            entry = {"address": "192.0.2.1", "reason": "<b>", "mac": None, "count": second}
            with (self.data_dir / "log" / "rejected.jsonl").open("a") as log:
                log.write(json.dumps({**entry, "first_time": time, "time": time}) + "\n")
        found = rejected_entries(self.data_dir)
        self.assertEqual([entry.requests for entry in found], [3, 2, 1])
        self.assertEqual(found[0][:3], ("192.0.2.1", None, "<b>"))
