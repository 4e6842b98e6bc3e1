"""Images that were sent, by their page: what they say of themselves, and how they are published."""

import json

from tests.operator_port.test_page_release import HOSTILE, ReleaseCase, esp32_image
from tests.support.fleet import NEW, OLD
from tests.support.pages import PageReader


class PublishTest(ReleaseCase):
    def test_an_image_shows_what_it_says_and_is_published_as_that(self):
        url = self.send(esp32_image("v3.0.0"), "lamp.bin")
        page = self.operators.page(url)
        self.assertIn("lamp.bin", page.text)
        self.assertIn("lamp", page.text)
        (field,) = page.all("input", name="version")
        self.assertEqual(field["value"], "v3.0.0")
        self.assertFalse((self.data_dir / "firmware" / "firmware_v3.0.0.bin").exists())
        answer = self.operators.post(f"{url}/publish", {"version": "v3.0.0", "notes": "one\r\ntwo"})
        self.assertEqual(answer.fields["location"], "/releases/default/v3.0.0", answer.body)
        self.assertEqual(self.manifest("v3.0.0")["notes"], "one\ntwo")
        shown = self.operators.page("/releases/default/v3.0.0")
        self.assertIn(str(self.manifest("v3.0.0")["sha256"]), shown.text)
        self.assertEqual(self.operators.get(url).status, 404)
        self.assertEqual([*(self.data_dir / "firmware").glob(".firmware_*")], [])
        log = (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()
        entry = next(json.loads(each) for each in log if '"publish"' in each and "v3.0.0" in each)
        self.assertEqual(entry["user"], "ann")

    def test_a_doubt_is_said_and_needs_a_tick(self):
        url = self.send(esp32_image("v4.0.0"))
        answer = self.operators.post(f"{url}/publish", {"version": "v4.0.1", "notes": "kept"})
        self.assertEqual(answer.status, 409)
        page = PageReader(answer.body.decode())
        self.assertEqual(page.wrong, [])
        self.assertIn("the image says that it is version v4.0.0, not v4.0.1", page.text.casefold())
        self.assertIn("kept", page.text)
        self.assertEqual(len(page.all("input", name="force")), 1)
        self.assertNotIn("--force", page.text)
        form = {"version": "v4.0.1", "force": "1"}
        self.assertEqual(self.operators.post(f"{url}/publish", form).status, 303)

    def test_the_same_bytes_under_another_version_are_said_before_the_button(self):
        image = b"once more"
        release = self.publish("v8", image)
        said = "has the same bytes as v8: devices report one version for both"
        url = self.send(image)
        self.assertIn(f"This image {said}", self.operators.page(url).text)
        self.assertIn(f"v8.1 {said}".casefold(), self.shown(f"{url}?version=v8.1"))
        self.operators.post(f"{release}/withdraw", {"reason": "bad"})
        said = "same bytes as v8, which was withdrawn: devices report"
        self.assertIn(said, self.shown(url))
        answer = self.operators.post(f"{url}/publish", {"version": "v8.2"})
        self.assertEqual(answer.status, 303)
        self.assertIn(said, self.shown(answer.fields["location"]))

    def shown(self, path: str) -> str:
        """Return what a page says, in small letters."""
        return self.operators.page(path).text.casefold()

    def test_images_that_wait_are_listed_with_their_time_and_can_be_discarded(self):
        self.send(b"one", "twice.bin")
        url = self.send(b"two", "twice.bin")
        page = self.operators.page("/releases")
        self.assertRegex(page.text, r"(twice\.bin 3 bytes (now|\d+ \w+ ago) Discard ?){2}")
        self.assertEqual(len(page.all("form", action=f"{url}/discard")), 1)
        answer = self.operators.post(f"{url}/discard", {})
        self.assertEqual(answer.fields["location"], "/releases?product=default")
        self.assertEqual(self.operators.page("/releases").all("form", action=f"{url}/discard"), [])

    def test_what_cannot_be_a_release_is_refused_and_the_image_stays(self):
        url = self.send(b"raw")
        for form, words in (
            ({"version": ""}, "is not a version"),
            ({"version": "../x"}, "is not a version"),
            ({"version": HOSTILE}, "is not a version"),
            ({"version": OLD}, "is there with other bytes"),
            ({"version": "v5", "via": "v9.9.9"}, "no image of v9.9.9"),
            ({"version": "v5", "direct_from": "v1.*"}, "may skip the stepping stone"),
            ({"version": "v5", "notes": "x" * 16_001}, "over 16000 characters"),
        ):
            with self.subTest(**form):
                answer = self.operators.post(f"{url}/publish", form)
                self.assertEqual(answer.status, 409)
                self.assertIn(words, PageReader(answer.body.decode()).text)
        self.assertEqual(self.operators.post(f"{url}/discard", {}).status, 303)
        self.assertEqual(self.operators.get(url).status, 404)
        self.assertEqual(self.operators.post(f"{url}/publish", {"version": "v5"}).status, 404)

    def test_stepping_stones_and_what_devices_report_go_on_record(self):
        url = self.send(b"another")
        form = {"version": "v6", "via": NEW, "direct_from": "v1.9.*, v2.*", "reports_as": "6-g1"}
        self.assertEqual(self.operators.post(f"{url}/publish", form).status, 303)
        manifest = self.manifest("v6")
        self.assertEqual(
            (manifest["via"], manifest["direct_from"], manifest["reports_as"]),
            (NEW, ["v1.9.*", "v2.*"], "6-g1"),
        )

    def test_hostile_names_and_notes_are_text(self):
        url = self.send(b"hostile", HOSTILE)
        page = self.operators.page(url)
        self.assertEqual(len(page.all("script")), 1)
        self.assertIn("</textarea><script>alert(1)</script>\\u202e", page.text)
        release = self.publish("v7", b"with notes", notes=HOSTILE)
        for path in (release, "/releases"):
            with self.subTest(path):
                page = self.operators.page(path)
                self.assertEqual(len(page.all("script")), 1)
                self.assertIn("<script>alert(1)</script>", page.text)

    def test_a_product_has_releases_of_its_own(self):
        for name in ("version", "log"):
            (self.data_dir / "products" / "plug" / name).mkdir(parents=True)
        url = self.send(b"for plugs", product="plug")
        self.assertIn("/uploads/plug/", url)
        wrong = url.replace("/plug/", "/default/")
        self.assertEqual(self.operators.get(wrong).status, 404)
        answer = self.operators.post(f"{url}/publish", {"version": "v1"})
        self.assertEqual(answer.fields["location"], "/releases/plug/v1")
        files = self.data_dir / "products" / "plug" / "firmware"
        self.assertTrue((files / "firmware_v1.bin").exists())
        self.assertIn("Product plug", self.operators.page("/releases").text)
        self.assertNotIn("v2.0.0", self.operators.page("/releases?product=plug").text)
