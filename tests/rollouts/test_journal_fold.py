"""Reading the journal for a rollout, while devices go on writing to it."""

import json

from ota_server.journal.follow import end_of
from ota_server.journal.record import format_marker
from ota_server.model.timestamp import format_time
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from ota_server.rollouts.journal_fold import JournalFold, ServerFacts
from tests.support import DataDirCase
from tests.support.fleet import NEW, OLD, mac_of

START_MS = 1_800_000_000_000
# More than is read at a time, which are some milliseconds.
LATER = 40_000


class JournalFoldTest(DataDirCase):
    def line(self, number: int, time_ms: int) -> bytes:
        time = format_time(time_ms)
        line = {
            "time": time,
            "event": "check",
            "product": "",
            "mac": mac_of(number),
            "firmware_version": OLD,
            "last_seen_time": time,
            "update_time": None,
            "target_version": NEW,
            "address": "192.0.2.1",
        }
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"

    def test_what_is_written_while_it_reads_does_not_hold_it_up_for_ever(self):
        logs = self.data_dir / "log"
        path = logs / "devices.jsonl"
        path.write_bytes(format_marker(START_MS, 0) + self.line(1, START_MS))
        end = end_of(logs)
        with path.open("ab") as file:
            file.write(b"".join(self.line(each % 9, START_MS + each) for each in range(LATER)))
        plan = RolloutPlan("id1", NEW, "", (100.0,), format_time(START_MS), OLD)
        progress = RolloutProgress("id1", "running", 0, format_time(START_MS))
        policy = PolicyFiles(self.data_dir)
        fold = JournalFold(self.data_dir, plan, policy, ServerFacts(0), progress, START_MS + LATER)
        self.addCleanup(fold.close)
        fold.read_to(end)
        self.assertGreaterEqual(fold.position.offset, end.offset)
        self.assertLess(fold.position.offset, path.stat().st_size)
        fold.read_to(end_of(logs))
        self.assertEqual(fold.position, end_of(logs))
