"""`devices MAC`: what is on record of one device, with equal checks as one row."""

import json
import time

from ota_server.journal.record import format_marker, format_record
from ota_server.model.action import PinnedImage, fed_back, offered
from ota_server.model.device import Device
from ota_server.model.timestamp import format_time
from tests.commands.test_devices import DevicesCase
from tests.support import MAC

MINUTE_MS = 60_000


class FoldTest(DevicesCase):
    def setUp(self) -> None:
        super().setUp()
        self.now_ms = time.time_ns() // 1_000_000

    def add(
        self,
        minutes_ago: float,
        event: str = "check",
        version: str = "v1.0.0",
        target: str = "v1.0.0",
        address: str = "192.0.2.7",
        **details: str | int | bool,
    ) -> None:
        """Put a record into the journal."""
        time_ms = self.now_ms - round(minutes_ago * MINUTE_MS)
        device = Device(time_ms, version, time_ms, None, target, address, False, None)
        self.journal(format_record(event, MAC, device, details))

    def rows(self, *more: str) -> list[str]:
        """Return what is shown but for the times, with single blanks."""
        return [" ".join(line.split()[1:]) for line in self.lines(MAC, *more)[1:]]

    def test_what_a_device_reports_of_an_update_is_told(self):
        image = PinnedImage("v2", "ab" * 32, 1000)
        failed = fed_back(offered(None, image, self.now_ms), "closed", "failure", self.now_ms)
        device = Device(self.now_ms, "-", self.now_ms, None, "v2", "", False, None, action=failed)
        self.journal(format_record("feedback", MAC, device, {"detail": "no space"}))
        self.assertIn("feedback - v2 v2 failed, it says: no space", self.rows()[-1])

    def test_checks_that_are_alike_are_one_row(self):
        for minutes_ago in range(1435, 5, -1):
            self.add(minutes_ago + 0.02)
        self.assertEqual(
            self.rows(), ["check v1.0.0 v1.0.0 1,430 checks, the last 6m ago 192.0.2.7"]
        )

    def test_what_differs_in_anything_that_is_shown_is_a_row_of_its_own(self):
        self.add(50)
        self.add(40)
        self.add(30, address="192.0.2.8")
        self.add(20, target="v2.0.0", address="192.0.2.8")
        self.add(10, target="v2.0.0", address="192.0.2.8", status=503)
        self.add(9.01, version="v2.0.0", target="v2.0.0", previous_version="v1.0.0")
        self.add(8.01, version="v2.0.0", target="v2.0.0")
        self.add(7.01, version="v2.0.0", target="v2.0.0")
        self.assertEqual(
            self.rows(),
            [
                "check v1.0.0 v1.0.0 2 checks, the last 40m ago 192.0.2.7",
                "check v1.0.0 v1.0.0 - 192.0.2.8",
                "check v1.0.0 v2.0.0 - 192.0.2.8",
                "check v1.0.0 v2.0.0 answered 503 192.0.2.8",
                "check v2.0.0 v2.0.0 was v1.0.0 192.0.2.7",
                "check v2.0.0 v2.0.0 2 checks, the last 7m ago 192.0.2.7",
            ],
        )

    def test_a_line_that_repeats_what_is_known_at_the_head_of_a_file_parts_no_checks(self):
        self.add(50)
        self.add(40, "device")
        self.journal(format_marker(self.now_ms, 1))
        self.add(30.01)
        self.assertEqual(self.rows(), ["check v1.0.0 v1.0.0 2 checks, the last 30m ago 192.0.2.7"])
        self.add(20, "device", version="v3.0.0")
        self.assertEqual(self.rows()[1:], ["device v3.0.0 v1.0.0 - 192.0.2.7"])

    def test_since_and_limit_leave_out_what_is_older(self):
        for number, minutes_ago in enumerate((3000, 90, 30)):
            self.add(minutes_ago, address=f"192.0.2.{number}")
        for more, expected in (
            (("--limit", "1"), [2]),
            (("--since", "2h"), [1, 2]),
            (("--since", "1.5d", "--limit", "5"), [1, 2]),
            (("--since", format_time(self.now_ms - 60 * MINUTE_MS)), [2]),
            (("--since", "2020-01-01"), [0, 1, 2]),
        ):
            with self.subTest(more):
                self.assertEqual([int(row[-1]) for row in self.rows(*more)], expected)
                shown = [json.loads(line) for line in self.lines(MAC, "--json", *more)]
                self.assertEqual([int(each["address"][-1]) for each in shown], expected)
        done = self.run_devices(MAC, "--since", "1m")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, f"there is no record of {MAC} since 20.*Z\n")
        done = self.run_devices(MAC, "--since", "yesterday")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'yesterday' is not how long ago, such as 2d or 90m", done.stderr)

    def test_json_and_csv_have_each_record(self):
        for minutes_ago in (3, 2, 1):
            self.add(minutes_ago)
        self.assertEqual(len(self.lines(MAC, "--json")), 3)
        self.assertEqual(len(self.lines(MAC, "--csv")), 4)

    def test_on_a_narrow_terminal_what_happened_goes_on_between_words(self):
        for minutes_ago in (3, 2, 1):
            self.add(minutes_ago, address="2001:db8:1234:5678::1")
        lines = self.on_terminal(80, "devices", MAC)
        self.assertLessEqual(max(map(len, lines)), 80, lines)
        text = " ".join(" ".join(lines).split())
        self.assertIn("3 checks", text)
        self.assertNotIn("..", text)

    def test_local_times_have_their_offset(self):
        self.add(1)
        self.assertRegex(self.lines(MAC, "--local")[1], r"^\d{4}-.*\d\d:\d\d[+-]\d\d:\d\d  check")


class LabelTest(DevicesCase):
    def test_a_label_stands_for_the_mac(self):
        self.known(MAC)
        labels = self.data_dir / "version" / "labels.json"
        labels.write_text(json.dumps({MAC: "pump house"}))
        self.assertEqual(self.lines("pump house"), self.lines(MAC))
        done = self.run_devices("pump house ")
        self.assertEqual(done.returncode, 2)
        self.assertIn("is not a MAC address such as", done.stderr)
        labels.write_text(json.dumps({MAC: "pump", "a0:b1:c2:d3:e4:f5": "pump"}))
        done = self.run_devices("pump")
        self.assertEqual(done.returncode, 2)
        self.assertIn(f"2 devices are called pump: give a MAC: {MAC}, a0:b1", done.stderr)
