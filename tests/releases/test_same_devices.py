"""No command puts an image for other devices on devices, unless it is forced."""

import json
from typing import Any

from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutProgress, format_plan, progress_name
from ota_server.rollouts.ending import finish
from ota_server.system.files import replace
from tests.commands.test_rollout import NOW_MS, CommandCase
from tests.releases.test_publish import esp_image
from tests.support.fleet import NEW, OLD, mac_of, run_command

S3 = "ESP32-S3"


class OtherDevicesCase(CommandCase):
    """The fleet is of ESP32; the devices 0 to 4 are the group beta, ESP32-S3 that run NEW."""

    def setUp(self) -> None:
        super().setUp()
        self.put_image(OLD, esp_image(OLD, "ESP32"))
        self.put_image(NEW, esp_image(NEW, S3))
        self.know(30, first=5)
        self.know(5, version=NEW)
        groups = self.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text("".join(f"{mac_of(at)}\n" for at in range(5)))

    def write(self, name: str, content: dict[str, Any]) -> None:
        (self.data_dir / "version" / name).write_text(json.dumps(content))

    def read(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.data_dir / "version" / name).read_text())
        return content

    def do(self, *arguments: str) -> str:
        """Return what a command prints and complains about, which has to succeed."""
        code, out, err = run_command(self.data_dir, *arguments)
        self.assertEqual(code, 0, err)
        return out + err

    def refuse(self, *arguments: str) -> str:
        """Return what a command says that is refused without --force, and is done with it."""
        code, out, err = run_command(self.data_dir, *arguments)
        self.assertEqual((code, out), (1, ""), err)
        self.assertIn("--force", err)
        return err


class RevertTest(OtherDevicesCase):
    def begin(self, state: str) -> None:
        """Have a rollout to the group begun by force, and come to a state."""
        self.do("rollout", "start", NEW, "--group", "beta", "--waves", "100", "--force")
        plan = self.plan("rollout_beta.json")
        progress = RolloutProgress(plan.id, state, 0, format_time(NOW_MS), "they fail")
        replace(self.data_dir / "version" / progress_name("beta"), format_plan(progress))

    def test_a_revert_to_an_image_for_another_chip_is_refused_unless_forced(self):
        self.begin("running")
        revert = ("rollout", "abort", "--revert", "--group", "beta")
        said = self.refuse(*revert)
        self.assertIn(f"the image of {OLD} is for ESP32, that of {NEW} for ESP32-S3", said)
        self.assertIn("`rollout start VERSION --group beta`", said)
        self.assertEqual(self.plan("rollout_beta.json").wanted, "run")
        self.do(*revert, "--force")
        self.assertEqual(self.plan("rollout_beta.json").version, OLD)

    def test_nothing_that_is_said_after_a_halt_or_an_abort_sends_there(self):
        self.begin("halted")
        for shown in (("health",), ("status",), ("rollout", "status")):
            with self.subTest(shown):
                out, err = run_command(self.data_dir, *shown)[1:]
                self.assertNotIn("--revert", out + err)
                self.assertIn("rollout start VERSION --group beta", out + err)
        self.assertNotIn("--revert", run_command(self.data_dir, "rollout", "pause")[2])
        self.begin("running")
        self.do("rollout", "abort")
        self.assertNotIn("--revert", self.do("rollout", "status"))


class UnknownKindTest(OtherDevicesCase):
    def test_an_image_of_no_known_format_is_rolled_out_only_by_force_and_can_be_reverted(self):
        self.put_image("v3", b"junk" * 9)
        start = ("rollout", "start", "v3", "--waves", "100")
        said = self.refuse(*start)
        self.assertIn("the image of v3 is of an unknown format, and that of the current tar", said)
        self.do(*start, "--force")
        self.know(3, first=5, version="v3")
        self.do("rollout", "abort", "--revert")
        self.assertEqual(self.plan().version, OLD)

    def test_a_way_back_to_one_is_open(self):
        self.put_image(OLD, b"junk" * 9)
        self.do("rollout", "start", NEW, "--waves", "100")
        self.know(3, first=5, version=NEW)
        self.do("rollout", "abort", "--revert")


class RollbackTest(OtherDevicesCase):
    """The group has NEW as its target; `v3` is for the devices of the fleet, as `v4` is."""

    def setUp(self) -> None:
        super().setUp()
        for version in ("v3", "v4"):
            self.put_image(version, esp_image(version, "ESP32"))
        self.write("targets.json", {"beta": NEW})

    def target(self) -> str:
        return (self.data_dir / "version" / "version.txt").read_text()

    def test_a_rollback_gives_groups_back_the_targets_that_the_activation_took(self):
        self.do("release", "activate", "v3", "--force")
        self.assertEqual(self.read("targets.json"), {})
        self.assertIn(f"{OLD}, beta {NEW}", self.do("audit"))
        said = self.do("release", "rollback")
        self.assertIn(f"group beta has {NEW} again", said)
        self.assertEqual((self.target(), self.read("targets.json")), (OLD, {"beta": NEW}))

    def test_so_does_the_second_of_two(self):
        self.do("release", "activate", "v3", "--force")
        self.do("release", "activate", "v4")
        self.do("release", "rollback")
        self.assertEqual((self.target(), self.read("targets.json")), ("v3", {}))
        self.do("release", "rollback")
        self.assertEqual((self.target(), self.read("targets.json")), (OLD, {"beta": NEW}))

    def test_a_target_that_cannot_come_back_is_said_loudly(self):
        self.do("release", "activate", "v3", "--force")
        self.write("stopped.json", {NEW: {"state": "withdrawn", "instead_of": OLD}})
        said = self.do("release", "rollback")
        self.assertIn(f"warning: group beta stays without a target of its own: {NEW}, which", said)
        self.assertEqual(self.read("targets.json"), {})

    def test_a_rollback_takes_no_target_from_a_group_of_other_devices_unless_forced(self):
        self.write("targets.json", {})
        self.do("release", "activate", "v3")
        self.write("targets.json", {"beta": NEW})
        said = self.refuse("release", "rollback")
        self.assertIn("that of the target of the group beta for ESP32-S3", said)
        self.assertEqual(self.target(), "v3")
        self.do("release", "rollback", "--force")
        self.assertEqual(self.read("targets.json"), {})

    def test_a_rollout_that_took_targets_from_groups_is_rolled_back_with_them(self):
        self.do("rollout", "start", "v3", "--groups-too", "--waves", "100", "--force")
        self.assertEqual(finish(self.data_dir, self.plan()), "")
        self.assertEqual(self.read("targets.json"), {})
        self.do("release", "rollback", "--force")
        self.assertEqual((self.target(), self.read("targets.json")), (OLD, {"beta": NEW}))


class MoveTest(OtherDevicesCase):
    """Changes of pins and groups: what devices get by them is compared with what they run."""

    def asks_force(self, *arguments: str) -> None:
        """Expect that a command is refused, and does what it is told with --force."""
        said = self.refuse(*arguments)
        self.assertRegex(said, "would get .* is for ESP32(-S3)?, that of .*, which .* for ESP32")
        self.do(*arguments, "--force")

    def test_a_pin_to_an_image_for_another_chip(self):
        self.asks_force("pin", mac_of(9), NEW)
        self.write("targets.json", {"beta": NEW})
        self.asks_force("pin", "beta", OLD)
        self.assertEqual(len(self.read("pins.json")["groups"]), 1)

    def publish(self, version: str, chip: str, target: str) -> None:
        """Publish an image, while something is the target that it is like."""
        (self.data_dir / "build.bin").write_bytes(esp_image(version, chip))
        self.set_target(target)
        self.do("release", "publish", str(self.data_dir / "build.bin"), "--version", version)

    def test_who_is_not_given_the_image_that_it_is_pinned_to_by_force_is_said(self):
        self.publish("v3", S3, target=NEW)
        self.publish(OLD, "ESP32", target=OLD)
        said = self.do("pin", mac_of(9), "v3", "--force")
        self.assertIn(f"{mac_of(9)} is not given it all the same: the image of v3 is for", said)
        self.assertIn("`release publish FILE --version v3 --force` offers it", said)
        self.do("group", "add", "gamma", mac_of(9), mac_of(10), mac_of(0))
        said = self.do("pin", "gamma", "v3", "--force")
        self.assertIn("2 of the 3 devices of group gamma are not given it all the same: ", said)
        self.assertNotIn("not given", self.do("pin", mac_of(0), "v3"))

    def test_the_end_of_a_pin_that_kept_devices_from_the_target_of_the_fleet(self):
        self.do("pin", "beta", NEW)
        said = self.refuse("unpin", "beta")
        self.assertIn("5 devices would get", said)
        self.do("unpin", "beta", "--force")
        self.do("pin", mac_of(2), NEW)
        self.asks_force("unpin", mac_of(2))

    def test_who_comes_into_a_group_or_leaves_it(self):
        self.write("targets.json", {"beta": NEW})
        self.asks_force("group", "add", "beta", mac_of(9))
        self.asks_force("group", "remove", "beta", mac_of(0), mac_of(1))
        # Back to what it runs, and out again: nothing to ask about.
        self.do("group", "add", "beta", mac_of(0))
        self.do("group", "remove", "beta", mac_of(9))

    def test_who_comes_into_a_group_with_a_rollout_whose_wave_is_not_open_yet(self):
        self.do("rollout", "start", NEW, "--group", "beta", "--waves", "100", "--force")
        self.asks_force("group", "add", "beta", mac_of(9))

    def test_a_hold_changes_nothing_about_that(self):
        self.do("hold")
        self.asks_force("pin", mac_of(9), NEW)

    def test_what_changes_nothing_for_devices_and_who_is_not_on_record(self):
        self.do("pin", mac_of(9), OLD)
        self.do("unpin", mac_of(9))
        self.do("group", "add", "gamma", mac_of(9), mac_of(0))
        self.do("group", "remove", "gamma", mac_of(9))
        self.refuse("pin", "02:00:00:00:ff:ff", NEW)  # the fleet's target is for others
        self.do("pin", "02:00:00:00:ff:ff", OLD)

    def test_a_device_that_was_pinned_by_mistake_and_never_took_it_is_unpinned(self):
        self.do("pin", mac_of(9), NEW, "--force")
        self.do("unpin", mac_of(9))
