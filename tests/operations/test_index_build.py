"""Making the device index: what devices reported before is found, wherever the journal has it."""

from ota_server.model.device import Device
from ota_server.operations.index_build import lines_with_changes
from tests.support.index import HOUR_MS, NEW, OLD, IndexCase, a_device, key_of


class HistoryTest(IndexCase):
    def changed(self, number: int, hours_ago: int, before: str, after: str) -> Device:
        changed_ms = self.now_ms - hours_ago * HOUR_MS
        first_ms = self.now_ms - 40 * HOUR_MS
        device = a_device(changed_ms, after, update_ms=changed_ms, first_seen_ms=first_ms)
        self.note(key_of(number), device, previous_version=before)
        return device

    def history(self) -> dict[str, tuple[int, ...]]:
        since_ms = self.now_ms - 50 * HOUR_MS
        counts = self.index.versions_over_time("", since_ms, self.now_ms, 5).counts
        return dict(counts)

    def test_changes_in_older_files_are_found(self):
        one = self.changed(1, 35, "v1.0.0", OLD)
        other = self.changed(2, 15, "v1.0.0", NEW)
        self.rotate(1, {key_of(1): one, key_of(2): other})
        self.changed(1, 5, OLD, NEW)
        self.catch_up()
        history = self.history()
        self.assertEqual(
            {version: counts[2] for version, counts in history.items()},
            {"v1.0.0": 1, OLD: 1, NEW: 0},
        )
        self.assertEqual(
            {version: counts[-1] for version, counts in history.items()},
            {"v1.0.0": 0, OLD: 0, NEW: 2},
        )

    def test_a_line_that_no_device_wrote_counts_nothing(self):
        self.changed(1, 5, OLD, NEW)
        with self.journal.open("ab") as file:
            file.write(
                b'{"event":"check","previous_version":"v7","mac":"x"}\n{"previous_version":"\n'
            )
        self.catch_up()
        self.assertEqual({*self.history()}, {OLD, NEW})


class SearchTest(IndexCase):
    def test_lines_are_found_whole_across_blocks_and_without_an_end(self):
        for number in range(300):
            details = {"previous_version": OLD} if number % 7 == 0 else {}
            self.note(key_of(number), a_device(self.now_ms), **details)
        content = self.journal.read_bytes()
        lines = [line for line in content.splitlines() if b"previous_version" in line]
        torn = content + b'{"previous_version":"torn'
        for size in (1000, 333, len(torn)):
            blocks = [torn[at : at + size] for at in range(0, len(torn), size)]
            found = [line for each in lines_with_changes(blocks) for line in each]
            self.assertEqual(found, lines)
