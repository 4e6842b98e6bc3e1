"""`release list`: the states of releases."""

import os

from tests.commands.test_pin_retry import CommandCase
from tests.releases.test_publish import esp_image
from tests.support import MAC, until
from tests.support.fleet import start_server


class ReleaseListTest(CommandCase):
    def test_it_shows_what_groups_have_and_what_is_pinned(self):
        for version in ("v2.0.0", "v3.0.0"):
            self.put_image(version, version.encode())
        self.set_target("v3.0.0")
        self.lines("group", "add", "beta", MAC)
        (self.data_dir / "version" / "targets.json").write_text('{"beta": "v1.0.0"}')
        self.run_command("pin", MAC, "v2.0.0")
        listed = "\n".join(self.lines("release", "list"))
        self.assertRegex(listed, r"v1\.0\.0 .* target of group ")
        self.assertRegex(listed, r"v2\.0\.0 .* pinned ")
        self.assertNotRegex(listed, r"v3\.0\.0 .*(pinned|group)")

    def test_an_image_that_was_copied_in_by_hand_has_its_place_by_its_time(self):
        build = self.data_dir / "build.bin"
        build.write_bytes(esp_image("v2.0.0", project=b"thermostat"))
        self.run_command("release", "publish", str(build))
        self.put_image("v0.9.0", b"just now")
        os.utime(self.put_image("v1.0.0", b"long ago"), (1, 1))
        versions = [line.split()[0] for line in self.lines("release", "list")[1:-1]]
        self.assertEqual(versions, ["v0.9.0", "v2.0.0", "v1.0.1", "v1.0.0"])

    def test_what_an_image_is_stands_in_full_also_on_a_narrow_terminal(self):
        build = self.data_dir / "build.bin"
        build.write_bytes(esp_image("v2.0.0", project=b"thermostat"))
        self.run_command(
            "release", "publish", str(build), "--notes", "the clock is right in winter"
        )
        lines = self.on_terminal(80, "release", "list")
        self.assertLessEqual(max(map(len, lines)), 80)
        image = "ESP32 image, 4 MB flash, project thermostat, version v2.0.0"
        self.assertIn(image, [line.strip() for line in lines])

    def test_an_image_with_a_wrong_name_is_named_and_so_is_the_target_without_image(self):
        self.put_image("v1.2.0", b"image")
        self.set_target("v1.2.0")
        self.run_command("release", "activate", "v1.0.0")
        for name in ("v1.3.0.bin", "Firmware_v1.4.0.bin", "firmware_v1.5.0.bin.gz", "a.bin"):
            (self.data_dir / "firmware" / name).write_bytes(b"image")
        (self.data_dir / "firmware" / "firmware_v1.2.0.bin.sig").write_bytes(b"signature")
        (self.data_dir / "firmware" / ".firmware_v9.bin.1.new").write_bytes(b"under way")
        self.set_target("v1.3.0")
        done = self.run_command("release", "list")
        for text in (
            "version.txt names v1.3.0, and there is no image of v1.3.0",
            "firmware_v1.3.0.bin is missing",
        ):
            self.assertIn(text, " ".join(done.stderr.split()))
        words = " ".join(done.stdout.split())
        named = "Firmware_v1.4.0.bin, a.bin, firmware_v1.5.0.bin.gz and 1 more"
        self.assertIn(f"not served, by their names: {named}; an image is called", words)
        verified = " ".join(self.run_command("release", "verify").stdout.split())
        self.assertIn(f"not served, by their names: {named}", verified)

    def test_while_version_txt_names_no_image_the_target_in_force_is_shown_as_that(self):
        self.put_image("v1.2.0", b"image")
        self.set_target("v1.0.0")
        self.run_command("release", "activate", "v1.2.0")
        start_server(self, self.data_dir)
        self.assertTrue(until((self.data_dir / "log" / "admission.json").exists))
        self.set_target("v1.3.0")
        listed = self.run_command("release", "list").stdout
        self.assertRegex(listed, r"(?m)^v1\.2\.0 .* target ")
        self.assertNotIn("previous", listed)
