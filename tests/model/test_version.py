"""Versions: their spelling, their meaning, and how version.txt holds one."""

import hashlib
import re
import unittest
from pathlib import Path

import ota_server
from ota_server.model.version import (
    MAX_VERSION_FILE_BYTES,
    SAMPLES,
    NoVersion,
    Target,
    entity_tag,
    image_name,
    is_sample,
    is_version,
    meaning,
    order_of,
    parse_version_file,
    same_version,
    spellings,
    version_of_image_name,
)

BOM = b"\xef\xbb\xbf"


def parts_of(version: str) -> list[tuple[int, str]]:
    """Return what versions are compared by, number by number."""
    parts = re.findall("([0-9]+)|([^0-9]+)", meaning(version))
    return [(int(digits or 0), text) for digits, text in parts]


class OrderTest(unittest.TestCase):
    def test_versions_are_sorted_number_by_number(self):
        versions = (
            *("", "v1.9", "v1.10", "1.10", "v1.010", "v1.10.1", "v1", "v0", "v0.0.0", "v00"),
            *("2", "10", "factory", "factory 2", "a1b", "a1", "v2.0-rc1", "v2.0", "~", " x"),
            *("9" * 64, "1" + "0" * 63, "vv1", "-", "1.1.1", "1..1"),
        )
        for one in versions:
            for other in versions:
                with self.subTest(one=one, other=other):
                    is_before = order_of(one).encode() < order_of(other).encode()
                    self.assertEqual(is_before, parts_of(one) < parts_of(other))


class VersionTest(unittest.TestCase):
    def test_a_version_of_a_release_has_a_safe_alphabet_and_64_characters(self):
        for text in ("v1.0.0", "1", "1.10.2-rc.1+build_7", "A", "release", "v" + "1" * 63):
            with self.subTest(text):
                self.assertTrue(is_version(text))
        for text in (
            *("", ".", "..", "-1", "_1", "+1", ".1", "v1/2", "v1\\2", "v 1", "v1 ", "v1\n", "\nv1"),
            *("v1\0", "v1\u00fc", "v\u0661", "v1\uff0e0", "v" + "1" * 64, "a%2e", "a:b", "~1"),
        ):
            with self.subTest(text):
                self.assertFalse(is_version(text))

    def test_two_versions_are_equal_once_a_leading_v_before_a_digit_is_dropped(self):
        for one, other, equal in (
            ("v1.0", "1.0", True),
            ("1.0", "v1.0", True),
            ("v1.0", "v1.0", True),
            ("vv1", "v1", False),
            ("vv1", "1", False),
            ("vx", "x", False),
            ("v", "", False),
            ("V1", "1", False),
            ("V1", "v1", False),
            ("v1.0", "v1.0.0", False),
            ("1.10", "1.1", False),
            ("01", "1", False),
            ("v1.0 ", "v1.0", False),
        ):
            with self.subTest(one=one, other=other):
                self.assertIs(same_version(one, other), equal)
                self.assertIs(same_version(other, one), equal)

    def test_spellings_are_all_versions_of_one_meaning_with_the_exact_one_first(self):
        for version, expected in (
            ("v1.0", ("v1.0", "1.0")),
            ("1.0", ("1.0", "v1.0")),
            ("vv1", ("vv1",)),
            ("beta", ("beta",)),
            ("v", ("v",)),
        ):
            with self.subTest(version):
                self.assertEqual(spellings(version), expected)
                self.assertEqual({meaning(one) for one in expected}, {meaning(version)})

    def test_an_image_name_gives_its_version_back(self):
        for version in ("v1.0.1", "1", "a.b", "x" * 64):
            with self.subTest(version):
                self.assertEqual(version_of_image_name(image_name(version)), version)

    def test_other_files_are_no_images(self):
        for name in (
            *("firmware_.bin", "firmware_v1.bin.new", ".firmware_v1.bin", "firmware_v1", "v1.bin"),
            *("firmware_v1.BIN", "firmware_..bin", "firmware_a b.bin", "firmware_v1.bin\n"),
            *("firmware_" + "x" * 65 + ".bin", "xfirmware_v1.bin", "firmware_../v1.bin"),
        ):
            with self.subTest(name):
                self.assertIsNone(version_of_image_name(name))


class VersionFileTest(unittest.TestCase):
    def test_a_version_file_holds_a_version_and_says_how_replies_end(self):
        for content, expected in (
            (b"v1.0.1", ("v1.0.1", "")),
            (b"v1.0.1\n", ("v1.0.1", "\n")),
            (b"v1.0.1\r\n", ("v1.0.1", "\n")),
            (b"v1.0.1\r", ("v1.0.1", "")),
            (b"v1.0.1 \t ", ("v1.0.1", "")),
            (b"v1.0.1 \n", ("v1.0.1", "\n")),
            (b"v1.0.1\n\n", ("v1.0.1", "\n")),
            (b"v1.0.1\n \t", ("v1.0.1", "\n")),
            (BOM + b"v1.0.1", ("v1.0.1", "")),
            (BOM + b"v1.0.1\r\n", ("v1.0.1", "\n")),
            (b"1", ("1", "")),
            (b"v1" + b" " * (MAX_VERSION_FILE_BYTES - 2), ("v1", "")),
        ):
            with self.subTest(content):
                self.assertEqual(parse_version_file(content), expected)

    def test_what_is_wrong_with_a_version_file_is_said(self):
        for content, problem in (
            (b"", "is empty"),
            (b"\n", "is empty"),
            (b" \t\r\n", "is empty"),
            (BOM, "is empty"),
            (b"v1" + b" " * (MAX_VERSION_FILE_BYTES - 1), "is over 256 bytes"),
            (b"\xff\xfev\x001\x00", "is not UTF-8"),
            (b"v1\xff", "is not UTF-8"),
            (b"v1\nv2\n", "has more than one line"),
            (b"\nv1", "has more than one line"),
            (b" v1", "holds no version"),
            (b"v1 v2", "holds no version"),
            (b"v1\0", "holds no version"),
            (b"v1\x0c", "holds no version"),
            (b"v1\xc2\xa0", "holds no version"),
            (BOM + BOM + b"v1", "holds no version"),
            (b"version: v1", "holds no version"),
            (b"../v1", "holds no version"),
            (b"v" * 65, "holds no version"),
        ):
            with self.subTest(content), self.assertRaises(NoVersion) as raised:
                parse_version_file(content)
            self.assertTrue(str(raised.exception).startswith(problem), raised.exception)


class SampleTest(unittest.TestCase):
    def test_the_shipped_images_are_known_as_samples(self):
        folder = Path(ota_server.__file__).parent / "firmware"
        for (size, sha256), version in SAMPLES.items():
            with self.subTest(version):
                content = (folder / image_name(version)).read_bytes()
                self.assertEqual(
                    (len(content), hashlib.sha256(content).hexdigest()), (size, sha256)
                )
                self.assertTrue(is_sample(size, sha256))
                self.assertTrue(Target(version, "", image_name(version), size).may_be_sample)

    def test_an_image_of_another_size_or_content_is_no_sample(self):
        (size, sha256), version = next(iter(SAMPLES.items()))
        self.assertFalse(is_sample(size + 1, sha256))
        self.assertFalse(is_sample(size, "00" * 32))
        self.assertFalse(Target(version, "", None, size + 1).may_be_sample)


class EntityTagTest(unittest.TestCase):
    def test_an_entity_tag_is_strong_and_holds_32_hex_digits_of_the_hash(self):
        sha256 = hashlib.sha256(b"image").hexdigest()
        self.assertEqual(entity_tag(sha256), f'"{sha256[:32]}"')
