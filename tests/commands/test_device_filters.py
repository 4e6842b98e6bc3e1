"""`devices` with filters: which devices, in which order, with which columns, and how each is."""

import argparse
import json
import time
import unittest

from ota_server.commands.device_filters import add_filters, chosen
from ota_server.journal.record import format_record
from ota_server.model.device import Device, Download
from ota_server.model.timestamp import format_time
from ota_server.model.updater import Updater
from ota_server.operations.fleet_row import COLUMNS, FleetRow, fields_of
from ota_server.policy.device_state import Condition, DeviceCondition
from ota_server.policy.reason import Cause, Reason
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from tests.commands.test_devices import DevicesCase
from tests.policy.test_device_state import NOW_MS, device

HOUR_MS = 3_600_000
OLD, NEW = "v1.0.0", "v1.10.0"


def mac_of(number: int) -> str:
    """Return the MAC of a device by its number."""
    return f"02:00:00:00:00:{number:02x}"


class FilterCase(DevicesCase):
    def setUp(self) -> None:
        super().setUp()
        for version in (OLD, "v1.9.0", NEW):
            self.put_image(version, version.encode() * 1000)
        self.set_target(NEW)

    def know(
        self,
        number: int,
        version: str = NEW,
        hours_ago: float = 0.1,
        address: str = "192.0.2.7",
        download: Download | None = None,
        target: str = NEW,
        updater: Updater | None = None,
    ) -> None:
        """Put a device on record."""
        seen_ms = time.time_ns() // 1_000_000 - round(hours_ago * HOUR_MS)
        device = Device(
            seen_ms, version, seen_ms, None, target, address, False, download, None, None, updater
        )
        self.journal(format_record("check", mac_of(number), device))

    def write(self, name: str, content: object) -> None:
        """Write a file of the policy."""
        path = self.data_dir / "version" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    def numbers(self, *arguments: str) -> list[int]:
        """Return the devices that are shown, by their numbers."""
        return [int(json.loads(line)["mac"][-2:], 16) for line in self.lines("--json", *arguments)]

    def states(self) -> dict[int, str]:
        """Return how the devices are, as the table says it."""
        rows = self.lines("--columns", "mac,state")
        return {int(row[15:17], 16): row[19:] for row in rows if row.startswith("02:")}


class FamilyTest(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.know(1)
        self.know(2, updater=Updater("esp32", 1_310_720))
        self.know(3, updater=Updater("hawkbit"))

    def test_only_those_of_a_family_are_shown(self):
        self.assertEqual(self.numbers("--family", "esp32"), [2])
        self.assertEqual(self.numbers("--family", "br", "--family", "hawkbit"), [1, 3])
        self.assertEqual(self.numbers("--family", "ESP32", "--family", "hawkBit"), [2, 3])

    def test_the_table_has_a_column_of_it_where_there_are_several(self):
        self.assertIn(" FAMILY ", self.lines()[0])
        self.assertNotIn("FAMILY", self.lines("--family", "esp32")[0])
        self.assertIn("family", self.lines("--csv")[0])
        self.assertNotIn("family", self.lines("--csv", "--family", "br")[0])

    def test_programs_are_told_it_in_any_case(self):
        families = [json.loads(line)["family"] for line in self.lines("--json")]
        self.assertEqual(families, ["br", "esp32", "hawkbit"])


class ChooseTest(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.know(1, OLD, 200, "192.0.2.1")
        self.know(2, "1.9.0", 2, "192.0.2.200")
        self.know(3, NEW, 1, "2001:db8::1")
        self.know(4, "1.10.0", 0.5, "198.51.100.1")
        self.write("labels.json", {mac_of(3): "Pump house, north", mac_of(4): "well"})
        self.write("groups/beta.txt", f"{mac_of(2)}\n{mac_of(3)}\n")

    def test_each_filter_alone(self):
        for arguments, expected in (
            (("--version", "v1.9.0"), [2]),
            (("--version", "v1.9.0", "--version", OLD), [1, 2]),
            (("--not-version", NEW), [1, 2]),
            (("--outdated",), [1, 2]),
            (("--group", "beta"), [2, 3]),
            (("--state", "up_to_date"), [3, 4]),
            (("--state", "up-to-date"), [3, 4]),
            (("--state", "up to date"), [3, 4]),
            (("--state", "behind", "--state", "away"), [1, 2]),
            (("--not-seen", "7d"), [1]),
            (("--not-seen", "45m"), [1, 2, 3]),
            (("--address", "192.0.2.0/24"), [1, 2]),
            (("--address", "::ffff:192.0.2.0/120"), [1, 2]),
            (("--address", "2001:db8::/32"), [3]),
            (("--address", "198.51.100.1"), [4]),
            (("--label", "pump"), [3]),
            (("--limit", "2"), [1, 2]),
        ):
            with self.subTest(arguments):
                self.assertEqual(self.numbers(*arguments), expected)

    def test_filters_combine_and_rows_are_in_the_order_that_is_asked_for(self):
        for arguments, expected in (
            (("--group", "beta", "--version", NEW), [3]),
            (("--outdated", "--not-seen", "1d"), [1]),
            (("--sort", "version"), [1, 2, 3, 4]),
            (("--sort", "seen"), [1, 2, 3, 4]),
            (("--sort", "address"), [1, 2, 4, 3]),
            (("--sort", "label"), [1, 2, 3, 4]),
            (("--sort", "state", "--limit", "1"), [1]),
        ):
            with self.subTest(arguments):
                self.assertEqual(self.numbers(*arguments), expected)

    def test_columns_are_those_that_are_named(self):
        lines = self.lines("--columns", "label,mac,groups", "--group", "beta")
        self.assertEqual(lines[0].split(), ["LABEL", "MAC", "GROUPS"])
        self.assertEqual(lines[2].split("  "), ["Pump house, north", mac_of(3), "beta"])
        self.assertEqual(lines[-1], "2 of 4 devices")
        header = self.lines("--csv", "--columns", "mac,state,first")[0]
        self.assertEqual(header, "mac,state,first_seen_time")

    def test_a_group_that_is_not_there_is_refused(self):
        done = self.run_devices("--group", "nobody")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("there is no group nobody", done.stderr)

    def test_what_is_no_filter_is_wrong_usage(self):
        for arguments, said in (
            (("--columns", "mac,colour"), "'colour' is not one of mac, product, label, version"),
            (("--family", "esp-32"), "'esp-32' is not one of br, tasmota, esp8266, esp32"),
            (("--state", "fine"), "'fine' is not one of silent, failed, away, undecided, held"),
            (("--not-seen", "a week"), "'a week' is not a duration"),
            (("--address", "home"), "'home' is neither an address nor a network"),
            (("--limit", "0"), "would show nothing"),
            ((mac_of(1), "--outdated"), "--outdated is for the fleet"),
            (("--rejected", "--version", OLD), "--version is for the fleet"),
            (("--since", "2d"), "--since is for the history of one device"),
            (("--local",), "--local is for the history of one device"),
            (("--rejected", "--local"), "--local is for the history of one device"),
            ((mac_of(1), "--local", "--csv"), "--local is for people: --csv has all times in UTC"),
            (("--json", "--columns", "mac"), "--columns is for the table and for --csv"),
            (("--label", ""), "it is empty: every label holds that"),
            ((mac_of(1), "--not-seen", "0s"), "--not-seen is for the fleet"),
            (("--group", "Nobody!"), "'Nobody!' is not a group's name"),
        ):
            with self.subTest(arguments):
                done = self.run_devices(*arguments)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(said, done.stderr)

    def test_the_table_fits_80_columns(self):
        self.write("labels.json", {})
        self.assertLessEqual(max(map(len, self.on_terminal(80, "devices"))), 80)


class ConditionsAskedFor:
    """In place of `FleetConditions`: all devices are up to date, and who was asked for is noted."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def of(self, mac: str, _: Device) -> DeviceCondition:
        """Return the condition of a device."""
        self.asked.append(mac)
        return DeviceCondition(Condition.UP_TO_DATE, Cause(Reason.TARGET))

    def in_words(self, _mac: str, _cause: Cause) -> str:
        """Return the cause in words."""
        return "the target of the fleet"

    def is_outdated(self, mac: str, one: Device) -> bool:
        """Return whether a device is outdated."""
        return self.of(mac, one).condition is not Condition.UP_TO_DATE


class CostTest(unittest.TestCase):
    """How a device is, is found out for devices that are shown, and where a column says it."""

    def asked_for(self, *arguments: str, columns: tuple[str, ...] = ("state",)) -> list[int]:
        """Return for which of 9 devices it is, where these columns are shown."""
        parser = argparse.ArgumentParser()
        add_filters(parser.add_argument_group())
        parser.add_argument("--limit", type=int)
        conditions = ConditionsAskedFor()
        rows = (
            FleetRow(mac_of(number), device(f"v1.{number}"), "", (), conditions)
            for number in range(1, 10)
        )
        for row in chosen(rows, parser.parse_args(arguments), NOW_MS):
            fields_of(row, [COLUMNS[name] for name in columns])
            COLUMNS["version"].text(row, NOW_MS)
        return [int(mac[-2:], 16) for mac in conditions.asked]

    def test_a_device_that_is_not_shown(self):
        self.assertEqual(self.asked_for("--limit", "2"), [1, 2])
        self.assertEqual(self.asked_for("--limit", "2", "--sort", "version"), [1, 2])
        for place in ("--state=up_to_date", "--outdated"):
            asked = self.asked_for(place, "--version", "v1.3", "--address", "10.0.0.0/8")
            self.assertEqual(asked, [3])

    def test_columns_that_do_not_say_it(self):
        self.assertEqual(self.asked_for(columns=("mac", "version", "seen", "label")), [])

    def test_a_device_whose_state_and_reason_are_shown_is_asked_for_once(self):
        self.assertEqual(self.asked_for("--version=v1.5", columns=("state", "reason")), [5])


class StateTest(FilterCase):
    """What holds a device back is shown, and it is not called up to date."""

    def test_a_hold(self):
        self.know(1, OLD)
        self.know(2, NEW)
        self.write("hold.json", {})
        self.assertEqual(self.states(), {1: "held: hold", 2: "up to date"})
        self.assertEqual(self.numbers("--outdated"), [1])

    def test_a_rollout_that_has_not_come_to_it(self):
        now = format_time(time.time_ns() // 1_000_000)
        plan = RolloutPlan("1", "v1.9.0", "", (0.0001, 100.0), now, NEW)
        self.write("rollout.json", format_plan(plan).decode())
        progress = RolloutProgress("1", "running", 0, now)
        self.write("progress.json", format_plan(progress).decode())
        self.know(1, NEW)
        self.assertEqual(self.states(), {1: "held: rollout"})
        (fields,) = map(json.loads, self.lines("--json"))
        self.assertEqual(fields["state"], "held back")
        self.assertRegex(
            fields["reason"],
            r"^held back: the rollout of v1.9.0 is at 0.0001 %, its turn comes at [0-9.]+ %$",
        )

    def test_the_loop_breaker(self):
        sha256 = "ab" * 32
        now_ms = time.time_ns() // 1_000_000
        for number, attempts in ((1, 4), (2, 12)):
            download = Download(NEW, sha256, 1000, now_ms, attempts, now_ms - 1000, 0)
            self.know(number, OLD, 0, download=download, target=OLD)
        for state in self.states().values():
            self.assertNotEqual(state, "up to date")
        self.assertEqual(self.numbers("--outdated"), [1, 2])
