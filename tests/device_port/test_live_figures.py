"""What a server says of itself survives its form as JSON, and what is not that is refused."""

import json
import unittest

from ota_server.device_port.live_figures import (
    MOST_BYTES,
    MOST_DOWNLOADS,
    JournalFigures,
    LiveFigures,
    RunningDownload,
    SlotFigures,
    as_bytes,
    as_fields,
    parse_figures,
)

HOSTILE = '"\\\n\x00<b>\u202e\ud800'
DOWNLOAD = RunningDownload("00:11:22:33:44:55", "v1.0.1", "", 0, 100, 76800, 1)
FIGURES = LiveFigures(
    time_ms=2,
    pid=7,
    since_ms=1,
    requests={"version.txt": {"200": 3}},
    duration_seconds=0.5,
    rejected={"body": 1},
    running=1,
    downloads=(DOWNLOAD,),
    ends={"complete": 2},
    journal=JournalFigures(5, 1, 1, True, 2, 9),
    slots=SlotFigures(10, 2, 3),
)


class LiveFiguresTest(unittest.TestCase):
    def test_what_is_sent_is_what_is_read(self):
        for figures in (LiveFigures(), FIGURES, FIGURES._replace(slots=None)):
            with self.subTest(figures):
                self.assertEqual(parse_figures(as_bytes(as_fields(figures))), figures)

    def test_hostile_text_is_read_as_it_was(self):
        figures = FIGURES._replace(downloads=(DOWNLOAD._replace(version=HOSTILE, file=HOSTILE),))
        self.assertEqual(parse_figures(as_bytes(as_fields(figures))), figures)

    def test_long_answers_have_fewer_downloads(self):
        long = DOWNLOAD._replace(version="\x01" * 1000)
        figures = FIGURES._replace(downloads=(long,) * MOST_DOWNLOADS)
        content = as_bytes(as_fields(figures))
        self.assertLess(len(content), MOST_BYTES)
        self.assertTrue(0 < len(parse_figures(content).downloads) < MOST_DOWNLOADS)

    def test_a_hundred_usual_downloads_fit(self):
        usual = DOWNLOAD._replace(key="product-with-a-long-name/id:" + "x" * 64, version="v" * 64)
        content = as_bytes(as_fields(FIGURES._replace(downloads=(usual,) * MOST_DOWNLOADS)))
        self.assertEqual(len(parse_figures(content).downloads), MOST_DOWNLOADS)

    def test_what_no_server_of_this_version_says_is_refused(self):
        good = as_fields(FIGURES)
        for change in (
            {"time_ms": "2"},
            {"time_ms": True},
            {"pid": None},
            {"requests": []},
            {"requests": {"version.txt": {"200": "3"}}},
            {"requests": {"version.txt": 3}},
            {"durations": [1]},
            {"durations": None},
            {"duration_seconds": "x"},
            {"downloads": [{}]},
            {"downloads": [{**DOWNLOAD._asdict(), "key": 1}]},
            {"journal": {"records": 1.5}},
            {"journal": None},
            {"slots": {}},
            {"ends": {"complete": None}},
            {"of the next version": 1},
        ):
            with self.subTest(change), self.assertRaises(ValueError):
                parse_figures(json.dumps({**good, **change}).encode())
        for content in (b"", b"{", b"[]", b"{}", b"\xff", as_bytes(good)[:-1]):
            with self.subTest(content[:9]), self.assertRaises(ValueError):
                parse_figures(content)
