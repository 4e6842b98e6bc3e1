"""The command `group`, as an operator calls it; more of it is in `test_pin_retry`."""

import json
from collections.abc import Mapping

from tests.commands.test_pin_retry import CommandCase
from tests.support import MAC


class LabelsTest(CommandCase):
    def test_labels_on_standard_input_stand_for_their_devices(self):
        self.run_command("device", "label", MAC, "pump #3")
        added = self.lines(
            "group", "add", "beta", "-", given="pump #3  \n\n02:00:00:00:00:01 # new\n"
        )
        self.assertEqual(added, ["2 devices added to group beta"])
        for word in ("add", "remove"):
            words = "standard input line 2 is not a MAC address: 'attic'"
            self.assert_refused(2, words, "group", word, "beta", "-", given="pump #3\nattic\n")
        self.lines("group", "remove", "beta", "-", given="pump #3")
        self.assertEqual(self.lines("group", "list", "beta"), ["02:00:00:00:00:01"])

    def test_one_that_several_devices_have_is_refused(self):
        for mac in (MAC, "02:00:00:00:00:01"):
            self.run_command("device", "label", mac, "attic")
        self.assert_refused(
            2, "2 devices are called attic", "group", "add", "x", "-", given="attic"
        )

    def test_a_label_is_not_blank_and_has_no_blanks_around_it(self):
        for text in (" ", "\u3000", " attic", "attic "):
            with self.subTest(text):
                self.assert_refused(2, "is not a label", "device", "label", MAC, text)


class GroupDeleteTest(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines("group", "add", "beta", MAC)

    def refuse(self, words: str) -> None:
        self.assert_refused(1, words, "group", "delete", "beta")

    def decide(self, name: str, content: Mapping[str, object]) -> None:
        (self.data_dir / "version" / name).write_text(json.dumps(content))

    def test_a_group_is_deleted(self):
        self.assertEqual(self.lines("group", "delete", "beta"), ["group beta is deleted"])
        self.assertEqual(self.lines("group", "list")[-1], "0 groups")
        (line,) = self.lines("audit", "--json", "--limit", "1")
        self.assertEqual(json.loads(line)["action"], "group delete")
        self.refuse("there is no group beta")

    def test_one_that_something_needs_is_not(self):
        self.lines("pin", "beta", "v1.0.0")
        self.refuse("`unpin beta` first")
        self.lines("unpin", "beta")
        plan = {"id": "1", "version": "v1.0.0", "group": "", "waves": [100], "first_group": "beta"}
        plan |= {"time": "2026-11-24T12:00:00.000Z", "instead_of": "v0.9"}
        progress = {"id": "1", "state": "running", "wave": 0, "wave_time": plan["time"]}
        self.decide("rollout.json", plan)
        self.decide("progress.json", progress)
        self.refuse("needs group beta")

    def test_one_with_a_target_is_deleted_by_force_with_its_target(self):
        self.decide("targets.json", {"beta": "v1.0.0", "alpha": "v1.0.0"})
        self.refuse("--force")
        (line,) = self.lines("group", "delete", "beta", "--force")
        self.assertIn("its target was v1.0.0, and its devices get the fleet's", line)
        targets = json.loads((self.data_dir / "version" / "targets.json").read_bytes())
        self.assertEqual(targets, {"alpha": "v1.0.0"})
