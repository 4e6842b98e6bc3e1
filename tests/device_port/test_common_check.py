"""The pattern for the common check never disagrees with the careful reader."""

import random
import unittest
from collections import Counter

from ota_server.device_port.common_check import read_common_check, read_common_image
from ota_server.httpd.http1 import BadRequest, read_request
from ota_server.model.device import Report, parse_report

LINES = (
    b"Host: ota.example:7777",
    b"host:10.0.0.1",
    b"_br_mac_: 00:11:22:33:44:55",
    b"_br_fwv_: v1.0.0",
    b"_br_fwv_:a b",
    b"Connection: close",
    b"connection:keep-alive",
    b"User-Agent: device/1.0 (x; y)",
    b"Accept: */*",
    b"Cache-Control: no-cache",
    b"Accept-Encoding: gzip, deflate",
    b"user-agent: x",
    b"Pragma: no-cache",
)
ODD_LINES = (
    b"_br_mac_: 00-11-22-33-44-55",
    b"_br_mac_: 00:11:22:aA:Bb:CC",
    b"_br_mac_: 00:00:00:00:00:00",
    b"_br_mac_: FF:fF:ff:FF:ff:ff",
    b"_br_mac_: ff:ff:ff:ff:ff:ff",
    b"_br_mac_:  00:11:22:33:44:56",
    b"_BR_MAC_: 00:11:22:33:44:57",
    b"_br_fwv_: ",
    b"_br_fwv_: trailing ",
    b"_br_fwv_: " + b"x" * 65,
    b"Host: ",
    b"Host: a b",
    b"Host: [::1]:7777",
    b"Host: x:70000",
    b"Host: x:65536",
    b"Connection: close, x",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Range: bytes=0-1",
    b"If-None-Match: *",
    b"User-Agent: \xff",
    b"User-Agent: tab\there",
    b" folded",
    b"no colon",
    b"Host : x",
)
REQUEST_LINES = (b"GET /version.txt HTTP/1.1", b"GET /firmware.bin HTTP/1.1") * 5 + (
    b"GET /version.txt HTTP/1.0",
    b"HEAD /version.txt HTTP/1.1",
    b"GET /version.txt?x HTTP/1.1",
    b"GET  /version.txt HTTP/1.1",
    b"GET /firmware.bin/ HTTP/1.1",
)
ROUNDS = 30_000
WITHOUT_MEANING = {b"host", b"connection", b"user-agent", b"accept", b"accept-encoding"}
WITHOUT_MEANING |= {b"cache-control", b"pragma"}


def make_head(source: random.Random) -> bytes:
    """Return a head that is common, or nearly so."""
    lines = [LINES[0], LINES[2], LINES[3], *source.sample(LINES[6:], source.randint(0, 4))]
    if source.random() < 0.2:
        lines.append(source.choice(LINES))
    if source.random() < 0.2:
        lines.append(source.choice(ODD_LINES))
    if source.random() < 0.1:
        del lines[source.randrange(len(lines))]
    source.shuffle(lines)
    head = bytearray(b"\r\n".join([source.choice(REQUEST_LINES), *lines, b"", b""]))
    if source.random() < 0.3:
        at = source.randrange(len(head))
        head[at : at + source.randint(0, 1)] = bytes([source.choice(b"\r\n\0 :\t\x7f\x80aA0")])
    return bytes(head) + source.choice((b"", b"GET / HTTP/1.1\r\n", b"\r\n"))


def read_common(buffer: bytes) -> tuple[Report, bool, int] | None:
    """Return what a common reader finds: report, whether the connection is kept, bytes read."""
    check = read_common_check(buffer)
    if check is not None:
        return *check, len(buffer)
    image = read_common_image(buffer)
    if image is None:
        return None
    request, length = image
    return parse_report(request.fields, request.repeated), request.keep_alive, length


class CommonCheckTest(unittest.TestCase):
    def test_what_it_takes_the_careful_reader_reads_the_same(self):
        source = random.Random(20261123)
        taken = Counter()
        for _ in range(ROUNDS):
            buffer = make_head(source)
            common = read_common(buffer)
            if common is None:
                continue
            report, keep_alive, length = common
            try:
                found = read_request(buffer)
            except BadRequest as problem:
                self.fail(f"{problem}: {buffer!r}")
            assert found is not None, buffer
            request, request_length = found
            taken[request.path] += 1
            self.assertEqual(parse_report(request.fields, request.repeated), report, buffer)
            self.assertEqual((request.method, request.content_length), ("GET", 0), buffer)
            self.assertEqual((request.query, request.minor_version), (b"", 1), buffer)
            self.assertEqual(request.keep_alive, keep_alive, buffer)
            self.assertEqual(length, request_length, buffer)
            # What is left out changes no answer.
            self.assertFalse(request.fields.keys() - report.as_fields().keys() - WITHOUT_MEANING)
            if image := read_common_image(buffer):
                self.assertEqual(image[0].path, request.path)
        self.assertGreater(taken[b"/version.txt"], ROUNDS // 20)
        self.assertGreater(taken[b"/firmware.bin"], ROUNDS // 8)

    def test_it_takes_what_real_clients_send(self):
        for client in (
            b"Host: localhost:7777\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n",
            b"Host: 10.0.0.1:7777\r\nUser-Agent: ESP32 HTTP Client/1.0\r\nConnection: close\r\n",
            b"Host: ota\r\ncache-control: no-cache\r\nConnection: keep-alive\r\n",
        ):
            # Arduino's WiFi.macAddress() has upper-case digits.
            for mac in (b"00:11:22:33:44:ab", b"00:11:22:33:44:AB"):
                head = b"GET /version.txt HTTP/1.1\r\n" + client
                head += b"_br_mac_: " + mac + b"\r\n_br_fwv_: v1.0.0\r\n\r\n"
                common = read_common_check(head)
                self.assertIsNotNone(common, head)
                self.assertEqual(common[0], ("00:11:22:33:44:ab", "v1.0.0"))

    def test_no_input_takes_it_long(self):
        # Each would take years if the pattern tried its parts in all ways.
        for hostile in (
            b"GET /version.txt HTTP/1.1\r\n" + b"User-Agent: " + b" " * 16_000 + b"\x01\r\n\r\n",
            b"GET /version.txt HTTP/1.1\r\n" + b"Accept: a\r\n" * 1_400 + b"x",
            b"GET /version.txt HTTP/1.1\r\n_br_fwv_: " + b"a " * 8_000 + b"\r\n\r\n",
        ):
            self.assertIsNone(read_common_check(hostile))
            self.assertIsNone(read_common_image(hostile.replace(b"/version.txt", b"/firmware.bin")))
