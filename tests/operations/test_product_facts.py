"""Products as data, and adding one and serving one no more."""

from ota_server.journal.record import format_record
from ota_server.model.device import Device
from ota_server.model.refusal import Misused, Refused
from ota_server.operations.product_facts import add_product, list_products, remove_product
from tests.support import MAC, DataDirCase
from tests.support.story import START_MS


class ProductFactsTest(DataDirCase):
    def test_each_has_its_target_its_releases_and_its_devices(self):
        self.assertFalse(add_product(self.data_dir, "plug"))
        self.set_target("v1")
        self.put_image("v1", b"image")
        device = Device(START_MS, "v1", START_MS, None, None, "192.0.2.7", False, None)
        line = format_record("check", f"plug/{MAC}", device)
        (self.data_dir / "log" / "devices.jsonl").write_bytes(line)
        self.assertEqual(list_products(self.data_dir), [("", "v1", 1, 0), ("plug", None, 0, 1)])
        self.assertIsNone(list_products(self.data_dir, counts_devices=False)[1].devices)

    def test_one_that_is_not_empty_is_kept_unless_forced(self):
        add_product(self.data_dir, "plug")
        (self.data_dir / "products" / "plug" / "firmware" / "firmware_v1.bin").write_bytes(b"x")
        self.assertRaisesRegex(Refused, "has 1 release", remove_product, self.data_dir, "plug")
        kept = remove_product(self.data_dir, "plug", is_forced=True)
        self.assertTrue((kept / "firmware" / "firmware_v1.bin").exists())
        self.assertRaises(Misused, remove_product, self.data_dir, "plug")

    def test_one_that_is_there_is_not_added_again(self):
        add_product(self.data_dir, "plug")
        self.assertRaises(Refused, add_product, self.data_dir, "plug")
