"""The hold as pages and API begin and end it."""

from ota_server.model.refusal import Refused
from ota_server.operations.hold_devices import hold_devices, release_hold
from ota_server.policy.hold import is_held
from ota_server.system.data_dir import product_dir
from tests.support import DataDirCase


class HoldDevicesTest(DataDirCase):
    def test_it_holds_all_products_or_the_one_that_is_meant(self):
        plug = product_dir(self.data_dir, "plug")
        for name in ("version", "firmware", "log"):
            (plug / name).mkdir(parents=True)
        for is_one in (True, False):
            with self.subTest(is_one=is_one):
                begun = hold_devices(self.data_dir, "<b>", is_one)
                self.assertEqual((begun.problems, begun.before[0]), ({}, None))
                self.assertEqual(begun.now and begun.now.reason, "<b>")
                self.assertEqual(is_held(plug), not is_one)
                self.assertEqual(release_hold(self.data_dir, is_one), {})
                self.assertFalse(is_held(self.data_dir) or is_held(plug))

    def test_one_that_is_on_stays_on_record_and_without_one_none_ends(self):
        hold_devices(self.data_dir, "first")
        begun = hold_devices(self.data_dir, "")
        self.assertEqual(
            [each and each.reason for each in (*begun.before, begun.now)], ["first"] * 2
        )
        release_hold(self.data_dir)
        self.assertRaises(Refused, release_hold, self.data_dir)
