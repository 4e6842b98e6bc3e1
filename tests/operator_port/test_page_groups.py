"""The page of groups: each number is that of the table which it leads to."""

import json
import re
import unittest

from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import Operators, OperatorsCase
from tests.support.varied_fleet import ALL, PLUG, come_varied, prepare_varied

_TOTAL = re.compile(r"(\d+) devices? match")


class GroupsPageTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        prepare_varied(cls.data_dir)
        version = cls.data_dir / "version"
        groups = version / "groups"
        (groups / "empty.txt").write_text("")
        (groups / "shop.txt").write_text(f"{mac_of(1)}\n{mac_of(20)}\n02:ff:ff:ff:ff:ff\n")
        pins = json.loads((version / "pins.json").read_text())
        pins["groups"] = {"empty": {"version": OLD, "until": "2099-01-31T00:00:00.000Z"}}
        (version / "pins.json").write_text(json.dumps(pins))
        (version / "targets.json").write_text(json.dumps({"shop": OLD}))

    @classmethod
    def come(cls) -> None:
        come_varied(cls.server.port)
        cls.await_devices(ALL)
        cls.reader = Operators(cls.server.admin_port)

    def total(self, url: str) -> int:
        """Return how many devices a table says it has."""
        text = self.reader.page(url).text
        match = _TOTAL.search(text)
        return int(match[1]) if match else 0

    def test_each_number_leads_to_a_table_of_so_many_devices(self):
        found = [
            (url, int(said))
            for url, said in self.reader.page("/groups?product=default").links
            if said.isdigit()
        ]
        self.assertEqual(len(found), 3 * 3)
        for url, number in found:
            with self.subTest(url):
                self.assertEqual(self.total(url), number)
        self.assertIn(("/devices?product=default&group=beta", 10), found)
        self.assertIn(("/devices?product=default&group=shop", 2), found)

    def test_what_a_group_gets_is_said(self):
        page = self.reader.page("/groups?product=default")
        self.assertRegex(page.text, f"pinned to {OLD} until 2099-01-31 00:00:00 UTC")
        self.assertIn(f"/releases/default/{OLD}", [url for url, _ in page.links])
        self.assertIn("what the fleet gets", page.text)
        self.assertIn("2 and 1 device that never asked", page.text)

    def test_the_rollout_that_is_on_is_there(self):
        request = {"version": NEW, "group": "shop", "count_new": True}
        status, rollout = self.operators.json("POST", "/api/v1/rollouts/default", request)
        self.assertEqual(status, 201, rollout)
        page = self.reader.page("/groups")
        self.assertIn((f"/rollouts/default/{rollout['id']}", NEW), page.links)

    def test_each_product_has_its_groups(self):
        self.assertIn("There is no group yet", self.reader.page(f"/groups?product={PLUG}").text)
        self.assertEqual(self.reader.get("/groups?product=none").status, 404)

    def test_each_page_leads_there(self):
        self.assertIn(("/groups", "Groups"), self.reader.page("/devices").links)


class BrokenTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        groups = cls.data_dir / "version" / "groups"
        groups.mkdir()
        (groups / "beta.txt").write_text(f"{mac_of(1)}\n")
        (groups / "broken.txt").write_text("no device\n")

    def test_a_list_that_cannot_be_used_is_said_and_hides_no_other(self):
        page = self.operators.page("/groups")
        self.assertRegex(page.text, "broken.txt line 1 is not a MAC address")
        self.assertIn(("/devices?product=default&group=beta", "beta"), page.links)


if __name__ == "__main__":
    unittest.main()
