"""Releases by their pages: sent, looked at, published, activated, withdrawn, removed."""

import json
import struct
from urllib.parse import urlencode

from tests.support.fleet import NEW, OLD
from tests.support.operators import Operators, OperatorsCase, make_token, some_devices
from tests.support.pages import PageReader

HOSTILE = "</textarea><script>alert(1)</script>\u202e\"'&`\x07"
RAW = {"Content-Type": "application/octet-stream", "Accept": "application/json"}


def esp32_image(version: str, project: str = "lamp", chip: int = 0) -> bytes:
    """Return an image that says what it is, as those of ESP-IDF do."""
    head = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40081000)
    head += struct.pack("<B3xH2xH2xHB", 0xEE, chip, 0, 0, 0)[:16].ljust(16, b"\0")
    described = struct.pack(
        "<I12x32s32s16s16s32s",
        *(0xABCD5432, version.encode(), project.encode(), b"12:00:00", b"Jan  1 2026", b"v5.1"),
    ).ljust(256, b"\0")
    segment = struct.pack("<II", 0x3F400020, len(described)) + described
    body = head + segment
    return body.ljust(len(body) // 16 * 16 + 15, b"\0") + b"\0"


class ReleaseCase(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(6, (OLD, OLD, NEW)))
        cls.await_devices(6)

    def send(self, image: bytes, name: str = "app.bin", product: str = "default") -> str:
        """Send an image; return its page."""
        query = urlencode({"product": product, "name": name})
        answer = self.operators.ask("POST", f"/releases/upload?{query}", image, RAW)
        self.assertEqual(answer.status, 201, answer.body)
        return str(json.loads(answer.body)["page"])

    def publish(self, version: str, image: bytes = b"an image", **fields: str) -> str:
        """Publish an image; return the page of its release."""
        url = self.send(image)
        form = {"version": version, "force": "1", **fields}
        answer = self.operators.post(f"{url}/publish", form)
        self.assertEqual(answer.status, 303, answer.body)
        return answer.fields["location"]

    def manifest(self, version: str) -> dict[str, object]:
        return json.loads((self.data_dir / "firmware" / f"firmware_{version}.json").read_bytes())

    def target(self) -> str:
        return (self.data_dir / "version" / "version.txt").read_text().strip()


class ReleasePageTest(ReleaseCase):
    def tearDown(self) -> None:
        (self.data_dir / "version" / "version.txt").write_text(OLD)

    def test_the_list_says_how_many_run_each_and_leads_to_them(self):
        page = self.operators.page("/releases")
        self.assertRegex(page.text, rf"{OLD} target 4 6 ")
        self.assertRegex(page.text, rf"{NEW} not in use 2 0 ")
        urls = [each["href"] for each in page.all("a")]
        self.assertIn(f"/devices?version={OLD}&product=default", urls)

    def test_one_release_says_how_many_run_it_and_were_told_it(self):
        text = self.operators.page(f"/releases/default/{OLD}").text
        self.assertRegex(text, r"Devices that run it 4 Devices told it last 6")

    def test_who_may_only_read_sees_what_an_action_would_do_and_no_button(self):
        reader = Operators(self.server.admin_port, make_token(self.data_dir, "looks", False))
        for path in (f"/releases/default/{NEW}", f"/releases/default/{NEW}/activate", "/releases"):
            with self.subTest(path):
                page = reader.page(path)
                self.assertIn("sign in by a token that may act", page.text)
                self.assertEqual(page.all("form", method="post"), [])
                self.assertEqual(page.all("button", class_="danger"), [])

    def test_activating_asks_first_with_the_number_and_does_it(self):
        url = f"/releases/default/{NEW}/activate"
        self.assertIn(
            "it is offered to 4 devices with another version as soon as each asks; it runs "
            "on 2 devices already.",
            self.operators.page(url).text,
        )
        self.assertEqual(self.target(), OLD)
        answer = self.operators.post(url, {})
        self.assertEqual((answer.status, self.target()), (303, NEW))
        self.assertIn("target", self.operators.page(answer.fields["location"]).text)
        back = self.operators.page("/releases/rollback?product=default")
        self.assertIn(f"{OLD} becomes the target of the whole fleet again", back.text)
        wrong = self.operators.post("/releases/rollback", {"product": "default", "version": NEW})
        self.assertEqual((wrong.status, self.target()), (409, NEW))
        form = {"product": "default", "version": OLD}
        self.assertEqual(self.operators.post("/releases/rollback", form).status, 303)
        self.assertEqual(self.target(), OLD)

    def test_an_image_for_other_devices_needs_a_tick_to_be_activated(self):
        self.publish("v8", esp32_image("v8", "lamp", 0))
        self.operators.post("/releases/default/v8/activate", {"force": "1"})
        self.publish("v9", esp32_image("v9", "plug", 5))
        page = self.operators.page("/releases/default/v9/activate")
        self.assertIn("of the project plug", page.text)
        self.assertEqual(len(page.all("input", name="force")), 1)
        url = "/releases/default/v9/activate"
        self.assertEqual((self.operators.post(url, {}).status, self.target()), (409, "v8"))
        self.assertEqual(self.operators.post(url, {"force": "1"}).status, 303)
        self.assertEqual(self.target(), "v9")

    def test_withdrawing_keeps_the_reason_and_can_be_undone(self):
        url = self.publish("v10")
        self.assertIn("0 devices run it", self.operators.page(f"{url}/withdraw").text)
        answer = self.operators.post(f"{url}/withdraw", {"reason": HOSTILE})
        self.assertEqual(answer.status, 303, answer.body)
        page = self.operators.page(url)
        self.assertIn("<script>alert(1)</script>", page.text)
        self.assertEqual(len(page.all("script")), 1)
        self.assertEqual(self.operators.post(f"{url}/withdraw", {}).status, 409)
        self.assertEqual(self.operators.post(f"{url}/reinstate", {}).status, 303)
        self.assertNotIn("withdrawn", self.operators.page(url).text)

    def test_removing_deletes_what_is_not_in_use(self):
        url = self.publish("v11")
        self.assertIn("files of v11 are deleted", self.operators.page(f"{url}/remove").text)
        answer = self.operators.post(f"{url}/remove", {})
        self.assertEqual(answer.fields["location"], "/releases?product=default")
        self.assertEqual(self.operators.get(url).status, 404)
        asked = self.operators.get(f"/releases/default/{OLD}/remove")
        self.assertEqual(asked.status, 409)
        self.assertIn(f"cannot be done to {OLD} now: it is target", asked.body.decode())
        used = self.operators.post(f"/releases/default/{OLD}/remove", {})
        self.assertEqual(used.status, 409)
        self.assertIn("is in use", PageReader(used.body.decode()).text)

    def test_what_is_not_there_is_not_found(self):
        for path in ("default/v99", "none/v1", "default/..%2F..%2Fetc", "default/%00", "x"):
            with self.subTest(path):
                self.assertEqual(self.operators.get(f"/releases/{path}").status, 404)

    def test_only_who_may_act_changes_a_release(self):
        url = self.publish("v12")
        upload = self.send(b"not published")
        nobody = Operators(self.server.admin_port)
        reader = Operators(self.server.admin_port, make_token(self.data_dir, "reader", False))
        browser = Operators(self.server.admin_port)
        browser.sign_in(self.data_dir)
        paths = [f"{url}/{each}" for each in ("activate", "withdraw", "reinstate", "remove")]
        paths += ["/releases/rollback", f"{upload}/publish", f"{upload}/discard"]
        for path in paths:
            for who, form, status in (
                (nobody, {"version": "v13"}, 401),
                (reader, {"version": "v13"}, 403),
                (browser, {"version": "v13", "form_token": "wrong"}, 403),
            ):
                with self.subTest(path=path, status=status):
                    self.assertEqual(who.post(path, form).status, status)
        self.assertEqual(self.operators.get(upload).status, 200)
        self.assertEqual(browser.post(f"{upload}/publish", {"version": "v13"}).status, 303)
        self.assertEqual(self.target(), OLD)
