"""Lines of CSV for spreadsheets."""

import csv
import unittest

from ota_server.model.spreadsheet import as_text, csv_line


class CsvLineTest(unittest.TestCase):
    def test_cells_come_back_as_they_were(self):
        for cells in (["a", "b c"], ["", ""], ['"', "x,y"], ["a\nb", "a\r\nb"], ["ä€😀"], ["'x"]):
            with self.subTest(cells):
                self.assertEqual([*csv.reader([csv_line(cells)])], [cells])

    def test_no_cell_is_a_formula_to_a_spreadsheet(self):
        for cell in ("=1+1", "+1", "-1", "@x", "\tx", "\rx"):
            with self.subTest(cell):
                self.assertEqual(as_text(cell), f"'{cell}")
                self.assertEqual(next(csv.reader([csv_line([cell])])), [f"'{cell}"])

    def test_a_line_ends_as_rfc_4180_says(self):
        self.assertEqual(csv_line(["a", "b"]), "a,b\r\n")


if __name__ == "__main__":
    unittest.main()
