"""The command `audit`, as an operator sees it."""

from ota_server.policy import audit
from tests.support import DataDirCase


class AuditTest(DataDirCase):
    def test_a_narrow_terminal_cuts_what_it_was_changed_to_and_never_what_was_done(self):
        reason = "20 of 20 devices failed: at least 86.1 %, over the limit of 2 %"
        log = self.data_dir / "log"
        audit.note(log, "release withdraw", "v2.0.0", reason=reason)
        audit.note(log, "rollout promote", "v2.0.0", **{"from": "v1.0.0", "to": "v2.0.0"})
        lines = self.on_terminal(80, "audit")
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertIn("  release withdraw  ", lines[1])
        self.assertIn("  rollout promote ", lines[2])
        self.assertTrue(lines[1].endswith(".."))
        self.assertIn(reason, self.on_terminal(200, "audit")[1])
