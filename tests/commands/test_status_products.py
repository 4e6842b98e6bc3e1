"""`status` of several products: one table, then what is wrong, each thing once."""

import unittest

from ota_server.commands.status_products import products_lines
from ota_server.policy.device_state import Condition
from ota_server.policy.fleet_status import (
    DeviceCounts,
    DiskFacts,
    FleetFacts,
    FleetStatus,
    RolloutFacts,
    TargetFacts,
    assess,
)
from ota_server.policy.situation import ServerState
from ota_server.policy.text import Hold

NOW_MS = 1_764_000_000_000
DISK = DiskFacts("/data/log", 1 << 40, 1 << 39)


def status(version: str | None = "1.0", **fields: object) -> FleetStatus:
    """Return how a product is that has a target, and devices that all run it."""
    counts = DeviceCounts(12, {Condition.UP_TO_DATE: 12}, versions={"1.0": 12})
    well = FleetFacts(
        NOW_MS,
        "/data",
        ServerState(runs=True),
        target=TargetFacts(version, "image", 4096),
        devices=counts,
        disks=(DISK,),
    )
    return assess(well._replace(**fields))


class ProductsTest(unittest.TestCase):
    def test_each_product_is_one_line_and_all_else_is_said_once(self):
        names = ("", *(f"plug-{number}" for number in range(10)))
        lines = products_lines(dict.fromkeys(names, status()), 80)
        self.assertEqual(len(lines), 1 + 11 + 1 + 1 + 1 + 1 + 4)
        self.assertEqual(
            lines[:3],
            [
                "  PRODUCT  TARGET  ROLLOUT  UP TO DATE  BEHIND  HELD  FAILED  SILENT  AWAY",
                "  default  1.0     -                12       0     0       0       0     0",
                "  plug-0   1.0     -                12       0     0       0       0     0",
            ],
        )
        self.assertIn("all is well: nothing needs a person", lines)
        self.assertEqual(
            [line.split()[0] for line in lines[-4:]], ["server", "journal", "disk", "hold"]
        )

    def test_undecided_devices_have_a_column_where_there_are_some(self):
        counts = DeviceCounts(3, {Condition.UNDECIDED: 2, Condition.BEHIND: 1})
        lines = products_lines({"": status(), "node": status(devices=counts)}, 80)
        self.assertEqual(lines[0].split("UP TO DATE")[1].split()[:2], ["UNDECIDED", "BEHIND"])
        self.assertEqual(lines[2].split()[3:], ["0", "2", "1", "0", "0", "0", "0"])

    def test_what_needs_a_person_is_marked_and_named_with_its_product(self):
        halted = RolloutFacts("", "2.0", "halted", NOW_MS, reason="9 failed", wave=1, waves=3)
        plug = status(rollouts=(halted,))
        lines = products_lines({"": status(), "plug": plug, "pump": status(None)}, 80)
        self.assertEqual([line[:9] for line in lines[1:4]], ["  default", "! plug   ", "! pump   "])
        self.assertIn(" 2.0 halted 1/3 ", lines[2])
        text = " ".join(" ".join(lines).split())
        self.assertIn("2 things need a person:", text)
        self.assertIn("plug rollout: the rollout of 2.0 was halted: 9 failed", text)
        self.assertIn("pump target: there is no target", text)

    def test_what_is_wrong_with_the_server_marks_no_product(self):
        down = status(server=ServerState())
        lines = products_lines({"": down, "plug": status()}, 80)
        self.assertEqual([line[0] for line in lines[1:3]], [" ", " "])
        self.assertIn("  server    no server runs on /data;", "\n".join(lines))

    def test_the_last_line_says_which_products_are_on_hold(self):
        held = status(hold=Hold("2026-11-29T00:00:00.000Z", "operator", "night"))
        self.assertEqual(
            products_lines({"": status(), "plug": status()}, 80)[-1].split()[1], "none"
        )
        lines = products_lines({"": held, "plug": held, "pump": status()}, 80)
        self.assertEqual(lines[-1].split(maxsplit=1)[1], "default, plug")

    def test_each_disk_is_shown_once(self):
        other = DiskFacts("/data/products/plug/firmware", 1 << 40, 1 << 38)
        # The same disk, a moment later.
        plug = status(disks=(DISK._replace(free=DISK.free - 4096), other))
        lines = products_lines({"": status(), "plug": plug}, 80)
        self.assertEqual(len([line for line in lines if line.startswith("disk")]), 2)

    def test_numbers_are_unknown_where_the_journal_cannot_be_read(self):
        lines = products_lines({"": status(devices=None), "plug": status()}, 80)
        self.assertEqual(lines[1].split()[3:], ["?"] * 6)
