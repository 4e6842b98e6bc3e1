"""The command `audit`, as an operator sees it."""

from ota_server.policy import audit
from tests.support import DataDirCase


class AuditTest(DataDirCase):
    def test_it_shows_who_acted_through_the_admin_port(self):
        log = self.data_dir / "log"
        with audit.acting_as("anna"):
            audit.note(log, "hold", "everything")
        audit.note(log, "unhold", "everything")
        _, first, second, *_ = self.on_terminal(120, "audit")
        self.assertRegex(first, r"Z  anna \(admin port\)  +hold ")
        self.assertRegex(second, r"Z  \S+@\S+  +unhold ")

    def test_a_narrow_terminal_wraps_what_it_was_changed_to_and_never_what_was_done(self):
        reason = "20 of 20 devices failed: at least 86.1 %, over the limit of 2 %"
        log = self.data_dir / "log"
        audit.note(log, "release withdraw", "v2.0.0", reason=reason)
        audit.note(log, "rollout promote", "v2.0.0", **{"from": "v1.0.0", "to": "v2.0.0"})
        lines = self.on_terminal(80, "audit")
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertIn("  release withdraw  ", lines[1])
        self.assertIn("  rollout promote ", lines[-3])
        self.assertIn(reason, " ".join(" ".join(lines).split()))
        self.assertIn(reason, self.on_terminal(200, "audit")[1])

    def test_a_long_reason_stands_below_its_row_and_its_command_can_be_pasted(self):
        command = "`release publish app.bin --version v2.0.1`"
        reason = f"2 of 20 devices failed, over the limit of 2 %; {command} and begin again"
        log = self.data_dir / "log"
        audit.note(log, "rollout halted", "everything here", reason=reason)
        audit.note(log, "hold", "everything", **{"from": "v1.0.0", "to": reason})
        lines = self.on_terminal(80, "audit")
        self.assertEqual(len(lines), 10)
        self.assertRegex(lines[1], r"  rollout halted  everything")
        self.assertEqual([line for line in lines if command in line], [lines[3], lines[7]])
        self.assertEqual([line for line in lines if len(line) > 80 and command not in line], [])
