"""The index of devices as it is asked: the same as a look at each device, in parts, and quickly."""

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import chain, pairwise, product

from ota_server.device_port.admission_status import read_server_state
from ota_server.journal.record import format_record
from ota_server.journal.replay import replay
from ota_server.model.identity import name_of, number_of, product_of
from ota_server.operations.device_filter import (
    ALL_DEVICES,
    SORTS,
    Apart,
    BadCursor,
    DeviceFilter,
    Stage,
)
from ota_server.operations.device_index import MOST_COUNTED, IndexAway
from ota_server.operations.fleet_row import COLUMNS, FleetRow, row_tests
from ota_server.policy.device_state import Condition
from ota_server.policy.fleet_counts import FleetConditions
from ota_server.policy.gather import gather_fleet
from ota_server.policy.labels import read_labels
from ota_server.policy.reason import Reason
from ota_server.system.data_dir import log_dir, product_dir
from tests.support.index import (
    DAY_MS,
    HOUR_MS,
    MANY_FAMILIES,
    MANY_VERSIONS,
    MINUTE_MS,
    NEW,
    OLD,
    IndexCase,
    a_device,
    any_device,
    had,
    key_of,
)

HOSTILE = "<b>O'Brien \U0001f600 =1+1</b>; DROP %_\\"


class RandomFleetTest(IndexCase):
    """Filters, sorts and pages of fleets that were made by chance, beside a look at each device."""

    def make_fleet(self, seed: int) -> None:
        chance = self.chance = random.Random(seed)
        other = product_dir(self.data_dir, "plug")
        for name in ("version", "firmware", "log"):
            (other / name).mkdir(parents=True, exist_ok=True)
        (other / "version" / "version.txt").write_text(OLD)
        (other / "firmware" / f"firmware_{OLD}.bin").write_bytes(b"image")
        keys = [key_of(number) for number in range(60)]
        keys += [f"/gw-{number}" for number in range(10)] + ["/A'%_\\<b>"]
        keys += [f"plug/{key_of(number)}" for number in range(15)] + ["plug/x y"]
        for key in keys:
            self.note(key, any_device(chance, self.now_ms))
        beta = "\n".join(chance.sample(keys[:60], 20))
        self.decide("groups/beta.txt", beta)
        self.decide("groups/beta-2.txt", "\n".join(chance.sample(keys[:60], 10)))
        labels = {keys[1]: "Pump", keys[2]: "pump 2", keys[5]: HOSTILE}
        self.decide("labels.json", json.dumps(labels))
        self.decide("pins.json", f'{{"devices": {{"{keys[7]}": {{"version": "{OLD}"}}}}}}')
        self.catch_up()

    def rows(self) -> list[FleetRow]:
        """Return all devices as commands see them, by the journal."""
        rows = []
        found = replay(self.data_dir / "log")
        self.addCleanup(found.close)
        for each in (self.data_dir, product_dir(self.data_dir, "plug")):
            fleet = gather_fleet(each, self.now_ms, read_server_state(log_dir(each)))
            conditions = FleetConditions(each, fleet, lambda *_: "")
            labels = read_labels(each)
            for key, device in found.devices(fleet.policy.product):
                groups = fleet.policy.groups.get(key, ())
                rows.append(FleetRow(key, device, labels.get(name_of(key), ""), groups, conditions))
        return rows

    def any_filter(self) -> DeviceFilter:
        """Return a filter with one or two wishes."""
        chance = self.chance
        network = ip_network(chance.choice(("192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32")))
        wishes = {
            "text": chance.choice(
                ("02:00", "02-00-00", "0200", "GW", "pump", "%", "_\\", "1.1", "'")
            ),
            "versions": tuple(chance.sample(MANY_VERSIONS, 2)),
            "not_versions": tuple(chance.sample(MANY_VERSIONS, 2)),
            "outdated": True,
            "states": tuple(chance.sample(list(Condition), 2)),
            "families": (chance.choice(("br", "esp32", "hawkbit")),),
            "product": chance.choice(("", "plug", "none")),
            "group": chance.choice(("beta", "beta-2", "beta-3")),
            "network": network,
            "label": chance.choice(("PUMP", "o'b", "%", "2")),
            "not_seen_seconds": chance.choice((600.0, 86400.0, 0.0)),
        }
        names = chance.sample(sorted(wishes), chance.choice((0, 1, 1, 2)))
        return DeviceFilter(**{name: wishes[name] for name in names})

    def is_held_text(self, row: FleetRow, text: str) -> bool:
        """Return whether a device has a text, by the words of the filter's description."""
        texts = (row.mac, row.device.firmware_version, row.label)
        bare = text.replace("-", "").replace(":", "")
        is_hex = len(bare) >= 4 and all(each in "0123456789abcdef" for each in bare)
        pairs = ":".join(bare[at : at + 2] for at in range(0, len(bare), 2))
        return any(text.casefold() in each.casefold() for each in texts) or (
            is_hex and pairs in row.mac
        )

    def expected(self, rows: list[FleetRow], wanted: DeviceFilter) -> list[FleetRow]:
        tests = row_tests(wanted, self.now_ms)
        return [
            row
            for row in rows
            if all(test(row) for test in tests)
            and (wanted.product is None or row.product == wanted.product)
            and (not wanted.text or self.is_held_text(row, wanted.text))
        ]

    def ordered(self, rows: list[FleetRow], sort: str, descending: bool) -> list[str]:
        def place(row: FleetRow) -> object:
            if sort == "state":
                return [*Condition].index(row.condition.condition), number_of(row.key)
            return COLUMNS[sort].key(row), number_of(row.key)

        return [row.key for row in sorted(rows, key=place, reverse=descending)]

    def test_filters_sorts_and_pages_are_those_of_a_look_at_each_device(self):
        for seed in range(3):
            self.journal.unlink(missing_ok=True)
            self.make_fleet(seed)
            rows = self.rows()
            self.assertEqual(len(rows), 87)
            for _ in range(60):
                wanted, sort = self.any_filter(), self.chance.choice(list(SORTS))
                descending, limit = self.chance.random() < 0.5, self.chance.choice((1, 7, 100))
                with self.subTest(seed=seed, wanted=wanted, sort=sort, down=descending):
                    expected = self.ordered(self.expected(rows, wanted), sort, descending)
                    pages = self.pages(wanted, sort, descending, limit=limit)
                    self.assertEqual([*chain.from_iterable(pages)], expected)
                    self.assertEqual(sorted(self.index.keys(wanted)), sorted(expected))
                    self.assertEqual(self.index.count(wanted), len(expected))
                    exported = [row.key for row in self.index.rows(wanted)]
                    self.assertEqual(exported, sorted(expected, key=number_of))
                    total = self.index.page(wanted, sort, descending, limit=1).total
                    self.assertEqual(total, (len(expected), True))

    def test_the_figures_are_those_of_a_look_at_each_device(self):
        self.make_fleet(7)
        rows = self.rows()
        for name in (None, "", "plug", "none"):
            mine = [row for row in rows if name in (None, row.product)]
            summary = self.index.summary(name)
            self.assertEqual(summary.total, len(mine))
            self.assertEqual(summary.conditions, Counter(row.condition.condition for row in mine))
            versions = Counter(row.device.firmware_version for row in mine)
            self.assertEqual(summary.versions, versions)
            self.assertEqual(summary.other_versions, 0)
        self.assertEqual(self.index.summary().apart, {Apart.PINNED: 1})
        self.assertEqual(self.index.summary().progress, 1.0)

    def test_a_row_says_what_a_look_at_its_device_says(self):
        self.make_fleet(11)
        for row in self.rows():
            indexed = self.index.device(row.key)
            self.assertIsNotNone(indexed)
            with self.subTest(row.key):
                self.assertEqual(
                    (indexed.name, indexed.product, indexed.family, indexed.label),
                    (row.mac, row.product, row.family, row.label),
                )
                self.assertEqual(
                    (indexed.condition, indexed.reason),
                    (row.condition.condition, row.condition.cause.reason),
                )
                self.assertEqual(indexed.words, row.reason)
                self.assertEqual(
                    (indexed.groups, indexed.is_outdated), (row.groups, row.is_outdated)
                )
                self.assertEqual(indexed.seen_ms, row.device.last_seen_ms)
                self.assertEqual(indexed.target, row.device.target_version)

    def test_paging_visits_each_device_once_while_others_change(self):
        self.make_fleet(3)
        keys = {row.key for row in self.rows()}
        for sort, descending in product(("mac", "address", "family"), (False, True)):
            with self.subTest(sort, down=descending):
                forward = []
                page = self.index.page(sort=sort, descending=descending, limit=10)
                pages = [page]
                while page.next is not None:
                    forward += [row.key for row in page.rows]
                    for key in self.chance.sample(sorted(keys), 20):
                        # What it reports changes, but not what the list is sorted by.
                        known = self.index.device(key)
                        family = next(
                            each for each in MANY_FAMILIES if known.family in (each or ("br",))
                        )
                        changed = any_device(self.chance, self.now_ms)
                        self.note(key, changed._replace(address=known.address, updater=family))
                    self.catch_up()
                    page = self.index.page(
                        sort=sort, descending=descending, limit=10, cursor=page.next
                    )
                    pages.append(page)
                forward += [row.key for row in page.rows]
                self.assertEqual(len(forward), len(keys))
                self.assertEqual({*forward}, keys)
                back = [[row.key for row in page.rows]]
                while page.previous is not None:
                    page = self.index.page(
                        sort=sort, descending=descending, limit=10, cursor=page.previous
                    )
                    back.insert(0, [row.key for row in page.rows])
                self.assertEqual([*chain.from_iterable(back)], forward)


class PageTest(IndexCase):
    def test_a_list_that_fits_has_no_other_part(self):
        for number in range(3):
            self.know(number)
        self.catch_up()
        page = self.index.page(limit=3)
        self.assertEqual((len(page.rows), page.next, page.previous), (3, None, None))

    def test_a_list_without_devices_is_empty(self):
        self.catch_up()
        page = self.index.page(DeviceFilter(group="beta"))
        self.assertEqual((page.rows, page.next, page.previous), ((), None, None))
        self.assertEqual(page.total, (0, True))

    def test_a_device_that_is_forgotten_on_the_way_ends_no_list(self):
        for number in range(6):
            self.know(number)
        self.catch_up()
        page = self.index.page(limit=2)
        self.note(page.rows[-1].key, a_device(self.now_ms), "forget")
        self.catch_up()
        rest = self.index.page(limit=10, cursor=page.next).rows
        self.assertEqual([row.key for row in rest], [key_of(number) for number in range(2, 6)])

    def test_a_cursor_of_another_list_is_refused(self):
        for number in range(3):
            self.know(number)
        self.catch_up()
        cursor = self.index.page(limit=1).next
        with self.assertRaises(BadCursor):
            self.index.page(DeviceFilter(outdated=True), cursor=cursor)

    def test_versions_are_in_the_order_of_people(self):
        versions = ("v1.9", "1.10", "v1.10.1", "v2", "factory", "v0.1")
        for number, version in enumerate(versions):
            self.know(number, version)
        self.catch_up()
        rows = self.index.page(sort="version").rows
        self.assertEqual(
            [row.version for row in rows], ["v0.1", "factory", "v1.9", "1.10", "v1.10.1", "v2"]
        )

    def test_without_an_index_nothing_is_answered(self):
        for ask in (
            self.index.page,
            self.index.summary,
            lambda: self.index.device(key_of(1)),
            lambda: [*self.index.keys()],
            self.index.count,
            lambda: self.index.lately(3),
            lambda: self.index.versions_over_time(None, 0, 10, 2),
        ):
            with self.assertRaises(IndexAway):
                ask()

    def test_a_list_that_is_long_is_sorted_as_a_whole_and_says_more_than(self):
        with self.journal.open("ab") as file:
            for number in range(MOST_COUNTED + 50):
                address = f"10.0.{number % 250}.{number // 250}"
                device = a_device(self.now_ms - MINUTE_MS, address=address)
                file.write(format_record("check", key_of(number), device))
        self.catch_up()
        wanted = DeviceFilter(network=ip_network("10.0.0.0/8"))
        order = {"sort": "address", "descending": True, "limit": 60}
        page = self.index.page(wanted, **order)
        self.assertEqual(page.total, (MOST_COUNTED, False))
        addresses = [ip_address(row.address) for row in page.rows]
        self.assertEqual(addresses[0], ip_address("10.0.249.39"))
        self.assertTrue(all(one > other for one, other in pairwise(addresses)))
        after = self.index.page(wanted, **order, cursor=page.next)
        self.assertGreater(addresses[-1], ip_address(after.rows[0].address))
        back = self.index.page(wanted, **order, cursor=after.previous)
        self.assertEqual(back.rows, page.rows)
        self.assertEqual(self.index.count(wanted), MOST_COUNTED + 50)
        self.assertEqual(self.index.page().total, (MOST_COUNTED + 50, True))


class ThreadsTest(IndexCase):
    def test_many_threads_read_while_it_is_written(self):
        for number in range(200):
            self.know(number, last_seen_ms=self.now_ms - HOUR_MS)
        self.catch_up()
        totals: list[int] = []

        def read() -> None:
            for _ in range(20):
                keys = [*chain.from_iterable(self.pages(sort="version", limit=50))]
                totals.append(len({*keys}))
                self.assertEqual(self.index.summary().total, 200)

        with ThreadPoolExecutor(6) as threads:
            readers = [threads.submit(read) for _ in range(6)]
            while not all(each.done() for each in readers):
                self.know(len(totals) % 200, last_seen_ms=self.now_ms)
                self.catch_up()
            for each in readers:
                each.result()
        self.assertEqual((len(totals), {*totals}), (120, {200}))
        self.assert_whole()


class StagesTest(IndexCase):
    def test_a_device_is_told_then_has_it_whole_then_reports_it(self):
        seen_ms = self.now_ms - MINUTE_MS
        self.know(1, OLD, target_version=None)
        self.know(2, OLD)
        self.know(3, OLD, download=had(NEW, seen_ms + 1))
        self.know(4, NEW)
        self.catch_up()
        stages = [row.stage for row in self.index.page().rows]
        self.assertEqual(stages, [Stage.NONE, Stage.TOLD, Stage.HAS_IT, Stage.REPORTS_IT])
        for stage, number in zip(stages, range(1, 5), strict=True):
            rows = self.index.page(DeviceFilter(stage=stage)).rows
            self.assertEqual([row.key for row in rows], [key_of(number)])

    def test_who_is_pinned_or_on_hold_stands_apart(self):
        for number in range(3):
            self.know(number, OLD)
        self.decide("pins.json", f'{{"devices": {{"{key_of(0)}": {{"version": "{OLD}"}}}}}}')
        self.catch_up()
        summary = self.index.summary()
        self.assertEqual(summary.apart, {Apart.PINNED: 1})
        self.assertEqual(summary.counted, {Condition.BEHIND: 2})
        self.decide("hold.json", "{}")
        self.catch_up()
        summary = self.index.summary()
        self.assertEqual(summary.apart, {Apart.PINNED: 1, Apart.HELD: 2})
        self.assertEqual(summary.held_by, {"the hold": 2})
        held = self.index.page(DeviceFilter(apart=(Apart.HELD,)))
        self.assertEqual((len(held.rows), held.total), (2, (2, True)))
        by_hold = DeviceFilter(held_by=("the hold",))
        self.assertEqual(self.index.page(by_hold).rows, held.rows)
        self.assertEqual(self.index.count(by_hold), 2)
        self.assertEqual(self.index.count(replace(by_hold, text="02:00")), 2)
        self.assertEqual(self.index.count(DeviceFilter(held_by=("the window",))), 0)
        self.assertEqual(held.rows[0].reason, Reason.ON_HOLD)

    def test_a_device_is_overdue_by_its_own_rhythm(self):
        for number, minutes in ((1, 10), (2, 60)):
            for turn in range(4, 0, -1):
                seen_ms = self.now_ms - turn * minutes * MINUTE_MS - 40 * MINUTE_MS
                self.note(key_of(number), a_device(seen_ms))
                self.catch_up()
        self.know(3, last_seen_ms=self.now_ms - 20 * DAY_MS)
        self.catch_up()
        rows = {row.key: row for row in self.index.page().rows}
        intervals = [rows[key_of(number)].interval_ms for number in (1, 2, 3)]
        self.assertEqual(intervals, [10 * MINUTE_MS, 60 * MINUTE_MS, 0])
        self.assertEqual([key for key, row in rows.items() if row.is_overdue], [key_of(1)])
        self.assertEqual([*self.index.keys(DeviceFilter(overdue=True))], [key_of(1)])


class InTimeTest(IndexCase):
    def test_versions_over_time_begin_with_the_first_device(self):
        begin_ms = self.now_ms // HOUR_MS * HOUR_MS - 5 * HOUR_MS
        self.know(1, first_seen_ms=begin_ms + HOUR_MS, last_seen_ms=begin_ms + 1)
        self.catch_up()

        def begin(since_ms: int, least_ms: int | None) -> int:
            times_ms = self.index.versions_over_time(
                None, since_ms, self.now_ms, 100, least_ms
            ).times_ms
            return times_ms[0] - (times_ms[1] - times_ms[0])

        self.assertAlmostEqual(begin(self.now_ms - 7 * DAY_MS, HOUR_MS), begin_ms, delta=2)
        self.assertAlmostEqual(
            begin(self.now_ms - 7 * DAY_MS, DAY_MS), self.now_ms - DAY_MS, delta=2
        )
        for since_ms, least_ms in ((self.now_ms - 7 * DAY_MS, None), (begin_ms + HOUR_MS, HOUR_MS)):
            self.assertAlmostEqual(begin(since_ms, least_ms), since_ms, delta=2)

    def test_versions_over_time_follow_what_devices_reported(self):
        start_ms = self.now_ms - 10 * HOUR_MS
        for number in range(4):
            self.note(key_of(number), a_device(start_ms, OLD, first_seen_ms=start_ms))
        self.catch_up()
        for number in range(2):
            changed_ms = start_ms + 5 * HOUR_MS
            self.note(
                key_of(number),
                a_device(changed_ms, NEW, update_ms=changed_ms, first_seen_ms=start_ms),
                previous_version=OLD,
            )
        self.catch_up()
        shift_ms = 10 * MINUTE_MS  # until a change is shown
        since_ms, until_ms = start_ms - 5 * HOUR_MS + shift_ms, start_ms + 10 * HOUR_MS + shift_ms
        followed = self.index.versions_over_time("", since_ms, until_ms, 3)
        self.assertEqual(followed.counts, {OLD: (4, 2, 2), NEW: (0, 2, 2)})
        self.assertEqual(followed.other, (0, 0, 0))
        with self.subTest("made again from the journal"):
            self.file.unlink()
            self.catch_up()
            again = self.index.versions_over_time("", since_ms, until_ms, 3)
            self.assertEqual(again, followed)

    def test_within_the_last_hour_the_past_stays_as_it_was(self):
        for minutes, version in ((58, OLD), (17, NEW)):
            time_ms = self.now_ms - minutes * MINUTE_MS
            previous = OLD if version == NEW else ""
            self.note(key_of(1), a_device(time_ms, version), previous_version=previous)
            self.catch_up()
        found = self.index.versions_over_time("", self.now_ms - HOUR_MS, self.now_ms, 6)
        # Ten minutes apart, the last one is now.
        self.assertEqual(found.counts, {OLD: (1, 1, 1, 1, 0, 0), NEW: (0, 0, 0, 0, 1, 1)})

    def test_a_version_from_before_the_journal_is_not_known(self):
        changed_ms = self.now_ms - 5 * HOUR_MS
        first_ms = self.now_ms - 20 * HOUR_MS
        self.know(1, NEW, update_ms=changed_ms, first_seen_ms=first_ms)
        self.catch_up()
        until_ms = self.now_ms + 10 * MINUTE_MS
        found = self.index.versions_over_time("", until_ms - 30 * HOUR_MS, until_ms, 3)
        self.assertEqual(found.counts, {NEW: (0, 0, 1), "": (1, 1, 0)})

    def test_of_many_versions_those_of_most_devices_are_shown(self):
        for number in range(30):
            self.know(number, f"v{number % 15}.0")
        self.catch_up()
        found = self.index.versions_over_time(None, self.now_ms - HOUR_MS, self.now_ms, 1)
        self.assertEqual((len(found.counts), found.other), (9, (12,)))

    def test_what_went_wrong_lately_comes_newest_first(self):
        self.know(1, NEW)
        for number, minutes in ((2, 200), (3, 90), (4, 30)):
            attempt_ms = self.now_ms - minutes * MINUTE_MS
            self.know(number, OLD, last_seen_ms=attempt_ms - 1000, download=had(NEW, attempt_ms))
        failed_ms = self.now_ms - 20 * MINUTE_MS
        self.know(5, OLD, last_seen_ms=failed_ms, download=had(NEW, failed_ms - HOUR_MS))
        self.catch_up()
        lately = self.index.lately(10)
        self.assertEqual(
            [(row.key, row.condition) for row in lately],
            [
                (key_of(5), Condition.FAILED),
                (key_of(3), Condition.SILENT),
                (key_of(2), Condition.SILENT),
            ],
        )
        self.assertIn("reports v1.9.0", lately[0].words)
        self.assertEqual([row.key for row in self.index.lately(1)], [key_of(5)])
        self.assertEqual(self.index.lately(5, "plug"), [])


class ProductsTest(IndexCase):
    def setUp(self) -> None:
        super().setUp()
        self.plug = product_dir(self.data_dir, "plug")
        for name in ("version", "firmware", "log"):
            (self.plug / name).mkdir(parents=True)
        self.know(1)
        self.note(f"plug/{key_of(1)}", a_device(self.now_ms - MINUTE_MS, OLD))
        self.note("/gw 1", a_device(self.now_ms - MINUTE_MS, OLD))
        self.catch_up()

    def test_devices_of_all_products_are_in_one_index(self):
        keys = [*self.index.keys()]
        self.assertEqual({*keys}, {key_of(1), f"plug/{key_of(1)}", "/gw 1"})
        self.assertEqual(self.index.device("/gw 1").name, "id:gw 1")
        self.assertEqual(
            {product_of(key) for key in self.index.keys(DeviceFilter(product="plug"))}, {"plug"}
        )

    def test_devices_of_a_product_that_was_removed_are_not_shown(self):
        self.plug.rename(self.data_dir / "elsewhere")
        self.catch_up()
        self.assertEqual(self.index.page(ALL_DEVICES).total, (2, True))
        self.assertEqual(self.index.summary().total, 2)
        self.assertIsNone(self.index.device(f"plug/{key_of(1)}"))
        self.assertEqual(self.index.summary().versions, {OLD: 1, NEW: 1})
        with self.subTest("it comes back"):
            (self.data_dir / "elsewhere").rename(self.plug)
            self.catch_up()
            self.assertEqual(self.index.page(ALL_DEVICES).total, (3, True))
            self.assertEqual(self.index.summary("plug").versions, {OLD: 1})
