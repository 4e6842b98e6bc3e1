"""One rollout over a fleet of six families, each device with an updater of its own family."""

import re
from collections import Counter
from collections.abc import Container

from tests.support import DataDirCase, until
from tests.support.fleet import read_progress, run_command, start_server
from tests.support.images import esp32_image
from tests.support.updaters import Device, Ending, EspHome, EspIdf, HttpUpdate, Mongoose

DEVICES_OF_EACH = 200
OLD, NEW = "v1.0.0", "v2.0.0"
LIMITS = ("--waves", "10,100", "--soak", "0s", "--apply-grace", "1s", "--count-new")
STEP_SECONDS = 60.0


class Own(Device):
    """A device that speaks our own protocol."""

    def lines(self) -> tuple[str, ...]:
        """Return what it says of itself."""
        return (f"_br_mac_: {self.mac}", f"_br_fwv_: {self.version}")

    def path(self, name: str) -> str:
        """Return the path of something."""
        return f"/{name}"

    def update(self) -> Ending:
        """Ask, and install what comes."""
        told = self.ask(self.path("version.txt"), *self.lines())
        if told.status == 200 and told.body.decode() == self.version:
            return Ending.NOTHING
        image = self.ask(self.path("firmware.bin"), *self.lines())
        if problem := self.whole(image):
            return self.failed(problem)
        self.runs = image.body
        return Ending.UPDATED


class Script(Own):
    """A script with curl, which says who it is by the path."""

    def lines(self) -> tuple[str, ...]:
        """Return what it says of itself."""
        return ("User-Agent: curl/8.5.0",)

    def path(self, name: str) -> str:
        """Return the path of something."""
        return f"/d/{self.mac}/{self.version}/{name}"


KINDS: dict[str, type[Device]] = {
    "br": Own,
    "curl": Script,
    "esp-idf": EspIdf,
    "esp32": HttpUpdate,
    "esphome": EspHome,
    "mongoose": Mongoose,
}


class MixedFleetTest(DataDirCase):
    TAKES_LONG = True

    def setUp(self) -> None:
        super().setUp()
        port = start_server(self, self.data_dir).port
        self.publish(OLD)
        self.operate("release", "activate", OLD)
        self.devices = {
            family: [
                kind(port, f"02:00:00:00:{first:02x}:{last:02x}", esp32_image(OLD))
                for last in range(DEVICES_OF_EACH)
            ]
            for first, (family, kind) in enumerate(KINDS.items())
        }

    def operate(self, *arguments: str) -> str:
        code, out, err = run_command(self.data_dir, *arguments)
        self.assertEqual(code, 0, err)
        return out

    def publish(self, version: str) -> None:
        path = self.data_dir / "image"
        path.write_bytes(esp32_image(version))
        self.operate("release", "publish", str(path), "--version", version)

    def ask_all(self, bricked: Container[str] = ()) -> None:
        """Have each device ask once; those of some families do not boot what they install."""
        for family, devices in self.devices.items():
            for device in devices:
                before = device.runs
                ending = device.update()
                self.assertIn(ending, (Ending.UPDATED, Ending.NOTHING), device.problem)
                if family in bricked:
                    device.runs = before

    def roll_out(self, bricked: Container[str] = ()) -> str:
        """Return how a rollout of the new release ends."""
        self.ask_all()
        self.publish(NEW)
        self.operate("rollout", "start", NEW, *LIMITS)

        def is_over() -> bool:
            self.ask_all(bricked)
            return read_progress(self.data_dir).get("state") in ("done", "halted")

        self.assertTrue(until(is_over, STEP_SECONDS), read_progress(self.data_dir))
        return str(read_progress(self.data_dir)["state"])

    def versions(self) -> dict[str, Counter[str]]:
        return {
            family: Counter(device.version for device in devices)
            for family, devices in self.devices.items()
        }

    def test_a_rollout_goes_through_in_all_families(self):
        self.assertEqual(self.roll_out(), "done")
        self.ask_all()
        everywhere = Counter({NEW: DEVICES_OF_EACH})
        self.assertEqual(self.versions(), dict.fromkeys(KINDS, everywhere))
        shown = self.operate("devices", "--version", NEW, "--family", "mongoose")
        self.assertIn(f"{DEVICES_OF_EACH} of", shown)

    def test_a_release_that_is_bad_for_one_family_alone_is_halted(self):
        self.assertEqual(self.roll_out({"esphome"}), "halted")
        shown = self.operate("rollout", "devices", "--failed")
        failed = set(re.findall(r"^02:00:00:00:[0-9a-f:]{5}", shown, re.MULTILINE))
        self.assertGreaterEqual(len(failed), 4)
        self.assertLessEqual(failed, {device.mac for device in self.devices["esphome"]})
        self.assertEqual(self.versions()["esphome"], {OLD: DEVICES_OF_EACH})
