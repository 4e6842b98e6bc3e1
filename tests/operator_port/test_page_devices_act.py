"""What operators do to many devices by the page."""

import json
import unittest
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ota_server.releases.withdraw import reinstate, withdraw
from ota_server.system import clock
from tests.support.client import Answer
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import Operators, OperatorsCase, make_token, some_devices
from tests.support.pages import PageReader
from tests.support.varied_fleet import PLUG

COUNT = 40
API = "/api/v1/devices/default/"
_FORM = {"product": "default", "scope": "chosen"}


class ActCase(OperatorsCase):
    """A fleet of 40, of which none is pinned, labelled or in a group."""

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(COUNT))
        cls.await_devices(COUNT)

    def read(self, name: str) -> Any:
        """Return a file of the policy; {} if there is none."""
        path = self.data_dir / "version" / name
        return json.loads(path.read_bytes()) if path.exists() else {}

    def audit(self, action: str) -> list[dict[str, Any]]:
        """Return the entries of the audit log about an action."""
        lines = (self.data_dir / "log" / "audit.jsonl").read_text().splitlines()
        return [each for each in map(json.loads, lines) if each["action"] == action]

    @contextmanager
    def withdrawn(self, version: str) -> Iterator[None]:
        """Withdraw a release, and offer it again at the end."""
        withdraw(self.data_dir, version, "", clock.now_ms())
        try:
            yield
        finally:
            reinstate(self.data_dir, version)

    def preview(self, form: Mapping[str, str | Sequence[str]]) -> PageReader:
        """Return the page that says what an action reaches."""
        answer = self.operators.post("/devices/preview", {**_FORM, **form})
        self.assertEqual(answer.status, 200, answer)
        return PageReader(answer.body.decode())

    def press(self, page: PageReader) -> Answer:
        """Press the button of a preview: send its form as it is."""
        url = next(each["action"] for each in page.all("form") if each["action"] != "/logout")
        form: dict[str, list[str]] = {}
        for each in page.all("input", type="hidden"):
            if each["name"] != "form_token":
                form.setdefault(each["name"], []).append(each["value"])
        return self.operators.post(url, form)


class ChosenTest(ActCase):
    TAKES_LONG = True

    def test_a_pin_asks_for_the_version_says_how_many_it_reaches_and_pins_them(self):
        form = {"action": "pin", "key": [mac_of(1), mac_of(2)]}
        asking = self.preview(form)
        self.assertEqual([each["value"] for each in asking.all("option")], [OLD, NEW])
        with self.withdrawn(NEW):
            left = [each["value"] for each in self.preview(form).all("option")]
        self.assertEqual(left, [OLD])
        page = self.preview({**form, "set_version": OLD})
        self.assertIn(f"This pins 2 devices to {OLD}.", page.text)
        self.assertEqual(self.read("pins.json"), {})
        answer = self.press(page)
        self.assertEqual(answer.status, 303)
        self.assertEqual(answer.fields["location"], "/devices?product=default&done=pin")
        self.assertEqual({*self.read("pins.json")["devices"]}, {mac_of(1), mac_of(2)})
        self.assertIn("They are pinned.", self.operators.page(answer.fields["location"]).text)
        (entry,) = self.audit("pin")
        self.assertEqual(entry["user"], "ann")
        self.assertIn("There is nothing to change", self.preview({**form, "set_version": OLD}).text)
        self.press(self.preview({**form, "action": "unpin"}))
        self.assertEqual(self.read("pins.json")["devices"], {})

    def test_the_table_shows_at_once_what_was_done(self):
        form = {"key": [mac_of(4), mac_of(5)]}
        url = f"/devices?product=default&text={mac_of(4)}"
        self.press(self.preview({**form, "action": "pin", "set_version": OLD}))
        self.assertIn("pinned", self.operators.page(url).text.casefold().split(mac_of(4))[-1])
        self.press(self.preview({**form, "action": "unpin"}))
        self.assertEqual(self.operators.json("GET", f"{API}{mac_of(4)}")[1]["pinned"], False)
        self.press(self.preview({**form, "action": "group add", "set_group": "gamma"}))
        boxes = self.operators.page("/devices?product=default&group=gamma").all("input", name="key")
        self.assertEqual([each["value"] for each in boxes], form["key"])
        self.press(self.preview({**form, "action": "group remove", "set_group": "gamma"}))
        page = self.operators.page("/devices?product=default&group=gamma")
        self.assertEqual(page.all("input", name="key"), [])

    def test_a_pin_says_until_when_and_how_many_change_what_they_run(self):
        form = {"action": "pin", "set_version": OLD, "set_until": "2999-11-30T12:00:00Z"}
        text = self.preview({**form, "key": [mac_of(1), mac_of(2), mac_of(3)]}).text
        self.assertIn(f"This pins 3 devices to {OLD} until 2999-11-30 12:00:00 UTC.", text)
        self.assertIn(f"2 of these report another version, and change to {OLD}.", text)
        text = self.preview({**form, "key": [mac_of(2)]}).text
        self.assertNotIn("another version", text)
        text = self.preview({**form, "scope": "all", "version": NEW}).text
        self.assertIn("20 of these report another version", text)
        text = self.preview({**form, "key": [mac_of(1)]}).text
        self.assertIn(f"It reports {NEW}, and changes to {OLD}.", text)

    def test_what_is_done_to_one_device_names_it(self):
        key = mac_of(6)
        self.press(self.preview({"action": "label", "key": key, "set_label": "pump house"}))
        for form, said in (
            ({"action": "pin", "set_version": OLD}, "pins the device {} to"),
            ({"action": "label", "set_label": "x"}, "labels the device {} “x”"),
            ({"action": "label", "set_label": ""}, "labels the device {} with nothing: its label"),
            ({"action": "retry"}, "lets the device {} fetch its release"),
            ({"action": "forget"}, "forgets the device {}: a device"),
        ):
            with self.subTest(said):
                text = self.preview({**form, "key": key}).text
                self.assertIn(said.format(f"{key} (pump house)"), text)

    def test_a_label_is_given_and_taken_away(self):
        form = {"action": "label", "key": mac_of(3)}
        self.press(self.preview({**form, "set_label": '<i>"'}))
        self.assertEqual(self.read("labels.json"), {mac_of(3): '<i>"'})
        self.press(self.preview({**form, "set_label": ""}))
        self.assertEqual(self.read("labels.json"), {})

    def test_each_question_has_an_explanation_of_its_own(self):
        for action, said in (
            ("group add", "it is made"),
            ("group remove", "There is no group."),
            ("roll out", "then you choose the release"),
        ):
            with self.subTest(action):
                text = self.preview({"action": action, "key": mac_of(1)}).text
                self.assertIn(said, text)
                self.assertEqual("choose the release" in text, action == "roll out")

    def test_what_is_refused_at_last_is_said_once(self):
        form = {**_FORM, "action": "pin", "key": mac_of(1), "set_version": "v7", "expected": "1"}
        page = PageReader(self.operators.post("/devices/act", form).body.decode())
        self.assertEqual(page.text.count("v7 is not a release here"), 1)

    def test_what_cannot_be_used_is_said_beside_the_question(self):
        page = self.preview({"action": "pin", "key": mac_of(1), "set_version": "v7"})
        self.assertIn("v7 is not a release here", page.text)
        page = self.preview({"action": "pin", "key": mac_of(1), "set_version": "v 7"})
        self.assertIn("version: 'v 7' is not a version", page.text)
        page = self.preview(
            {"action": "pin", "key": mac_of(1), "set_version": OLD, "set_until": "soon"}
        )
        self.assertIn("until:", page.text)
        self.assertEqual(page.all("input", name="set_until")[0]["value"], "soon")
        page = self.preview({"action": "group add", "key": mac_of(1), "set_group": "A B"})
        self.assertIn("group: 'A B' is not a group's name", page.text)

    def test_from_the_page_of_a_device_the_way_leads_back_to_it(self):
        form = {"action": "retry", "key": mac_of(9), "back": "device"}
        page = self.preview(form)
        url = f"/devices/default/{mac_of(9)}"
        self.assertIn((url, "Leave it as it is"), page.links)
        self.assertEqual(self.press(page).fields["location"], url)

    def test_devices_that_are_forgotten_are_gone(self):
        answer = self.press(self.preview({"action": "forget", "key": mac_of(COUNT - 1)}))
        self.assertEqual(answer.fields["location"], "/devices?product=default&done=forget")
        self.await_devices(COUNT - 1)
        self.assertEqual(self.operators.get(f"/devices/default/{mac_of(COUNT - 1)}").status, 404)


class AllThatMatchTest(ActCase):
    def test_the_group_that_was_looked_at_is_the_one_to_remove_from(self):
        for group in ("alpha", "delta"):
            self.press(self.preview({"action": "group add", "key": mac_of(1), "set_group": group}))
        page = self.preview({"action": "group remove", "group": "delta", "scope": "all"})
        chosen = [each["value"] for each in page.all("option") if "selected" in each]
        self.assertEqual(chosen, ["delta"])

    def test_where_no_device_matches_the_table_is_there_again_and_says_so(self):
        form = {**_FORM, "scope": "all", "version": "v77", "limit": "7"}
        for action in ("pin", "roll out"):
            with self.subTest(action):
                answer = self.operators.post("/devices/preview", {**form, "action": action})
                self.assertEqual(answer.status, 400)
                page = PageReader(answer.body.decode())
                self.assertIn("no device matches: nothing can be done", page.text)
                self.assertEqual(page.all("input", name="version")[0]["value"], "v77")
        gone = {**_FORM, "scope": "all", "version": "v77", "action": "retry", "expected": "3"}
        self.assertEqual(self.operators.post("/devices/act", gone).status, 400)

    def test_all_that_match_join_a_group_whatever_page_is_shown(self):
        form = {"action": "group add", "scope": "all", "version": OLD, "set_group": "old-ones"}
        page = self.preview(form)
        self.assertIn("This adds 20 devices to the group old-ones.", page.text)
        self.press(page)
        lines = (self.data_dir / "version" / "groups" / "old-ones.txt").read_text().split()
        self.assertEqual({*lines}, {mac for mac, v in some_devices(COUNT).items() if v == OLD})

    def test_if_many_more_match_by_then_it_asks_again(self):
        form = {"action": "label", "scope": "all", "set_label": "x", "version": "v3"}
        self.check_in(dict.fromkeys(map(mac_of, range(500, 503)), "v3"))
        self.await_devices(COUNT + 3)
        page = self.preview(form)
        self.check_in(dict.fromkeys(map(mac_of, range(600, 606)), "v3"))
        self.await_devices(COUNT + 9)
        answer = self.press(page)
        again = PageReader(answer.body.decode())
        self.assertIn("3 devices matched when you looked; now it is 9.", again.text)
        self.assertEqual(self.read("labels.json"), {})
        self.assertEqual(self.press(again).status, 303)
        self.assertEqual(len(self.read("labels.json")), 9)

    def test_a_rollout_to_what_matches_makes_a_group_of_it_first(self):
        form = {"action": "roll out", "scope": "all", "version": NEW, "set_group": "ring"}
        page = self.preview(form)
        self.assertIn("makes 20 devices the group ring", page.text)
        answer = self.press(page)
        self.assertEqual(answer.fields["location"], "/rollouts/new?product=default&group=ring")
        self.assertIn("There is nothing to change", self.preview(form).text)
        of_group = {"action": "roll out", "scope": "all", "group": "ring", "product": "default"}
        answer = self.operators.post("/devices/preview", of_group)
        self.assertEqual(answer.fields["location"], "/rollouts/new?product=default&group=ring")
        answer = self.operators.post(
            "/devices/preview", {"action": "roll out", "scope": "all", "product": "default"}
        )
        self.assertEqual(answer.fields["location"], "/rollouts/new?product=default")


class RefusedTest(ActCase):
    @classmethod
    def prepare(cls) -> None:
        for name in ("version", "firmware", "log"):
            (cls.data_dir / "products" / PLUG / name).mkdir(parents=True)

    def refused(self, form: Mapping[str, str | Sequence[str]], words: str) -> None:
        """Expect that a form is refused, with these words."""
        for path in ("/devices/preview", "/devices/act"):
            with self.subTest(path, words=words):
                answer = self.operators.post(path, form)
                self.assertEqual(answer.status, 400, answer)
                self.assertRegex(PageReader(answer.body.decode()).text, words)

    def test_a_form_that_does_not_say_which_devices_is_refused(self):
        self.refused({"action": "unpin", "scope": "chosen"}, "no device was chosen")
        self.refused({"action": "unpin", "scope": "all"}, "of several products")
        self.refused({"action": "unpin", "key": ["00:11:22:33:44:55", f"{PLUG}/x"]}, "of several")
        self.refused({"action": "unpin", "key": "<b>"}, "is not a device")
        self.refused({"action": "unpin", "scope": "some"}, "neither chosen nor all")
        self.refused({"action": "explode", "key": mac_of(1)}, "is not one of")
        self.refused({"action": "unpin", "scope": "all", "stat": "x"}, "is not known here")

    def test_without_a_device_the_same_part_of_the_table_is_there_again(self):
        page = self.operators.page("/devices?product=default&limit=7&sort=seen&order=desc")
        form = {
            each["name"]: each["value"]
            for each in page.all("input", type="hidden")
            if each["name"] != "form_token"
        }
        answer = self.operators.post("/devices/preview", {**form, "action": "pin"})
        self.assertEqual(answer.status, 400)
        again = PageReader(answer.body.decode())
        self.assertIn("no device was chosen", again.text)
        boxes = [each["value"] for each in again.all("input", name="key")]
        self.assertEqual(boxes, [each["value"] for each in page.all("input", name="key")])
        self.assertEqual(len(boxes), 7)

    def test_what_was_ticked_stays_ticked(self):
        form = {"action": "unpin", "key": [mac_of(1), f"{PLUG}/x"]}
        page = PageReader(self.operators.post("/devices/preview", form).body.decode())
        ticked = [each["value"] for each in page.all("input", name="key") if "checked" in each]
        self.assertEqual(ticked, [mac_of(1)])

    def test_the_number_that_was_shown_has_to_be_said(self):
        answer = self.operators.post("/devices/act", {**_FORM, "action": "unpin", "key": mac_of(1)})
        self.assertEqual(answer.status, 400)

    def test_only_who_may_act_gets_this_far(self):
        form = {**_FORM, "action": "retry", "key": mac_of(1), "expected": "1"}
        looker = Operators(self.server.admin_port, make_token(self.data_dir, "bob", False))
        for path in ("/devices/preview", "/devices/act"):
            with self.subTest(path):
                self.assertEqual(Operators(self.server.admin_port).post(path, form).status, 401)
                self.assertEqual(looker.post(path, form).status, 403)
                self.assertEqual(self.operators.get(path).status, 405)

    def test_a_session_acts_by_its_form_alone(self):
        browser = Operators(self.server.admin_port)
        browser.sign_in(self.data_dir)
        form = {**_FORM, "action": "retry", "key": mac_of(1), "expected": "1"}
        wrong = browser.post("/devices/act", {**form, "form_token": "another"})
        self.assertEqual(wrong.status, 403)
        self.assertEqual(browser.post("/devices/act", form).status, 303)
        tokens = {
            each["value"]
            for each in browser.page("/devices?product=default").all("input", name="form_token")
        }
        self.assertEqual(tokens, {browser.form_token()})


if __name__ == "__main__":
    unittest.main()
