"""The commands `hold` and `unhold`, on a server with one product and with several."""

import json
from pathlib import Path

from ota_server.policy.files import PolicyFiles
from ota_server.policy.hold import HoldLog
from tests.commands.test_pin_retry import CommandCase
from tests.commands.test_product import ProductCase
from tests.support import DEVICE, until
from tests.support.commands import call


class HoldTest(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.start()  # without a server, these commands warn

    def test_hold_and_unhold_say_what_is_so(self):
        on_hold = "everything is {}on hold; `unhold` ends that"
        self.assertEqual(self.lines("hold", "--reason", "it reboots"), [on_hold.format("")])
        burns = on_hold.format("still ").replace(";", ", for this reason: it burns;")
        self.assertEqual(self.lines("hold", "--reason", "it burns"), [burns])
        self.assertEqual(self.lines("unhold"), ["nothing is on hold any longer"])
        self.assert_refused(1, "nothing is on hold; ", "unhold")

    def test_a_reason_has_500_characters_at_most(self):
        for command in (("hold",), ("release", "withdraw", "v1.0.0")):
            done = self.run_command(*command, "--reason", "x" * 501)
            self.assertEqual(done.returncode, 2)
            self.assertIn("it has 501 characters: give 500 at most", done.stderr)
        self.lines("hold", "--reason", "x" * 500)

    def test_a_second_hold_without_a_reason_leaves_what_the_first_one_said(self):
        self.lines("hold", "--reason", "it reboots")
        path = self.data_dir / "version" / "hold.json"
        before = path.read_bytes()
        (line,) = self.lines("hold")
        since = r"since 20\d\d-\S+Z by \S+: it reboots"
        self.assertRegex(line, f"^everything is already on hold, {since}$")
        self.assertEqual(path.read_bytes(), before)
        *_, count, held = self.lines("audit")
        self.assertEqual(count, "1 change")
        self.assertRegex(held, f"^everything is on hold {since}; `unhold` ends that$")

    def test_a_hold_by_hand_says_no_more_than_that(self):
        (self.data_dir / "version" / "hold.json").touch()
        self.assertEqual(self.lines("hold"), ["everything is already on hold; `unhold` ends that"])
        said = ["everything is still on hold, for this reason: it burns; `unhold` ends that"]
        self.assertEqual(self.lines("hold", "--reason", "it burns"), said)


class HoldAllCase(ProductCase):
    def setUp(self) -> None:
        super().setUp()
        self.make()
        self.run_well("product", "add", "pump")
        self.start()
        self.assertTrue(until(lambda: self.get("/plug/version.txt").body == b"p1"))

    def held(self) -> set[str]:
        return {
            name
            for name, folder in self.folders().items()
            if (folder / "version" / "hold.json").exists()
        }

    def folders(self) -> dict[str, Path]:
        products = self.data_dir / "products"
        return {"default": self.data_dir, "plug": products / "plug", "pump": products / "pump"}

    def audited(self, name: str) -> list[tuple[str, str]]:
        path = self.folders()[name] / "log" / "audit.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        return [(e["action"], e["what"]) for e in entries if "hold" in e["action"]]


class HoldAllTest(HoldAllCase):
    def test_hold_stops_the_devices_of_every_product_and_unhold_ends_that(self):
        said = self.run_well("hold", "--reason", "it bricks")
        self.assertEqual(said, "everything is on hold; `unhold` ends that\n")
        self.assertEqual(self.held(), {"default", "plug", "pump"})
        device = {**DEVICE, "_br_fwv_": "p0"}
        for path in ("/version.txt", "/plug/version.txt"):
            self.assertEqual(self.get(path, device).body, b"p0", path)
        self.assertEqual(self.get("/plug/firmware.bin", device).status, 503)
        self.assertEqual(self.run_well("unhold"), "nothing is on hold any longer\n")
        self.assertEqual(self.held(), set())
        self.assertEqual(self.get("/plug/version.txt", device).body, b"p1")
        self.assertIn("nothing is on hold; ", self.refused("unhold"))

    def test_one_line_of_the_audit_log_says_so(self):
        self.run_well("hold")
        self.run_well("unhold")
        both = [("hold", "everything"), ("unhold", "everything")]
        self.assertEqual(self.audited("default"), both)
        self.assertEqual(self.audited("plug"), [])

    def test_one_product_is_held_alone_and_named(self):
        for name in ("plug", "default"):
            with self.subTest(name):
                self.assertIn(
                    f"product{' plug' if name == 'plug' else ''} is on hold; "
                    f"`unhold --product {name}` ends that",
                    self.run_well("hold", "--product", name, "--reason", "night"),
                )
                self.assertEqual(self.held(), {name})
                what = "product plug" if name == "plug" else "default product"
                self.assertEqual(self.audited(name), [("hold", what)])
                for words in (("devices",), ("group", "list"), ("audit",), ("status",)):
                    done = call(*words, "--data-dir", str(self.data_dir))
                    shown = " ".join(done.stdout.split())
                    self.assertIn(f"the {what} is on hold since", shown, words)
                    if words != ("status",):
                        self.assertIn(f"night; `unhold --product {name}` ends that", shown)
                    self.assertNotIn("everything is on hold", shown)
                said = self.run_well("unhold", "--product", name)
                self.assertEqual(said, f"the {what} is not on hold any longer\n")
                self.assertEqual(self.held(), set())
                self.assertIn(
                    f"the {what} is not on hold; ", self.refused("unhold", "--product", name)
                )

    def test_a_second_hold_takes_what_was_not_held(self):
        self.run_well("hold", "--product", "default")
        self.assertIn("everything is on hold; ", self.run_well("hold"))
        self.assertEqual(self.held(), {"default", "plug", "pump"})
        self.assertIn("everything is already on hold", self.run_well("hold"))
        self.assertIn(
            "everything is still on hold, for this reason: it bricks; ",
            self.run_well("hold", "--reason", "it bricks"),
        )
        self.assertIn(
            "the product plug is already on hold", self.run_well("hold", "--product", "plug")
        )
        self.run_well("unhold", "--product", "plug")
        self.assertEqual(self.held(), {"default", "pump"})
        self.run_well("unhold")
        self.assertEqual(self.held(), set())

    def test_what_cannot_be_held_is_said_and_the_rest_is_held(self):
        for name, rest in (("plug", {"default", "pump"}), ("default", {"plug", "pump"})):
            with self.subTest(name):
                path = self.folders()[name] / "log" / "audit.jsonl"
                path.unlink(missing_ok=True)
                version = self.folders()[name] / "version"
                version.rename(version.with_name("moved"))
                if name == "default":
                    (self.data_dir / "version").mkdir()
                    (self.data_dir / "version" / ".lock").mkdir()
                done = call("hold", "--data-dir", str(self.data_dir))
                self.assertEqual(done.returncode, 1)
                what = "product plug" if name == "plug" else "default product"
                self.assertIn(f"the {what} is not on hold: ", done.stderr)
                self.assertIn("everything else is on hold; `unhold` ends that", done.stdout)
                self.assertEqual(self.held(), rest)
                done = call("unhold", "--data-dir", str(self.data_dir))
                self.assertEqual(done.returncode, 0, done.stderr)
                if name == "default":
                    (self.data_dir / "version" / ".lock").rmdir()
                    (self.data_dir / "version").rmdir()
                version.with_name("moved").rename(version)

    def test_a_product_that_is_added_meanwhile_is_held_too(self):
        self.run_well("hold", "--reason", "it bricks")
        said = self.run_well("product", "add", "pool")
        self.assertIn("everything is on hold, and so is product pool", " ".join(said.split()))
        held = (self.data_dir / "products" / "pool" / "version" / "hold.json").read_text()
        self.assertEqual(json.loads(held)["reason"], "it bricks")
        self.assertIn("everything is on hold since", self.run_well("audit"))
        self.run_well("unhold")
        self.run_well("hold", "--product", "default")
        self.assertNotIn("hold", self.run_well("product", "add", "well"))

    def test_status_and_why_say_what_is_on_hold(self):
        self.run_well("hold", "--product", "plug", "--reason", "night")
        done = call("status", "--data-dir", str(self.data_dir))
        shown = " ".join(done.stdout.split())
        self.assertTrue(shown.endswith("hold plug"), shown)
        self.assertIn("hold: the product plug is on hold since", shown)
        health = call("health", "--data-dir", str(self.data_dir)).stdout
        self.assertRegex(health, r"plug: hold: the product plug .*`unhold --product plug`")
        mac = DEVICE["_br_mac_"]
        self.get("/plug/version.txt", {**DEVICE, "_br_fwv_": "p0"})
        self.assertIn("the product plug is on hold: night", self.run_well("why", mac))
        self.run_well("hold", "--product", "default")
        health = call("health", "--data-dir", str(self.data_dir)).stdout
        self.assertRegex(health, r"(?m)^hold: the default product .*`unhold --product default`")
        self.assertEqual(
            set(
                json.loads(call("status", "--json", "--data-dir", str(self.data_dir)).stdout)[
                    "hold"
                ]
            ),
            {"time", "user", "reason"},
        )

    def test_the_log_of_the_server_names_the_product(self):
        plug = HoldLog(self.folder, PolicyFiles(self.folder))
        with self.assertLogs("ota_server", "WARNING") as logged:
            self.run_well("hold", "--product", "plug")
            policies = PolicyFiles(self.folder)
            policies.current()
            plug = HoldLog(self.folder, policies)
            plug.look_after()
        self.assertRegex(
            logged.output[-1], r"the product plug is on hold .*unhold --product plug(?: |`)"
        )
