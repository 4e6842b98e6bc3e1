"""How each product is, for a page as for `status`."""

import logging

from ota_server.model.refusal import Misused
from ota_server.operations.fleet_overview import MayNotRead, gatherers_of, overview
from ota_server.operations.product_facts import add_product
from ota_server.operations.product_warnings import named_warnings, people_needed
from tests.support import DataDirCase


class FleetOverviewTest(DataDirCase):
    def test_what_needs_a_person_names_its_product(self):
        add_product(self.data_dir, "plug")
        self.put_image("v1", b"image")
        self.set_target("v1")
        (self.data_dir / "products" / "plug" / "version" / "pins.json").write_text("[]")
        found = overview(gatherers_of(self.data_dir), counts_devices=False)
        self.assertEqual([*found], ["", "plug"])
        abouts = {each.about for each in people_needed(found)}
        self.assertIn("plug: policy", abouts)
        self.assertIn("server", abouts)
        named = [each for each in named_warnings(found) if each.about == "plug"]
        self.assertTrue(any(each.text.startswith("policy: ") for each in named))

    def test_what_is_one_for_all_products_is_said_once(self):
        add_product(self.data_dir, "plug")
        self.set_target("v1")
        found = overview(gatherers_of(self.data_dir))
        said = [each.about for status in found.values() for each in status.warnings]
        self.assertEqual(said.count("server"), 1)

    def test_the_log_of_the_process_that_asks_goes_on(self):
        overview(gatherers_of(self.data_dir))
        self.assertEqual(logging.root.manager.disable, logging.NOTSET)

    def test_a_folder_that_may_not_be_read_or_is_not_there_is_no_data_directory(self):
        with self.unreadable(self.data_dir / "log"):
            self.assertRaises(MayNotRead, gatherers_of, self.data_dir)
        self.assertRaises(Misused, gatherers_of, self.data_dir / "nowhere")
