"""Groups and pins as data."""

import json

from ota_server.model.refusal import BadPolicy, Refused
from ota_server.operations.group_facts import (
    device_pins,
    has_device_pins,
    is_pinned_alone,
    list_groups,
    members_on_file,
)
from ota_server.policy.policy import Pin
from tests.support import MAC, DataDirCase


class GroupFactsTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.version_dir = self.data_dir / "version"
        (self.version_dir / "groups").mkdir()

    def write(self, name: str, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.version_dir / name).write_text(text)

    def test_each_has_its_devices_its_pin_and_its_target(self):
        self.write("groups/beta.txt", f"{MAC}\n{MAC} # twice\n")
        self.write("groups/alpha.txt", "")
        pin = {"version": "v1", "until": None}
        self.write("pins.json", {"groups": {"beta": pin}, "devices": {MAC: pin}})
        self.write("targets.json", {"alpha": "v2"})
        groups, problems = list_groups(self.data_dir)
        self.assertEqual(
            groups, (("alpha", (), None, "v2"), ("beta", (MAC,), Pin("v1", None), None))
        )
        self.assertEqual(problems, ())
        self.assertEqual(members_on_file(self.data_dir, "beta"), [MAC])
        self.assertEqual(device_pins(self.data_dir), {MAC: Pin("v1", None)})

    def test_one_that_cannot_be_read_hides_no_other(self):
        self.write("groups/beta.txt", "no device\n")
        self.write("groups/alpha.txt", f"{MAC}\n")
        groups, problems = list_groups(self.data_dir)
        self.assertEqual([group.name for group in groups], ["alpha"])
        self.assertRegex(problems[0], "beta.txt line 1 is not a MAC address")
        self.assertRaises(BadPolicy, members_on_file, self.data_dir, "beta")
        self.assertRaises(Refused, members_on_file, self.data_dir, "gamma")

    def test_without_pins_there_are_none(self):
        self.assertEqual(device_pins(self.data_dir), {})
        self.assertFalse(has_device_pins(self.data_dir))
        self.assertFalse(is_pinned_alone(self.data_dir, MAC))

    def test_a_pin_of_a_group_is_none_of_a_device(self):
        self.write("groups/beta.txt", f"{MAC}\n")
        self.write("pins.json", {"groups": {"beta": {"version": "v1"}}})
        self.assertFalse(has_device_pins(self.data_dir))
        self.write("pins.json", {"devices": {MAC: {"version": "v1"}}})
        self.assertTrue(has_device_pins(self.data_dir))
        self.assertTrue(is_pinned_alone(self.data_dir, MAC))

    def test_where_pins_cannot_be_read_there_may_be_some(self):
        for content in ("{", "[" * 70_000):
            self.write("pins.json", content)
            self.assertTrue(has_device_pins(self.data_dir))
            self.assertTrue(is_pinned_alone(self.data_dir, MAC))
