"""Keys: one text for each device of a server, that reads back as product and identity."""

import unittest

from ota_server.model.identity import (
    KeyNames,
    compact,
    device_key,
    expand,
    identity_of,
    is_product_name,
    number_of,
    parse_identity,
    parse_key,
    product_of,
)

MAC = "00:11:22:33:44:55"
KEYS = (
    ("", MAC, MAC),
    ("", "gw-1", "/gw-1"),
    ("", "a/b", "/a/b"),
    ("plug", MAC, f"plug/{MAC}"),
    ("plug", "a/b c", "plug/a/b c"),
)


class KeyTest(unittest.TestCase):
    def test_a_key_reads_back_as_product_and_identity(self):
        for product, identity, key in KEYS:
            with self.subTest(key=key):
                self.assertEqual(device_key(product, identity), key)
                self.assertEqual((product_of(key), identity_of(key)), (product, identity))
                self.assertEqual(parse_key(key), key)
                self.assertEqual(expand(compact(key)), key)

    def test_numbers_are_of_63_bits_and_read_back(self):
        names = KeyNames()
        numbers = {names.number_of(key) for _, _, key in KEYS}
        self.assertEqual(len(numbers), len(KEYS))
        self.assertTrue(all(number < 1 << 63 for number in numbers))
        self.assertEqual({names.key_of(number) for number in numbers}, {key for *_, key in KEYS})
        self.assertEqual(number_of(MAC), 0x1122334455)
        self.assertEqual(len(names.hashed), len(KEYS) - 1)

    def test_what_is_no_key_is_refused(self):
        for text in ("", "/", "gw-1", "Plug/gw-1", "d/gw-1", "plug/", "plug/ gw", "plug/é"):
            self.assertIsNone(parse_key(text), text)


class IdentityTest(unittest.TestCase):
    def test_what_reads_as_a_mac_is_one(self):
        for text in ("001122334455", "00-11-22-33-44-55", "0011.2233.4455", MAC):
            self.assertEqual(parse_identity(text), MAC)

    def test_others_are_kept_as_they_are(self):
        for text in ("gw-1", "A b", "x" * 64, '"\\'):
            self.assertEqual(parse_identity(text), text)

    def test_what_nobody_can_be_called_is_refused(self):
        for text in ("", " gw", "gw ", "x" * 65, "gw\n", "é", "ff:ff:ff:ff:ff:ff", "0" * 12):
            self.assertIsNone(parse_identity(text), text)

    def test_names_of_products(self):
        for text in ("plug", "p1_b-2", "0", "x" * 32):
            self.assertTrue(is_product_name(text), text)
        for text in ("", "-p", "Plug", "a/b", "x" * 33, "firmware", "d", "default", "..", "é"):
            self.assertFalse(is_product_name(text), text)
