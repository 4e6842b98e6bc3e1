"""The server's log of one product."""

import logging
from pathlib import Path
from unittest import mock

from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.store import Store
from ota_server.system.hints import hints
from ota_server.system.product_log import ProductLog, named_line
from tests.support import DataDirCase

LOGGER = "ota_server"


class ProductLogTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(hints, "data_dir", None))
        self.plug = self.data_dir / "products" / "plug"
        for name in ("version", "firmware", "log"):
            (self.plug / name).mkdir(parents=True)

    def lines(self, data_dir: Path) -> list[str]:
        with self.assertLogs(LOGGER, logging.INFO) as logged:
            log = ProductLog(logging.getLogger("ota_server.x"), data_dir)
            log.warning("%s: `unhold` ends that", "`hold` 100 %")
            log.info("5 %: `release activate V`")
        return [record.getMessage() for record in logged.records]

    def test_a_line_of_a_product_names_it_and_so_do_its_commands(self):
        first, second = self.lines(self.plug)
        self.assertRegex(
            first, r"^product plug: `hold` 100 %: `.* unhold --product plug` ends that$"
        )
        self.assertRegex(second, r"^product plug: 5 %: `.* release activate V --product plug`$")

    def test_one_of_the_default_product_is_as_it_was(self):
        self.assertEqual(self.lines(self.data_dir)[1], "5 %: `release activate V`")
        self.assertEqual(named_line("", "a line"), "a line")

    def said(self, data_dir: Path) -> tuple[str, str]:
        store = Store(data_dir)
        self.addCleanup(store.close)
        with self.assertLogs(LOGGER, logging.INFO) as logged, self.assertRaises(NoTarget):
            store.target()
        (record,) = logged.records
        return record.levelname, record.getMessage()

    def test_a_product_that_was_just_added_has_no_target_yet_which_is_no_error(self):
        level, line = self.said(self.plug)
        self.assertEqual(level, "INFO")
        self.assertRegex(
            line, r"^product plug: no target yet; .* activate VERSION --product plug`$"
        )

    def test_a_target_that_is_missing_where_there_are_images_is_an_error(self):
        self.data_dir, root = self.plug, self.data_dir
        self.put_image("v1", b"an image")
        for data_dir, begin in ((self.plug, "product plug: "), (root, "")):
            level, line = self.said(data_dir)
            self.assertEqual(level, "ERROR")
            self.assertTrue(line.startswith(f"{begin}{data_dir}/version/version.txt is miss"), line)
