"""The `devices` command: the fleet from the journal, for people, spreadsheets and programs."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext

from ota_server.journal.record import format_record
from ota_server.model.device import Device, Download
from ota_server.model.manifest import Manifest, format_manifest
from ota_server.model.timestamp import format_time, parse_time
from ota_server.system.files import replace
from tests.support import DEVICE, MAC, ROOT, TIMEOUT_SECONDS, DataDirCase, ServerCase, bare, until
from tests.support.commands import call

OTHER = "a0:b1:c2:d3:e4:f5"
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


class DevicesCase(DataDirCase):
    def run_devices(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command on the data directory of this test."""
        return call("devices", *arguments, "--data-dir", str(self.data_dir))

    def lines(self, *arguments: str) -> list[str]:
        """Return the lines of a run that must succeed."""
        done = self.run_devices(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def journal(self, content: bytes) -> None:
        """Append to the journal by hand."""
        with (self.data_dir / "log" / "devices.jsonl").open("ab") as file:
            file.write(content)

    def known(
        self, mac: str, version: str = "v1.0.0", seen_ms: int = 0, update_ms: int | None = None
    ) -> None:
        """Put a device on record, seen so many milliseconds ago."""
        now_ms = time.time_ns() // 1_000_000
        update = None if update_ms is None else now_ms - update_ms
        seen = now_ms - seen_ms
        device = Device(seen, version, seen, update, "v1.0.1", "192.0.2.7", False, None)
        self.journal(format_record("check", mac, device))


class TableTest(DevicesCase):
    def test_columns_are_aligned_and_times_relative(self):
        self.set_target("v1.0.1")
        self.put_image("v1.0.1", b"image")
        # A little more than the whole minute, so that a slow machine shows the same.
        self.known(OTHER, "1.9.0-beta+7", 3 * MINUTE_MS + 500, 2 * DAY_MS + 500)
        self.known(MAC, "v1.0.0", 5 * 60 * MINUTE_MS + 500)
        self.assertEqual(
            self.lines(),
            [
                "MAC                VERSION       TOLD    STATE   LAST SEEN  ADDRESS",
                "00:11:22:33:44:55  v1.0.0        v1.0.1  behind  5h ago     192.0.2.7",
                "a0:b1:c2:d3:e4:f5  1.9.0-beta+7  v1.0.1  behind  3m ago     192.0.2.7",
                "2 devices",
            ],
        )
        self.assertEqual(
            self.lines("--columns", "mac,updated")[1:3],
            ["00:11:22:33:44:55  never", "a0:b1:c2:d3:e4:f5  2d ago"],
        )

    def test_the_newest_line_of_a_device_is_that_device(self):
        self.known(MAC, "v1.0.0", 2 * MINUTE_MS)
        self.known(MAC, "v1.0.1")
        header, row, count = self.lines()
        self.assertIn("v1.0.1", row)
        self.assertEqual((header.split()[0], count), ("MAC", "1 device"))

    def test_an_empty_log_is_an_empty_fleet(self):
        self.assertEqual(self.lines()[-1], "0 devices")

    def test_bad_lines_are_counted_on_stderr_and_the_rest_is_shown(self):
        self.known(MAC)
        self.journal(b'\0\0\0\n{"mac":"\xff"}\n{"torn')
        done = self.run_devices()
        self.assertIn("1 device\n", done.stdout)
        self.assertEqual(
            (done.returncode, done.stderr), (0, "bad lines in the journal, skipped: 3\n")
        )

    def test_a_narrow_terminal_cuts_long_columns_and_keeps_the_others(self):
        self.known(MAC, "v1.0.0-" + "x" * 57, 3 * MINUTE_MS + 500)
        lines = self.on_terminal(80, "devices")
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertRegex(
            lines[1], r"^00:11:22:33:44:55  v1\.0\.0-x+\.\. .* 3m ago .* 192\.0\.2\.7$"
        )

    def test_a_terminal_that_is_narrower_than_what_is_never_cut_shows_it_all_the_same(self):
        self.known(MAC)
        for columns in (2, 28):
            for shown in ("mac,reason", "reason", "mac"):
                with self.subTest(columns=columns, shown=shown):
                    lines = self.on_terminal(columns, "devices", "--columns", shown)
                    self.assertNotIn("Traceback", "".join(lines))
                    self.assertTrue(MAC in lines[1] or shown == "reason", lines)

    def test_a_wide_terminal_cuts_nothing(self):
        version = "v1.0.0-" + "x" * 57
        self.known(MAC, version)
        self.assertIn(f"  {version}  v1.0.1  ", self.on_terminal(160, "devices")[1])


class HeldBackTest(DevicesCase):
    """A device that the loop breaker holds back is shown as that."""

    def fetched(self, mac: str, version: str, ago_ms: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        download = Download("v1.0.1", "ab" * 32, 1000, now_ms, 3, now_ms - ago_ms)
        device = Device(now_ms, version, now_ms, None, version, "192.0.2.7", False, download)
        self.journal(format_record("check", mac, device))

    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.0.1", b"an image")
        self.set_target("v1.0.1")
        manifest = Manifest("v1.0.1", "ab" * 32, "cd" * 16, 1000, format_time(0))
        path = self.data_dir / "firmware" / "firmware_v1.0.1.json"
        replace(path, format_manifest(manifest))

    def test_who_waits_is_shown_with_what_ends_it(self):
        self.fetched(MAC, "v1.0.0", MINUTE_MS)
        self.fetched(OTHER, "v1.0.0", DAY_MS)
        _, first, second, count, line = self.lines()
        self.assertIn("failed: loop breaker", first)
        self.assertNotIn("loop breaker", second)
        self.assertEqual(count, "2 devices")
        self.assertIn("1 in the loop breaker", line)
        self.assertIn("`retry MAC`", bare(line))

    def test_who_has_made_it_is_not(self):
        self.fetched(MAC, "v1.0.1", MINUTE_MS)
        self.assertEqual(self.lines()[-1], "1 device")


class CsvTest(DevicesCase):
    def rows(self, *arguments: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO("\n".join(self.lines("--csv", *arguments)))))

    def test_it_has_the_four_fields_and_the_target(self):
        self.known(MAC, "v1.0.1", MINUTE_MS, DAY_MS)
        (row,) = self.rows()
        (record,) = self.records(event="check")
        fields = ("mac", "firmware_version", "last_seen_time", "update_time", "target_version")
        self.assertEqual(row, {name: record[name] for name in fields})

    def test_a_device_that_never_changed_has_an_empty_update_time(self):
        self.known(MAC)
        self.assertEqual(self.rows()[0]["update_time"], "")

    def test_no_cell_is_a_formula_to_a_spreadsheet(self):
        for begin in "=+-@":
            with self.subTest(begin):
                self.known(MAC, f'{begin}HYPERLINK("http://x","y")')
                self.assertEqual(
                    self.rows()[0]["firmware_version"], f'\'{begin}HYPERLINK("http://x","y")'
                )


class JsonTest(DevicesCase):
    def test_no_device_was_first_seen_after_it_was_last_seen_or_in_the_future(self):
        now_ms = time.time_ns() // 1_000_000
        for seen_ms in (now_ms - MINUTE_MS, now_ms + DAY_MS):
            device = Device(
                seen_ms, "v1", seen_ms, None, "v1", "192.0.2.7", False, None, now_ms + 2 * DAY_MS
            )
            self.journal(format_record("check", MAC, device))
            (shown,) = map(json.loads, self.lines("--json"))
            first_ms = parse_time(shown["first_seen_time"])
            self.assertLessEqual(first_ms, min(seen_ms, time.time_ns() // 1_000_000))

    def test_it_was_first_seen_in_an_hour_that_does_not_move(self):
        now_ms = time.time_ns() // 1_000_000
        hour_ms = 60 * MINUTE_MS
        first_ms = -(-(now_ms - 1) // hour_ms) * hour_ms
        for seen_ms in (now_ms - 1, now_ms):
            device = Device(seen_ms, "v1", seen_ms, None, "v1", "192.0.2.7", False, None, first_ms)
            self.journal(format_record("check", MAC, device))
            (shown,) = map(json.loads, self.lines("--json"))
            self.assertEqual(parse_time(shown["first_seen_time"]), first_ms - hour_ms)

    def test_each_line_is_one_device(self):
        self.known(MAC, "=1+1")
        self.known(OTHER, "v1.0.1", MINUTE_MS, DAY_MS)
        first, second = map(json.loads, self.lines("--json"))
        _, record = self.records()
        self.assertEqual((first["mac"], first["firmware_version"]), (MAC, "=1+1"))
        judged = {
            "family": "br",
            "groups": [],
            "state": "held back",
            "reason": "there is no target",
        }
        self.assertEqual(second, {name: record.get(name) for name in second} | judged)
        self.assertEqual(
            set(second),
            {
                *judged,
                "label",
                "first_seen_time",
                "mac",
                "product",
                "firmware_version",
                "target_version",
                "last_seen_time",
                "update_time",
                "address",
            },
        )


class ServerRunningTest(ServerCase, DevicesCase):
    said = False

    def setUp(self):
        super().setUp()
        self.start()
        # The snapshot of a new journal would hold a device that comes before it is written.
        self.assertTrue(until(lambda: bool(self.records(event="snapshot"))))

    def test_the_table_is_the_same_with_the_server_running_or_not(self):
        self.get("/version.txt")
        self.get("/version.txt", {**DEVICE, "_br_mac_": OTHER})
        running = self.lines("--json")
        self.stop()
        self.assertEqual(running, self.lines("--json"))
        self.assertEqual([json.loads(line)["mac"] for line in running], [MAC, OTHER])

    def test_an_update_can_be_followed_in_the_history(self):
        self.get("/version.txt")
        self.get("/firmware.bin")
        # The end of a download is on record a moment after the device has all of it.
        self.assertTrue(until(lambda: bool(self.records(event="download"))))
        self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.0.1"})
        self.stop()
        header, *rows = self.lines(MAC)
        self.assertEqual(header.split(), ["TIME", "EVENT", "VERSION", "TOLD", "WHAT", "ADDRESS"])
        happened = [" ".join(row.split()[1:-1]) for row in rows]
        self.assertEqual(
            happened,
            [
                "check v1.0.0 v1.0.1 -",
                "begin v1.0.0 v1.0.1 GET of v1.0.1",
                f"download v1.0.0 v1.0.1 complete, {len(self.IMAGE)} bytes",
                "check v1.0.1 v1.0.1 was v1.0.0",
            ],
        )

    def test_a_mac_is_found_in_any_spelling(self):
        self.get("/version.txt")
        self.stop()
        for spelling in ("001122334455", "00-11-22-33-44-55", "0011.2233.4455"):
            with self.subTest(spelling):
                (line,) = self.lines("--json", spelling)
                self.assertEqual(json.loads(line), self.records(event="check")[0])

    def test_a_history_as_csv_has_a_line_for_each_record(self):
        self.get("/version.txt")
        self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.0.1"})
        self.stop()
        rows = list(csv.DictReader(io.StringIO("\n".join(self.lines("--csv", MAC)))))
        self.assertEqual([row["previous_version"] for row in rows], ["", "v1.0.0"])

    def test_rejected_requests_are_listed_by_address_and_reason(self):
        self.reject({"_br_mac_": MAC, "_br_fwv_": ""})
        self.reject({"_br_mac_": MAC, "_br_fwv_": ""})
        self.reject({"_br_fwv_": "v1.0.0"})
        self.stop()
        header, *rows, count = self.lines("--rejected")
        self.assertEqual(header.split(), ["ADDRESS", "MAC", "REASON", "COUNT", "LAST"])
        self.assertEqual(
            [row.split()[:5] for row in rows],
            [
                ["127.0.0.1", MAC, "_br_fwv_", "empty", "2"],
                ["127.0.0.1", "-", "_br_mac_", "missing", "1"],
            ],
        )
        self.assertEqual(count, "2 kinds of rejected requests")

    def test_rejected_requests_of_one_mac_are_listed_alone(self):
        self.reject({"_br_mac_": MAC, "_br_fwv_": ""})
        self.reject({"_br_fwv_": "v1.0.0"})
        self.stop()
        (line,) = self.lines("--rejected", "--json", MAC)
        entry = json.loads(line)
        self.assertEqual((entry["mac"], entry["count"]), (MAC, 1))

    def test_a_bad_line_among_the_rejected_is_skipped(self):
        self.reject({"_br_mac_": MAC, "_br_fwv_": ""})
        self.stop()
        path = self.data_dir / "log" / "rejected.jsonl"
        (entry,) = map(json.loads, path.read_text().splitlines())
        for bad in ({**entry, "mac": ["x"]}, {**entry, "count": "1"}, {}, []):
            with path.open("a") as file:
                file.write(json.dumps(bad) + "\n")
        self.assertEqual(self.lines("--rejected")[-1], "1 kind of rejected requests")
        self.start()  # the server reads them too

    def reject(self, fields: Mapping[str, str]) -> None:
        with self.assertLogs("ota_server.device_port.refusals") if not self.said else nullcontext():
            self.assertEqual(self.get("/version.txt", fields).status, 401)
        self.said = True  # each address once a minute


class FailureTest(DevicesCase):
    def test_a_mac_that_is_not_on_record_is_an_error_with_a_hint(self):
        self.known(MAC)
        done = self.run_devices(OTHER)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(
            done.stderr, f"^ota-server: {OTHER} is not on record; .*devices --rejected.*\n$"
        )

    def test_text_that_is_no_mac_is_wrong_usage(self):
        for text in ("00:11:22:33:44", "00:11:22:33:44:5g", "00:00:00:00:00:00", "é"):
            with self.subTest(text):
                done = self.run_devices(text)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn("is not a MAC address such as", done.stderr)

    def test_a_directory_without_a_log_is_an_error_with_a_hint(self):
        self.data_dir = self.data_dir / "elsewhere"
        done = self.run_devices()
        self.assertEqual(
            (done.returncode, done.stdout, done.stderr),
            (1, "", f"ota-server: no log/ in {self.data_dir}; is --data-dir right?\n"),
        )

    def test_json_and_csv_at_once_are_wrong_usage(self):
        self.assertEqual(self.run_devices("--json", "--csv").returncode, 2)

    def test_a_reader_that_stops_reading_causes_no_traceback(self):
        # More than a pipe holds, so that the command is still writing when its reader leaves.
        seen = format_time(0)
        for number in range(1, 3001):
            mac = number.to_bytes(6).hex(":")
            self.journal(
                f'{{"time":"{seen}","event":"check","product":"","mac":"{mac}",'
                f'"firmware_version":"v1","last_seen_time":"{seen}","update_time":null,'
                f'"target_version":"v1","address":"192.0.2.7"}}\n'.encode()
            )
        command = [sys.executable, "-m", "ota_server", "devices", "--data-dir", str(self.data_dir)]
        for form in ([], ["--json"], ["--csv"]):
            with (
                self.subTest(form),
                subprocess.Popen(
                    [*command, *form],
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                ) as process,
            ):
                process.stdout.readline()
                process.stdout.close()
                self.assertEqual(process.stderr.read(), "")
                self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)

    def test_control_characters_in_a_record_do_not_reach_the_terminal(self):
        self.known(MAC)
        self.journal(
            b'{"time":"2026-11-23T12:00:00.000Z","event":"\\u001b[2J","mac":"%b"}\n' % MAC.encode()
        )
        self.assertNotIn("\x1b", "".join(self.lines(MAC)))

    def test_a_disk_that_is_full_is_an_error_without_a_traceback(self):
        self.known(MAC)
        command = [sys.executable, "-m", "ota_server", "devices", "--data-dir", str(self.data_dir)]
        for unbuffered in ("", "1"):
            env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
            with self.subTest(unbuffered), open("/dev/full", "w") as full:
                done = subprocess.run(
                    command, cwd=ROOT, env=env, stdout=full, stderr=subprocess.PIPE, text=True
                )
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr, "^ota-server: .*No space left on device\n$")
                self.assertNotIn("a file in", done.stderr)
