"""The table of devices, by real requests to a real server."""

import re
import unittest
from urllib.parse import parse_qs, quote

from ota_server.operator_port.device_query import COLUMN_NAMES, FILTER_FIELDS
from tests.support.fleet import NEW, mac_of
from tests.support.operators import Operators, OperatorsCase, make_token
from tests.support.pages import PageReader
from tests.support.varied_fleet import (
    ALL,
    FORMULA_LABEL,
    HOSTILE_ID,
    HOSTILE_LABEL,
    HOSTILE_VERSION,
    PLUG,
    PLUGS,
    STANDARD,
    come_varied,
    prepare_varied,
)


def names_in(page: PageReader) -> list[str]:
    """Return the devices in a table, in their order."""
    return [said for url, said in page.links if url.startswith("/devices/")]


def query_of(url: str) -> dict[str, list[str]]:
    """Return the fields of the query of a URL."""
    return parse_qs(url.partition("?")[2])


class TableTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        prepare_varied(cls.data_dir)

    @classmethod
    def come(cls) -> None:
        come_varied(cls.server.port)
        cls.await_devices(ALL)
        cls.reader = Operators(cls.server.admin_port)

    def names(self, query: str) -> list[str]:
        """Return the devices that a query chooses."""
        return names_in(self.reader.page(f"/devices?limit=500&{query}"))

    def test_all_devices_are_in_it(self):
        self.assertEqual(len({*self.names("")}), ALL)
        self.assertIn(f"{ALL} devices", self.reader.page("/devices").text)

    def test_a_filter_chooses(self):
        for query, count in (
            ("text=kitchen", 1),
            ("version=v1.10.0", 9),
            ("not_version=v1.10.0&product=default", STANDARD + 1 - 9),
            (f"product={PLUG}", PLUGS),
            ("group=beta", 10),
            ("label=KITCH", 1),
            ("address=127.0.0.0/8", ALL),
            ("address=192.0.2.1", 0),
            ("family=hawkbit", 1),
            ("not_seen=1d", 0),
            ("apart=pinned", 3),
            ("apart=rejected", 10),
            ("apart=counted", ALL - 3 - 10),
            ("target=v1.0.0&target=v9", PLUGS + 3),
            ("state=up_to_date&state=behind&state=held_back&state=undecided", ALL),
        ):
            with self.subTest(query):
                self.assertEqual(len(self.names(query)), count)

    def test_what_is_chosen_is_shown_and_each_part_can_be_taken_away(self):
        page = self.reader.page("/devices?version=v1.10.0&version=1.0.0&state=behind&sort=seen")
        ways = {said: url for url, said in page.links if said.endswith("✕")}
        self.assertEqual(
            {*ways}, {f"{each} ✕" for each in ("version v1.10.0", "version 1.0.0", "state behind")}
        )
        self.assertEqual(
            query_of(ways["version 1.0.0 ✕"]),
            {"version": ["v1.10.0"], "state": ["behind"], "sort": ["seen"]},
        )

    def test_each_field_is_said_where_it_is_chosen(self):
        values = {"outdated": "1", "overdue": "1", "state": "behind", "stage": "told"}
        values |= {"apart": "counted", "family": "rauc", "product": PLUG, "address": "192.0.2.1"}
        values |= {"not_seen": "7d", "held_by": "the+hold"}
        for name in FILTER_FIELDS:
            with self.subTest(name):
                page = self.reader.page(f"/devices?{name}={values.get(name, 'v1')}")
                self.assertEqual(sum(said.endswith("✕") for _, said in page.links), 1)

    def test_the_form_sends_what_it_shows_again(self):
        query = (
            "target=v3&version=v1&version=v2&state=behind&group=beta&not_seen=7d&overdue=1&limit=25"
        )
        page = self.reader.page(f"/devices?{query}")
        sent = {
            (each["name"], each.get("value", ""))
            for each in page.all("input")
            if each.get("type") != "checkbox" or "checked" in each
        }
        for pair in (
            ("version", "v1"),
            ("version", "v2"),
            ("target", "v3"),
            ("not_seen", "7d"),
            ("overdue", "1"),
            ("limit", "25"),
        ):
            self.assertIn(pair, sent)
        chosen = {each["value"] for each in page.all("option") if "selected" in each}
        self.assertTrue({"behind", "beta"} <= chosen)

    def test_the_parts_of_a_list_have_each_device_once(self):
        seen: list[str] = []
        url: str | None = "/devices?limit=9&sort=version&order=desc"
        while url is not None:
            page = self.reader.page(url)
            seen += names_in(page)
            url = next((url for url, said in page.links if said == "Next →"), None)
        self.assertEqual(sorted(seen), sorted(self.names("")))
        back = next(url for url, said in page.links if said == "← Previous")
        self.assertEqual(names_in(self.reader.page(back)), seen[-(9 + len(names_in(page))) :][:9])

    def test_a_heading_sorts_and_turns_the_order(self):
        page = self.reader.page("/devices?sort=version&group=beta")
        ways = {said: query_of(url) for url, said in page.links}
        self.assertEqual(
            ways["Version ▲"], {"sort": ["version"], "order": ["desc"], "group": ["beta"]}
        )
        self.assertEqual(ways["Last seen"]["order"], ["desc"])
        self.assertEqual(
            page.all("th", aria_sort="ascending"), [{"scope": "col", "aria-sort": "ascending"}]
        )
        up, down = self.names("sort=mac"), self.names("sort=mac&order=desc")
        self.assertEqual(up, down[::-1])

    def test_each_column_can_be_chosen(self):
        chosen = ",".join(COLUMN_NAMES)
        page = self.reader.page(f"/devices?columns={chosen}&text={mac_of(1)}")
        cells = [each["data-name"] for each in page.all("td")]
        self.assertEqual(len(cells), len(COLUMN_NAMES))
        self.assertEqual(cells[0], "Device")

    def test_whoever_looks_for_what_went_wrong_is_told_why(self):
        for query, is_there in (("state=held_back", True), ("state=behind", False), ("", False)):
            heads = self.reader.page(f"/devices?{query}").text.partition("Device ▲")[2]
            self.assertEqual("Reason" in heads.partition("Address")[0], is_there, query)

    def test_a_cursor_of_another_list_begins_at_its_first_row(self):
        page = self.reader.page("/devices?limit=9")
        url = next(url for url, said in page.links if said == "Next →")
        other = self.reader.page(f"{url}&group=beta")
        self.assertEqual(len(names_in(other)), 9)

    def test_a_word_that_is_not_known_is_said_and_chooses_nothing(self):
        answer = self.reader.get("/devices?stat=failed")
        self.assertEqual(answer.status, 400)
        self.assertIn("&#x27;stat&#x27; is not known here", answer.body.decode())

    def test_a_filter_that_cannot_be_used_is_shown_again_as_it_was_typed(self):
        for query, words, name, typed in (
            (
                "not_seen=soon&label=hall",
                "Not seen for: 'soon' is not a duration",
                "not_seen",
                "soon",
            ),
            ("address=here&state=failed", "Address: 'here' is neither", "address", "here"),
        ):
            with self.subTest(query):
                answer = self.reader.get(f"/devices?{query}")
                self.assertEqual(answer.status, 400)
                page = PageReader(answer.body.decode())
                self.assertIn(words, page.text)
                self.assertEqual(page.all("input", name=name)[0]["value"], typed)
                self.assertEqual(names_in(page), [])
        page = PageReader(self.reader.get("/devices?not_seen=soon&label=hall").body.decode())
        self.assertEqual(page.all("input", name="label")[0]["value"], "hall")

    def test_a_product_that_is_not_there_is_said_above_the_filter(self):
        answer = self.reader.get("/devices?product=other&label=hall")
        self.assertEqual(answer.status, 400)
        page = PageReader(answer.body.decode())
        self.assertIn("There is no product 'other'.", page.text)
        self.assertEqual(page.all("input", name="label")[0]["value"], "hall")

    def test_a_program_gets_a_problem_where_a_word_was_wrong(self):
        answer = self.reader.get("/devices?not_seen=soon", Accept="application/json")
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.fields["content-type"], "application/problem+json")

    def test_whoever_is_signed_in_stays_so_where_a_word_was_wrong(self):
        signed_in = Operators(self.server.admin_port)
        signed_in.sign_in(self.data_dir)
        answer = signed_in.get("/devices?not_seen=soon")
        self.assertEqual(answer.status, 400)
        self.assertIn(b"Sign out", answer.body)

    def test_hostile_text_is_text(self):
        text = quote(HOSTILE_ID)
        for query in (
            "limit=500",
            f"text={text}",
            f"version={quote(HOSTILE_VERSION)}",
            f"label={quote(HOSTILE_LABEL)}",
        ):
            page = self.reader.page(f"/devices?{query}")
            self.assertEqual(page.all("img"), [])
            self.assertEqual(len(page.all("script")), 1)
            for tag, attributes in page.elements:
                for name in attributes:
                    self.assertFalse(name.startswith("on") or name == "style", (tag, name))
        text = self.reader.page("/devices?limit=500").text
        for each in (HOSTILE_VERSION, HOSTILE_LABEL, FORMULA_LABEL, f"id:{HOSTILE_ID}"):
            self.assertIn(each, text)

    def test_the_page_of_each_device_can_be_reached(self):
        page = self.reader.page("/devices?limit=500")
        for url, said in page.links:
            if url.startswith("/devices/") and (PLUG in url or not said.startswith("02:")):
                with self.subTest(url):
                    self.assertIn(said, self.reader.page(url).text)

    def test_who_may_only_read_has_no_buttons(self):
        self.assertEqual(self.reader.page("/devices").all("button", name="action"), [])
        looker = Operators(self.server.admin_port, make_token(self.data_dir, "bob", False))
        page = looker.page("/devices")
        self.assertEqual(page.all("button", name="action"), [])
        self.assertIn("sign in by a token that may act", page.text)
        actor = self.operators.page("/devices?product=default")
        self.assertEqual(len(actor.all("button", name="action")), 8)

    def test_pins_and_groups_that_are_not_there_are_not_offered_to_be_ended(self):
        page = self.operators.page(f"/devices?product={PLUG}")
        actions = {each["value"] for each in page.all("button", name="action")}
        self.assertTrue({"pin", "group add"} <= actions)
        self.assertFalse({"unpin", "group remove"} & actions)

    def test_a_column_whose_title_needs_it_says_what_it_means(self):
        page = self.reader.page("/devices")
        meanings = [each["title"] for each in page.all("th") if "title" in each]
        self.assertEqual(len(meanings), 2)
        for said in meanings:  # where nobody can hover
            self.assertIn(said, page.text)
        first = self.reader.page("/devices?columns=mac,first")
        meaning = "the beginning of the full hour in which it was first seen"
        self.assertIn(meaning, [each.get("title") for each in first.all("th")])

    def test_actions_are_for_one_product_at_a_time(self):
        page = self.operators.page("/devices?group=beta")
        self.assertEqual(page.all("button", name="action"), [])
        self.assertIn(("/devices?group=beta&product=plug", PLUG), page.links)

    def test_the_text_of_a_search_is_shown_as_it_was_typed(self):
        page = self.reader.page("/devices?text=%22%3E%3Cscript%3E")
        self.assertEqual(page.all("input", type="search")[0]["value"], '"><script>')
        self.assertIn("No device matches.", page.text)


class NoIndexTest(OperatorsCase):
    def test_without_an_index_the_page_says_so_and_is_back_by_itself(self):
        path = self.data_dir / "log" / "index.sqlite"
        self.check_in({mac_of(1): NEW})
        self.await_devices(1)
        path.unlink()
        path.mkdir()  # so that it cannot be made again
        page = self.operators.page("/devices")
        self.assertRegex(page.text, "The table of devices is not there yet")
        self.assertEqual(page.all("section", id="index-away")[0]["data-poll"], "2")
        self.assertEqual(self.operators.page("/").all("section", id="rollouts") != [], True)
        self.assertEqual(self.operators.get("/devices.csv").status, 503)
        path.rmdir()
        self.await_devices(1)
        self.assertTrue(re.search("1 device", self.operators.page("/devices").text))


if __name__ == "__main__":
    unittest.main()
