"""A rollout that a page or the API shows before it begins, and begins."""

from ota_server.operations.rollout_request import RolloutRequest
from ota_server.operations.start_rollout import NoSuchDevices, preview, start
from ota_server.policy.audit import entries
from tests.commands.test_rollout import NOW_MS, CommandCase
from tests.support.fleet import NEW, OLD, mac_of

REQUEST = RolloutRequest(NEW, waves=(10.0, 100.0))


class StartRolloutTest(CommandCase):
    def test_a_preview_says_how_many_devices_each_wave_adds_and_changes_nothing(self):
        self.know(100)
        self.know(10, days_ago=8, first=100)
        shown = preview(self.data_dir, REQUEST, NOW_MS)
        first, last = shown.waves
        self.assertEqual((first.percent, last.percent, last.total), (10.0, 100.0, 100))
        self.assertEqual(first.added + last.added, shown.devices)
        self.assertEqual((shown.inactive, shown.new, shown.plan.instead_of), (10, 0, OLD))
        self.assertEqual([*(self.data_dir / "version").glob("rollout*")], [])
        self.assertEqual(entries(self.data_dir / "log"), [])

    def test_it_says_what_it_would_wait_for_and_what_to_know(self):
        self.know(100)
        shown = preview(self.data_dir, RolloutRequest(NEW, soak_seconds=60.0), NOW_MS)
        text = " ".join((*shown.waits_for, *shown.warnings))
        self.assertIn("run it well for 1m", text)
        self.assertIn("more than 2 % fail", text)
        self.assertIn("longer than 7d pauses", text)
        self.assertIn("the soak of 1m is shorter than", text)

    def test_a_group_that_it_does_not_come_to_is_named_also_if_nobody_is_left(self):
        self.know(5)
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("".join(f"{mac_of(number)}\n" for number in range(5)))
        (self.data_dir / "version" / "targets.json").write_text(f'{{"beta": "{OLD}"}}')
        with self.assertRaises(NoSuchDevices) as refused:
            preview(self.data_dir, REQUEST, NOW_MS)
        self.assertEqual(refused.exception.left_alone, (("beta", OLD, 5),))
        out = self.run_it("start", NEW)[1]
        self.assertIn("left alone because it has its own target: group beta", out)

    def test_it_begins_as_the_preview_has_shown_it(self):
        self.know(100)
        shown = preview(self.data_dir, RolloutRequest(NEW, note="why"), NOW_MS)
        request = RolloutRequest(NEW, waves=shown.plan.waves, note="why")
        started = start(self.data_dir, request, NOW_MS)
        self.assertEqual(self.plan(), started.plan)
        self.assertEqual(started.plan.counted, shown.plan.counted)
        self.assertIn("no server runs", started.warnings[-1])
