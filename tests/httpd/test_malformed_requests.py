"""Malformed requests, as fuzzers and scanners send them, over a socket on each transport.

For each: the status, whether the reply has a body, and whether the connection is kept. Each GET is
sent as a HEAD too: the same status, and no body whatever refuses it.
"""

import re
import socket
from collections.abc import Callable

from ota_server.httpd.http1 import MAX_FIELDS, MAX_HEAD_BYTES, MAX_REQUEST_LINE_BYTES
from ota_server.httpd.transports import TRANSPORTS
from tests.support import Client, ServerCase

KEPT, CLOSED = True, False
ONE_LINE = b"GET /healthz HTTP/1.1"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: next\r\n\r\n"


def ask(*fields: bytes, line: bytes = ONE_LINE, host: bytes = b"Host: h") -> bytes:
    """Return a whole head with these field lines."""
    return b"\r\n".join([line, *([host] if host else []), *fields, b"", b""])


def lines(*request_lines: bytes) -> list[bytes]:
    """Return a request for each of these lines."""
    return [ask(line=line) for line in request_lines]


def hosts(*values: bytes) -> list[bytes]:
    """Return a request for each of these hosts."""
    return [ask(host=b"Host: " + value) for value in values]


def path_of(length: int) -> bytes:
    """Return a request line of so many bytes."""
    return b"GET /%b HTTP/1.1" % (b"a" * (length - len(b"GET / HTTP/1.1")))


# Status and what becomes of the connection, for requests that get the same.
TABLE: dict[tuple[int, bool], list[bytes]] = {
    (200, KEPT): [
        *(NEXT, b"\r\n" + NEXT, b"\r\n\r\n" + NEXT),
        *lines(b"GET /healthz HTTP/1.2", b"GET http://other/healthz HTTP/1.1"),
        *lines(b"GET https://[::1]:80/healthz?a HTTP/1.1", b"GET /healthz? HTTP/1.1"),
        *hosts(b"", b"h:80", b"[::1]", b"h:"),
        *(ask(b"X: \xe9\xff"), ask(b"X:"), ask(b"X:\t \ty \t"), ask(b"X: y", b"x: y")),
        *(ask(b"Content-Length: 0"), ask(b"Content-Length: 00")),
        *(ask(b"Expect: 100-continue"), ask(b"Expect: a miracle")),
        ask(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
        ask(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        ask(b"Connection: keep-alive", line=b"GET /healthz HTTP/1.0"),
        *(ask(b"Range: bytes=" + b"0-," * 4000), ask(b"Range: bytes=9-0"), ask(b"Range: x")),
        ask(*[b"x: y"] * (MAX_FIELDS - 1)),
        ask(b"X: " + b"y" * (MAX_HEAD_BYTES - len(ask(b"X: ")) - 1)),
    ],
    (200, CLOSED): [
        *(ask(b"Connection: close"), ask(b"Connection: keep-alive, close")),
        *(ask(host=b"", line=b"GET /healthz HTTP/1.0"), ask(line=b"GET /healthz HTTP/1.0")),
    ],
    (400, CLOSED): [
        # The request line.
        *(b"GET /healthz\r\n\r\n", b"GET\r\n\r\n", b"GET /healthz\n", b"GET / HTTP/1.1\n\n"),
        *(b"\r\n\r\n\r\n" + NEXT, b"\n" + NEXT, b" " + NEXT, b"\0" + NEXT, b"\xef\xbb\xbf" + NEXT),
        *(NEXT.replace(b"\r\n", b"\n"), NEXT.replace(b"\r\n", b"\r"), NEXT.replace(b"\r", b"\r\r")),
        *lines(b"GET  /healthz HTTP/1.1", b"GET /healthz  HTTP/1.1", b"GET /healthz HTTP/1.1 "),
        *lines(b"GET\t/healthz\tHTTP/1.1", b"GET /healthz\x0bHTTP/1.1", b"GET /health z HTTP/1.1"),
        *lines(b"GET /healthz http/1.1", b"GET /healthz HTTP/1", b"GET /healthz HTTP/1.10"),
        *lines(b"GET /healthz HTTP/01.1", b"GET /healthz HTTP/1,1", b"GET /healthz HTTPS/1.1"),
        *lines(b"GET /healthz HTTP/1.1\0", b"GET /healthz HTTP/ 1.1", b"GET /healthz HTTP/-1.1"),
        *lines(
            b"GET healthz HTTP/1.1", b"GET ?x HTTP/1.1", b"GET * HTTP/1.1", b"GET h:80 HTTP/1.1"
        ),
        *lines(b"GET /\0 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\xc3\xbc HTTP/1.1"),
        *lines(b"GET /a#b HTTP/1.1", b"GET /\rX HTTP/1.1", b"GET /\x1b[2J HTTP/1.1"),
        *lines(b"GET ftp://h/ HTTP/1.1", b"GET http:// HTTP/1.1", b"GET http://u@h/ HTTP/1.1"),
        *lines(b"GET http://h:99999/ HTTP/1.1", b"GET http:/healthz HTTP/1.1"),
        *lines(b"G@T / HTTP/1.1", b"GET/ / HTTP/1.1", b"{} / HTTP/1.1"),
        # Other protocols.
        *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", b"EHLO x\r\n"),
        *(b"*1\r\n$4\r\nPING\r\n", b"\x80\x2e\x01\x03", b"quit\n", b"\x00\x00\x00\x0f\x80\x01"),
        # Host.
        *(ask(host=b""), ask(b"Host: h"), ask(b"host: x"), ask(host=b"Host h")),
        *hosts(b"a b", b"a/b", b"a, b", b"u@h", b"h:x", b"h:65536", b"[::1", b"h#", b"\xc3\xbc"),
        ask(b"Host: a", b"Host: b", line=b"GET /healthz HTTP/1.0"),
        # Fields.
        *(ask(b"X : y"), ask(b"X\t: y"), ask(b"X"), ask(b": y"), ask(b"X y: z"), ask(b"(X): y")),
        *(ask(b"X\0: y"), ask(b"X: y\0z"), ask(b"X: \x01"), ask(b"X: \x7f"), ask(b"X\xe9: y")),
        *(ask(b"X: y\rZ: z"), ask(b"X: y\nZ: z"), ask(b"X: y\r"), ask(b"X: y\r\n z")),
        *(ask(b"X: y\r\n\tz"), ask(b"X:\r\n y"), ask(host=b" Host: h")),
        # The length of a body.
        *(
            ask(b"Content-Length: " + text, line=b"POST /healthz HTTP/1.1")
            for text in (b"-1", b"x")
        ),
        *(ask(b"Content-Length: " + text) for text in (b"", b"+5", b"-0", b"0x5", b"5 5", b"5, 5")),
        *(ask(b"Content-Length: " + text) for text in (b"5;", b"1e1", b"5.0", b"9" * 20, b"\xb2")),
        *(ask(b"Content-Length: 5", b"Content-Length: " + text) for text in (b"5", b"6")),
        *(ask(b"Content-Length : 5"), ask(b"Content-Length\0: 5")),
        ask(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        ask(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n" + NEXT,
        *(ask(b"Transfer-Encoding : chunked"), ask(b"Transfer-Encoding: \x0bchunked")),
        *(ask(b"X: y\nTransfer-Encoding: chunked"), ask(b"X: y\rTransfer-Encoding: chunked")),
        ask(b"Transfer-Encoding:\r\n chunked"),
    ],
    (401, KEPT): lines(
        *(b"GET / HTTP/1.1", b"GET /%00 HTTP/1.1", b"GET //healthz HTTP/1.1"),
        *(b"GET /../healthz HTTP/1.1", path_of(MAX_REQUEST_LINE_BYTES - 1), b"get / HTTP/1.1"),
    ),
    (405, KEPT): lines(
        *(b"%b /healthz HTTP/1.1" % method for method in (b"POST", b"PUT", b"DELETE", b"TRACE")),
        *(b"%b /healthz HTTP/1.1" % method for method in (b"OPTIONS", b"PATCH")),
        b"OPTIONS * HTTP/1.1",
    ),
    # What follows may be meant for the host that it names.
    (405, CLOSED): [
        *lines(b"CONNECT h:443 HTTP/1.1", b"CONNECT h HTTP/1.1", b"CONNECT [::1]:443 HTTP/1.1"),
        *lines(b"CONNECT /healthz HTTP/1.1", b"CONNECT / HTTP/1.1", b"CONNECT /no HTTP/1.1"),
        *lines(b"CONNECT u@h:80 HTTP/1.1", b"CONNECT [fe80::1%25eth0]:80 HTTP/1.1"),
        *lines(b"CONNECT h:99999 HTTP/1.1", b"CONNECT \xff\0`# HTTP/1.1", b"CONNECT  HTTP/1.1"),
        *lines(b"CONNECT http://u@h/ HTTP/1.1"),
        *lines(b"CONNECT http://h/ HTTP/1.1", b"CONNECT * HTTP/1.1", b"CONNECT h:443 HTTP/1.0"),
        ask(b"_br_mac_: 001122334455", b"_br_fwv_: v1", line=b"CONNECT h:443 HTTP/1.1") + NEXT,
        ask(b"Content-Length: 5", line=b"POST /healthz HTTP/1.1") + b"GET /",
    ],
    (413, CLOSED): [
        *(ask(b"Content-Length: 5") + b"GET /", ask(b"Content-Length: 1", b"Expect: 100-continue")),
        ask(b"Content-Length: " + b"9" * 19),
    ],
    (414, CLOSED): [
        *lines(path_of(MAX_REQUEST_LINE_BYTES + 1), path_of(2 * MAX_HEAD_BYTES)),
        *(b"GET /" + b"a" * MAX_REQUEST_LINE_BYTES, b"A" * (MAX_REQUEST_LINE_BYTES + 2)),
        b"GET " + b" " * MAX_REQUEST_LINE_BYTES + b"/ HTTP/1.1\r\n",
    ],
    (431, CLOSED): [
        *(ask(*[b"x: y"] * MAX_FIELDS), ask(*[b"x:"] * 5000)),
        *(ask(b"X: " + b"y" * MAX_HEAD_BYTES), ask(b"y" * MAX_HEAD_BYTES + b": X")),
        ask(b"X: " + b"y" * (MAX_HEAD_BYTES - len(ask(b"X: ")) + 1)),
        ask()[:-2] + b"X: " + b"y" * MAX_HEAD_BYTES,
    ],
    (501, KEPT): lines(b"get /healthz HTTP/1.1", b"BREW /healthz HTTP/1.1", b"G /healthz HTTP/1.1"),
    (501, CLOSED): [
        *(ask(b"Transfer-Encoding: " + text) for text in (b"chunked", b"identity", b"x", b"")),
        *(ask(b"Transfer-Encoding: " + text) for text in (b"gzip, chunked", b"chunked, chunked")),
        ask(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        ask(b"Transfer-Encoding: chunked", line=b"GET /healthz HTTP/1.0"),
        ask(b"TRANSFER-ENCODING:chunked", line=b"POST /healthz HTTP/1.1") + b"0\r\n\r\n" + NEXT,
    ],
    (505, CLOSED): [
        *lines(b"GET /healthz HTTP/0.9", b"GET /healthz HTTP/2.0", b"GET /healthz HTTP/9.9"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
}


def as_head(content: bytes) -> bytes:
    """Return a GET as a HEAD; b"" for anything else."""
    head, count = re.subn(rb"\A(\s*)GET(?=\s)", rb"\1HEAD", content)
    return head if count else b""


class MalformedRequestTest(ServerCase):
    def check(self, content: bytes, status: int, is_kept: bool) -> None:
        """Send a request, and look at its reply and at what becomes of the connection."""
        method = "HEAD" if re.match(rb"\s*HEAD\s", content) else "GET"
        with Client(self.port) as client:
            client.send(content)
            answer = client.answer(method)
            self.assertEqual(answer.status, status, answer)
            self.assertEqual("connection" in answer.fields, not is_kept or b"HTTP/1.0" in content)
            self.assertGreater(int(answer.fields["content-length"]), 0)
            if method == "GET":
                self.assertEqual(len(answer.body), int(answer.fields["content-length"]))
            if is_kept:
                client.send(NEXT)
                self.assertEqual(client.answer().body, b"ok")
            else:
                self.assertEqual(client.read_all(), b"")

    def check_all(self, change: Callable[[bytes], bytes]) -> None:
        """Send the whole table, each request changed, on each transport."""
        for transport in TRANSPORTS:
            self.start(transport=transport)
            for (status, is_kept), requests in TABLE.items():
                for content in filter(None, map(change, requests)):
                    with self.subTest(content[:90], transport=transport, status=status):
                        self.check(content, status, is_kept)
            self.stop()

    def test_each_gets_its_status_and_its_connection_is_closed_where_it_must(self):
        self.check_all(bytes)

    def test_no_reply_to_a_head_has_a_body_whatever_refuses_it(self):
        self.check_all(as_head)

    def test_what_never_becomes_a_request_is_not_answered_to_who_closes_its_side(self):
        for transport in TRANSPORTS:
            self.start(transport=transport)
            for content in (b"\r\n", b"GET", b"GET /healthz HTTP/1.1\r\nHost: h\r\n"):
                with self.subTest(content, transport=transport), Client(self.port) as client:
                    client.send(content)
                    client.sock.shutdown(socket.SHUT_WR)
                    self.assertEqual(client.read_all(), b"")
            self.stop()
