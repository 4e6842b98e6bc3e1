"""The page of one device."""

import json
import unittest
from urllib.parse import quote

from ota_server.model.identity import key_of_name
from ota_server.model.timestamp import format_second, parse_time
from ota_server.operations.bulk_edits import BulkAction, BulkChange, apply
from ota_server.operations.device_index import DeviceIndex
from tests.support import Client, until
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import Operators, OperatorsCase
from tests.support.pages import PageReader
from tests.support.varied_fleet import (
    ALL,
    HOSTILE_ID,
    HOSTILE_LABEL,
    HOSTILE_VERSION,
    PLUG,
    come_varied,
    prepare_varied,
)


def url_of(name: str, product: str = "default") -> str:
    """Return the page of a device."""
    return f"/devices/{product}/{quote(name, safe='')}"


class DevicePageTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        prepare_varied(cls.data_dir)

    @classmethod
    def come(cls) -> None:
        come_varied(cls.server.port)
        cls.await_devices(ALL)
        cls.reader = Operators(cls.server.admin_port)

    def text(self, name: str, product: str = "default") -> str:
        """Return what the page of a device says."""
        return self.reader.page(url_of(name, product)).text

    def test_it_begins_with_why_the_device_gets_what_it_gets(self):
        self.assertIn(f"It is told {OLD}: it is pinned", self.text(mac_of(5)))
        self.assertIn(f"It is told {NEW}: the target of the fleet.", self.text(mac_of(11)))

    def test_the_hour_is_said_in_which_it_was_first_seen(self):
        device = DeviceIndex(self.data_dir).device(key_of_name("", mac_of(1)))
        assert device is not None
        begin_ms = device.seen_ms // 3_600_000 * 3_600_000
        begin, end = format_second(begin_ms), format_second(begin_ms + 3_600_000)
        said = f"First seen on {begin[:10]} between {begin[11:16]} and {end[11:16]} UTC"
        self.assertIn(said, self.text(mac_of(1)))

    def test_a_pin_says_to_what(self):
        self.assertIn(f"Pinned to {OLD}", self.text(mac_of(5)))
        self.assertNotIn("Pinned to", self.text(mac_of(1)))

    def test_what_is_on_record_is_there(self):
        page = self.reader.page(url_of(mac_of(1)))
        for each in ("kitchen", f"Reports {NEW}", "State up to date", "Address 127.0.0.1"):
            self.assertIn(each, page.text)
        self.assertIn(("/devices?product=default&group=beta", "beta"), page.links)

    def test_a_device_of_another_product_is_under_its_product(self):
        self.assertIn(f"Product {PLUG}", self.text("02:00:00:01:00:01", PLUG))
        self.assertEqual(self.reader.get(url_of("02:00:00:01:00:01")).status, 404)

    def test_a_mac_in_another_spelling_leads_to_the_page(self):
        answer = self.reader.get(url_of("02-00-00-00-00-01"))
        self.assertEqual(answer.status, 303)
        self.assertEqual(answer.fields["location"], f"/devices/default/{mac_of(1)}")

    def test_what_is_not_on_record_is_404_and_says_what_to_do(self):
        for name in ("00:11:22:33:44:55", "id:nobody", "nonsense", '<b>"'):
            answer = self.reader.get(url_of(name))
            with self.subTest(name):
                self.assertEqual(answer.status, 404)
                self.assertIn("/rejected", answer.body.decode())
                self.assertNotIn("<b>", answer.body.decode())
        self.assertEqual(self.reader.get(url_of(mac_of(1), "other")).status, 404)

    def test_hostile_text_is_text(self):
        for name, said in (
            (mac_of(2), HOSTILE_LABEL),
            (mac_of(4), HOSTILE_VERSION),
            (f"id:{HOSTILE_ID}", HOSTILE_ID),
        ):
            page = self.reader.page(url_of(name))
            with self.subTest(name):
                self.assertIn(said, page.text)
                self.assertEqual(len(page.all("script")), 1)
                self.assertEqual([*page.all("img"), *page.all("svg")], [])
                for tag, attributes in page.elements:
                    wrong = [each for each in attributes if each[:2] == "on" or each == "style"]
                    self.assertEqual(wrong, [], tag)

    def test_who_may_act_has_a_button_for_each_action(self):
        page = self.operators.page(url_of(mac_of(5)))
        actions = {each["value"] for each in page.all("button", name="action")}
        self.assertEqual(
            actions, {"pin", "unpin", "retry", "label", "forget", "group add", "group remove"}
        )
        self.assertEqual(page.all("input", name="key")[0]["value"], mac_of(5))
        self.assertEqual(self.reader.page(url_of(mac_of(1))).all("button", name="action"), [])

    def test_what_is_not_there_is_not_offered_to_be_ended(self):
        for number, pinned, grouped in ((5, True, True), (1, False, True), (11, False, False)):
            page = self.operators.page(url_of(mac_of(number)))
            actions = {each["value"] for each in page.all("button", name="action")}
            with self.subTest(number):
                self.assertEqual(("unpin" in actions, "group remove" in actions), (pinned, grouped))


class NotOnRecordTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in({mac_of(1): OLD})
        cls.await_devices(1)

    def test_what_was_decided_for_it_is_said_with_the_buttons_that_end_it(self):
        key, url = key_of_name("", mac_of(77)), f"/devices/default/{mac_of(77)}"
        for change in (
            BulkChange(BulkAction.PIN, version=OLD, until_ms=parse_time("2999-11-30T12:00:00Z")),
            BulkChange(BulkAction.LABEL, label="<i>"),
            BulkChange(BulkAction.ADD, group="delta"),
            BulkChange(BulkAction.ADD, group="gamma"),
        ):
            apply(self.data_dir, change, [key])
        page = self.absent(url)
        for said in (
            f"It is pinned to {OLD} until 2999-11-30 12:00:00 UTC.",
            "Its label is “<i>”.",
            "It is in the group gamma.",
        ):
            self.assertIn(said, page.text)
        reader = PageReader(Operators(self.server.admin_port).get(url).body.decode())
        self.assertIn("It is pinned", reader.text)
        self.assertEqual(reader.all("button", name="action"), [])
        actions = [each["value"] for each in page.all("button", name="action")]
        self.assertEqual(actions, ["unpin", "label", "group remove", "group remove"])
        groups = [each["value"] for each in page.all("input", name="set_group")]
        self.assertEqual(groups, ["delta", "gamma"])
        self.assertEqual(len(page.all("input", name="set_label", value="")), 1)
        common = {"product": "default", "scope": "chosen", "key": key, "back": "device"}
        for form, said in (
            ({"action": "unpin"}, "It is pinned"),
            ({"action": "label", "set_label": ""}, "Its label"),
            ({"action": "group remove", "set_group": "gamma"}, "group gamma"),
        ):
            answer = self.operators.post("/devices/act", {**common, **form, "expected": "1"})
            self.assertEqual(answer.fields["location"], url)
            self.assertNotIn(said, self.absent(url).text)
        self.assertIn("It is in the group delta.", self.absent(url).text)

    def absent(self, url: str) -> PageReader:
        """Return the page of a device that is not on record."""
        answer = self.operators.get(url)
        self.assertEqual(answer.status, 404)
        return PageReader(answer.body.decode())


class StoryTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.mac = mac_of(1)
        for _ in range(30):
            cls.check_in({cls.mac: OLD})
        cls.await_devices(1)

    def await_text(self, name: str, text: str) -> None:
        """Wait until the page of a device, which may not be on record yet, says something."""
        body = text.encode()
        self.assertTrue(until(lambda: body in self.operators.get(url_of(name)).body))

    def test_checks_that_say_the_same_are_one_entry(self):
        page = self.operators.page(url_of(self.mac))
        self.assertIn("30 checks", page.text)
        self.assertEqual(len(page.all("td", data_name="Told")), 1)

    def test_a_download_and_what_came_of_it_are_told(self):
        mac = mac_of(2)
        self.check_in({mac: OLD})
        self.check_in({mac: OLD}, "/firmware.bin")
        self.await_text(mac, "download ended")
        text = self.operators.page(url_of(mac)).text
        self.assertIn("complete", text)
        self.assertIn("began a download", text)

    def test_downloads_can_be_shown_alone(self):
        mac = mac_of(4)
        self.check_in({mac: OLD})
        self.check_in({mac: OLD}, "/firmware.bin")
        self.await_text(mac, "download ended")
        page = self.operators.page(f"{url_of(mac)}?only=downloads")
        self.assertIn("began a download", page.text)
        self.assertNotIn("asked for its version", page.text)
        self.assertIn((f"/devices/default/{mac}", "Everything"), page.links)

    def test_a_long_history_has_parts(self):
        mac = mac_of(3)
        with Client(self.server.port) as client:
            for number in range(120):
                client.request("/version.txt", {"_br_mac_": mac, "_br_fwv_": f"v{number}"})
                client.answer()
        self.await_text(mac, "was v118")
        seen: list[str] = []
        url: str | None = url_of(mac)
        while url is not None:
            page = self.operators.page(url)
            history = page.text.partition("Details Address ")[2]
            seen += [word for word in history.split() if word.startswith("v")]
            url = next((url for url, said in page.links if said == "Older →"), None)
        for number in range(120):
            self.assertIn(f"v{number}", seen)

    def test_a_place_that_no_page_gave_is_refused(self):
        for query in ("before=x", "only=checks"):
            self.assertEqual(self.operators.get(f"{url_of(self.mac)}?{query}").status, 400)


class RolloutTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in({mac_of(1): OLD})
        cls.await_devices(1)

    def test_the_rollouts_that_it_is_in_are_listed_with_what_it_counts_as(self):
        plan = {
            "id": "abc123",
            "version": NEW,
            "group": "",
            "waves": [100.0],
            "time": "2026-11-29T00:00:00.000Z",
            "instead_of": OLD,
            "count_new": True,
        }
        (self.data_dir / "version" / "rollout.json").write_text(json.dumps(plan))

        def is_listed() -> bool:
            page = self.operators.page(url_of(mac_of(1)))
            return any(url == "/rollouts/default/abc123" for url, _ in page.links)

        self.assertTrue(until(is_listed), self.operators.page(url_of(mac_of(1))).text)


if __name__ == "__main__":
    unittest.main()
