"""Changes of many devices at once: the same checks, one line on record, all of it or nothing."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ota_server.journal.forget import ForgetRequests
from ota_server.journal.record import format_record
from ota_server.journal.replay import newest_of
from ota_server.model.device import Device
from ota_server.model.identity import device_key, name_of
from ota_server.model.refusal import Refused
from ota_server.operations.bulk_edits import BulkAction, BulkChange, apply, preview, read_change
from ota_server.operations.typed_values import BadFields
from ota_server.policy.audit import entries
from ota_server.policy.files import PolicyFiles
from ota_server.policy.labels import read_labels
from ota_server.system import clock
from ota_server.system.data_dir import product_dir
from tests.commands.test_rollout import CommandCase
from tests.releases.test_publish import esp_image
from tests.support import DataDirCase, ServerCase, until
from tests.support.fleet import NEW, OLD, mac_of

MACS = [mac_of(number) for number in range(5)]
PIN = BulkChange(BulkAction.PIN, version="v1.0.1")
FORGET = BulkChange(BulkAction.FORGET)


def know(data_dir: Path, macs: list[str]) -> None:
    """Put devices on record."""
    now_ms = clock.now_ms() - 60_000
    device = Device(now_ms, "v1.0.1", now_ms, None, "v1.0.1", "192.0.2.7", False, None)
    with (data_dir / "log" / "devices.jsonl").open("ab") as journal:
        journal.writelines(format_record("check", mac, device) for mac in macs)


def known(data_dir: Path, keys: list[str]) -> int:
    """Return how many of some devices are on record, by the files."""
    return sum(device is not None for _, device in newest_of(data_dir / "log", keys))


class BulkCase(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        know(self.data_dir, MACS)

    def read(self, name: str) -> Any:
        return json.loads((self.data_dir / "version" / name).read_text())

    def lines(self) -> list[dict[str, Any]]:
        """Return the audit log without what differs from run to run."""
        others = ("time", "user", "host")
        return [
            {name: value for name, value in entry.items() if name not in others}
            for entry in entries(self.data_dir / "log")
        ]


class PinTest(BulkCase):
    def test_devices_are_pinned_in_one_line_of_the_audit_log(self):
        self.assertEqual(apply(self.data_dir, PIN, [*MACS, MACS[0]])[:2], (5, 0))
        self.assertEqual(
            self.lines(),
            [{"action": "pin", "what": "5 devices", "macs": MACS, "count": 5, "to": "v1.0.1"}],
        )
        self.assertEqual({*PolicyFiles(self.data_dir).current().pins}, {*MACS})

    def test_what_is_so_already_is_counted_and_not_changed_again(self):
        apply(self.data_dir, PIN, MACS[:2])
        shown = preview(self.data_dir, PIN, MACS)
        self.assertEqual((shown.named, shown.changing, shown.already), (5, 3, 2))
        self.assertEqual(apply(self.data_dir, PIN, MACS)[:2], (3, 2))
        self.assertEqual(apply(self.data_dir, PIN, MACS)[:2], (0, 5))
        self.assertEqual([line["count"] for line in self.lines()], [2, 3])

    def test_a_pin_by_another_spelling_is_replaced_and_all_else_in_the_file_stays(self):
        spelled = MACS[0].replace(":", "").upper()
        other = {"version": "v1.0.0", "until": None}
        content = {"groups": {"beta": other}, "devices": {spelled: other}, "comment": "mine"}
        (self.data_dir / "version" / "pins.json").write_text(json.dumps(content))
        apply(self.data_dir, PIN, MACS[:1])
        content["devices"] = {MACS[0]: {"version": "v1.0.1", "until": None}}
        self.assertEqual(self.read("pins.json"), content)

    def test_a_release_that_is_not_here_or_an_end_that_is_past_changes_nothing(self):
        for change, said in (
            (BulkChange(BulkAction.PIN, version="v9"), "publish it first"),
            (BulkChange(BulkAction.PIN, version="v1.0.1", until_ms=1), "is past"),
        ):
            with self.subTest(said):
                for do in (preview, apply):
                    self.assertRaisesRegex(Refused, said, do, self.data_dir, change, MACS)
        self.assertEqual(self.lines(), [])

    def test_pins_end_together_and_who_has_none_is_left_as_it_is(self):
        apply(self.data_dir, PIN, MACS[:2])
        change = BulkChange(BulkAction.UNPIN)
        self.assertEqual(preview(self.data_dir, change, MACS)[:3], (5, 2, 3))
        self.assertEqual(apply(self.data_dir, change, MACS)[:2], (2, 3))
        self.assertEqual(self.read("pins.json")["devices"], {})
        self.assertEqual(self.lines()[-1]["what"], "2 devices")

    def test_who_is_not_on_record_is_said_before_it_is_pinned(self):
        shown = preview(self.data_dir, PIN, [*MACS, mac_of(9)])
        self.assertEqual(shown.not_on_record, 1)
        self.assertIn("1 device of these is not on record", shown.warnings)
        self.assertEqual(preview(self.data_dir, PIN, MACS, known=MACS[1:]).not_on_record, 1)

    def test_a_hundred_thousand_devices_are_pinned_by_one_write_and_no_more_are(self):
        macs = [
            f"02:00:00:{at >> 16:02x}:{at >> 8 & 255:02x}:{at & 255:02x}" for at in range(10**5)
        ]
        self.assertEqual(apply(self.data_dir, PIN, macs).changed, 100_000)
        self.assertEqual(len(self.read("pins.json")["devices"]), 100_000)
        (line,) = self.lines()
        self.assertEqual((line["count"], len(line["macs"])), (100_000, 1000))
        self.assertRaisesRegex(
            Refused, "too many for pin at once", apply, self.data_dir, PIN, [*macs, mac_of(1), "/x"]
        )


class OtherChipTest(CommandCase):
    def test_no_device_is_pinned_to_an_image_for_another_chip_unless_forced(self):
        self.put_image(OLD, esp_image(OLD, "ESP32"))
        self.put_image(NEW, esp_image(NEW, "ESP32-S3"))
        self.know(3)
        macs = [mac_of(number) for number in range(3)]
        change = BulkChange(BulkAction.PIN, version=NEW)
        with self.assertRaisesRegex(Refused, "3 devices would get an image for other devices"):
            preview(self.data_dir, change, macs)
        self.assertRaises(Refused, apply, self.data_dir, change, macs)
        forced = BulkChange(BulkAction.PIN, version=NEW, is_forced=True)
        self.assertEqual(apply(self.data_dir, forced, macs).changed, 3)


class OthersTest(BulkCase):
    def test_devices_may_try_again_together(self):
        apply(self.data_dir, BulkChange(BulkAction.RETRY), MACS)
        self.assertLessEqual({*MACS}, {*self.read("retries.json")})
        self.assertEqual([line["what"] for line in self.lines()], ["5 devices"])

    def test_devices_get_a_label_together_and_lose_it_together(self):
        change = BulkChange(BulkAction.LABEL, label="hall 3")
        self.assertIn("cannot stand for a MAC", preview(self.data_dir, change, MACS).warnings[0])
        self.assertEqual(apply(self.data_dir, change, MACS)[:2], (5, 0))
        self.assertEqual(read_labels(self.data_dir), dict.fromkeys(MACS, "hall 3"))
        none = BulkChange(BulkAction.LABEL)
        self.assertEqual(apply(self.data_dir, none, MACS[1:])[:2], (4, 0))
        self.assertEqual(read_labels(self.data_dir), {MACS[0]: "hall 3"})

    def test_devices_come_into_a_group_and_leave_it(self):
        adding = BulkChange(BulkAction.ADD, group="beta")
        self.assertEqual(preview(self.data_dir, adding, MACS)[:3], (5, 5, 0))
        apply(self.data_dir, adding, MACS[:2])
        self.assertEqual(preview(self.data_dir, adding, MACS)[:3], (5, 3, 2))
        self.assertEqual(apply(self.data_dir, adding, MACS)[:2], (3, 2))
        removing = BulkChange(BulkAction.REMOVE, group="beta")
        self.assertEqual(apply(self.data_dir, removing, [MACS[0], mac_of(9)])[:2], (1, 1))
        groups = PolicyFiles(self.data_dir).current().groups
        self.assertEqual(groups, dict.fromkeys(MACS[1:], ("beta",)))

    def test_a_group_that_is_not_there_loses_nobody(self):
        change = BulkChange(BulkAction.REMOVE, group="beta")
        self.assertRaisesRegex(Refused, "no group beta", preview, self.data_dir, change, MACS)

    def test_nobody_and_devices_of_another_product_are_refused(self):
        for keys, said in (
            ([], "no device was named"),
            ([f"plug/{MACS[0]}"], "is not a device of"),
        ):
            with self.subTest(said):
                self.assertRaisesRegex(Refused, said, apply, self.data_dir, PIN, keys)

    def test_devices_of_a_product_are_changed_by_their_names(self):
        plug = product_dir(self.data_dir, "plug")
        for name in ("version", "firmware", "log"):
            (plug / name).mkdir(parents=True)
        keys = [device_key("plug", MACS[0]), device_key("plug", "gw-1")]
        apply(plug, BulkChange(BulkAction.LABEL, label="x"), keys)
        self.assertEqual(read_labels(plug), {name_of(key): "x" for key in keys})


class ForgetTest(BulkCase):
    def test_devices_are_forgotten_with_their_labels_where_no_server_runs(self):
        apply(self.data_dir, BulkChange(BulkAction.LABEL, label="x"), MACS)
        shown = preview(self.data_dir, FORGET, [*MACS[:3], mac_of(9)])
        self.assertEqual((shown.changing, shown.already, shown.not_on_record), (3, 1, 1))
        done = apply(self.data_dir, FORGET, [*MACS[:3], mac_of(9)])
        self.assertEqual(done, (3, 1, True))
        self.assertEqual(known(self.data_dir, MACS), 2)
        self.assertEqual({*read_labels(self.data_dir)}, {*MACS[3:]})
        self.assertEqual(
            self.lines()[-1],
            {"action": "forget", "what": "3 devices", "macs": MACS[:3], "count": 3},
        )
        self.assertEqual(self.read("forget.json"), {})

    def test_a_running_server_forgets_them_and_a_device_that_asks_again_stays(self):
        macs = [mac_of(number) for number in range(300)]
        know(self.data_dir, macs)
        self.start()
        self.get("/version.txt", {"_br_mac_": MACS[0], "_br_fwv_": "v1.0.0"})
        self.assertEqual(apply(self.data_dir, FORGET, macs), (300, 0, False))
        fleet = self.server.service.fleet
        requests = ForgetRequests(self.data_dir, fleet)
        requests.look_after()
        self.assertTrue(until(lambda: fleet.known == 0))
        self.get("/version.txt", {"_br_mac_": MACS[0], "_br_fwv_": "v1.0.0"})
        self.assertEqual(fleet.known, 1)
        # Another request is another one: what was done is not done again.
        apply(self.data_dir, FORGET, MACS[:1])
        requests.look_after()
        self.assertTrue(until(lambda: fleet.known == 0))

    def test_if_none_is_on_record_that_is_refused(self):
        with self.assertRaisesRegex(Refused, "none of these devices is on record"):
            apply(self.data_dir, FORGET, [mac_of(9)])
        self.assertEqual(self.lines(), [])


class KilledTest(BulkCase):
    """A process that is killed at each of its accesses to files in turn."""

    def kill_at(self, step: int, change: BulkChange) -> bool:
        """Return whether the change was made before as many accesses as that."""
        pid = os.fork()
        if pid == 0:
            left = step

            def hook(event: str, _: object) -> None:
                nonlocal left
                if event.startswith(("open", "os.")) and event != "os.kill":
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            code = 1
            try:
                apply(self.data_dir, change, MACS)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            self.assertEqual(os.WEXITSTATUS(status), 0)
        return os.WIFEXITED(status)

    def each_kill(self, change: BulkChange, look: Callable[[], object]) -> list[object]:
        """Return what was found after each kill, until it was made."""
        found: list[object] = []
        is_whole = False
        while not is_whole:
            is_whole = self.kill_at(len(found), change)
            found.append(look())
        return found

    def test_all_are_pinned_or_none(self):
        found = self.each_kill(PIN, lambda: len(PolicyFiles(self.data_dir).current().pins))
        self.assertEqual({*found}, {0, 5})

    def test_all_come_into_the_group_or_none(self):
        change = BulkChange(BulkAction.ADD, group="beta")
        found = self.each_kill(change, lambda: len(PolicyFiles(self.data_dir).current().groups))
        self.assertEqual({*found}, {0, 5})

    def test_all_are_forgotten_with_their_labels_or_none(self):
        def look() -> tuple[int, int]:
            """Have the next server start, do what was asked for, and end."""
            fleet = self.start().service.fleet
            ForgetRequests(self.data_dir, fleet).look_after()
            self.assertTrue(until(lambda: fleet._forgetting is None))
            self.stop()
            left = known(self.data_dir, MACS), len(read_labels(self.data_dir))
            # From the beginning again.
            for name in ("forget.json", "labels.json"):
                (self.data_dir / "version" / name).unlink(missing_ok=True)
            know(self.data_dir, MACS)
            apply(self.data_dir, BulkChange(BulkAction.LABEL, label="x"), MACS)
            return left

        apply(self.data_dir, BulkChange(BulkAction.LABEL, label="x"), MACS)
        self.assertEqual({*self.each_kill(FORGET, look)}, {(5, 5), (0, 0)})

    def test_a_label_that_was_given_after_that_stays(self):
        apply(self.data_dir, BulkChange(BulkAction.LABEL, label="x"), MACS)
        step = next(
            step
            for step in range(500)
            if self.kill_at(step, FORGET) or b"unlabelled" in self.content("forget.json")
        )
        self.assertGreater(step, 0)
        self.assertIn(MACS[0].encode(), self.content("labels.json"))
        self.assertEqual(read_labels(self.data_dir), {})
        apply(self.data_dir, BulkChange(BulkAction.LABEL, label="new"), MACS[:1])
        self.assertEqual(read_labels(self.data_dir), {MACS[0]: "new"})
        self.assertNotIn(b"unlabelled", self.content("forget.json"))

    def content(self, name: str) -> bytes:
        path = self.data_dir / "version" / name
        return path.read_bytes() if path.exists() else b""


class FieldsTest(DataDirCase):
    def test_a_change_is_read_from_a_form_or_from_json(self):
        for fields, change in (
            (
                {"action": "pin", "version": "v1", "until": "2027-01-31", "is_forced": "on"},
                BulkChange(BulkAction.PIN, "v1", 1801353600000, is_forced=True),
            ),
            ({"action": "label", "label": ""}, BulkChange(BulkAction.LABEL)),
            ({"action": "forget", "version": ""}, FORGET),
            (
                {"action": "group add", "group": "beta", "is_forced": False},
                BulkChange(BulkAction.ADD, group="beta"),
            ),
        ):
            with self.subTest(fields):
                self.assertEqual(read_change(fields), change)

    def test_what_is_wrong_is_said_by_field(self):
        for fields, wrong in (
            ({}, {"action"}),
            ({"action": "explode"}, {"action"}),
            ({"action": "pin"}, {"version"}),
            ({"action": "label"}, {"label"}),
            ({"action": "group add", "group": "9"}, {"group"}),
            (
                {"action": "pin", "version": "a/b", "until": "soon", "x": 1},
                {"version", "until", "x"},
            ),
            ({"action": 7, "is_forced": "perhaps"}, {"action", "is_forced"}),
        ):
            with self.subTest(fields), self.assertRaises(BadFields) as refused:
                read_change(fields)
            self.assertEqual(refused.exception.problems.keys(), wrong)
