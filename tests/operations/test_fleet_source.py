"""`devices` prints the same from the index as from the journal, and takes the index if current."""

import json
import random
import re

from ota_server.operations.fleet_source import ask_fleet
from ota_server.system.data_dir import product_dir
from tests.support.commands import call
from tests.support.index import NEW, OLD, IndexCase, any_device, key_of

ARGUMENTS = (
    (),
    ("--json",),
    ("--csv",),
    ("--version", "1.10.0", "--csv"),
    ("--not-version", NEW, "--sort", "version", "--json"),
    ("--outdated", "--json"),
    ("--state", "away", "--state", "behind", "--columns", "mac,state,reason"),
    ("--group", "beta"),
    ("--label", "PUMP", "--json"),
    ("--family", "esp32", "--sort", "seen", "--csv"),
    ("--address", "192.0.2.0/24", "--sort", "address", "--json"),
    ("--not-seen", "1d", "--limit", "3", "--json"),
    ("--product", "plug"),
    ("--product", "default", "--csv"),
)


class SameOutputTest(IndexCase):
    def setUp(self) -> None:
        super().setUp()
        other = product_dir(self.data_dir, "plug")
        for name in ("version", "firmware", "log"):
            (other / name).mkdir(parents=True)
        chance = random.Random(9)
        keys = [key_of(number) for number in range(40)]
        keys += ["/gw-1", f"plug/{key_of(1)}", "plug/x y", "gone/x"]
        for key in keys:
            self.note(key, any_device(chance, self.now_ms))
        self.decide("groups/beta.txt", "\n".join(keys[:5]))
        self.decide("labels.json", json.dumps({keys[1]: "Pump <1>", "id:gw-1": "pump 2"}))
        self.decide("pins.json", json.dumps({"devices": {keys[2]: {"version": OLD}}}))

    def source(self) -> str:
        return ask_fleet(self.data_dir, lambda source: type(source).__name__)

    def shown(self, *arguments: str) -> tuple[str, str]:
        """Return what is printed, whatever time has passed meanwhile."""
        done = call("devices", *arguments, "--data-dir", str(self.data_dir))
        return re.sub(r"\b\d+[smhd] ago *", "AGO ", done.stdout), done.stderr

    def test_both_ways_print_the_same(self):
        self.assertEqual(self.source(), "_ReplaySource")
        by_journal = [self.shown(*each) for each in ARGUMENTS]
        self.catch_up()
        self.assertEqual(self.source(), "_IndexSource")
        for arguments, expected in zip(ARGUMENTS, by_journal, strict=True):
            with self.subTest(arguments):
                self.assertEqual(self.shown(*arguments), expected)

    def test_an_index_that_is_not_at_the_end_of_the_journal_is_not_taken(self):
        self.catch_up()
        self.know(1, OLD)
        self.assertEqual(self.source(), "_ReplaySource")
        self.catch_up()
        self.assertEqual(self.source(), "_IndexSource")

    def test_one_that_is_being_made_or_damaged_is_not_taken(self):
        for number in range(5000):
            self.know(number)
        self.assertTrue(self.writer.step(self.now_ms))
        self.assertEqual(self.source(), "_ReplaySource")
        self.catch_up()
        self.assertEqual(self.source(), "_IndexSource")
        self.writer.close()
        self.index.close()
        self.file.write_bytes(b"garbage")
        self.assertEqual(self.source(), "_ReplaySource")

    def test_bad_lines_are_told_of_as_the_journal_has_them(self):
        with self.journal.open("ab") as file:
            file.write(b"not a record\n")
        self.catch_up()
        self.assertEqual(self.source(), "_ReplaySource")
        self.assertIn("bad lines in the journal, skipped: 1", self.shown()[1])

    def test_what_was_decided_a_moment_ago_is_shown(self):
        self.catch_up()
        self.set_target(OLD)
        self.decide("labels.json", json.dumps({key_of(3): "new"}))
        rows = [json.loads(line) for line in self.shown("--json", "--label", "new")[0].splitlines()]
        self.assertEqual([row["mac"] for row in rows], [key_of(3)])
