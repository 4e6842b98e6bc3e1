"""`product`, and `--product` of the other commands: kinds of devices side by side."""

import contextlib
import json
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from unittest import mock

from ota_server.policy.rollout_plan import plan_name
from ota_server.system.data_dir import product_at, root_of
from ota_server.system.locks import locked
from tests.device_port.test_dialects import PICO
from tests.support import DEVICE, MAC, ServerCase, until
from tests.support.commands import call
from tests.support.fleet import (
    NEW,
    OLD,
    Fleet,
    is_no_controller_there,
    read_progress,
    run_main,
    start_server,
)


class ProductCase(ServerCase):
    @property
    def folder(self) -> Path:
        return self.data_dir / "products" / "plug"

    def run_well(self, *arguments: str) -> str:
        done = call(*arguments, "--data-dir", str(self.data_dir))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refused(self, *arguments: str) -> str:
        done = call(*arguments, "--data-dir", str(self.data_dir))
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return done.stderr

    def publish(self, version: str, *arguments: str) -> None:
        path = self.data_dir / "image"
        path.write_bytes(version.encode() * 500)
        self.run_well("release", "publish", str(path), "--version", version, *arguments)

    def make(self, name: str = "plug") -> None:
        self.run_well("product", "add", name)
        self.publish("p1", "--product", name)
        self.run_well("release", "activate", "p1", "--product", name)


class ProductTest(ProductCase):
    def test_one_is_added_used_and_removed(self):
        self.assertIn(
            "release publish FILE --version V --product plug",
            self.run_well("product", "add", "plug"),
        )
        self.publish("p1", "--product", "plug")
        self.run_well("release", "activate", "p1", "--product", "plug")
        shown = self.run_well("product", "list")
        self.assertRegex(shown, r"\(default\) +v1\.0\.1 +2 +0\n")
        self.assertRegex(shown, r"plug +p1 +1 +0\n")
        found = [
            json.loads(line) for line in self.run_well("product", "list", "--json").splitlines()
        ]
        self.assertEqual(found[1], {"product": "plug", "target": "p1", "releases": 1, "devices": 0})
        self.assertIn("plug has 1 release; --force", self.refused("product", "remove", "plug"))
        plan = self.folder / "version" / plan_name("beta")
        plan.write_text("{}")
        self.assertIn("plug has a rollout; --force", self.refused("product", "remove", "plug"))
        plan.unlink()
        self.run_well("product", "remove", "plug", "--force")
        self.assertNotIn("plug", self.run_well("product", "list"))
        kept = self.data_dir / "products" / "plug.removed-1" / "firmware" / "firmware_p1.bin"
        self.assertTrue(kept.is_file())

    def test_wrong_names_are_refused_with_what_there_is(self):
        self.run_well("product", "add", "plug")
        self.assertIn("already", self.refused("product", "add", "plug"))
        for name in ("Plug", "firmware", "a/b", "..", ""):
            self.assertIn("is not a product", self.refused("product", "add", name))
        said = self.refused("release", "list", "--product", "pump")
        self.assertIn("there is no product 'pump'; there are default, plug", said)
        self.assertIn("there is no product pump", self.refused("product", "remove", "pump"))

    def test_a_link_and_a_file_among_the_products_are_none(self):
        self.make()
        elsewhere = self.data_dir / "elsewhere"
        elsewhere.mkdir()
        self.folder.with_name("pump").symlink_to(elsewhere)
        self.folder.with_name("note").write_text("a file")
        listed = self.run_well("product", "list")
        self.assertNotIn("pump", listed)
        self.assertNotIn("note", listed)
        self.assertIn("pump is a link", self.refused("product", "add", "pump"))
        self.assertEqual([*elsewhere.iterdir()], [])

    def test_the_folder_of_a_product_may_be_the_data_directory(self):
        self.make()
        for folder, path in ((self.folder, "."), (self.folder.parent, "plug")):
            with contextlib.chdir(folder):
                self.assertEqual(product_at(Path(path)), "plug")
                self.assertEqual(root_of(Path(path)).resolve(), self.data_dir.resolve())
        self.assertEqual(product_at(Path()), "")

    def test_what_is_done_in_one_is_on_record_there(self):
        self.make()
        self.assertIn("activate", self.run_well("audit", "--product", "plug"))
        self.assertNotIn("p1", self.run_well("audit"))
        self.assertIn("product add", self.run_well("audit"))


class ViewTest(ProductCase):
    def setUp(self) -> None:
        super().setUp()
        self.make()
        self.start()
        self.assertTrue(until(lambda: self.get("/plug/version.txt").body == b"p1"))
        self.get("/version.txt", {**DEVICE, "_br_fwv_": "v1.0.1"})

    def test_the_table_shows_all_and_names_the_product_of_each(self):
        shown = self.run_well("devices")
        self.assertRegex(shown, r"PRODUCT +MAC +VERSION +TOLD")
        self.assertRegex(shown, rf"\n- +{MAC} +v1\.0\.1 +v1\.0\.1 +up to date")
        self.assertRegex(shown, rf"\nplug +{MAC} +v1\.0\.0 +p1 +behind")
        self.assertIn("2 devices", shown)
        self.assertIn("\n1 device\n", self.run_well("devices", "--product", "plug"))
        rows = [json.loads(line) for line in self.run_well("devices", "--json").splitlines()]
        self.assertEqual([row["product"] for row in rows], ["", "plug"])

    def test_without_products_nothing_looks_other_than_before(self):
        self.run_well("product", "remove", "plug", "--force")
        shown = self.run_well("devices")
        self.assertNotIn("PRODUCT", shown)
        self.assertIn("\n1 device\n", shown)
        self.assertNotIn("product", self.run_well("status").split("devices")[0])

    def test_one_device_is_explained_in_its_product(self):
        self.assertIn("is told      p1", self.run_well("why", MAC, "--product", "plug"))
        self.assertIn("is told      v1.0.1", self.run_well("why", MAC, "--product", "default"))
        self.assertIn("p1", self.run_well("devices", MAC, "--product", "plug"))
        self.assertIn("\n1 device\n", self.run_well("devices", "--product", "default"))
        self.assertNotIn("product plug", self.run_well("status", "--product", "default"))

    def test_a_device_is_found_in_whichever_product_it_is(self):
        other = "00:11:22:33:44:66"
        self.get("/plug/version.txt", {**DEVICE, "_br_mac_": other})
        done = call("why", other, "--data-dir", str(self.data_dir))
        self.assertIn("is told      p1", done.stdout)
        self.assertIn("product      plug\n", done.stdout)
        self.assertNotIn("product", done.stderr)  # it has been said
        done = call("devices", other, "--data-dir", str(self.data_dir))
        self.assertIn("of the product plug", done.stderr)
        shown = json.loads(self.run_well("why", other, "--json"))
        self.assertEqual((shown["product"], shown["mac"]), ("plug", other))
        self.assertIn("p1", self.run_well("devices", other))
        self.run_well("pin", other, "p1")
        self.assertIn(other, (self.folder / "version" / "pins.json").read_text())
        self.run_well("device", "label", other, "the lamp")
        self.assertIn("is told      p1", self.run_well("why", "the lamp"))

    def test_a_name_without_its_prefix_is_answered_by_the_device_that_has_it(self):
        self.get("/plug/controller/v1/gw-1")
        said = self.refused("why", "gw-1")
        self.assertIn("no device has it as its label; `id:gw-1` is a device of plug", said)
        self.assertNotIn("is a device", self.refused("why", "gw-2"))

    def test_one_that_is_in_several_products_has_to_be_named_with_its_product(self):
        for command in (("why", MAC), ("pin", MAC, "p1"), ("device", "forget", MAC)):
            said = self.refused(*command)
            self.assertIn(f"{MAC} is a device of default and of plug: give --product", said)
        self.run_well("device", "label", MAC, "the lamp", "--product", "plug")
        self.assertIn("is told      p1", self.run_well("why", "the lamp"))

    def test_who_was_rejected_is_shown_for_all_products_together(self):
        self.get("/plug/nothing")
        self.get("/nothing")
        self.stop()
        shown = self.run_well("devices", "--rejected", MAC)
        self.assertIn("there is no '/plug/nothing'", shown)
        self.assertIn("2 kinds of rejected requests", shown)

    def test_a_device_may_be_named_as_the_log_names_it(self):
        self.get("/plug/version.txt", {**DEVICE, "_br_mac_": "00:11:22:33:44:66"})
        for key in (f"plug/{MAC}", "plug/00:11:22:33:44:66"):
            self.assertIn("is told      p1", self.run_well("why", key))
        self.run_well("retry", f"plug/{MAC}")
        self.run_well("pin", f"plug/{MAC}", "p1")
        self.assertIn("of plug", self.refused("why", f"plug/{MAC}", "--product", "default"))
        self.assertIn("no product 'pump'", self.refused("why", f"pump/{MAC}"))
        self.assertIn("is not on record", self.refused("why", "/gw-1"))

    def test_a_command_in_the_reason_of_a_device_names_its_product(self):
        fields = dict(line.split(": ", 1) for line in PICO)
        self.assertEqual(self.get("/plug/firmware.bin", fields).status, 304)
        for given in ((), ("--product", "plug")):
            shown = self.run_well("devices", "--columns", "mac,reason", *given)
            said = " ".join(shown.split())
            self.assertIn("release publish FILE --version p1 --force --product plug` offers", said)

    def test_status_and_health_are_of_all(self):
        shown = self.run_well("status")
        self.assertRegex(shown, r"\n  default +v1\.0\.1 +- +1 +0 ")
        self.assertRegex(shown, r"\n  plug +p1 +- +0 +1 ")
        self.assertIn("--product NAME", shown)
        alone = self.run_well("status", "--product", "plug")
        self.assertNotIn("PRODUCT", alone)
        self.assertIn("\nversions ", alone)
        (self.data_dir / "products" / "plug" / "version" / "version.txt").unlink()
        self.assertTrue(until(lambda: call("health", "--data-dir", str(self.data_dir)).returncode))
        done = call("health", "--data-dir", str(self.data_dir))
        self.assertTrue(done.stdout.startswith("plug: target: "), done.stdout)
        self.assertIn(
            "--product plug",
            call("health", "--product", "plug", "--data-dir", str(self.data_dir)).stdout,
        )

    def test_each_thing_is_said_once_with_what_to_do_about_it_in_its_product(self):
        for name in ("plug", "pump"):
            (self.data_dir / "products" / name / "version").mkdir(parents=True, exist_ok=True)
            (self.data_dir / "products" / name / "version" / "version.txt").unlink(missing_ok=True)
        self.stop()
        lines = call("health", "--data-dir", str(self.data_dir)).stdout.splitlines()
        heads = [": ".join(line.split(": ")[:2]) for line in lines]
        no_server = f"server: no server runs on {self.data_dir}; start its service again, or "
        self.assertTrue(lines[0].startswith(no_server), lines)
        self.assertEqual(heads[1:], ["plug: target", "pump: target"])
        shown = call("status", "--data-dir", str(self.data_dir)).stdout
        for text in ("\n".join(lines), " ".join(shown.split())):
            self.assertEqual(text.count("no server runs"), 1)
            for name in ("plug", "pump"):
                self.assertIn(f"release activate VERSION --product {name}", text)

    def test_the_default_product_is_left_out_while_it_has_nothing(self):
        for path in (self.data_dir / "firmware").iterdir():
            path.unlink()
        (self.data_dir / "version" / "version.txt").unlink()
        self.assertIn("! default ", call("status", "--data-dir", str(self.data_dir)).stdout)
        self.stop()
        self.run_well("device", "forget", MAC, "--product", "default")
        for is_there in (True, False):
            shown = call("status", "--data-dir", str(self.data_dir))
            self.assertNotIn("default", shown.stdout)
            self.assertIn("p1", shown.stdout)
            if is_there:
                shutil.rmtree(self.data_dir / "firmware")

    def test_a_device_is_forgotten_and_pinned_in_its_product(self):
        self.run_well("pin", MAC, "p1", "--product", "plug")
        self.run_well("device", "label", MAC, "the lamp", "--product", "plug")
        self.assertIn("the lamp", self.run_well("devices", "--product", "plug"))
        self.stop()
        self.run_well("device", "forget", "the lamp", "--product", "plug")
        self.assertIn("0 devices", self.run_well("devices", "--product", "plug"))
        self.assertIn("1 device", self.run_well("devices"))

    def test_a_backup_holds_all_products(self):
        path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "ota.tar"
        secret = path.with_name("secret")
        secret.write_text("what only root may read")
        (self.folder / "firmware" / "firmware_p9.bin").symlink_to(secret)
        # Nothing changes while it opens the files of all.
        with mock.patch("ota_server.system.locks.locked", wraps=locked) as locks:
            self.assertEqual(run_main("backup", str(path), "--data-dir", str(self.data_dir))[0], 0)
        self.assertEqual(
            [each[0][0] for each in locks.call_args_list], [self.data_dir, self.folder]
        )
        with tarfile.open(path) as tar:
            names = tar.getnames()
        self.assertIn("products/plug/firmware/firmware_p1.bin", names)
        self.assertIn("products/plug/log/audit.jsonl", names)
        self.assertNotIn("products/plug/firmware/firmware_p9.bin", names)
        restored = path.with_name("restored")
        self.assertEqual(call("restore", str(path), "--data-dir", str(restored)).returncode, 0)
        listed = call("product", "list", "--data-dir", str(restored)).stdout
        self.assertRegex(listed, r"plug +p1 +1 +1\n")


class PlugFleet(Fleet):
    """Devices of the product plug."""

    def _get(self, port: int, path: str, mac: str, version: str) -> str:
        return super()._get(port, f"/plug{path}", mac, version)


class RolloutTest(ProductCase):
    LIMITS = ("--waves", "100", "--soak", "0s", "--count-new")

    def setUp(self) -> None:
        super().setUp()
        self.run_well("product", "add", "plug")
        for version in (OLD, NEW):
            self.publish(version, "--product", "plug")
        self.run_well("release", "activate", OLD, "--product", "plug")
        self.process = start_server(self, self.data_dir)

    def state(self) -> str:
        return str(read_progress(self.folder).get("state"))

    def roll_out(self, plug: Fleet, rest: Fleet, **more: object) -> None:
        for fleet in (plug, rest):
            fleet.ask(self.process.port)
        self.run_well("rollout", "start", NEW, "--product", "plug", *self.LIMITS)

        def is_over() -> bool:
            plug.ask(self.process.port, **more)
            rest.ask(self.process.port)
            return self.state() in ("done", "halted")

        self.assertTrue(until(is_over, 60))

    def test_a_rollout_of_one_moves_its_devices_alone(self):
        plug, rest = PlugFleet(8), Fleet(3, "v1.0.1")
        self.roll_out(plug, rest)
        self.assertEqual(self.state(), "done")
        self.assertEqual(set(plug.versions.values()), {NEW})
        self.assertEqual(set(rest.versions.values()), {"v1.0.1"})
        self.assertEqual(self.run_well("release", "list").count(NEW), 0)

    def test_a_bad_release_halts_in_its_product_and_a_rollout_of_another_goes_on(self):
        plug, rest = PlugFleet(8), Fleet(8, "v1.0.1")
        self.publish(NEW)
        plug.ask(self.process.port)
        rest.ask(self.process.port)
        self.run_well("rollout", "start", NEW, *self.LIMITS)
        self.roll_out(plug, rest, boots=lambda _mac: False)
        self.assertEqual(self.state(), "halted")
        bad = read_progress(self.folder)["bad"]
        self.assertLessEqual(set(bad), plug.holders)
        mac = bad[0]
        self.run_well("device", "label", mac, "the lamp", "--product", "plug")
        listed = self.run_well("rollout", "devices", "--failed", "--product", "plug")
        self.assertRegex(listed, rf"(?m)^{mac} .* the lamp$")
        shown = self.run_well("devices", "--state", "failed", "--product", "plug")
        self.assertIn(mac, shown)
        self.assertNotIn(f"plug/{mac}", listed + shown)
        self.assertTrue(
            until(lambda: rest.ask(self.process.port) or self.state_of_default() == "done", 60)
        )
        self.assertEqual(set(rest.versions.values()), {NEW})
        self.assertEqual(set(plug.versions.values()), {OLD})

    def test_each_line_of_the_log_that_is_about_one_names_it(self):
        plug, rest = PlugFleet(8), Fleet(3, "v1.0.1")
        self.roll_out(plug, rest, boots=lambda _mac: False)
        of_plug = ("--product", "plug")
        self.run_well("hold", *of_plug)
        self.assertTrue(until(lambda: "on hold" in self.process.logged()))
        self.run_well("unhold", *of_plug)
        self.publish("p3", *of_plug)
        self.run_well("release", "activate", "p3", *of_plug)
        self.assertTrue(until(lambda: plug.ask(self.process.port) or "p3" in self.process.logged()))
        said = self.process.end()[1]
        for words in ("wave 1 of 1", "halted", "on hold", "hold .*ended", "target is p3", "withdr"):
            self.assertRegex(said, words)
        for line in said.splitlines():
            if NEW in line or "hold" in line or "p3" in line:
                self.assertRegex(line, r"product plug|plug/")
            for command in re.findall("`[^`]* -m ota_server ([^`]*)`", line):
                self.assertRegex(command, "--product plug|plug/", line)

    def test_a_rollout_of_one_that_was_removed_goes_on_when_its_folder_is_back(self):
        plug = PlugFleet(6)
        plug.ask(self.process.port)
        limits = ("--waves", "20,100", "--soak", "1h", "--count-new")
        self.run_well("rollout", "start", NEW, "--product", "plug", *limits)
        self.assertTrue(until(lambda: self.state() == "running"))
        self.run_well("product", "remove", "plug", "--force")

        def answers() -> set[str]:
            plug.told.clear()
            plug.ask(self.process.port)
            return set(plug.told)

        self.assertTrue(until(lambda: answers() == {""}))
        kept = self.folder.with_name("plug.removed-1")
        self.assertTrue(until(lambda: is_no_controller_there(kept)))
        self.assertFalse(self.folder.exists())
        kept.rename(self.folder)
        self.assertTrue(until(lambda: "" not in answers()))
        self.run_well("rollout", "promote", "--product", "plug")
        self.assertTrue(until(lambda: answers() and set(plug.versions.values()) == {NEW}))

    def state_of_default(self) -> str:
        return str(read_progress(self.data_dir).get("state"))
