"""Trusted proxies say who their clients are; what others say is ignored."""

import socket
import tracemalloc
from argparse import ArgumentTypeError
from ipaddress import ip_network
from itertools import product

from ota_server.device_port.checks import read_common_check
from ota_server.device_port.option_values import network_argument
from ota_server.httpd.http1 import read_request
from ota_server.httpd.proxy_protocol import SIGNATURE
from ota_server.httpd.reply import Peer
from ota_server.httpd.transports import TRANSPORTS
from ota_server.httpd.trusted_proxies import TrustedProxies
from ota_server.journal.rejected import read_rejected
from tests.support import DEVICE, MAC, Client, ServerCase, request_head
from tests.support.data_dir import DataDirCase

LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
BINARY = SIGNATURE + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1, 0, 1, 0, 2])
LOCAL = Peer("127.0.0.1", True)
CHAIN = TrustedProxies([ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
FORWARDED = {
    "192.0.2.7": "192.0.2.7",
    "  192.0.2.7\t": "192.0.2.7",
    "2001:DB8::0:7": "2001:db8::7",
    "::ffff:192.0.2.7": "192.0.2.7",
    "192.0.2.7:4711": "192.0.2.7",
    "[2001:db8::7]:4711": "2001:db8::7",
    "[2001:db8::7]": "2001:db8::7",
    "203.0.113.1, 192.0.2.7": "192.0.2.7",  # only the last was written by the trusted proxy
    "203.0.113.1, 192.0.2.7, 10.0.0.1": "192.0.2.7",
    "192.0.2.7, fd00::1,10.0.0.1": "192.0.2.7",
    "10.0.0.2, 10.0.0.1": "10.0.0.2",
    "": "127.0.0.1",
    "unknown": "127.0.0.1",
    "_hidden, 10.0.0.1": "10.0.0.1",
    "192.0.2.7,": "127.0.0.1",
    "192.0.2.07": "127.0.0.1",
    "192.0.2.7 203.0.113.1": "127.0.0.1",
    "fe80::1%eth0": "127.0.0.1",
    "192.0.2.7\xff": "127.0.0.1",
}


class NetworkTest(DataDirCase):
    def test_an_ipv4_network_that_is_mapped_into_ipv6_is_that_network(self):
        for text, plain in (
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("fd00::/8", "fd00::/8"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::/64", "::/64"),
        ):
            with self.subTest(text):
                self.assertEqual(str(network_argument(text)), plain)

    def test_all_of_ipv4_is_everybody_however_it_is_written(self):
        for text in ("0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"):
            with self.subTest(text), self.assertRaisesRegex(ArgumentTypeError, "is everybody"):
                network_argument(text)


class ForwardedTest(DataDirCase):
    def test_the_list_is_read_from_its_end_as_far_as_proxies_are_trusted(self):
        for value, address in FORWARDED.items():
            with self.subTest(value):
                found = CHAIN.client_of(LOCAL, value.encode("latin-1"))
                self.assertEqual(found, Peer(address, address == "127.0.0.1"))

    def test_long_lists_are_not_kept_in_memory(self):
        proxies = TrustedProxies([ip_network("127.0.0.1")])
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(200):
            value = b"%d, " % number + b"x" * 7000 + b", 192.0.2.7"
            self.assertEqual(proxies.client_of(LOCAL, value), Peer("192.0.2.7", False))
        self.assertLess(tracemalloc.get_traced_memory()[0], 200_000)

    def test_the_short_way_finds_the_client_that_the_long_way_finds(self):
        found = 0
        for value, end in product(FORWARDED, ("", " ", "\r\nX-Forwarded-For: 192.0.2.9")):
            request = request_head("/version.txt", {**DEVICE, "X-Forwarded-For": value + end})
            rest, client = CHAIN.unwrap(request, LOCAL)
            if read_common_check(rest) is None:
                continue
            found += 1
            head, _ = read_request(request)
            with self.subTest(value + end):
                self.assertEqual(client, CHAIN.client_of(LOCAL, head.get(b"x-forwarded-for")))
        self.assertGreater(found, len(FORWARDED))

    def test_a_peer_that_is_not_trusted_is_not_believed(self):
        stranger = Peer("192.0.2.1", False)
        self.assertEqual(CHAIN.client_of(stranger, b"203.0.113.1"), stranger)
        request = request_head("/version.txt", {**DEVICE, "X-Forwarded-For": "203.0.113.1"})
        self.assertEqual(CHAIN.unwrap(request, stranger), (b"", stranger))

    def test_only_a_proxy_on_this_machine_has_clients_on_it(self):
        self.assertTrue(CHAIN.client_of(LOCAL, b"127.0.0.2").is_local)
        self.assertFalse(CHAIN.client_of(Peer("10.0.0.1", False), b"127.0.0.2").is_local)


class TrustedProxyCase:
    """A server that trusts 127.0.0.1; tests ask it from there, and from 127.0.0.2."""

    def setUp(self) -> None:
        super().setUp()
        self.start(proxies=TrustedProxies([ip_network("127.0.0.1")]))

    def addresses(self) -> list[str]:
        """Return where the checks on record came from, once all is on record."""
        self.stop()
        return [record["address"] for record in self.records(event="check", mac=MAC)]

    def ask(self, client: Client, *parts: bytes) -> list[int]:
        """Send parts, each a segment of its own; return the status of each reply."""
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            client.send(part)
        return [client.answer().status for _ in range(b"".join(parts).count(b" HTTP/1.1\r\n"))]

    def test_a_header_comes_with_the_first_request_or_before_it_or_in_pieces(self):
        check = request_head("/version.txt")
        with Client(self.port) as one, Client(self.port) as two, Client(self.port) as three:
            self.assertEqual(self.ask(one, LINE + check + check), [200, 200])
            self.assertEqual(self.ask(two, BINARY, check), [200])
            self.assertEqual(self.ask(two, check), [200])
            self.assertEqual(self.ask(three, *(bytes([each]) for each in LINE + check)), [200])
        self.assertEqual(self.addresses(), ["192.0.2.7"] * 5)

    def test_without_a_header_and_for_checks_of_the_proxy_its_own_address_counts(self):
        check = request_head("/version.txt")
        for header in (b"", b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\0\0\0"):
            with Client(self.port) as client:
                self.assertEqual(self.ask(client, header + check), [200])
        self.assertEqual(self.addresses(), ["127.0.0.1"] * 3)

    def test_a_second_header_is_no_request(self):
        check = request_head("/version.txt")
        for first in (LINE + check, check):
            answer = self.raw(first + LINE + check)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 2)
            self.assertIn(b"HTTP/1.1 400 ", answer)

    def test_a_broken_header_ends_the_connection_unanswered_but_for_400(self):
        for header in (LINE.replace(b"TCP4", b"TCP5"), SIGNATURE + b"\x11\x11\0\0"):
            answer = self.raw(header + request_head("/version.txt"))
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
        self.assertEqual(self.raw(LINE[:20]), b"")
        self.assertEqual(self.addresses(), [])

    def test_each_request_has_the_client_that_its_own_field_names(self):
        with Client(self.port) as client:
            for forwarded in ("192.0.2.7", "192.0.2.8", None, "192.0.2.9, 2001:db8::1"):
                fields = {} if forwarded is None else {"x-forwarded-FOR": forwarded}
                client.request("/version.txt", {**DEVICE, **fields})
                self.assertEqual(client.answer().status, 200)
        found = self.addresses()
        self.assertEqual(found, ["192.0.2.7", "192.0.2.8", "127.0.0.1", "2001:db8::1"])

    def test_what_it_says_is_believed_for_any_kind_of_request(self):
        with Client(self.port) as client:
            for fields in ({"X-Forwarded-For": "192.0.2.7"}, {"X-Forwarded-For": "192.0.2.7:1"}):
                for more in ({}, {"X-Uncommon": "1"}, {"Accept": "*/*"}):
                    client.request("/version.txt", {**DEVICE, **fields, **more})
                    self.assertEqual(client.answer().status, 200)
            client.request("/firmware.bin", {**DEVICE, "X-Forwarded-For": "192.0.2.7"})
            self.assertEqual(client.answer().body, self.IMAGE)
            client.request("/version.txt", {"X-Forwarded-For": "192.0.2.8"})
            self.assertEqual(client.answer().status, 401)
        self.assertEqual(self.addresses(), ["192.0.2.7"] * 6)
        begun = [record["address"] for record in self.records(event="begin")]
        self.assertEqual(begun, ["192.0.2.7"])
        rejected = [each["address"] for each in read_rejected(self.data_dir / "log")]
        self.assertEqual(rejected, ["192.0.2.8"])

    def test_behind_a_header_a_client_cannot_claim_another_address(self):
        forged = request_head("/version.txt", {**DEVICE, "X-Forwarded-For": "203.0.113.1"})
        with Client(self.port) as client:
            self.assertEqual(self.ask(client, LINE + forged), [200])
            self.assertEqual(self.ask(client, forged), [200])
        self.assertEqual(self.addresses(), ["192.0.2.7"] * 2)

    def test_anybody_else_is_not_believed(self):
        forged = request_head("/version.txt", {**DEVICE, "X-Forwarded-For": "203.0.113.1"})
        for header in (LINE, BINARY):
            with Client(self.port, source="127.0.0.2") as client:
                client.send(header + forged)
                self.assertEqual(client.answer().status, 400)
        with Client(self.port, source="127.0.0.2") as client:
            self.assertEqual(self.ask(client, forged), [200])
        self.assertEqual(self.addresses(), ["127.0.0.2"])


for _transport in TRANSPORTS:
    _name = f"TrustedProxyOn{_transport.title()}Test"
    globals()[_name] = type(
        _name, (TrustedProxyCase, ServerCase), {"TRANSPORT": _transport, "__module__": __name__}
    )
