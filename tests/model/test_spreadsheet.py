"""Lines of CSV for spreadsheets."""

import csv
import unittest

from ota_server.model.spreadsheet import as_text, csv_line, never_a_number


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

    def test_what_looks_like_a_number_or_a_date_stays_text(self):
        for cell in ("1.10", "5", "-1", ".5", "1e5", "1,000", "5%", "2026-11-29", "1/2", "10:30"):
            with self.subTest(cell):
                self.assertEqual(never_a_number(cell), f"'{cell}")
        for cell in ("", "v1.10", "1.2.3", "00:11:22:33:44:55", "192.0.2.7", "::1", "x1", "-"):
            with self.subTest(cell):
                self.assertEqual(never_a_number(cell), cell)

    def test_a_line_ends_as_rfc_4180_says(self):
        self.assertEqual(csv_line(["a", "b"]), "a,b\r\n")


if __name__ == "__main__":
    unittest.main()
