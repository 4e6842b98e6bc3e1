"""The files of the policy under a running server: when a change counts, what a broken one does."""

import json
import os
import sys
import threading
import time
from pathlib import Path

from ota_server.httpd.transports import TRANSPORTS
from ota_server.policy import edits
from ota_server.policy.files import PolicyFiles
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress, format_plan
from ota_server.policy.text import Who
from ota_server.system.files import find, replace
from ota_server.system.watched import Watched
from tests.support import DEVICE, MAC, DataDirCase, ServerCase, until

OTHER = "a0:b1:c2:d3:e4:f5"
DEVICE_PIN = Who("devices", MAC)
GROUP_PIN = Who("groups", "beta")
TIME = "2026-11-24T12:00:00.000Z"
PLAN = RolloutPlan("id1", "v1.2", "", (100.0,), TIME, "v1.0.1")
PROGRESS = RolloutProgress("id1", "running", 0, TIME)
SECOND = 1.0


class PolicyCase(ServerCase):
    """A server with a third release, v1.2; its log is not shown."""

    def setUp(self) -> None:
        super().setUp()
        self.put_image("v1.2", b"third " * 1000)
        self.version_dir = self.data_dir / "version"

    def told(self, reported: str = "v1.0.0", mac: str = MAC) -> str:
        fields = {"_br_mac_": mac, "_br_fwv_": reported}
        return self.get("/version.txt", fields).body.decode()

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file in version/ in place, as an editor does."""
        path = self.version_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def assert_soon_told(self, version: str, mac: str = MAC) -> None:
        self.assertTrue(until(lambda: self.told(mac=mac) == version, SECOND), self.told(mac=mac))


class CommandTest(PolicyCase):
    """What a command changed holds at the next request."""

    def test_hold_and_unhold(self):
        self.assertEqual(self.told(), "v1.0.1")
        for _ in range(3):
            edits.hold(self.data_dir, "")
            self.assertEqual(self.told(), "v1.0.0")
            edits.unhold(self.data_dir)
            self.assertEqual(self.told(), "v1.0.1")

    def test_a_pin_of_a_device(self):
        self.assertEqual(self.told(), "v1.0.1")
        edits.pin(self.data_dir, DEVICE_PIN, "v1.2", None)
        self.assertEqual((self.told(), self.told(mac=OTHER)), ("v1.2", "v1.0.1"))
        edits.unpin(self.data_dir, DEVICE_PIN)
        self.assertEqual(self.told(), "v1.0.1")

    def test_a_group_and_its_pin(self):
        self.assertEqual(self.told(), "v1.0.1")
        edits.add_members(self.data_dir, "beta", [OTHER])
        edits.pin(self.data_dir, GROUP_PIN, "v1.2", None)
        self.assertEqual((self.told(), self.told(mac=OTHER)), ("v1.0.1", "v1.2"))
        edits.add_members(self.data_dir, "beta", [MAC])
        self.assertEqual(self.told(), "v1.2")
        edits.remove_members(self.data_dir, "beta", [MAC])
        self.assertEqual((self.told(), self.told(mac=OTHER)), ("v1.0.1", "v1.2"))

    def test_two_changes_within_one_time_stamp(self):
        for number in range(20):
            edits.pin(self.data_dir, DEVICE_PIN, "v1.2", None)
            edits.pin(self.data_dir, DEVICE_PIN, ("v1.0.1", "v1.2")[number % 2], None)
            self.assertEqual(self.told(), ("v1.0.1", "v1.2")[number % 2])

    def test_two_changes_in_place_that_leave_one_time_stamp(self):
        self.told()
        content = '{"devices": {"%s": {"version": "%s"}}}'
        path = self.write("pins.json", content % (MAC, "v1.2.."))
        status = path.stat()
        self.write("pins.json", content % (MAC, "v1.0.1"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assert_soon_told("v1.0.1")


class EditTest(PolicyCase):
    """What was edited in place holds within a second."""

    def test_each_kind_of_file(self):
        self.assertEqual(self.told(), "v1.0.1")
        self.write("pins.json", f'{{"devices": {{"{MAC}": {{"version": "v1.2"}}}}}}')
        self.assert_soon_told("v1.2")
        self.write("hold.json", "")
        self.assert_soon_told("v1.0.0")
        (self.version_dir / "hold.json").unlink()
        self.write("stopped.json", '{"v1.2": {"state": "withdrawn"}}')
        self.assertTrue(until(lambda: self.get("/firmware/firmware_v1.2.bin").status == 404, 1))
        (self.version_dir / "stopped.json").unlink()
        (self.version_dir / "pins.json").unlink()
        self.assert_soon_told("v1.0.1")
        self.write("groups/beta.txt", f"{MAC} # the lab")
        self.write("targets.json", '{"beta": "v1.2"}')
        self.assert_soon_told("v1.2")
        self.write("groups/beta.txt", "")
        self.assert_soon_told("v1.0.1")

    def test_a_rollout_and_its_progress(self):
        self.assertEqual(self.told(), "v1.0.1")
        self.write("rollout.json", format_plan(PLAN))
        self.write("progress.json", format_plan(PROGRESS))
        self.assert_soon_told("v1.2")
        self.write("progress.json", format_plan(PROGRESS._replace(state="halted")))
        self.assert_soon_told("v1.0.1")

    def test_a_manifest_and_what_its_devices_report(self):
        self.assertEqual(self.told("build 7"), "v1.0.1")
        manifest = {"version": "v1.0.1", "sha256": "0" * 64, "md5": "0" * 32, "size": 1}
        content = json.dumps({**manifest, "time": TIME, "reports_as": "build 7"})
        (self.data_dir / "firmware" / "firmware_v1.0.1.json").write_text(content)
        self.assertTrue(until(lambda: self.told("build 7") == "build 7", SECOND))
        with self.assertLogs("ota_server", "ERROR") as said:
            self.assertEqual(self.get("/firmware.bin").status, 404)  # it has another SHA-256
        self.assertIn("is not the one that was published", said.output[0])

    def test_the_folder_taken_away_changes_nothing(self):
        edits.hold(self.data_dir, "")
        self.assertEqual(self.told(), "v1.0.0")
        self.version_dir.rename(self.data_dir / "away")
        policies = self.server.service.policies
        policies.look_after()
        self.assertTrue(policies.current().is_held)
        (self.data_dir / "away").rename(self.version_dir)
        self.assertEqual(self.told(), "v1.0.0")


class BrokenTest(PolicyCase):
    def test_a_broken_file_keeps_what_it_held_and_is_said_once(self):
        edits.add_members(self.data_dir, "beta", [MAC])
        edits.pin(self.data_dir, GROUP_PIN, "v1.2", None)
        self.assertEqual(self.told(), "v1.2")
        for name, content in (("pins.json", "{"), ("groups/beta.txt", "all of them")):
            with self.subTest(name), self.assertLogs("ota_server.system.watched", "ERROR") as said:
                good = (self.version_dir / name).read_bytes()
                self.write(name, content)
                self.assertTrue(until(lambda said=said: bool(said.output), SECOND))
                for _ in range(5):
                    self.server.service.policies.look_after()
                    self.assertEqual(self.told(), "v1.2")
                self.assertEqual(len(said.output), 1)
                self.assertIn("what it held before applies until it is fixed", said.output[0])
                self.write(name, good)

    def test_a_file_that_is_fixed_and_broken_again_is_said_again(self):
        path = self.write("pins.json", "{}")
        policies = PolicyFiles(self.data_dir)
        with self.assertLogs("ota_server.system.watched", "INFO") as said:
            for content in ("{", "{}", "{"):
                self.replace(path, content)
                policies.current()
        levels = [record.levelname for record in said.records]
        self.assertEqual(levels, ["ERROR", "INFO", "ERROR"])

    def replace(self, path: Path, content: str) -> None:
        temporary = path.with_name("temporary")
        temporary.write_text(content)
        temporary.replace(path)

    def test_broken_at_the_start_nobody_is_offered_anything_until_it_is_fixed(self):
        for name in ("pins.json", "targets.json", "stopped.json", "groups/beta.txt"):
            with self.subTest(name):
                path = self.write(name, "broken")
                with self.assertLogs("ota_server.system.watched", "ERROR") as said:
                    self.assertEqual(self.told(), "v1.0.0")
                self.assertIn(f"{path} ", said.output[0])
                consequence = "a server that has not read it before offers nothing until it"
                self.assertIn(f"; {consequence} is fixed", said.output[0])
                answer = self.get("/firmware.bin")
                self.assertEqual((answer.status, "retry-after" in answer.fields), (503, True))
                path.unlink()
                self.assert_soon_told("v1.0.1")
                self.stop()

    def test_a_broken_plan_at_the_start_does_the_same_and_a_broken_progress_offers_nothing(self):
        self.write("progress.json", "broken")
        path = self.write("rollout.json", format_plan(PLAN))
        self.assertEqual(self.told(), "v1.0.1")
        self.stop()
        replace(path, format_plan(PLAN._replace(group="beta")))
        with self.assertLogs("ota_server.system.watched", "ERROR"):
            self.assertEqual(self.told(), "v1.0.0")

    def test_a_broken_manifest_concerns_its_release_alone(self):
        path = self.data_dir / "firmware" / "firmware_v1.2.json"
        edits.pin(self.data_dir, DEVICE_PIN, "v1.2", None)
        for is_folder in (False, True):
            with self.subTest(is_folder=is_folder):
                path.mkdir() if is_folder else path.write_text("{")
                with self.assertLogs("ota_server.system.watched", "ERROR") as said:
                    self.assertEqual((self.told(), self.told(mac=OTHER)), ("v1.0.0", "v1.0.1"))
                self.assertIn("no device is offered its release until it is fixed", said.output[0])
                self.assertEqual(len(said.output), 1)
                path.rmdir() if is_folder else path.unlink()
                self.assert_soon_told("v1.2")
                self.stop()

    def test_what_is_no_regular_file_of_the_folder_is_not_read(self):
        outside = self.data_dir / "outside.json"
        outside.write_text(f'{{"devices": {{"{MAC}": {{"version": "v1.2"}}}}}}')
        path = self.version_dir / "pins.json"
        for make, undo in (
            (path.mkdir, path.rmdir),
            (lambda: os.mkfifo(path), path.unlink),
            (lambda: path.symlink_to(outside), path.unlink),
            (lambda: path.symlink_to(path), path.unlink),
        ):
            make()
            with self.subTest(make), self.assertLogs("ota_server.system.watched", "ERROR") as said:
                self.assertEqual(self.told(), "v1.0.0")
                self.assertRegex(
                    said.output[0], "pins.json (is not a regular file|Too many levels)"
                )
            undo()
            self.assert_soon_told("v1.0.1")
            self.stop()

    def test_a_link_to_a_file_of_the_folder_is_followed(self):
        self.write("mine.json", f'{{"devices": {{"{MAC}": {{"version": "v1.2"}}}}}}')
        (self.version_dir / "pins.json").symlink_to("mine.json")
        self.assertEqual(self.told(), "v1.2")

    def test_groups_that_cannot_be_seen_stay_as_they_were(self):
        edits.add_members(self.data_dir, "beta", [MAC])
        edits.pin(self.data_dir, GROUP_PIN, "v1.2", None)
        self.assertEqual(self.told(), "v1.2")
        folder = self.version_dir / "groups"
        folder.rename(self.data_dir / "away")
        with self.assertLogs("ota_server.system.watched", "ERROR"):
            folder.symlink_to(folder)
            self.server.service.policies.look_after()
        self.assertEqual(self.told(), "v1.2")


class LongListTest(DataDirCase):
    """A list too long for a turn is read by a chore, and no turn waits for that."""

    def setUp(self) -> None:
        super().setUp()
        (self.data_dir / "version" / "groups").mkdir()
        self.path = self.data_dir / "version" / "groups" / "all.txt"
        self.macs = [
            f"02:00:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in range(20000)
        ]

    def test_it_is_left_to_the_next_chore(self):
        policies = PolicyFiles(self.data_dir)
        edits.add_members(self.data_dir, "all", self.macs)
        self.assertEqual(policies.current().groups, {})
        policies.look_after()
        self.assertEqual(len(policies.current().groups), len(self.macs))

    def test_a_short_list_beside_it_does_not_have_a_turn_sort_the_long_one(self):
        self.path.write_text("\n".join(self.macs))
        policies = PolicyFiles(self.data_dir)
        edits.add_members(self.data_dir, "beta", [MAC])
        self.assertNotIn(MAC, policies.current().groups)
        policies.look_after()
        self.assertEqual(policies.current().groups[MAC], ("beta",))
        self.assertEqual(len(policies.current().groups), len(self.macs) + 1)

    def test_hold_does_not_wait_for_it(self):
        policies = PolicyFiles(self.data_dir)
        policies._watched.reads_long_file = True
        with policies._lock:
            edits.hold(self.data_dir, "")
            self.assertTrue(policies.current().is_held)


class FolderTest(DataDirCase):
    def test_a_folder_that_is_gone_is_said_once(self):
        policies = PolicyFiles(self.data_dir)
        (self.data_dir / "version").rename(self.data_dir / "moved")
        with self.assertLogs("ota_server.policy.files", "ERROR") as said:
            for _ in range(3):
                policies.look_after()
        (line,) = said.output
        self.assertIn(str(self.data_dir / "version"), line)


class TwoThreadsTest(DataDirCase):
    def test_a_turn_does_not_miss_what_a_chore_is_about_to_read(self):
        policies = PolicyFiles(self.data_dir)
        read_all, is_reading = policies._read_all, threading.Event()

        def read_late(is_turn: bool) -> None:
            is_reading.set()
            time.sleep(0.01)
            read_all(is_turn)

        policies._read_all = read_late
        edits.hold(self.data_dir, "")
        chore = threading.Thread(target=policies.look_after)
        chore.start()
        is_reading.wait()
        self.assertTrue(policies.current().is_held)
        chore.join()


class WritingTest(DataDirCase):
    def test_a_list_that_is_being_written_in_place_is_not_taken_for_whole(self):
        (self.data_dir / "version" / "groups").mkdir()
        path = self.data_dir / "version" / "groups" / "beta.txt"
        path.write_text(f"{MAC}\n{OTHER}\n")
        policies = PolicyFiles(self.data_dir)
        with path.open("w") as file:
            file.write(f"{MAC}\n")
            file.flush()
            policies.look_after()
            self.assertIn(OTHER, policies.current().groups)
            file.write(f"{OTHER}\n02:00:00:00:00:01\n")

        def is_whole() -> bool:
            policies.look_after()
            return len(policies.current().groups) == 3

        self.assertTrue(until(is_whole, SECOND))


class BetweenLookAndReadTest(DataDirCase):
    """Somebody begins to write to a file in place after it was found, before it is read."""

    def test_it_keeps_what_it_held_until_the_next_look(self):
        watched = Watched(True, "nothing applies")
        path = self.data_dir / "list"
        path.write_bytes(b"all of it")
        self.assertEqual(self.read(watched), b"all of it")
        os.utime(path, (0, 0))
        found = find(self.data_dir, "list")
        assert found is not None
        path.write_bytes(b"")
        watched._take(str(path), watched._files[str(path)], found, bytes, None)
        self.assertEqual(watched._files[str(path)].value, b"all of it")
        replace(path, b"new")
        self.assertEqual(self.read(watched), b"new")

    def read(self, watched: Watched) -> bytes:
        watched.begin(is_turn=False)
        value: bytes = watched.read(self.data_dir, "list", bytes, b"")
        watched.end()
        return value


class ComingAndGoingTest(DataDirCase):
    """A file that comes or goes while it is looked for, as the first pin does."""

    READS = 5000

    def test_it_is_there_or_not_and_never_one_that_cannot_be_used(self):
        folder, is_over = self.data_dir / "version", threading.Event()
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-5)

        def come_and_go() -> None:
            while not is_over.is_set():
                replace(folder / "pins.json", b"content")
                os.unlink(folder / "pins.json")

        other = threading.Thread(target=come_and_go)
        other.start()
        self.addCleanup(other.join)
        self.addCleanup(is_over.set)
        for _ in range(self.READS):
            watched = Watched(True, "nothing applies")
            watched.begin(is_turn=True)
            self.assertIn(watched.read(folder, "pins.json", bytes, b""), (b"", b"content"))
            self.assertEqual(watched.problem, "")


class HoldTest(PolicyCase):
    TRANSPORT = TRANSPORTS[0]

    def test_the_image_is_answered_503_and_no_download_begins(self):
        self.assertEqual(self.told(), "v1.0.1")
        edits.hold(self.data_dir, "")
        answer = self.get("/firmware.bin")
        self.assertEqual((answer.status, "retry-after" in answer.fields), (503, True))
        self.stop()
        self.assertEqual(self.records(event="begin"), [])

    def test_a_download_that_is_under_way_goes_on(self):
        self.assertEqual(self.get("/firmware.bin", {**DEVICE, "Range": "bytes=0-9"}).status, 206)
        edits.hold(self.data_dir, "")
        rest = self.get("/firmware.bin", {**DEVICE, "Range": "bytes=10-"})
        self.assertEqual((rest.status, rest.body), (206, self.IMAGE[10:]))

    def test_by_hand_it_holds_within_a_second(self):
        self.assertEqual(self.told(), "v1.0.1")
        (self.version_dir / "hold.json").touch()
        self.assert_soon_told("v1.0.0")


class HoldWithThreadsTest(HoldTest):
    TRANSPORT = "threads"


class TwoOperatorsTest(PolicyCase):
    """Commands at the same moment, under a running server that asks all the time."""

    ROUNDS = 200

    def test_every_file_is_whole_and_every_change_is_on_record(self):
        self.assertEqual(self.told(), "v1.0.1")
        edits.add_members(self.data_dir, "beta", [])

        def operate(operator: int) -> None:
            for number in range(self.ROUNDS // 2):
                mac = f"02:00:00:00:{operator:02x}:{number:02x}"
                edits.add_members(self.data_dir, "beta", [mac])
                edits.pin(self.data_dir, Who("devices", mac), "v1.2", None)

        operators = [threading.Thread(target=operate, args=(each,)) for each in range(2)]
        for operator in operators:
            operator.start()
        with self.assertNoLogs("ota_server", "ERROR"):
            while any(operator.is_alive() for operator in operators):
                self.assertEqual(self.told(), "v1.0.1")
        for operator in operators:
            operator.join()
        macs = [
            f"02:00:00:00:{each:02x}:{n:02x}" for each in range(2) for n in range(self.ROUNDS // 2)
        ]
        for mac in (macs[0], macs[-1]):
            self.assertEqual(self.told(mac=mac), "v1.2")
        listed = (self.version_dir / "groups" / "beta.txt").read_text().split()
        pinned = json.loads((self.version_dir / "pins.json").read_text())["devices"]
        self.assertEqual((sorted(listed), sorted(pinned)), (macs, macs))
        lines = (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()
        changes = [
            (entry["action"], entry.get("to"), entry["what"]) for entry in map(json.loads, lines)
        ]
        for mac in macs:
            self.assertIn(("group add", mac, "beta"), changes)
            self.assertIn(("pin", "v1.2", mac), changes)
        self.assertEqual(len(changes), 2 * self.ROUNDS + 1)
