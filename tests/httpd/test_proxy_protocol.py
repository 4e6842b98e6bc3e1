"""Headers of the PROXY protocol: which are read, which are waited for, and which are refused."""

import random
import unittest

from ota_server.httpd.http1 import BadRequest
from ota_server.httpd.proxy_protocol import SIGNATURE, read_header

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: ota\r\n\r\n"
FOUR = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + b"\x10\x00\x1e\x61"
SIX = bytes.fromhex("20010db8" + "00" * 11 + "07" + "20010db8" + "00" * 11 + "01") + b"\x10\0\x1ea"


def binary(command: int, kind: int, content: bytes, length: int | None = None) -> bytes:
    """Return a header of version 2."""
    size = len(content) if length is None else length
    return SIGNATURE + bytes([command, kind]) + size.to_bytes(2, "big") + content


GOOD = {
    "version 1, IPv4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", "192.0.2.7"),
    "version 1, IPv6": (b"PROXY TCP6 2001:db8::7 2001:DB8::1 1 65535\r\n", "2001:db8::7"),
    "a mapped address": (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", "192.0.2.7"),
    "port 0": (b"PROXY TCP4 192.0.2.7 198.51.100.1 0 0\r\n", "192.0.2.7"),
    "unknown": (b"PROXY UNKNOWN\r\n", None),
    "unknown, with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    "the longest line": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    "version 2, IPv4": (binary(0x21, 0x11, FOUR), "192.0.2.7"),
    "version 2, IPv6": (binary(0x21, 0x21, SIX), "2001:db8::7"),
    "with more behind the addresses": (binary(0x21, 0x11, FOUR + b"\x04\0\x03abc"), "192.0.2.7"),
    "a check of the proxy itself": (binary(0x20, 0x00, b""), None),
    "the same with addresses": (binary(0x20, 0x11, FOUR), None),
    "the same of an unknown kind": (binary(0x20, 0xFF, b"abc"), None),
    "unspecified": (binary(0x21, 0x00, b"abc"), None),
    "UDP": (binary(0x21, 0x12, FOUR), None),
    "a Unix socket": (binary(0x21, 0x31, bytes(216)), None),
    "the longest": (binary(0x21, 0x11, FOUR + bytes(4068)), "192.0.2.7"),
}
BAD = {
    "no address": b"PROXY TCP4\r\n",
    "two blanks": b"PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
    "one address": b"PROXY TCP4 192.0.2.7 1 2\r\n",
    "a leading zero": b"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
    "300": b"PROXY TCP4 192.0.2.300 198.51.100.1 1 2\r\n",
    "a short IPv4": b"PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
    "IPv6 as IPv4": b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    "IPv4 as IPv6": b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
    "two double colons": b"PROXY TCP6 2001::db8::7 ::1 1 2\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "a port that is too large": b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
    "a port with a zero in front": b"PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
    "a port with a sign": b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
    "another protocol": b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
    "lower case": b"PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n",
    "LF alone": b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n" + REQUEST,
    "CR inside": b"PROXY UNKNOWN a\rb\r\n",
    "a blank at its end": b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
    "a line that does not end": b"PROXY UNKNOWN " + b"x" * 93,
    "version 1 in version 2": binary(0x11, 0x11, FOUR),
    "version 3": binary(0x31, 0x11, FOUR),
    "another command": binary(0x22, 0x11, FOUR),
    "another family": binary(0x21, 0x41, FOUR),
    "another protocol of version 2": binary(0x21, 0x13, FOUR),
    "addresses that are cut": binary(0x21, 0x11, FOUR[:11]),
    "the same of IPv6": binary(0x21, 0x21, SIX[:35]),
    "the same of a Unix socket": binary(0x21, 0x31, bytes(215)),
    "too long": binary(0x21, 0x11, FOUR, 4081),
}
NONE = {
    "a request": REQUEST,
    "an empty line before it": b"\r\n" + REQUEST,
    "a method that begins so": b"PROXYFIND / HTTP/1.1\r\n",
    "POST": b"POST / HTTP/1.1\r\n",
    "something else": b"\x16\x03\x01",
}


class ProxyProtocolTest(unittest.TestCase):
    def test_what_the_specification_allows_is_read_and_what_follows_is_left(self):
        for name, (header, address) in GOOD.items():
            with self.subTest(name):
                self.assertEqual(read_header(header), (address, len(header)))
                self.assertEqual(read_header(header + REQUEST), (address, len(header)))

    def test_nothing_is_read_before_the_whole_header_is_there(self):
        for name, (header, _) in GOOD.items():
            for length in range(len(header)):
                with self.subTest(name, length=length):
                    self.assertIsNone(read_header(header[:length]))

    def test_a_header_that_is_not_exact_is_refused(self):
        for name, header in BAD.items():
            with self.subTest(name), self.assertRaises(BadRequest):
                read_header(header)

    def test_what_is_no_header_is_left_as_it_is(self):
        for name, content in NONE.items():
            with self.subTest(name):
                self.assertEqual(read_header(content), (None, 0))

    def test_no_bytes_break_it_and_what_it_waits_for_is_bounded(self):
        source = random.Random(20261128)
        headers = [header for header, _ in GOOD.values()]
        for _ in range(20_000):
            mutant = bytearray(source.choice(headers) + REQUEST)
            for _ in range(source.randint(1, 4)):
                mutant[source.randrange(len(mutant))] = source.choice(b"\0 \r\n:.0P\x21\xff")
            try:
                found = read_header(bytes(mutant))
            except BadRequest:
                continue
            if found is None:
                self.assertLess(len(mutant), 4096)
            else:
                self.assertLessEqual(found[1], len(mutant))
