"""The overview, by real requests to a real server."""

import re
import unittest
from datetime import datetime, timedelta
from html import unescape

from ota_server.model.timestamp import format_time
from ota_server.operations.device_index import DeviceIndex
from ota_server.operator_port.html import html_of
from ota_server.operator_port.page_overview_parts import states_part
from ota_server.operator_port.pieces import device_url
from ota_server.policy import edits
from ota_server.policy.rollout_plan import RolloutPlan, format_plan
from tests.support import Client, until
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import OperatorsCase, ask_all
from tests.support.pages import PageReader
from tests.support.varied_fleet import ALL, HOSTILE_VERSION, PLUG, come_varied, prepare_varied

_TOTAL = re.compile(r"(?:more than )?([\d,]+) devices?\b")
# What a link says of devices: a number alone, or first as on a card, or last as for a segment.
_COUNT = re.compile(r"^([\d,]+)(?: |$)|: ([\d,]+)(?:, [\d.]+ %)?$")


def counts_in(page: PageReader) -> list[tuple[str, int]]:
    """Return the links to tables of devices that say how many there are in it, with the number."""
    found = []
    for url, said in page.links:
        if url.startswith("/devices?") or url == "/devices":
            match = _COUNT.search(said)
            if match is not None:
                found.append((url, int((match[1] or match[2]).replace(",", ""))))
    return found


class OverviewTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        prepare_varied(cls.data_dir)

    @classmethod
    def come(cls) -> None:
        come_varied(cls.server.port)
        cls.await_devices(ALL)

    def total(self, url: str) -> int:
        """Return how many devices a table says it has."""
        match = _TOTAL.search(self.operators.page(url).text)
        assert match is not None, url
        return int(match[1].replace(",", ""))

    def test_each_number_leads_to_a_table_of_so_many_devices(self):
        for path in ("/", "/?product=default", f"/?product={PLUG}"):
            found = counts_in(self.operators.page(path))
            self.assertGreater(len(found), 8)
            for url, number in {*found}:
                with self.subTest(page=path, url=url):
                    self.assertEqual(self.total(url), number)

    def test_every_version_is_a_segment_and_a_row_that_lead_to_its_devices(self):
        page = self.operators.page("/?product=default")
        segments = [url for url, said in page.links if said.startswith("v1.10.0: 9, ")]
        self.assertEqual(segments, ["/devices?version=v1.10.0&product=default"])

    def test_spellings_of_one_version_are_one_version(self):
        page = self.operators.page("/?product=default")
        found = [said for url, said in page.links if "version=v1.0.0&" in url]
        self.assertIn("20", found)

    def test_pinned_devices_and_those_of_rejected_releases_are_beside_the_share(self):
        text = self.operators.page("/?product=default").text
        self.assertRegex(text, r"Up to date: \d+ of 48 devices \(")
        self.assertIn("pinned 3 not counted", text)
        self.assertIn("on a stopped release 10 not counted", text)
        # All that are counted have one denominator: another share of the same word would mislead.
        self.assertNotIn("%", text.partition("States Up to date")[0])

    def test_what_holds_back_no_device_is_not_named(self):
        summary = DeviceIndex(self.data_dir).summary(None)
        held = summary._replace(held_by={"the hold": 3, "the window": 0})
        page = PageReader(html_of(states_part(held, None)))
        self.assertIn(("/devices?held_by=the+hold", "3"), page.links)
        self.assertIn("Held back by", page.text)
        self.assertNotIn("the window", page.text)
        none = summary._replace(held_by={"the hold": 0})
        self.assertNotIn("Held back by", html_of(states_part(none, None)))

    def test_each_product_has_its_row_and_its_own_overview(self):
        page = self.operators.page("/")
        self.assertIn((f"/?product={PLUG}", PLUG), page.links)
        self.assertIn("7 devices", self.operators.page(f"/?product={PLUG}").text)

    def test_a_product_that_is_not_there_is_not_found(self):
        self.assertEqual(self.operators.get("/?product=other").status, 404)

    def test_text_of_devices_makes_no_element(self):
        page = self.operators.page("/?product=default")
        self.assertIn(HOSTILE_VERSION, page.text)
        self.assertEqual(len(page.all("script")), 1)
        for tag, attributes in page.elements:
            self.assertFalse({name for name in attributes if name.startswith("on")}, tag)
            self.assertNotIn("style", attributes)

    def test_the_plot_can_be_read_as_a_table(self):
        page = self.operators.page("/?span=1d")
        self.assertEqual(len(page.all("svg", class_="plot")), 1)
        self.assertIn("Time (UTC)", page.text)
        self.assertIn(("/?span=30d", "30 days"), page.links)

    def test_the_plot_begins_with_the_fleet(self):
        (plot,) = self.operators.page("/?span=90d").all("svg", class_="plot")
        self.assertIn("since the first one came", plot["aria-label"])
        page = self.operators.get("/?span=90d").body.decode()
        dates = re.findall(r">([\d-]+ [\d:]+) UTC</text>", page)
        first, last = (datetime.strptime(each, "%Y-%m-%d %H:%M") for each in dates)
        self.assertLessEqual(last - first, timedelta(hours=2))
        self.assertGreaterEqual(last - first, timedelta(minutes=58))

    def test_a_fragment_is_what_is_inside_the_page(self):
        whole = self.operators.get("/").body.decode()
        part = self.operators.get("/", X_Fragment="1").body.decode()
        self.assertNotIn("<html", part)
        self.assertIn("<h1>Overview</h1>", part)
        self.assertIn("<html", whole)

    def test_parts_that_change_have_names_of_their_own(self):
        page = self.operators.page("/")
        names = [each["id"] for _, each in page.elements if "data-live" in each]
        self.assertEqual(len(names), len({*names}))
        self.assertTrue({"fleet", "rollouts", "downloads", "states"} <= {*names})


class WrongTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        (cls.data_dir / "version" / "version.txt").write_text(NEW)

    def test_a_device_that_failed_is_named_with_its_reason(self):
        mac = mac_of(1)
        for _ in range(2):
            answers = self.check_in({mac: "v1.0.0"}, "/firmware.bin")
            self.assertEqual(answers[0].status, 200)

        def is_named() -> bool:
            self.check_in({mac: "v1.0.0"})
            page = self.operators.page("/")
            return f"{mac} - failed" in page.text

        self.assertTrue(until(is_named), self.operators.page("/").text)
        self.assertIn(
            "it had the whole image of v2.0.0, and reports v1.0.0", self.operators.page("/").text
        )


class ManyWrongTest(OperatorsCase):
    FAILED = 11

    @classmethod
    def prepare(cls) -> None:
        (cls.data_dir / "version" / "version.txt").write_text(NEW)

    def test_where_more_went_wrong_than_are_named_a_link_leads_to_all(self):
        fleet = {mac_of(number): OLD for number in range(self.FAILED)}
        for _ in range(2):
            self.check_in(fleet, "/firmware.bin")
        url = "/devices?state=failed&state=silent"
        way = (url, "All that failed or fell silent")

        def is_there() -> bool:
            self.check_in(fleet)
            return way in self.operators.page("/").links

        self.assertTrue(until(is_there), self.operators.page("/").links)
        self.assertIn(f"{self.FAILED} devices match", self.operators.page(url).text)


class NowTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        (cls.data_dir / "version" / "version.txt").write_text(NEW)
        (cls.data_dir / "firmware" / f"firmware_{NEW}.bin").write_bytes(bytes(16 << 20))

    @classmethod
    def come(cls) -> None:
        cls.check_in({mac_of(1): OLD})
        cls.await_devices(1)

    def await_text(self, words: str) -> PageReader:
        """Wait until the overview says something; return it."""
        found: list[PageReader] = []

        def is_said() -> bool:
            found[:] = [self.operators.page("/")]
            return words in found[0].text

        self.assertTrue(until(is_said), found[0].text)
        return found[0]

    def test_a_download_that_runs_is_there_with_how_far_it_is(self):
        self.assertNotIn("data-poll", self.operators.get("/").body.decode())
        with Client(self.server.port, receive_buffer=4096) as client:
            client.request("/firmware.bin", {"_br_mac_": mac_of(1), "_br_fwv_": OLD})
            client.read(1000)
            page = self.await_text("1 transfer to devices")
            (bar,) = page.all("progress")
            self.assertEqual(bar["max"], str(16 << 20))
            self.assertIn((device_url("", mac_of(1)), mac_of(1)), page.links)
            self.assertEqual(page.all("section", id="downloads")[0]["data-poll"], "2")
        self.await_text("No download runs now.")

    def test_what_is_on_hold_says_by_whom_since_when_and_why(self):
        edits.hold(self.data_dir, "smoke <b>")
        text = self.await_text("is on hold").text
        self.assertIn("smoke <b>", text)
        edits.unhold(self.data_dir)
        self.assertNotIn("smoke", self.operators.page("/").text)

    def test_a_rollout_is_there_with_its_waves(self):
        plan = RolloutPlan("r1", NEW, "", (50.0, 100.0), format_time(0), OLD, count_new=True)
        (self.data_dir / "version" / "rollout.json").write_bytes(format_plan(plan))
        page = self.await_text("Rollout of v2.0.0 to the fleet")
        self.assertIn("1: 50 %", page.text)
        self.assertIn("/rollouts/default/r1", [url for url, _ in page.links])


class EmptyTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.await_devices(0)

    def test_the_one_line_that_is_shown_makes_the_first_device_appear(self):
        page = self.operators.get("/").body.decode()
        line = unescape(re.search(r"<pre>(curl .*?)</pre>", page)[1])
        match = re.fullmatch(
            r"curl -H '(_br_mac_): (\S+)' -H '(_br_fwv_): (\S+)' http://([\d.]+):(\d+)(/\S*)", line
        )
        assert match is not None, line
        name, mac, other, version, host, port, path = match.groups()
        self.assertEqual((name, other, host), ("_br_mac_", "_br_fwv_", "127.0.0.1"))
        ask_all(int(port), {mac: version}, path)
        url = device_url("", mac)
        self.assertTrue(until(lambda: (url, mac) in self.operators.page("/devices").links))
        self.assertIn("1 device", self.operators.page("/").text)


class NothingTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        (cls.data_dir / "version" / "version.txt").unlink()
        for path in (cls.data_dir / "firmware").iterdir():
            path.unlink()

    @classmethod
    def come(cls) -> None:
        cls.await_devices(0)

    def test_without_a_release_the_next_command_is_shown(self):
        for path in ("/", "/devices"):
            text = self.operators.page(path).text
            self.assertIn("There is no release yet.", text)
            commands = self.operators.get(path).body.decode().partition("<pre>")[2]
            first, second = commands.partition("</pre>")[0].splitlines()
            self.assertIn("release publish FILE --version v1.0.0", first)
            self.assertIn("release activate v1.0.0", second)


if __name__ == "__main__":
    unittest.main()
