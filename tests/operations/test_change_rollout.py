"""What a page or the API does to a rollout, and what it says of that."""

from ota_server.model.refusal import Refused
from ota_server.operations import change_rollout
from tests.commands.test_rollout import CommandCase
from tests.support.fleet import NEW, OLD


class ChangeRolloutTest(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.know(100)
        self.run_it("start", NEW, "--waves", "10,100")
        self.come_to("running")

    def test_each_says_what_the_command_says(self):
        for do, said in (
            (change_rollout.pause, "is paused"),
            (change_rollout.resume, f"goes on, from {OLD}"),
            (change_rollout.promote, "wave 2 of 2 opens, 100 %"),
            (change_rollout.abort, "is aborted; devices that have it stay on it"),
        ):
            with self.subTest(said):
                done = do(self.data_dir, None)
                self.assertIn(said, done.text)
                self.assertIn("no server runs", done.warnings[-1])
        self.assertRaises(Refused, change_rollout.pause, self.data_dir, "")

    def test_limits_are_changed(self):
        done = change_rollout.change(self.data_dir, "", {"soak_seconds": 90.0})
        self.assertIn("goes on with soak 90s", done.text)
        self.assertEqual(self.plan().soak_seconds, 90.0)

    def test_a_revert_is_shown_before_it_begins(self):
        self.know(7, version=NEW, first=200)
        planned = change_rollout.preview_revert(self.data_dir, None)
        self.assertEqual((planned.devices, planned.undone.version), (7, NEW))
        self.assertFalse(self.plan().is_revert)
        done = change_rollout.revert(self.data_dir, None)
        self.assertIn(f"they go back to {OLD} in waves of", done.text)
        self.assertTrue(self.plan().is_revert)

    def test_a_revert_with_nobody_to_take_back_changes_nothing(self):
        planned = change_rollout.preview_revert(self.data_dir, None)
        self.assertEqual((planned.plan, planned.text), (None, f"no device runs {NEW}"))
        self.assertRaisesRegex(Refused, "abort` alone", change_rollout.revert, self.data_dir, None)
