"""A rollout before it begins, by its pages: the form, and what it would be."""

import re
from urllib.parse import urlencode

from tests.operator_port.test_page_rollout import HOSTILE, QUICK, RolloutPageCase
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import OperatorsCase, make_data_dir
from tests.support.pages import PageReader


class StartTest(RolloutPageCase):
    def preview(self, **changes: str) -> PageReader:
        return self.operators.page(f"/rollouts/preview?{urlencode({**QUICK, **changes})}")

    def hidden(self, page: PageReader) -> dict[str, str]:
        return {each["name"]: each.get("value", "") for each in page.all("input", type="hidden")}

    def test_the_form_has_what_can_be_rolled_out(self):
        page = self.operators.page("/rollouts/new")
        self.assertEqual(
            {NEW, OLD} - {each["value"] for each in page.all("option")},
            set(),
        )

    def test_the_preview_says_how_many_devices_each_wave_holds_and_changes_nothing(self):
        page = self.preview(note="fixes it")
        self.assertIn(f"It reaches {self.SIZE} devices of the fleet", page.text)
        added = re.search(r"1: 20 % (\d+) (\d+) (\d+) 2: 100 % (\d+) (\d+) (\d+)", page.text)
        self.assertIsNotNone(added, page.text)
        self.assertEqual(int(added[1]) + int(added[4]), self.SIZE)
        self.assertEqual(added[6], str(self.SIZE))
        self.assertIn("fixes it", page.text)
        self.assertFalse((self.data_dir / "version" / "rollout.json").exists())
        hidden = self.hidden(page)
        self.assertEqual({name: hidden[name] for name in QUICK}, QUICK)

    def test_waves_that_fit_are_shown_and_those_begin(self):
        self.assertRegex(self.hidden(self.preview(waves=""))["waves"], r"^[\d.,]+,100$")

    def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(self):
        page = self.preview(waves="50,20", soak_seconds="soon", note="keep this")
        self.assertIn("does not rise from above 0 to 100", page.text)
        self.assertIn("'soon' is not a duration", page.text)
        self.assertIn("keep this", [each.get("value") for each in page.all("input")])
        self.assertEqual(page.all("form", action="/rollouts/new"), [])

    def test_a_rollout_that_cannot_begin_says_why(self):
        self.assertIn("is the target of the fleet already", self.preview(version=OLD).text)
        self.assertIn("not a version", self.preview(version=HOSTILE).text)

    def test_what_is_in_the_way_is_said_in_the_words_of_the_form(self):
        for changes in ({"count_new": ""}, {"waves": "0.001,100"}, {"soak_seconds": "1s"}):
            text = self.preview(**changes).text
            self.assertNotIn("--", text)
        self.assertIn('"Count new devices too"', self.preview(count_new="").text)

    def test_a_product_that_is_not_there_is_not_found(self):
        self.assertEqual(self.operators.get("/rollouts/new?product=none").status, 404)


class ProductTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        make_data_dir(cls.data_dir / "products" / "plug")

    @classmethod
    def come(cls) -> None:
        cls.check_in({mac_of(number): OLD for number in range(3)}, "/plug/version.txt")
        cls.await_devices(3)

    def test_a_release_and_what_is_asked_of_it_say_of_which_product_it_is(self):
        for path, words in (
            ("", f"Release {NEW} of product plug"),
            ("/activate", f"Activate: {NEW} of product plug"),
            ("/withdraw", f"Withdraw: {NEW} of product plug"),
        ):
            with self.subTest(path):
                page = self.operators.page(f"/releases/plug/{NEW}{path}")
                self.assertIn(words, page.text)

    def test_a_rollout_says_of_which_product_it_is(self):
        request = {**QUICK, "product": "plug"}
        page = self.operators.page(f"/rollouts/preview?{urlencode(request)}")
        self.assertIn("It reaches 3 devices of the fleet of product plug.", page.text)
        url = self.operators.post("/rollouts/new", request).fields["location"]
        for path, words in (("", "Rollout"), ("/abort", "Abort the rollout: rollout")):
            said = f"{words} of {NEW} to the fleet of product plug"
            self.assertIn(said, self.operators.page(f"{url}{path}").text)
