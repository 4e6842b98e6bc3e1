"""Records: what is written is read back, and what the fast reader takes the slow one takes too."""

import itertools
import json
import time
import unittest

from ota_server.journal.record import (
    COMMON_LINE,
    BadRecord,
    Scalar,
    format_marker,
    format_record,
    is_marker,
    parse_fields,
    parse_record,
)
from ota_server.model.action import PinnedImage, offered
from ota_server.model.device import Device, Download, flatten, unflatten
from ota_server.model.timestamp import format_time, parse_time
from ota_server.model.updater import Updater

MAC = "00:11:22:33:44:55"
NOW_MS = 1_795_435_200_123
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
DOWNLOAD = Download("v1.0.1", "0123456789abcdef" * 4, 76_800, NOW_MS - 5)
DEVICE = Device(NOW_MS, "v1.0.0", NOW_MS, None, None, "192.0.2.7", False, None)
FULL = Device(
    NOW_MS, "v1.0.0", NOW_MS - 1, NOW_MS - 2, "v1.0.1", "2001:db8::7", True, DOWNLOAD, NOW_MS - 3
)
DETAILS: dict[str, Scalar] = {
    "status": 206,
    "bytes_sent": 0,
    "complete": False,
    "duration_seconds": 0.001,
    "range_start": 65_536,
    "previous_version": 'v"0\\',
    "release_sha256": "ab" * 32,
    "nothing": None,
    "negative": -1.5,
}


def edited(old: bytes, new: bytes) -> bytes:
    """Return a good line with one part of it replaced."""
    line = format_record("begin", MAC, FULL, {"status": 206})
    assert line.count(old) >= 1, old
    return line.replace(old, new, 1).rstrip(b"\n")


class UpdaterTest(unittest.TestCase):
    def test_it_is_read_back_with_and_without_a_download_and_an_action(self):
        image = PinnedImage("v2", "ab" * 32, 9)
        for device in (DEVICE, FULL, DEVICE._replace(action=offered(None, image, NOW_MS))):
            for updater in (
                Updater("esp32", 0),
                Updater("other"),
                Updater("esp32", None, "ESP32-S3"),
            ):
                known = device._replace(updater=updater)
                line = format_record("check", MAC, known)
                self.assertEqual(parse_record(line), (MAC, known))
                self.assertEqual(unflatten(flatten(known)), known)

    def test_one_that_somebody_has_broken_is_none(self):
        line = format_record("check", MAC, DEVICE._replace(updater=Updater("esp32", 5)))
        for old, new, updater in (
            (b'"esp32"', b'"ES P"', None),
            (b'"esp32"', b"7", None),
            (b'space":5', b'space":5,"chip":7', Updater("esp32", 5)),
            (b'space":5', b'space":5,"chip":"\\u0000"', Updater("esp32", 5)),
            (b'"esp32"', b'"br"', None),
            (b'space":5', b'space":-5', Updater("esp32")),
            (b'space":5', b'space":true', Updater("esp32")),
        ):
            _, device = parse_record(line.replace(old, new))
            self.assertEqual(device, DEVICE._replace(updater=updater))


class FormatTest(unittest.TestCase):
    def test_a_record_is_one_line_of_json_with_the_documented_fields(self):
        line = format_record("check", MAC, DEVICE)
        self.assertEqual((line.count(b"\n"), line[-1:]), (1, b"\n"))
        self.assertEqual(
            list(json.loads(line).items()),
            [
                ("time", "2026-11-23T12:00:00.123Z"),
                ("event", "check"),
                ("product", ""),
                ("mac", MAC),
                ("firmware_version", "v1.0.0"),
                ("last_seen_time", "2026-11-23T12:00:00.123Z"),
                ("update_time", None),
                ("target_version", None),
                ("address", "192.0.2.7"),
            ],
        )

    def test_the_fields_of_an_event_stand_after_those_of_the_device(self):
        fields = json.loads(format_record("begin", MAC, FULL, DETAILS))
        self.assertEqual({name: fields[name] for name in DETAILS}, DETAILS)
        self.assertEqual(list(fields)[-len(DETAILS) :], list(DETAILS))

    def test_a_record_is_read_back_as_it_was(self):
        for device in (DEVICE, FULL, FULL._replace(download=None), DEVICE._replace(address="")):
            with self.subTest(device):
                line = format_record("device", MAC, device, DETAILS)
                self.assertEqual(parse_record(line), (MAC, device))

    def test_every_printable_version_is_read_back_as_it_was(self):
        versions = [*PRINTABLE, *map("".join, itertools.product("\"\\ ,:{}[]'a/u0", repeat=3))]
        for version in versions:
            device = DEVICE._replace(
                firmware_version=version, target_version=version, download=DOWNLOAD
            )
            line = format_record("begin", MAC, device, {"previous_version": version})
            self.assertEqual(parse_record(line), (MAC, device))
            self.assertEqual(json.loads(line)["previous_version"], version)
            self.assertTrue(COMMON_LINE.fullmatch(line[:-1]), line)

    def test_no_printable_version_is_taken_for_a_marker(self):
        for version in ("snapshot", '"snapshot"', '"event":"snapshot"', '","event":"snapshot'):
            with self.subTest(version):
                device = DEVICE._replace(firmware_version=version, target_version=version)
                self.assertFalse(is_marker(format_record("check", MAC, device)))


class TimeTest(unittest.TestCase):
    def test_times_are_read_back_to_the_millisecond(self):
        for base in (0, NOW_MS, 951_782_400_000, 4_102_444_799_000, 253_402_300_799_000):
            for ms in range(base, base + 1000):
                self.assertEqual(parse_time(format_time(ms)), ms)

    def test_times_of_other_zones_and_forms_are_read(self):
        for text in (
            *("2026-11-23T12:00:00.123+00:00", "2026-11-23T13:00:00.123+01:00"),
            *("2026-11-23 12:00:00.123Z", "2026-11-23T12:00:00.123000Z"),
        ):
            with self.subTest(text):
                self.assertEqual(parse_time(text), NOW_MS)

    def test_what_is_no_time_with_a_zone_is_refused(self):
        for text in ("", "2026-11-23T12:00:00", "2026-02-30T12:00:00Z", "now", "12:00Z", "0" * 99):
            with self.subTest(text), self.assertRaises(ValueError):
                parse_time(text)


class ParseTest(unittest.TestCase):
    def test_fields_that_are_not_known_are_ignored(self):
        line = edited(b'"status":206', b'"group":["a",{"b":1}],"wave":3')
        self.assertEqual(parse_record(line), (MAC, FULL))

    def test_a_line_made_by_hand_is_read(self):
        line = (
            b'{"mac": "00-11-22-33-44-55", "firmware_version": "v1.0.0", "time": '
            b'"2026-11-23T13:00:00.123+01:00", "last_seen_time": "2026-11-23T12:00:00.123Z"}\r'
        )
        self.assertEqual(parse_record(line), (MAC, DEVICE._replace(address="")))

    def test_a_line_that_is_no_whole_record_is_refused(self):
        for line in (
            *(b"", b"null", b"[]", b"1", b'"x"', b"{}", b"{", b"\0" * 100, b"\xff\xfe{}", b"{}{}"),
            *(b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"1" * 5_000 + b"}"),
            format_record("check", MAC, DEVICE)[:-3],
            format_marker(NOW_MS, 1),
            edited(MAC.encode(), b"00:11:22:33:44"),
            edited(MAC.encode(), b"00:00:00:00:00:00"),
            edited(b'"' + MAC.encode() + b'"', b"17"),
            edited(b'"product":""', b'"product":"Pump"'),
            edited(b'"product":""', b'"product":"firmware"'),
            edited(b'"mac":"', b'"id":" '),
            edited(b'"mac":"', b'"mac":"gw-'),
            edited(b'"product":""', b'"product":null'),
            edited(b'"firmware_version":"v1.0.0"', b'"firmware_version":null'),
            edited(b'"firmware_version":"v1.0.0"', b'"firmware_version":"\\u00fc"'),
            edited(b'"firmware_version":"v1.0.0"', b'"firmware_version":"\\ud800"'),
            edited(b'"firmware_version":"v1.0.0"', b'"firmware_version":"a\\nb"'),
            edited(b'"firmware_version":"v1.0.0"', b'"version":"v1.0.0"'),
            edited(b'"last_seen_time":"2026', b'"last_seen_time":"x2026'),
            edited(b'"last_seen_time":"2026-11-23T', b'"last_seen_time":"2026-11-31T'),
            edited(b'"update_time":"2026', b'"update_time":"soon'),
            edited(b'"time":"2026-11-23T12:00:00.123Z"', b'"time":1e400'),
            edited(b'"download_size":76800', b'"download_size":"76800"'),
            edited(b'"download_size":76800', b'"download_size":0'),
            edited(b'"download_sha256":"0', b'"download_sha256":"g'),
            edited(b'"download_version"', b'"x"'),
        ):
            with self.subTest(line[:200]), self.assertRaises(BadRecord):
                parse_record(line)

    def test_a_line_is_shown_as_it_stands(self):
        self.assertEqual(parse_fields(b'{"a": [1]}'), {"a": [1]})
        for line in (b"[]", b"x", b"\xff", b"[" * 100_000):
            with self.subTest(line[:9]), self.assertRaises(BadRecord):
                parse_fields(line)


class CommonLineTest(unittest.TestCase):
    def test_every_line_that_is_written_is_common(self):
        devices = [
            Device(NOW_MS, "v1", seen, update, target, address, image_only, download)
            for seen in (NOW_MS, NOW_MS - 1)
            for update in (None, 0, NOW_MS)
            for target in (None, "", "v1", '"\\')
            for address in ("", "192.0.2.7", "fe80::1%eth0")
            for image_only in (False, True)
            for download in (None, DOWNLOAD)
        ]
        for device in devices:
            for event in ("check", "begin", "download", "device", "report"):
                for details in ({}, DETAILS):
                    line = format_record(event, MAC, device, details)
                    self.assertTrue(COMMON_LINE.fullmatch(line[:-1]), line)
                    self.assertEqual(COMMON_LINE.findall(line), [MAC.encode()])

    def test_every_time_that_is_written_is_common(self):
        day_ms = 86_400_000
        for ms in range(0, 40_000 * day_ms, 3 * day_ms + 1_234_567):
            device = DEVICE._replace(time_ms=ms, last_seen_ms=ms, update_ms=ms)
            line = format_record("check", MAC, device)[:-1]
            self.assertTrue(COMMON_LINE.fullmatch(line), line)

    def test_no_line_is_common_that_cannot_be_read(self):
        for old, new in (
            (MAC.encode(), b"aaaaaaaaaaaaaaaaa"),
            (MAC.encode(), b":::::::::::::::::"),
            (MAC.encode(), b"00:11:22:33:44:5:"),
            (b"2026-11-23T12", b"2026-13-23T12"),
            (b"2026-11-23T12", b"2026-00-23T12"),
            (b"2026-11-23T12", b"2026-11-31T12"),
            (b"2026-11-23T12", b"2026-02-30T12"),
            (b"2026-11-23T12", b"2026-11-00T12"),
            (b"2026-11-23T12", b"2026-11-23T24"),
            (b"2026-11-23T12", b"0000-11-23T12"),
            (b"12:00:00.123", b"12:60:00.123"),
            (b"12:00:00.123", b"12:00:60.123"),
            (b'"status":206', b'"status":0206'),
            (b'"status":206', b'"status":+206'),
            (b'"status":206', b'"status":206.'),
            (b'"status":206', b'"status":.5'),
            (b'"status":206', b'"status":-'),
            (b'"status":206', b'"status":' + b"1" * 5_000),
            (b'"status":206', b'"status":True'),
            (b'"status":206', b'"status":"a\\x"'),
            (b'"status":206', b'"status":"a\t"'),
            (b'"status":206', b'"status":"\xff"'),
            (b'"status":206', b'"status":"\\"'),
            (b'"status":206', b'"status":'),
            (b'"status":206', b'"status":206,'),
            (b'"status":206}', b'"status":206}}'),
            (b'"status":206}', b'"status":206'),
            (b"v1.0.0", b"v1\x00"),
        ):
            with self.subTest(new[:60]):
                self.assertIsNone(COMMON_LINE.fullmatch(edited(old, new)))

    def test_what_is_common_after_any_byte_was_changed_can_be_read(self):
        line = format_record("begin", MAC, FULL._replace(image_only=False), {"status": 206})[:-1]
        for at in range(len(line)):
            for byte in b'"\\0:-,{}aZ \n\x00\xff+.e':
                changed = line[:at] + bytes([byte]) + line[at + 1 :]
                if COMMON_LINE.fullmatch(changed):
                    json.loads(changed)

    def test_no_hostile_line_takes_long(self):
        start = edited(b',"status":206}', b"")
        for name, line in {
            "backslashes": start + b',"a":"' + b"\\" * 1_000_000,
            "quotes": start + b',"a":"' + b'\\"' * 500_000,
            "fields": start + b',"a":1' * 200_000,
            "digits": start + b',"a":' + b"1" * 1_000_000,
            "names": start + b',"' + b"a" * 1_000_000,
            "starts": b'{"time":"2026-11-23T12:00:00.123Z","event":"' * 20_000,
            "objects": b"{" * 1_000_000,
            "NULs": b"\0" * 1_000_000,
        }.items():
            with self.subTest(name):
                begin = time.process_time()
                self.assertEqual(COMMON_LINE.findall(line), [])
                self.assertLess(time.process_time() - begin, 1.0)


class MarkerTest(unittest.TestCase):
    def test_a_marker_is_told_from_everything_else(self):
        self.assertTrue(is_marker(format_marker(NOW_MS, 7)))
        self.assertEqual(json.loads(format_marker(NOW_MS, 7))["devices"], 7)
        for line in (
            b"",
            b'"event":"snapshot"',
            b'{"event":"snapshot"',
            b'["event","snapshot"]',
            b'{"x":{"event":"snapshot"}}',
            b'{"event":"snapshot","event":"check"}',
            b"[" * 100_000 + b'"event":"snapshot"',
        ):
            with self.subTest(line[-40:]):
                self.assertFalse(is_marker(line))
