"""The command `device`: labels, and devices that are forgotten, with a server running or not."""

import json
import re
import time
import unittest
from pathlib import Path

from ota_server.journal.record import format_record
from ota_server.journal.replay import newest, replay
from ota_server.model.device import Device
from tests.commands.test_pin_retry import OTHER, CommandCase
from tests.support import MAC, Client, Process, until


def known(log_dir: Path) -> list[str]:
    """Return who is on record, by the files."""
    found = replay(log_dir)
    try:
        return [mac for mac, _ in found.devices()]
    finally:
        found.close()


class LabelTest(CommandCase):
    def test_a_label_is_shown_by_devices_and_why_until_it_is_taken_away(self):
        self.see()
        self.assertEqual(
            self.lines("device", "label", "001122334455", "pump house, Zürich"),
            [f"{MAC} is called pump house, Zürich"],
        )
        self.assertRegex("\n".join(self.lines("devices")), r"LABEL\n.*pump house, Zürich\n1 device")
        self.assertEqual(json.loads(self.lines("devices", "--json")[0])["label"], self.label())
        self.assertRegex("\n".join(self.lines("devices", "--csv")), r"label\n.*\"pump house, Z")
        self.assertIn(f"device       {MAC} (pump house, Zürich)", self.lines("why", MAC))
        self.assertEqual(json.loads(self.lines("why", MAC, "--json")[0])["label"], self.label())
        self.assertEqual(
            self.lines("device", "label", MAC, ""),
            [f"{MAC} has no label, no longer pump house, Zürich"],
        )
        self.assertNotIn("LABEL", "\n".join(self.lines("devices")))
        self.assertEqual(
            [entry["to"] for entry in map(json.loads, self.audit()) if "to" in entry],
            ["pump house, Zürich"],
        )

    def label(self) -> str:
        return json.loads((self.data_dir / "version" / "labels.json").read_text("utf-8"))[MAC]

    def audit(self) -> list[str]:
        return (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()

    def test_a_text_that_is_no_label_is_refused(self):
        for text in ("x" * 65, "two\nlines", "\x1b[31m"):
            with self.subTest(text):
                self.assert_refused(2, "is not a label: up to 64", "device", "label", MAC, text)

    def test_a_broken_file_of_labels_is_not_overwritten_and_hides_no_device(self):
        self.see()
        path = self.data_dir / "version" / "labels.json"
        path.write_text('{"no mac": "x"}')
        self.assert_refused(1, "labels.json has 'no mac'.*fix it", "device", "label", MAC, "x")
        self.assertEqual(path.read_text(), '{"no mac": "x"}')
        done = self.run_command("devices")
        self.assertEqual(done.returncode, 0)
        self.assertIn(MAC, done.stdout)
        self.assertRegex(done.stderr, "labels.json has 'no mac'.*no labels are shown")

    def test_a_label_stands_for_a_mac_in_every_command(self):
        self.see()
        self.lines("device", "label", MAC, "pump")
        for command in (
            ("why", "pump"),
            ("pin", "pump", "v1.0.0"),
            ("unpin", "pump"),
            ("retry", "pump"),
            ("group", "add", "beta", "pump"),
            ("devices", "pump"),
            ("group", "remove", "beta", "pump"),
            ("device", "label", "pump", "well"),
        ):
            with self.subTest(command):
                done = self.run_command(*command)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.label(), "well")
        changed = [entry["what"] for entry in map(json.loads, self.audit())]
        self.assertEqual(changed[1:4], [MAC, MAC, MAC])
        self.stop()
        self.assertEqual(self.lines("device", "forget", "well"), [f"{MAC} is forgotten"])

    def test_a_name_that_is_a_label_and_a_group_is_nobodys(self):
        self.see()
        self.lines("device", "label", MAC, "beta")
        self.lines("group", "add", "beta", "a0:b1:c2:d3:e4:f5")
        words = f"beta is a group and the label of {MAC}: give that MAC"
        self.assert_refused(2, words, "pin", "beta", "v1.0.0")
        self.lines("pin", MAC, "v1.0.0")

    def test_a_label_that_would_be_taken_for_a_mac_is_refused_and_a_second_one_is_warned_of(self):
        self.see()
        for text in ("001122334455", "-"):
            self.assert_refused(2, "would be taken for a MAC", "device", "label", MAC, text)
        self.see(OTHER)
        self.lines("device", "label", MAC, "pump")
        done = self.run_command("device", "label", OTHER, "pump")
        self.assertEqual(done.returncode, 0)
        self.assertIn(f"{MAC} is called that too", done.stderr)


class ForgetTest(CommandCase):
    def test_without_a_server_the_command_takes_it_from_the_record(self):
        self.see()
        self.see(OTHER)
        self.lines("device", "label", MAC, "gone")
        self.stop()
        self.assertEqual(self.lines("device", "forget", MAC), [f"{MAC} is forgotten"])
        self.assertEqual(known(self.data_dir / "log"), [OTHER])
        self.assertRegex("\n".join(self.lines("devices", MAC)), " check .*\n(.*\n)*.* forget ")
        self.assertEqual((self.data_dir / "version" / "labels.json").read_text(), "{}\n")
        self.assert_refused(1, "is not on record; `devices` lists", "device", "forget", MAC)

    def test_all_that_have_long_been_silent_are_forgotten_together(self):
        self.see()
        self.see(OTHER)
        self.lines("device", "label", OTHER, "gone")
        self.stop()
        self.make_older(OTHER)
        expected = ["forgotten, as not heard from for so long: 1"]
        self.assertEqual(self.lines("device", "forget", "--unseen", "90d"), expected)
        self.assertEqual(known(self.data_dir / "log"), [MAC])
        self.assertEqual((self.data_dir / "version" / "labels.json").read_text(), "{}\n")
        expected = ["forgotten, as not heard from for so long: 0"]
        self.assertEqual(self.lines("device", "forget", "--unseen", "90d"), expected)
        self.make_older(MAC)
        # A clock that is ahead must not empty the table.
        self.assert_refused(
            1, "is this machine's clock right", "device", "forget", "--unseen", "9d"
        )

    def make_older(self: CommandCase, mac: str) -> None:
        """Put a year between now and what is on record of a device."""
        path, year = self.data_dir / "log" / "devices.jsonl", time.gmtime().tm_year
        lines = path.read_text().splitlines()
        older = [re.sub(f'"{year}-', f'"{year - 1}-', ln) if mac in ln else ln for ln in lines]
        path.write_text("\n".join(older) + "\n")

    def test_which_devices_to_forget_has_to_be_said_in_one_way(self):
        for arguments in ((), (MAC, "--unseen", "90d"), ("--unseen", "1h"), ("--unseen", "soon")):
            with self.subTest(arguments):
                self.assert_refused(2, "unseen", "device", "forget", *arguments)

    def test_what_still_names_a_device_of_a_product_is_said(self):
        plug = self.data_dir / "products" / "plug"
        for name in ("version", "firmware", "log"):
            (plug / name).mkdir(parents=True)
        (plug / "firmware" / "firmware_v1.0.0.bin").write_bytes(b"image")
        now_ms = time.time_ns() // 1_000_000
        device = Device(now_ms, "v1.0.0", now_ms, None, None, "192.0.2.7", False, None)
        line = format_record("check", f"plug/{MAC}", device)
        (self.data_dir / "log" / "devices.jsonl").write_bytes(line)
        self.lines("pin", MAC, "v1.0.0", "--product", "plug")
        self.lines("group", "add", "beta", MAC, "--product", "plug")
        done = self.run_command("device", "forget", MAC, "--product", "plug")
        self.assertIn("still pinned to v1.0.0", done.stderr)
        self.assertIn("still in a group", done.stderr)

    def test_what_still_names_it_is_said(self):
        self.see()
        self.lines("pin", MAC, "v1.0.0")
        self.lines("group", "add", "beta", MAC)
        self.stop()
        done = self.run_command("device", "forget", MAC)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, f"still pinned to v1.0.0; `unpin {MAC}`")
        self.assertRegex(done.stderr, f"`group remove beta {MAC}` removes it")


class ForgetByServerTest(CommandCase):
    """A server process runs."""

    def serve(self) -> Process:
        server = Process("--data-dir", str(self.data_dir), "--host", "127.0.0.1")
        self.addCleanup(server.kill)
        return server

    def see_by(self, server: Process, mac: str, version: str) -> None:
        with Client(server.port) as client:
            client.request("/version.txt", {"_br_mac_": mac, "_br_fwv_": version})
            self.assertEqual(client.answer().status, 200)

    def test_a_running_server_forgets_and_takes_it_for_a_new_one_when_it_asks_again(self):
        server, logs = self.serve(), self.data_dir / "log"
        for mac in (MAC, OTHER):
            self.see_by(server, mac, "v1.0.0")
        expected = [f"{MAC} is forgotten by the running server in a moment"]
        self.assertEqual(self.lines("device", "forget", MAC), expected)
        self.assertTrue(until(lambda: known(logs) == [OTHER]))
        server.kill()
        server = self.serve()
        self.assertEqual(known(logs), [OTHER])
        self.see_by(server, MAC, "v9")
        self.assertIsNone(newest(logs, MAC).update_ms)
        self.lines("device", "forget", OTHER)
        self.assertTrue(until(lambda: known(logs) == [MAC]))

    def test_a_request_of_a_clock_that_was_ahead_is_not_done_again_at_each_start(self):
        server = self.serve()
        self.see_by(server, MAC, "v1.0.0")
        asked = json.dumps({MAC: "2999-01-01T00:00:00Z", "unseen": "2999-01-01T00:00:00Z"})
        (self.data_dir / "version" / "forget.json").write_text(asked)
        server.kill()
        server = self.serve()
        self.see_by(server, OTHER, "v1.0.0")
        self.lines("device", "forget", OTHER)
        self.assertTrue(until(lambda: known(self.data_dir / "log") == [MAC]))

    def test_a_running_server_forgets_all_that_have_long_been_silent(self):
        server, logs = self.serve(), self.data_dir / "log"
        for mac in (MAC, OTHER):
            self.see_by(server, mac, "v1.0.0")
        server.kill()
        ForgetTest.make_older(self, OTHER)
        server = self.serve()
        (said,) = self.lines("device", "forget", "--unseen", "90d")
        self.assertIn("forgotten, as not heard from for so long: 1, by the running server", said)
        self.assertTrue(until(lambda: known(logs) == [MAC]))
        server.end()
        self.assertIn("1 devices that have not been heard from are forgotten", server.log)


if __name__ == "__main__":
    unittest.main()
