"""Products: each has its own paths, target, policy and devices, in one server and one journal."""

import os
import shutil
import threading
from pathlib import Path

from ota_server.policy import edits
from ota_server.policy.text import Who
from ota_server.releases.activate import activate
from ota_server.releases.withdraw import withdraw
from ota_server.system.clock import now_ms
from tests.device_port.test_dialects import ESP8266
from tests.support import DEVICE, MAC, Answer, Client, Process, ServerCase, until

PLUG = b"\xe9" + b"image of the plug " * 200


class ProductCase(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.plug = self.add("plug", "p1", PLUG)

    def add(self, name: str, version: str, image: bytes) -> Path:
        """Make a product by hand, as a person would."""
        folder = self.data_dir / "products" / name
        for part in ("version", "firmware"):
            (folder / part).mkdir(parents=True)
        (folder / "firmware" / f"firmware_{version}.bin").write_bytes(image)
        (folder / "version" / "version.txt").write_text(version)
        return folder

    def told(self, product: str = "plug", mac: str = MAC) -> Answer:
        path = f"/{product}/version.txt" if product else "/version.txt"
        return self.get(path, {**DEVICE, "_br_mac_": mac})


class PathTest(ProductCase):
    def test_each_product_has_a_target_and_images_of_its_own(self):
        self.start()
        self.assertEqual(self.told().body, b"p1")
        self.assertEqual(self.told("").body, b"v1.0.1")
        self.assertEqual(self.get("/plug/firmware.bin").body, PLUG)
        self.assertEqual(self.get("/plug/firmware/firmware_p1.bin", {}).body, PLUG)
        self.assertEqual(self.get("/plug/firmware/firmware_v1.0.1.bin", {}).status, 404)
        self.assertEqual(self.get("/firmware/firmware_p1.bin", {}).status, 404)
        self.assertEqual(self.get("/plug/firmware.bin.sig").status, 404)
        self.assertEqual(self.get("/plug/nothing").status, 404)

    def test_its_devices_are_others_though_their_macs_are_the_same(self):
        self.start()
        self.told()
        self.told("")
        self.get("/plug/firmware.bin")
        self.stop()
        found = [(line["product"], line["event"], line["mac"]) for line in self.records()]
        checks = [("plug", "check", MAC), ("", "check", MAC)]
        self.assertEqual(found[:2], checks)
        self.assertEqual({(product, mac) for product, _, mac in found}, {("plug", MAC), ("", MAC)})

    def test_the_path_may_say_who_it_is_too(self):
        self.start()
        self.assertEqual(self.get(f"/plug/d/{MAC}/p0/version.txt", {}).body, b"p1")
        self.assertEqual(self.get(f"/plug/d/{MAC}/p0/firmware.bin", {}).body, PLUG)

    def test_an_updater_of_a_family_asks_by_the_path_of_its_product(self):
        self.start()
        with Client(self.port) as client:
            lines = ("GET /plug/firmware.bin HTTP/1.0", *ESP8266, "x-ESP8266-version: p1", "", "")
            client.send("\r\n".join(lines).encode())
            self.assertEqual(client.answer().status, 304)

    def test_one_that_is_not_there_is_404_and_leaves_no_record(self):
        self.start()
        self.told("")
        self.assertEqual(self.get("/pump/version.txt", {**DEVICE, "_br_fwv_": "p0"}).status, 404)
        self.assertEqual(self.get("/firmware/version.txt").status, 404)
        changed = {**DEVICE, "_br_fwv_": "p0"}
        for path in (
            "/pump/firmware.bin",
            "/pump/firmware.bin.sig",
            "/pump/version",
            "/pump/manifest.json",
            "/pump/esp32fota.json",
            "/pump/main.py",
            "/pump/p0_main.py",
            "/pump/p0/main.py",
            "/pump/firmware/firmware_p1.bin",
            f"/pump/d/{MAC}/p0/version.txt",
            f"/pump/d/{MAC}/p0/firmware.bin",
        ):
            for method in ("GET", "POST"):
                with self.subTest(path, method=method), Client(self.port) as client:
                    client.request(path, changed, method=method)
                    self.assertEqual(client.answer().status, 404)
        self.stop()
        self.assertEqual([line["event"] for line in self.records()], ["check"])
        self.assertIn("there is no '/pump/version.txt'", self.rejected())

    def rejected(self) -> str:
        return (self.data_dir / "log" / "rejected.jsonl").read_text()


class ComeAndGoTest(ProductCase):
    def test_one_that_is_added_is_served_without_a_restart(self):
        self.start()
        self.assertEqual(self.told("pump").status, 404)
        self.add("pump", "u1", b"image of the pump")
        self.assertTrue(until(lambda: self.told("pump").body == b"u1"))

    def test_one_that_is_removed_is_served_no_more_and_its_devices_stay_on_record(self):
        self.start()
        self.told()
        shutil.rmtree(self.plug)
        self.assertTrue(until(lambda: self.told().status == 404))
        self.stop()
        self.start()
        self.assertEqual(len(self.server.service.fleet), 1)

    def test_one_that_cannot_be_opened_yet_is_served_when_it_can_be(self):
        folder = self.add("pump", "u1", b"image of the pump")
        (folder / "log").write_text("in the way")
        with self.assertLogs("ota_server", "ERROR") as logged:
            self.start()
            products = self.server.service.products
            products.look_for()
            self.assertEqual(set(products.ports), {b"plug"})
        self.assertEqual(len(logged.output), 1)
        (folder / "log").unlink()
        self.assertTrue(until(lambda: self.told("pump").body == b"u1"))

    def test_one_that_is_removed_and_made_again_has_what_is_there_now(self):
        self.start()
        self.assertEqual(self.told().body, b"p1")
        self.plug.rename(self.plug.with_name("plug.removed-1"))
        self.assertTrue(until(lambda: self.told().status == 404))
        self.add("plug", "p9", PLUG)
        self.assertTrue(until(lambda: self.told().body == b"p9"))

    def test_a_server_of_the_folder_of_a_product_alone_is_refused(self):
        code, said = Process("--data-dir", str(self.plug)).end()
        self.assertEqual(code, 1)
        self.assertIn(f"is the product plug of {self.data_dir}: serve that", said)

    def test_a_folder_that_cannot_be_a_product_is_none(self):
        self.add("Pump", "u1", b"x")
        (self.data_dir / "products" / "pump").write_text("a file")
        self.start()
        self.assertEqual(set(self.server.service.products.ports), {b"plug"})

    def test_a_link_among_them_is_not_followed_and_the_log_says_so(self):
        elsewhere = self.data_dir / "elsewhere"
        elsewhere.mkdir()
        with self.assertLogs("ota_server", "ERROR") as logged:
            self.start()
            os.symlink(elsewhere, self.plug.with_name("pump"))
            products = self.server.service.products
            products.look_for()
            products.look_for()
        self.assertEqual(self.told("pump").status, 404)
        self.assertEqual(os.listdir(elsewhere), [])
        said = [line for line in logged.output if "pump is a link" in line]
        self.assertEqual(len(said), 1)

    def test_a_download_of_one_that_is_removed_goes_on_and_then_all_of_it_is_closed(self):
        image = PLUG * 20_000
        (self.plug / "firmware" / "firmware_p1.bin").write_bytes(image)
        self.start()
        store = self.server.service.products.ports[b"plug"].store
        with Client(self.port) as client:
            client.request("/plug/firmware.bin", DEVICE)
            self.assertTrue(until(lambda: self.server.service.fleet.transfers.counts))
            shutil.rmtree(self.plug)
            self.assertTrue(until(lambda: self.told().status == 404))
            self.assertEqual(client.answer().body, image)
        self.await_ends()
        self.assertTrue(until(lambda: not store.images_in_use()))


class ManyTest(ProductCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(40):
            self.add(f"plug{number}", f"p{number}", PLUG)

    def test_one_thread_hashes_the_images_of_all(self):
        self.start()
        self.assertEqual(self.get("/plug/firmware.bin").body, PLUG)
        self.assertEqual(self.get("/plug7/firmware.bin").body, PLUG)
        hashers = [each for each in threading.enumerate() if each.name == "hasher"]
        self.assertEqual(len(hashers), 1)

    def test_each_is_looked_after_though_that_is_not_done_for_all_at_once(self):
        self.start()
        ports = self.server.service.products.ports.values()
        self.assertTrue(until(lambda: all(port.store.last_good for port in ports)))
        for number in (0, 39):
            (self.data_dir / f"products/plug{number}/firmware/firmware_n.bin").write_bytes(PLUG)
            (self.data_dir / f"products/plug{number}/version/version.txt").write_text("n")
            self.assertTrue(until(lambda number=number: self.told(f"plug{number}").body == b"n"))

    def test_a_withdrawal_in_one_that_nobody_asks_is_told_to_the_connections(self):
        self.start()
        service = self.server.service
        self.assertEqual(self.get("/plug39/firmware.bin").body, PLUG)
        before = service.withdrawals
        withdraw(self.data_dir / "products" / "plug39", "p39", "bad", now_ms())
        self.assertTrue(until(lambda: service.withdrawals == before + 1))


class PolicyTest(ProductCase):
    def setUp(self) -> None:
        super().setUp()
        (self.plug / "firmware" / "firmware_p2.bin").write_bytes(PLUG * 2)
        self.start()

    def test_what_is_decided_for_one_holds_for_no_other(self):
        edits.pin(self.plug, Who("devices", MAC), "p2", None)
        self.assertEqual(self.told().body, b"p2")
        self.assertEqual(self.told("").body, b"v1.0.1")
        edits.hold(self.plug, "night")
        self.assertEqual(self.told().body, b"v1.0.0")
        self.assertEqual(self.told("").body, b"v1.0.1")

    def test_groups_are_by_the_macs_of_the_product(self):
        edits.add_members(self.plug, "beta", [MAC])
        edits.pin(self.plug, Who("groups", "beta"), "p2", None)
        self.assertEqual(self.told().body, b"p2")
        self.assertEqual(self.told(mac="00:11:22:33:44:66").body, b"p1")

    def test_a_release_is_activated_in_its_product(self):
        self.assertEqual(self.told().body, b"p1")
        activate(self.plug, "p2", lambda _done, _all: None, is_forced=False)
        self.assertEqual(self.told().body, b"p2")
        self.assertEqual(self.told("").body, b"v1.0.1")
