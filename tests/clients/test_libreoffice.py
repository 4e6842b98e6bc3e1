"""LibreOffice opens the sheet of devices that the page gives, and takes each column as it is."""

import re
import subprocess
import tempfile
import unittest
from html import unescape
from pathlib import Path

from tests.support.fleet import mac_of
from tests.support.operators import OperatorsCase
from tests.support.real_clients import needs
from tests.support.varied_fleet import (
    ALL,
    FORMULA_LABEL,
    HOSTILE_LABEL,
    come_varied,
    prepare_varied,
)

# Fields with commas and quotes, in UTF-8, the rest as its dialog has it: it guesses types.
_AS_OFFERED = "CSV:44,34,76"
# The same with "detect special numbers" ticked, and with it not ticked.
_DETECTING, _NOT_DETECTING = f"{_AS_OFFERED},1,,0,false,true", f"{_AS_OFFERED},1,,0,false,false"
_TIMEOUT_SECONDS = 120
_ROW = re.compile(r"<table:table-row.*?</table:table-row>", re.DOTALL)
_CELL = re.compile(
    r"<table:table-cell(?P<fields>[^>]*?)(?:/>|>(?P<content>.*?)</table:table-cell>)", re.DOTALL
)
_COLUMNS = "mac,label,version,target,state,seen,updated,first,address,groups"


def cells_in(row: str) -> list[tuple[str, str]]:
    """Return the type and the text of each cell of a row of flat OpenDocument."""
    cells = []
    for match in _CELL.finditer(row):
        kind = re.search(r'office:value-type="(\w+)"', match["fields"])
        count = re.search(r'number-columns-repeated="(\d+)"', match["fields"])
        text = unescape("".join(re.findall(r"<text:p>(.*?)</text:p>", match["content"] or "")))
        cells += [(kind[1] if kind else "", text)] * (int(count[1]) if count else 1)
    return cells


@needs("soffice")
class LibreOfficeTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        prepare_varied(cls.data_dir)

    @classmethod
    def come(cls) -> None:
        come_varied(cls.server.port)
        cls.check_in({mac_of(8): "1.10", mac_of(9): "2026-11-29"})
        cls.await_devices(ALL)
        cls.content = cls.operators.get(f"/devices.csv?columns={_COLUMNS}").body

    def opened(self, filter_options: str) -> list[dict[str, tuple[str, str]]]:
        """Return the rows as LibreOffice has them, each cell by its column."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "devices.csv"
            path.write_bytes(self.content)
            command = ["soffice", f"-env:UserInstallation=file://{folder}/profile", "--headless"]
            command += [f"--infilter={filter_options}", "--convert-to", "fods", "--outdir", folder]
            subprocess.run(
                [*command, str(path)], check=True, timeout=_TIMEOUT_SECONDS, capture_output=True
            )
            sheet = path.with_suffix(".fods").read_text("utf-8")
        rows = [cells_in(row) for row in _ROW.findall(sheet)]
        names = [text for _, text in rows[0] if text]
        self.assertEqual(names[0], "mac")
        found = [dict(zip(names, row, strict=False)) for row in rows[1:]]
        return [row for row in found if row["mac"][1]]

    def test_each_column_has_its_type_whatever_is_ticked(self):
        for options in (_AS_OFFERED, _DETECTING, _NOT_DETECTING):
            rows = self.opened(options)
            self.assertEqual(len(rows), ALL)
            for row in rows:
                for name, (kind, text) in row.items():
                    wanted = "date" if name.endswith("_time") else "string"
                    with self.subTest(options, column=name, text=text):
                        self.assertIn(kind, (wanted, "") if not text else (wanted,))
            by_mac = {row["mac"][1]: row for row in rows}
            self.assertEqual(by_mac[mac_of(8)]["firmware_version"][1], "'1.10")
            self.assertEqual(by_mac[mac_of(9)]["firmware_version"][1], "'2026-11-29")
            self.assertEqual(by_mac[mac_of(3)]["label"][1], f"'{FORMULA_LABEL}")
            self.assertEqual(by_mac[mac_of(2)]["label"][1], HOSTILE_LABEL)
            self.assertEqual(by_mac[mac_of(1)]["label"][1], "kitchen")


if __name__ == "__main__":
    unittest.main()
