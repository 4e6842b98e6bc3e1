"""What is noticed, whoever has changed it."""

from ota_server.operations.device_index import DeviceIndex
from ota_server.operations.index_writer import IndexWriter
from ota_server.operator_port.change_watch import LOOK_SECONDS, ChangeWatch
from ota_server.operator_port.changes import Changes
from ota_server.policy import audit, edits, labels
from ota_server.system import clock
from tests.support import DataDirCase, until


class ChangeWatchTest(DataDirCase):
    def setUp(self):
        super().setUp()
        self.put_image("v1.0.0", b"image")
        self.set_target("v1.0.0")
        (self.data_dir / "products" / "plug" / "version").mkdir(parents=True)
        self.changes = Changes(clock.now_ms())
        index = DeviceIndex(self.data_dir)
        self.addCleanup(index.close)
        self.watch = ChangeWatch(self.data_dir, index, self.changes)

    def noticed(self) -> set[tuple[str, str | None]]:
        """Return what has been noticed since the last time, with its product."""
        begun = self.changes.last_id
        self.watch._look_at = 0.0  # half a second has passed
        self.watch.look()
        return {(each.kind, each.fields.get("product")) for each in self.changes.after(begun, 0)}

    def test_while_nothing_changes_nothing_is_noticed(self):
        self.assertEqual(self.noticed(), set())
        self.assertEqual(self.noticed(), set())

    def test_each_change_is_noticed_by_what_it_is_about(self):
        plug = self.data_dir / "products" / "plug"
        for change, kinds in (
            (lambda: self.set_target("v1.0.1"), {("releases", "default")}),
            (lambda: self.put_image("v1.0.1", b"other"), {("releases", "default")}),
            (lambda: (plug / "version" / "version.txt").write_text("v2"), {("releases", "plug")}),
            (lambda: (plug / "version" / "hold.json").touch(), {("hold", "plug")}),
            (lambda: (plug / "version" / "hold.json").unlink(), {("hold", "plug")}),
            (lambda: edits.hold(self.data_dir, "why"), {("hold", "default"), ("audit", "default")}),
            (
                lambda: (self.data_dir / "version" / "progress_beta.json").write_text("{}"),
                {("rollouts", "default")},
            ),
            (lambda: (self.data_dir / "log" / "rollouts.jsonl").touch(), {("rollouts", "default")}),
            (lambda: (self.data_dir / "log" / "rejected.jsonl").touch(), {("rejected", "default")}),
            (lambda: audit.note(self.data_dir / "log", "x", "y"), {("audit", "default")}),
        ):
            change()
            with self.subTest(kinds):
                self.assertEqual(self.noticed(), kinds)

    def test_a_change_that_moves_devices_is_told_once_a_second_at_most(self):
        labels.set_label(self.data_dir, "00:11:22:33:44:55", "one")
        self.assertIn(("devices", None), self.noticed())
        labels.set_label(self.data_dir, "00:11:22:33:44:55", "two")
        self.assertNotIn(("devices", None), self.noticed())
        self.assertTrue(until(lambda: ("devices", None) in self.noticed(), 5, LOOK_SECONDS))

    def test_the_number_of_devices_is_told_once_there_is_an_index(self):
        writer = IndexWriter(self.data_dir)
        self.addCleanup(writer.close)
        while writer.step(clock.now_ms()):
            pass
        begun = self.changes.last_id
        self.noticed()
        told = [each for each in self.changes.after(begun, 0) if each.kind == "devices"]
        self.assertEqual([each.fields for each in told], [{"total": 0, "new": []}])
