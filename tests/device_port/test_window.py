"""Maintenance windows, the two odd days of the year among them; and who waits for one."""

import unittest
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ota_server.device_port.window import Hours, Waiting, Window, is_open, next_change, parse_window

BERLIN = ZoneInfo("Europe/Berlin")
MAC = "00:11:22:33:44:55"
OTHER = "00:11:22:33:44:66"
DAY = 86400.0
# On 2026-03-29 the clock goes from 01:59:59 to 03:00, on 2026-10-25 from 02:59:59 to 02:00.
SPRING, AUTUMN = "2026-03-29", "2026-10-25"


def windows(*texts: str) -> list[Window]:
    return [parse_window(text) for text in texts]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def open_minutes(text: str, first: str, hours: int = 24) -> list[str]:
    """Return when a window opens and closes in Berlin, by UTC, looked at each minute."""
    found, was = [], False
    for minute in range(hours * 60):
        at = utc(first) + timedelta(minutes=minute)
        is_now = is_open(windows(text), at.astimezone(BERLIN))
        if is_now != was:
            found.append(f"{at:%H:%M}")
        was = is_now
    return found


class ParseTest(unittest.TestCase):
    def test_a_window_has_an_opening_and_a_closing(self):
        for text, expected in (
            ("01:00-05:00", (60, 300)),
            ("22:00-04:00", (1320, 240)),
            ("22:30-24:00", (1350, 1440)),
            ("00:00-00:01", (0, 1)),
        ):
            with self.subTest(text):
                self.assertEqual(parse_window(text), expected)
                self.assertEqual(str(parse_window(text)), text)

    def test_what_is_no_window_is_refused(self):
        for text in (
            "",
            "1:00-5:00",
            "01:00",
            "01:00-25:00",
            "01:60-02:00",
            "24:00-01:00",
            "01:00-01:00",
            "01:00-02:00 ",
            "01:00\u201302:00",
            "\u06601:00-02:00",
            "01:00-24:30",
        ):
            with self.subTest(text), self.assertRaises(ValueError):
                parse_window(text)


class OpenTest(unittest.TestCase):
    def test_a_window_is_open_from_its_opening_until_just_before_its_closing(self):
        for text, time, expected in (
            ("01:00-05:00", "00:59", False),
            ("01:00-05:00", "01:00", True),
            ("01:00-05:00", "04:59", True),
            ("01:00-05:00", "05:00", False),
            ("22:00-04:00", "21:59", False),
            ("22:00-04:00", "22:00", True),
            ("22:00-04:00", "00:00", True),
            ("22:00-04:00", "03:59", True),
            ("22:00-04:00", "04:00", False),
            ("22:00-24:00", "23:59", True),
            ("22:00-24:00", "00:00", False),
        ):
            with self.subTest(window=text, time=time):
                wall = datetime.fromisoformat(f"2026-06-01T{time}:30")
                self.assertEqual(is_open(windows(text), wall), expected)

    def test_of_several_windows_one_is_enough(self):
        both = windows("01:00-02:00", "12:00-13:00")
        for time, expected in (("01:30", True), ("12:30", True), ("11:30", False)):
            with self.subTest(time):
                self.assertEqual(
                    is_open(both, datetime.fromisoformat(f"2026-06-01T{time}")), expected
                )


class OddDaysTest(unittest.TestCase):
    def test_on_an_ordinary_day_a_window_is_open_once(self):
        self.assertEqual(open_minutes("01:00-05:00", "2026-06-01T03:00"), ["23:00"])
        self.assertEqual(open_minutes("01:00-05:00", "2026-06-01T20:00"), ["23:00", "03:00"])

    def test_in_spring_a_window_is_shorter_by_the_hour_that_is_left_out(self):
        self.assertEqual(open_minutes("01:00-05:00", f"{SPRING}T00:00", 20), ["00:00", "03:00"])

    def test_in_spring_a_window_that_begins_in_that_hour_opens_after_it(self):
        self.assertEqual(open_minutes("02:30-04:00", f"{SPRING}T00:00", 20), ["01:00", "02:00"])

    def test_in_spring_a_window_that_lies_in_that_hour_does_not_open(self):
        self.assertEqual(open_minutes("02:15-02:45", f"{SPRING}T00:00", 20), [])

    def test_in_autumn_a_window_is_longer_by_the_hour_that_occurs_twice(self):
        # From 01:00 by summer time until 05:00 by winter time: five hours.
        self.assertEqual(open_minutes("01:00-05:00", "2026-10-24T22:00", 20), ["23:00", "04:00"])

    def test_in_autumn_a_window_that_lies_in_that_hour_opens_twice(self):
        self.assertEqual(
            open_minutes("02:15-02:45", "2026-10-24T22:00", 20),
            ["00:15", "00:45", "01:15", "01:45"],
        )

    def test_past_midnight_too(self):
        self.assertEqual(open_minutes("22:00-04:00", "2026-03-28T12:00", 20), ["21:00", "02:00"])
        self.assertEqual(open_minutes("22:00-04:00", "2026-10-24T12:00", 20), ["20:00", "03:00"])


class NextChangeTest(unittest.TestCase):
    def test_it_is_the_first_minute_at_which_the_answer_is_another(self):
        sets = (
            windows("01:00-05:00"),
            windows("22:00-04:00"),
            windows("02:15-02:45"),
            windows("02:30-04:00"),
            windows("01:00-02:00", "02:00-03:00", "23:50-00:10"),
        )
        for day in (SPRING, AUTUMN, "2026-06-01"):
            for each in sets:
                for hours in range(-26, 26, 3):
                    moment = utc(f"{day}T00:00") + timedelta(hours=hours, minutes=7)
                    with self.subTest(windows=list(map(str, each)), moment=str(moment)):
                        self.assertEqual(
                            next_change(each, moment, BERLIN), self.by_minutes(each, moment)
                        )

    def by_minutes(self, each: list[Window], moment: datetime) -> datetime:
        is_so = is_open(each, moment.astimezone(BERLIN))
        at = moment
        while is_open(each, at.astimezone(BERLIN)) == is_so:
            at += timedelta(minutes=1)
        return at

    def test_a_window_that_is_always_open_never_changes(self):
        self.assertIsNone(next_change(windows("00:00-24:00"), utc("2026-06-01T00:00"), BERLIN))

    def test_without_a_zone_it_is_the_clock_of_the_system(self):
        moment = utc("2026-06-01T00:00")
        change = next_change(windows("01:00-05:00"), moment, None)
        self.assertIn(f"{change.astimezone():%H:%M}", ("01:00", "05:00"))


class HoursTest(unittest.TestCase):
    def ms(self, text: str) -> int:
        return round(utc(text).timestamp() * 1000)

    def test_they_open_and_close_as_time_goes_on_and_as_the_clock_is_set_back(self):
        hours = Hours(windows("01:00-05:00"), UTC)
        for time, expected in (
            ("00:59:59.999", False),
            ("01:00", True),
            ("04:59:59.999", True),
            ("05:00", False),
            ("02:00", True),
            ("00:30", False),
        ):
            with self.subTest(time):
                self.assertEqual(hours.are_open(self.ms(f"2026-06-01T{time}")), expected)

    def test_who_comes_too_early_is_told_to_come_in_the_first_hour_of_the_window(self):
        hours = Hours(windows("01:00-05:00"), UTC)
        now = self.ms("2026-06-01T00:00")
        self.assertEqual(hours.retry_seconds(now, 0.0), 3601)
        self.assertEqual(hours.retry_seconds(now, 0.5), 3600 + 1801)
        self.assertLessEqual(hours.retry_seconds(now, 0.9999999), 7201)

    def test_of_a_short_window_it_is_the_first_half(self):
        hours = Hours(windows("01:00-01:10"), UTC)
        now = self.ms("2026-06-01T00:59")
        self.assertLess(hours.retry_seconds(now, 0.9999999), 60 + 302)

    def test_after_the_window_it_is_the_one_of_the_next_day(self):
        hours = Hours(windows("01:00-05:00"), UTC)
        hours.are_open(self.ms("2026-06-01T04:59"))
        self.assertEqual(hours.retry_seconds(self.ms("2026-06-01T05:00"), 0.0), 20 * 3600 + 1)


class WaitingTest(unittest.TestCase):
    def test_a_device_is_overdue_after_it_has_waited_for_so_long(self):
        waiting = Waiting(7 * DAY)
        for days, expected in ((0, False), (3, False), (6.9, False), (7, True), (7.1, True)):
            with self.subTest(days=days):
                self.assertEqual(waiting.is_overdue(MAC, days * DAY), expected)

    def test_one_that_came_in_the_window_begins_anew(self):
        waiting = Waiting(7 * DAY)
        waiting.is_overdue(MAC, 0.0)
        waiting.end(MAC)
        self.assertFalse(waiting.is_overdue(MAC, 8 * DAY))

    def test_without_the_option_nobody_is_overdue(self):
        waiting = Waiting(None)
        waiting.is_overdue(MAC, 0.0)
        self.assertFalse(waiting.is_overdue(MAC, 29 * DAY))

    def test_it_counts_those_that_wait_for_longer_than_a_time(self):
        waiting = Waiting(7 * DAY)
        waiting.is_overdue(MAC, 0.0)
        waiting.is_overdue(OTHER, 2 * DAY)
        self.assertEqual(waiting.longer_than(DAY, 2.5 * DAY), 1)
        self.assertEqual(waiting.longer_than(DAY, 3.5 * DAY), 2)

    def test_one_that_does_not_come_when_it_would_be_let_in_is_forgotten(self):
        waiting = Waiting(7 * DAY)
        waiting.is_overdue(MAC, 0.0)
        self.assertEqual(waiting.longer_than(DAY, 15 * DAY), 0)

    def test_the_table_is_bounded(self):
        waiting = Waiting(7 * DAY, most=1)
        waiting.is_overdue(MAC, 0.0)
        self.assertFalse(waiting.is_overdue(OTHER, 1.0))
        self.assertFalse(waiting.is_overdue(OTHER, 8 * DAY))
        self.assertTrue(waiting.is_overdue(MAC, 8 * DAY))
