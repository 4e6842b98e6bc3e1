"""The table of devices as CSV, as it comes over the wire."""

import csv
import io
import unittest

from tests.support.client import Client
from tests.support.fleet import mac_of
from tests.support.operators import OperatorsCase, some_devices
from tests.support.varied_fleet import (
    ALL,
    FORMULA_LABEL,
    HOSTILE_LABEL,
    come_varied,
    prepare_varied,
)

_MARK = "\ufeff"


class CsvTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        prepare_varied(cls.data_dir)

    @classmethod
    def come(cls) -> None:
        come_varied(cls.server.port)
        cls.await_devices(ALL)

    def rows(self, query: str = "") -> list[dict[str, str]]:
        """Return the rows of a sheet."""
        answer = self.operators.get(f"/devices.csv?{query}")
        self.assertEqual(answer.status, 200)
        text = answer.body.decode("utf-8")
        self.assertTrue(text.startswith(_MARK))
        return [*csv.DictReader(io.StringIO(text.removeprefix(_MARK)))]

    def test_all_that_match_are_in_it_with_the_columns_that_are_shown(self):
        rows = self.rows("limit=5&group=beta&columns=mac,version,groups&sort=mac&order=desc")
        self.assertEqual([each["mac"] for each in rows], [mac_of(at) for at in range(9, -1, -1)])
        self.assertEqual([*rows[0]], ["mac", "firmware_version", "groups"])
        self.assertEqual(len(self.rows()), ALL)

    def test_its_columns_are_those_that_fit_all_of_it(self):
        self.assertIn("label", self.rows("product=default&sort=mac&order=desc")[0])

    def test_a_formula_is_text_and_text_stays_as_it_is(self):
        labels = {each["mac"]: each["label"] for each in self.rows()}
        self.assertEqual(labels[mac_of(3)], f"'{FORMULA_LABEL}")
        self.assertEqual(labels[mac_of(2)], HOSTILE_LABEL)

    def test_times_are_as_spreadsheets_know_them(self):
        row = self.rows("limit=1")[0]
        self.assertRegex(row["last_seen_time"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\Z")
        self.assertEqual(row["update_time"], "")

    def test_it_is_saved_as_a_file_and_says_what_it_is(self):
        fields = self.operators.get("/devices.csv").fields
        self.assertRegex(fields["content-disposition"], r'filename="devices-\d{4}-\d\d-\d\d\.csv"')
        self.assertEqual(fields["content-type"], "text/csv; charset=utf-8; header=present")
        self.assertEqual(fields["x-content-type-options"], "nosniff")

    def test_a_client_of_http_1_0_gets_it_without_chunks(self):
        with Client(self.server.admin_port) as client:
            token = self.operators.token
            head = f"GET /devices.csv HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}"
            client.send(f"{head}\r\n\r\n".encode())
            whole = client.read_all()
        head, _, body = whole.partition(b"\r\n\r\n")
        self.assertNotIn(b"chunked", head.lower())
        self.assertEqual(body.count(b"\r\n"), ALL + 1)

    def test_a_query_that_cannot_be_read_is_refused(self):
        self.assertEqual(self.operators.get("/devices.csv?stat=x").status, 400)


class LongTest(OperatorsCase):
    COUNT = 2_345

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(cls.COUNT))
        cls.await_devices(cls.COUNT)

    def test_a_sheet_of_several_parts_has_each_device_once(self):
        text = self.operators.get("/devices.csv?columns=mac&sort=seen&order=desc").body.decode()
        lines = text.split()[1:]
        self.assertEqual(len(lines), self.COUNT)
        self.assertEqual({*lines}, {*some_devices(self.COUNT)})


if __name__ == "__main__":
    unittest.main()
