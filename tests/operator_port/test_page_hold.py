"""The emergency hold by its page: what it says, what it does, and who may."""

import json

from tests.support import until
from tests.support.operators import Operators, OperatorsCase, make_token, some_devices

HOSTILE = '<img src=x onerror=alert(1)>"\u202e\x07 & =cmd'


class HoldPageTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        for name in ("version", "firmware", "log"):
            (cls.data_dir / "products" / "plug" / name).mkdir(parents=True)
        cls.check_in(some_devices(3))
        cls.await_devices(3)

    def tearDown(self) -> None:
        self.operators.post("/unhold", {"product": ""})

    def held(self, product: str = "") -> dict[str, str] | None:
        path = self.data_dir / "products" / product if product else self.data_dir
        try:
            return json.loads((path / "version" / "hold.json").read_bytes())
        except FileNotFoundError:
            return None

    def test_the_page_says_how_many_devices_each_choice_would_stop(self):
        text = self.operators.page("/hold").text
        self.assertIn("Everything: 3 devices", text)
        self.assertIn("Product plug: 0 devices", text)
        self.assertNotIn("End the hold", text)

    def test_a_form_without_what_is_meant_is_refused(self):
        for path in ("/hold", "/unhold"):
            self.assertEqual(self.operators.post(path, {"reason": "it reboots"}).status, 400)
        self.assertIsNone(self.held())

    def test_everything_is_held_with_who_and_why_and_every_page_says_so(self):
        answer = self.operators.post("/hold", {"product": "", "reason": "it\r\n reboots"})
        self.assertEqual((answer.status, answer.fields["location"]), (303, "/hold"))
        for product in ("", "plug"):
            held = self.held(product)
            self.assertEqual((held["user"], held["reason"]), ("ann", "it reboots"))
        said = self.operators.page("/rejected").text
        self.assertRegex(
            said, r"Everything is on hold since [-\d]+ [:\d]+ UTC by ann: it reboots The hold"
        )
        (entry,) = [
            json.loads(line)
            for line in (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()
            if '"hold"' in line and "it reboots" in line
        ]
        self.assertEqual(entry["what"], "everything")
        self.operators.post("/unhold", {"product": ""})
        self.assertEqual((self.held(), self.held("plug")), (None, None))

    def test_one_product_is_held_and_released_alone(self):
        self.operators.post("/hold", {"product": "plug", "reason": ""})
        self.assertIsNone(self.held())
        self.assertIsNotNone(self.held("plug"))
        self.operators.post("/hold", {"product": "default"})
        self.assertIsNotNone(self.held())
        self.operators.post("/unhold", {"product": "plug"})
        self.assertIsNone(self.held("plug"))
        self.assertIsNotNone(self.held())
        self.assertEqual(self.operators.post("/hold", {"product": "none"}).status, 404)

    def test_devices_stay_on_what_they_run_while_it_lasts(self):
        (mac,) = some_devices(1)
        device = {mac: "v0.9.0"}
        self.assertEqual(self.check_in(device)[0].body.strip(), b"v1.0.0")
        self.operators.post("/hold", {"product": ""})
        self.assertTrue(until(lambda: self.check_in(device)[0].body.strip() == b"v0.9.0"))

    def test_what_is_wrong_is_said(self):
        self.assertEqual(self.operators.post("/unhold", {"product": ""}).status, 409)
        self.assertEqual(
            self.operators.post("/hold", {"product": "", "reason": "x" * 501}).status, 400
        )
        self.assertIsNone(self.held())

    def test_a_hostile_reason_is_text(self):
        before = self.operators.page("/hold").elements
        self.operators.post("/hold", {"product": "", "reason": HOSTILE})
        page = self.operators.page("/hold")
        self.assertIn('<img src=x onerror=alert(1)>"\\u202e\\x07 & =cmd', page.text)
        self.assertEqual(page.all("img"), [])
        self.assertEqual({tag for tag, _ in page.elements} - {tag for tag, _ in before}, {"time"})

    def test_only_who_may_act_holds(self):
        nobody = Operators(self.server.admin_port)
        reader = Operators(self.server.admin_port, make_token(self.data_dir, "reader", False))
        browser = Operators(self.server.admin_port)
        browser.sign_in(self.data_dir)
        for path in ("/hold", "/unhold"):
            for who, form, status in (
                (nobody, {"product": ""}, 401),
                (reader, {"product": ""}, 403),
                (browser, {"product": "", "form_token": "wrong"}, 403),
                (browser, {"product": ""}, 303),
            ):
                with self.subTest(path=path, status=status):
                    self.assertEqual(who.post(path, form).status, status)
