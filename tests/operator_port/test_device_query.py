"""Filters of devices in URLs."""

import random
import re
import unittest
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs

from ota_server.model.updater import FAMILY_NAMES
from ota_server.operations.device_filter import (
    ALL_DEVICES,
    SORTS,
    Apart,
    DeviceFilter,
    Stage,
    word_of,
)
from ota_server.operator_port.asked import Malformed
from ota_server.operator_port.device_query import (
    COLUMN_NAMES,
    FILTER_FIELDS,
    HELD_BY_WORDS,
    LIST_FIELDS,
    DeviceListing,
    by_name,
    fields_of,
    listing_fields,
    read_filter,
    read_listing,
)
from ota_server.operator_port.pieces import url_with
from ota_server.policy.device_state import Condition
from tests.support import ROOT

_TEXTS = ("a", "00:11", "v1.0+b", 'x"<y>&=;#%', "ä€😀", "= 1", "\u202ex")
_NETWORKS = ("192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "::ffff:192.0.2.0/120", "0.0.0.0/0")


def random_filter(source: random.Random) -> DeviceFilter:
    """Return a filter of which each field is given or not."""

    def maybe(make: Callable[[], Any], other: Any = None) -> Any:
        return make() if source.random() < 0.4 else other

    def some(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(source.sample(values, source.randint(1, 3)))

    network = maybe(lambda: ip_network(source.choice(_NETWORKS[:3] + _NETWORKS[4:])))
    return DeviceFilter(
        text=maybe(lambda: source.choice(_TEXTS), ""),
        versions=maybe(lambda: some(_TEXTS), ()),
        not_versions=maybe(lambda: some(_TEXTS), ()),
        outdated=source.random() < 0.5,
        states=maybe(lambda: some([*Condition]), ()),
        stage=maybe(lambda: source.choice([*Stage])),
        apart=maybe(lambda: some([None, *Apart]), ()),
        families=maybe(lambda: some(FAMILY_NAMES), ()),
        product=maybe(lambda: source.choice(("", "plug"))),
        group=maybe(lambda: "ring0"),
        network=network,
        label=maybe(lambda: source.choice(_TEXTS)),
        not_seen_seconds=maybe(lambda: float(source.randint(1, 10 ** source.randint(1, 8)))),
        overdue=source.random() < 0.5,
        targets=maybe(lambda: some(_TEXTS), ()),
        held_by=maybe(lambda: some(HELD_BY_WORDS), ()),
    )


def fields_in(url: str) -> dict[str, list[str]]:
    """Return the fields of the query of a URL, as a request has them."""
    return parse_qs(url.partition("?")[2], keep_blank_values=True)


class FilterTest(unittest.TestCase):
    def test_a_filter_is_the_same_after_it_was_in_a_url(self):
        source = random.Random(7)
        for _ in range(500):
            wanted = random_filter(source)
            with self.subTest(wanted):
                self.assertEqual(read_filter(fields_in(url_with("/x", fields_of(wanted)))), wanted)

    def test_a_list_is_the_same_after_it_was_in_a_url(self):
        source = random.Random(8)
        for _ in range(200):
            listing = DeviceListing(
                random_filter(source),
                source.choice([*SORTS]),
                source.random() < 0.5,
                tuple(source.sample(COLUMN_NAMES, source.randint(0, 4))),
                source.choice((1, 50, 500)),
                source.choice((None, "WyJ4Il0")),
            )
            with self.subTest(listing):
                fields = fields_in(url_with("/devices", listing_fields(listing)))
                self.assertEqual(read_listing(fields), listing)

    def test_what_is_usual_is_not_said(self):
        self.assertEqual(listing_fields(DeviceListing()), [])

    def test_fields_that_nobody_filled_in_choose_all_devices(self):
        empty = {name: ["", " "] for name in FILTER_FIELDS}
        self.assertEqual(read_filter(empty), ALL_DEVICES)

    def test_the_default_product_is_named_and_no_product_means_all(self):
        self.assertEqual(read_filter({"product": ["default"]}).product, "")
        self.assertIsNone(read_filter({}).product)

    def test_a_state_may_be_said_in_its_own_words(self):
        found = read_filter({"state": ["up to date", "held_back"]})
        self.assertEqual(found.states, (Condition.UP_TO_DATE, Condition.HELD_BACK))

    def test_every_field_of_a_filter_is_in_urls(self):
        everything = DeviceFilter(
            *("t", ("1",), ("2",), True, (Condition.AWAY,), Stage.TOLD, (Apart.HELD,), ("br",)),
            *("p", "g", ip_network("::1"), "l", 60.0, True, ("2",), ("the hold",)),
        )
        self.assertEqual({name for name, _ in fields_of(everything)}, {*FILTER_FIELDS})
        self.assertEqual(read_filter(by_name(fields_of(everything))), everything)


class DocumentedTest(unittest.TestCase):
    def test_the_page_for_operators_has_each_field_and_each_word(self):
        page = (ROOT / "docs" / "operators.md").read_text("utf-8")
        table = page.partition("| field | what stands there |")[2].partition("\n\n")[0]
        named = {*re.findall(r"`([a-z_-]+)`", table)}
        words = {word_of(each) for kind in (Condition, Stage, Apart) for each in kind}
        fields = {*FILTER_FIELDS, *LIST_FIELDS} - {"cursor"}
        self.assertLessEqual(fields | words | {*COLUMN_NAMES}, named)


class RefusedTest(unittest.TestCase):
    def refuses(self, words: str, **fields: str | list[str]) -> None:
        """Expect that fields are refused, and that the message says so."""
        said = {name: [each] if isinstance(each, str) else each for name, each in fields.items()}
        with self.assertRaisesRegex(Malformed, words):
            read_listing(said)

    def test_what_cannot_be_used_is_named(self):
        self.refuses("state: 'fialed' is not one of silent, failed", state="fialed")
        self.refuses("stage: 'x' is not one of none, told", stage="x")
        self.refuses("apart: .* pinned, held, rejected, counted", apart="x")
        self.refuses("not_seen: '7 days' is not a duration", not_seen="7 days")
        self.refuses("not_seen", not_seen="0s")
        self.refuses("not_seen", not_seen="999999999d")
        self.refuses("address: 'home' is neither", address="home")
        self.refuses("product: 'A B' is not the name", product="A B")
        self.refuses("group", group="A B")
        self.refuses("family: 'x' is not one of", family="x")
        self.refuses("sort: 'x' is not one of mac", sort="x")
        self.refuses("order", order="down")
        self.refuses("columns: 'x' is not one of mac", columns="mac,x")
        self.refuses("limit: '0'", limit="0")
        self.refuses("limit: '501'", limit="501")
        self.refuses("overdue: 'maybe'", overdue="maybe")

    def test_a_field_that_is_not_known_is_an_error_since_it_would_choose_all(self):
        self.refuses("'stat' is not known here", stat="failed")

    def test_two_different_values_of_one_thing_are_an_error(self):
        self.refuses("group: it is given twice", group=["a", "b"])
        self.assertEqual(read_filter({"group": ["a", "", "a"]}).group, "a")

    def test_what_is_too_much_is_an_error(self):
        self.refuses("text: it has 201 characters", text="x" * 201)
        self.refuses("version: 101 values", version=[str(each) for each in range(101)])


if __name__ == "__main__":
    unittest.main()
