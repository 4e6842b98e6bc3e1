"""Each number of the overview leads to a table of so many devices, by the same word."""

import re
import time
import unittest
from html import unescape
from typing import Any

from ota_server.journal.record import format_record
from ota_server.model.device import Device, Download
from ota_server.model.identity import key_of_name
from ota_server.model.version import UNKNOWN_VERSION
from tests.support.fleet import NEW, OLD, mac_of
from tests.support.operators import OperatorsCase, make_data_dir
from tests.support.pages import PageReader

PLUG = "plug"
STOPPED = "v1.9.0"
_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
# What a link says of devices: a number alone, or first as on a card, or last as for a segment.
_COUNT = re.compile(r"^([\d,]+)(?: |$)|: ([\d,]+)(?:, [\d.]+ %)?$")
_STATE = re.compile(r'class="state [a-z]+">([^<]+)<')
_MARK = re.compile(r"<small>([^<]+)</small>")
_CONDITIONS = {"up to date", "behind", "undecided", "held back", "away", "silent", "failed"}
_APART = {"pinned", "kept by the hold", "on a stopped release"}
_WORDS = _CONDITIONS | _APART


def counts_in(page: PageReader) -> list[tuple[str, str, int]]:
    """Return the links to tables of devices that say how many: the URL, the words, the number."""
    found = []
    for url, said in page.links:
        match = _COUNT.search(said)
        if match is not None and (url.startswith("/devices?") or url == "/devices"):
            # On a card what the word means stands behind it.
            rest = said[: match.start()] if match[2] else said[match.end(1) :].strip()
            words = next((each for each in _WORDS if rest.startswith(each)), rest)
            found.append((url, words, int((match[1] or match[2]).replace(",", ""))))
    return found


class OverviewCountsTest(OperatorsCase):
    """Devices of all kinds are on record when the server starts."""

    @classmethod
    def prepare(cls) -> None:
        make_data_dir(cls.data_dir / "products" / PLUG)
        version = cls.data_dir / "version"
        plug_version = cls.data_dir / "products" / PLUG / "version"
        for folder in (version, plug_version):
            (folder / "version.txt").write_text(NEW)
        (plug_version / "hold.json").write_text("{}")
        (version / "stopped.json").write_text(
            f'{{"{STOPPED}": {{"state": "aborted", "instead_of": "{NEW}"}}}}'
        )
        cls.lines: list[bytes] = []
        cls.pins: dict[str, str] = {}
        cls.now_ms = time.time_ns() // 1_000_000 - _MINUTE_MS
        cls.know_plain()
        cls.know_apart()
        listed = ", ".join(f'"{mac}": {{"version": "{to}"}}' for mac, to in cls.pins.items())
        (version / "pins.json").write_text(f'{{"devices": {{{listed}}}}}')
        (cls.data_dir / "log" / "devices.jsonl").write_bytes(b"".join(cls.lines))

    @classmethod
    def know_plain(cls) -> None:
        """Put devices on record that an update should reach."""
        cls.know(2, NEW)
        cls.know(3, OLD)
        cls.know(2, OLD, download=cls.had(0, _MINUTE_MS))
        cls.know(1, OLD, download=cls.had(1, _MINUTE_MS))
        cls.know(2, OLD, download=cls.had(2, _MINUTE_MS))
        cls.know(1, OLD, age_ms=3 * _HOUR_MS, download=cls.had(1, 2 * _HOUR_MS))
        cls.know(1, OLD, age_ms=50 * _HOUR_MS)
        cls.know(1, UNKNOWN_VERSION, download=cls.had(1, _MINUTE_MS))

    @classmethod
    def know_apart(cls) -> None:
        """Put devices on record that are pinned, on hold, or run what was stopped."""
        cls.know(2, NEW, pin=NEW)
        cls.know(1, NEW, pin=OLD)
        cls.know(1, OLD, pin=NEW, download=cls.had(2, _MINUTE_MS))
        cls.know(1, OLD, pin=OLD, age_ms=50 * _HOUR_MS)
        cls.know(2, STOPPED)
        cls.know(3, OLD, product=PLUG)
        cls.know(1, NEW, product=PLUG)
        cls.know(1, OLD, product=PLUG, download=cls.had(2, _MINUTE_MS))

    @classmethod
    def know(
        cls,
        count: int,
        version: str,
        *,
        product: str = "",
        pin: str = "",
        age_ms: int = 0,
        **fields: Any,
    ) -> None:
        """Put some devices on record."""
        for _ in range(count):
            mac, seen_ms = mac_of(len(cls.lines)), cls.now_ms - age_ms
            if pin:
                cls.pins[mac] = pin
            plain = Device(seen_ms, version, seen_ms, None, NEW, "192.0.2.7", False, None)
            device = plain._replace(**fields)
            cls.lines.append(format_record("check", key_of_name(product, mac), device))

    @classmethod
    def had(cls, attempts: int, ago_ms: int) -> Download:
        """Return a download of the new image that was begun, or came to its end so many times."""
        at_ms = cls.now_ms - ago_ms
        return Download(NEW, "a" * 64, 5000, at_ms - 5000, attempts, at_ms if attempts else 0, 0)

    @classmethod
    def come(cls) -> None:
        cls.await_devices(len(cls.lines))

    def rows(self, url: str, column: str) -> str:
        """Return the page of a table, all of it, with one column."""
        between = "&" if "?" in url else "?"
        answer = self.operators.get(f"{url}{between}columns={column}&limit=500")
        self.assertEqual(answer.status, 200, url)
        return answer.body.decode("utf-8")

    def test_each_number_is_that_of_the_rows_it_leads_to_and_so_is_its_word(self):
        words_met = set()
        for path in ("/", "/?product=default", f"/?product={PLUG}"):
            for url, words, number in counts_in(self.operators.page(path)):
                with self.subTest(page=path, url=url, words=words):
                    page = self.rows(url, "mac")
                    self.assertEqual(page.count('name="key"'), number)
                    if words in _CONDITIONS:
                        words_met.add(words)
                        states = _STATE.findall(self.rows(url, "state"))
                        self.assertEqual(states, [words] * number)
                    if words in _APART:
                        words_met.add(words)
                        marks = [unescape(each) for each in _MARK.findall(page)]
                        self.assertEqual(marks, [words] * number)
        self.assertEqual(words_met, _WORDS)

    def test_one_word_has_one_number_on_a_page(self):
        for path in ("/?product=default", f"/?product={PLUG}"):
            found: dict[str, set[int]] = {}
            for _, words, number in counts_in(self.operators.page(path)):
                if words in _WORDS:
                    found.setdefault(words, set()).add(number)
            self.assertGreater(len(found), 6)
            for words, numbers in found.items():
                self.assertEqual(len(numbers), 1, (path, words, numbers))

    def test_the_cards_add_up_to_the_fleet(self):
        for path in ("/", "/?product=default", f"/?product={PLUG}"):
            page = self.operators.get(path).body.decode("utf-8")
            cards = re.search(r'<ul class="cards">(.*?)</ul>', page, re.DOTALL)
            assert cards is not None
            whole, *parts = [int(each) for each in re.findall(r"<b>(\d+)</b>", cards[1])]
            self.assertEqual(sum(parts), whole)

    def test_who_failed_is_counted_as_failed_whether_pinned_or_on_hold(self):
        def failed(product: str) -> int:
            page = self.operators.page(f"/?product={product}")
            return {number for _, words, number in counts_in(page) if words == "failed"}.pop()

        self.assertEqual(failed("default"), 3)
        self.assertEqual(failed(PLUG), 1)


if __name__ == "__main__":
    unittest.main()
