"""The releases that there are, as data."""

import json

from ota_server.model.version import image_name
from ota_server.operations.release_facts import find_release_facts, list_releases
from tests.releases.test_publish import PublishCase


class ReleaseFactsTest(PublishCase):
    def setUp(self) -> None:
        super().setUp()
        self.publish(b"one", "v1", notes="<b>first</b>")
        self.publish(b"two", "v2")
        self.set_target("v1")

    def pin(self, **pins: str) -> None:
        devices = {mac: {"version": version, "until": None} for mac, version in pins.items()}
        content = json.dumps({"devices": devices})
        (self.data_dir / "version" / "pins.json").write_text(content)

    def test_each_has_its_states_and_what_may_be_done_with_it(self):
        found = {each.version: each for each in list_releases(self.data_dir).releases}
        self.assertEqual((found["v1"].states, found["v2"].states), (("target",), ()))
        self.assertEqual(found["v1"].can, ("withdraw",))
        self.assertEqual(found["v2"].can, ("activate", "withdraw", "remove"))

    def test_a_release_that_is_pinned_says_by_whom_in_a_list_as_alone(self):
        self.pin(**{"001122334455": "2", "001122334466": "v1"})
        for each in list_releases(self.data_dir).releases:
            self.assertEqual(each, find_release_facts(self.data_dir, each.version))
            self.assertIn("pinned", each.states)
            self.assertIn("what the device 00:11:22:33:44:", "".join(each.named_by))

    def test_a_hundred_thousand_pins_do_not_hold_up_the_list(self):
        macs = {(2 << 40 | at).to_bytes(6).hex(): f"v{at % 2 + 1}" for at in range(100_000)}
        self.pin(**macs)
        first, second = list_releases(self.data_dir).releases
        self.assertEqual(len(first.named_by) + len(second.named_by), 100_001)

    def test_files_that_are_no_images_are_named(self):
        (self.firmware / "v3.bin").write_bytes(b"x")
        (self.firmware / image_name("v4")).write_bytes(b"")
        found = list_releases(self.data_dir)
        self.assertEqual(found.strays, ("v3.bin",))
        empty = next(each for each in found.releases if each.version == "v4")
        self.assertEqual((empty.states, "activate" in empty.can), (("no image",), False))
