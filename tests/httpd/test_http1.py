"""The reader of request heads: what it takes, what it refuses, and how soon."""

import email.utils
import random
import time
import unittest
from http import HTTPStatus

from ota_server.httpd.http1 import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_REQUEST_LINE_BYTES,
    BadRequest,
    Request,
    field_lines,
    http_date,
    read_request,
    reply_head,
)

HEAD = (
    b"GET /version.txt?a=b HTTP/1.1\r\nHost: ota:7777\r\n_br_mac_: 001122334455\r\n"
    b"_BR_FWV_:\t v1.0.0 \t\r\n\r\n"
)
# A reader that backtracks over 16 KiB takes seconds at the least.
SECONDS_FOR_A_HEAD = 0.5


def request_with(
    *lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: h"
) -> bytes:
    """Return a whole head with these field lines."""
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", b""])


def head_of(length: int) -> bytes:
    """Return a whole valid head of so many bytes, with short lines but for one field."""
    head = request_with(b"filler: ")
    return head[:-4] + b"x" * (length - len(head)) + b"\r\n\r\n"


class ReaderCase(unittest.TestCase):
    def parse(self, head: bytes) -> Request:
        """Return the request in `head`, which must hold that and nothing else."""
        found = read_request(head)
        assert found is not None, head[:80]
        self.assertEqual(found[1], len(head))
        return found[0]

    def status(self, content: bytes) -> int:
        """Return the status with which the bytes are refused; 0 where they are not."""
        try:
            read_request(content)
        except BadRequest as refused:
            return refused.status.value
        return 0

    def assert_all(self, status: int, heads: dict[str, bytes]) -> None:
        for name, head in heads.items():
            with self.subTest(name):
                self.assertEqual(self.status(head), status)


class AcceptedTest(ReaderCase):
    def test_a_head_is_read_field_by_field_with_names_in_lower_case(self):
        request = self.parse(HEAD)
        self.assertEqual(
            (request.method, request.path, request.query, request.minor_version),
            ("GET", b"/version.txt", b"a=b", 1),
        )
        self.assertEqual(
            request.fields,
            {b"host": b"ota:7777", b"_br_mac_": b"001122334455", b"_br_fwv_": b"v1.0.0"},
        )
        self.assertEqual(request.get(b"_br_fwv_"), b"v1.0.0")
        self.assertIsNone(request.get(b"range"))

    def test_a_partial_head_is_waited_for_and_then_read_as_if_it_came_at_once(self):
        heads = {
            "plain": HEAD,
            "after empty lines": b"\r\n\r\n" + HEAD,
            "longest request line": request_with(
                first=b"GET /" + b"p" * (MAX_REQUEST_LINE_BYTES - 14) + b" HTTP/1.1"
            ),
        }
        for name, head in heads.items():
            with self.subTest(name):
                for length in range(len(head)):
                    self.assertIsNone(read_request(head[:length]), head[:length][-20:])
                self.assertEqual(read_request(bytearray(head)), read_request(head))

    def test_pipelined_heads_are_read_one_by_one(self):
        buffer = HEAD + request_with(first=b"HEAD /b HTTP/1.0", host=b"") + HEAD[:20]
        first, length = read_request(buffer) or self.fail()
        second, second_length = read_request(buffer[length:]) or self.fail()
        self.assertEqual((first.path, second.path), (b"/version.txt", b"/b"))
        self.assertIsNone(read_request(buffer[length + second_length :]))

    def test_two_empty_lines_before_the_request_line_are_ignored_and_no_more(self):
        self.assertEqual(self.parse(b"\r\n\r\n" + HEAD), self.parse(HEAD))
        for content in (b"\r\n\r\n\r\n", b"\r\n\r\n\r\n" + HEAD, b"\r\n" * 4):
            with self.subTest(content[:12]):
                self.assertEqual(self.status(content), 400)

    def test_the_authority_of_an_absolute_target_replaces_the_host(self):
        for target, host in (
            (b"http://elsewhere.example:81/a", b"elsewhere.example:81"),
            (b"HTTPS://[::1]?x", b"[::1]"),
            (b"/http://elsewhere.example/", b"h"),
        ):
            with self.subTest(target):
                request = self.parse(request_with(first=b"GET %b HTTP/1.1" % target))
                self.assertEqual(request.get(b"host"), host)

    def test_targets_are_taken_as_raw_bytes(self):
        for target, path, query in (
            (b"/", b"/", b""),
            (b"//version.txt", b"//version.txt", b""),
            (b"/../etc/passwd", b"/../etc/passwd", b""),
            (b"/%2e%2e/%00", b"/%2e%2e/%00", b""),
            (b'/[a]{b}|\\^`"<>', b'/[a]{b}|\\^`"<>', b""),
            (b"/a?b?c", b"/a", b"b?c"),
            (b"http://ota/a?b", b"/a", b"b"),
            (b"HTTPS://ota:7777", b"/", b""),
            (b"http://[::1]:80/a", b"/a", b""),
            (b"http://ota?b", b"/", b"b"),
        ):
            with self.subTest(target):
                request = self.parse(request_with(first=b"GET %b HTTP/1.1" % target))
                self.assertEqual((request.path, request.query), (path, query))

    def test_the_forms_of_target_that_belong_to_one_method_are_taken_with_it_alone(self):
        for line, status in (
            (b"OPTIONS * HTTP/1.1", 0),
            (b"GET * HTTP/1.1", 400),
            (b"CONNECT ota:80 HTTP/1.1", 0),
            (b"GET ota:80 HTTP/1.1", 400),
        ):
            with self.subTest(line):
                self.assertEqual(self.status(request_with(first=line)), status)

    def test_a_host_of_any_valid_form_is_taken(self):
        for host in (
            *(b"ota", b"ota:7777", b"192.0.2.7:80", b"[2001:db8::7]", b"[::1]:7777", b"a_b-c.d"),
            *(b"", b"%41.example", b"ota:"),
        ):
            with self.subTest(host):
                request = self.parse(request_with(host=b"Host: " + host))
                self.assertEqual(request.get(b"host"), host)

    def test_http_1_0_needs_no_host(self):
        request = self.parse(request_with(first=b"GET / HTTP/1.0", host=b""))
        self.assertEqual(request.minor_version, 0)

    def test_a_later_minor_version_is_read_as_http_1_1(self):
        self.assertEqual(self.parse(request_with(first=b"GET / HTTP/1.9")).minor_version, 1)

    def test_repeated_fields_are_joined_and_named(self):
        request = self.parse(request_with(b"A: 1", b"b: 2", b"a: 3"))
        self.assertEqual(request.get(b"a"), b"1, 3")
        self.assertEqual(request.repeated, {b"a"})

    def test_a_connection_is_kept_as_its_version_and_options_say(self):
        for line, option, kept in (
            (b"GET / HTTP/1.1", b"x: y", True),
            (b"GET / HTTP/1.1", b"Connection: close", False),
            (b"GET / HTTP/1.1", b"Connection: te,\tClose", False),
            (b"GET / HTTP/1.1", b"Connection: closed", True),
            (b"GET / HTTP/1.1", b"Connection: keep-alive\r\nConnection: close", False),
            (b"GET / HTTP/1.0", b"x: y", False),
            (b"GET / HTTP/1.0", b"Connection: Keep-Alive", True),
            (b"GET / HTTP/1.0", b"Connection: keep-alive, close", False),
        ):
            with self.subTest(line=line, option=option):
                self.assertIs(self.parse(request_with(option, first=line)).keep_alive, kept)

    def test_a_content_length_is_read(self):
        for text, length in ((b"0", 0), (b"7", 7), (b"007", 7), (b"9" * 19, int("9" * 19))):
            with self.subTest(text):
                request = self.parse(request_with(b"Content-Length: " + text))
                self.assertEqual(request.content_length, length)


class SmugglingTest(ReaderCase):
    def test_a_line_that_does_not_end_with_cr_lf_is_refused(self):
        self.assert_all(
            400,
            {
                "bare LF after the request line": HEAD.replace(b"1.1\r\n", b"1.1\n"),
                "bare LF after a field": HEAD.replace(b"7777\r\n", b"7777\n"),
                "bare CR in a value": request_with(b"a: b\rTransfer-Encoding: chunked"),
                "bare CR before CR LF": request_with(b"a: b\r"),
                "bare CR in the target": request_with(first=b"GET /\r HTTP/1.1"),
                "bare CR after the version": request_with(first=b"GET / HTTP/1.1\r"),
                "bare LFs alone": HEAD.replace(b"\r\n", b"\n"),
                "LF CR": HEAD.replace(b"\r\n", b"\n\r"),
                "bare CRs alone": HEAD.replace(b"\r\n", b"\r"),
            },
        )

    def test_a_field_line_that_two_readers_could_take_in_two_ways_is_refused(self):
        lines = (
            *(b"a : b", b"a\t: b", b" a: b", b"\ta: b", b": b", b"a", b"a b: c", b"a\0: b"),
            *(b"a: b\0c", b"a: b\x0bc", b"a: b\x7f", b"a: \x1b[2J", b"(a): b", b"a\xe9: b"),
            *(b"a: b\r\n c", b"a: b\r\n\tc", b"a:\r\n b", b"\x00", b"a=b", b'"a": b', b"a,b: c"),
        )
        for line in lines:
            with self.subTest(line):
                self.assertEqual(self.status(request_with(line)), 400)
                self.assertEqual(self.status(request_with(line, b"x: y")), 400)

    def test_a_continued_first_field_line_is_refused(self):
        self.assert_all(400, {"fold": request_with(b"a: b", host=b" Host: h")})

    def test_a_content_length_that_is_not_one_plain_number_is_refused(self):
        texts = (
            *(b"", b"+5", b"-1", b"1_0", b"0x5", b"5 5", b"5,5", b"5, 5", b"5;", b"1e1", b"5.0"),
            *("\u0665".encode(), "\uff15".encode(), b"\xb2", b"five", b"9" * 20, b"1" * 9000),
        )
        for text in texts:
            with self.subTest(text[:20]):
                self.assertEqual(self.status(request_with(b"Content-Length: " + text)), 400)

    def test_a_repeated_content_length_is_refused_also_where_both_are_equal(self):
        for second in (b"6", b"5"):
            with self.subTest(second):
                lines = (b"Content-Length: 5", b"CONTENT-LENGTH: " + second)
                self.assertEqual(self.status(request_with(*lines)), 400)

    def test_a_transfer_encoding_is_not_implemented_whatever_it_says(self):
        for line in (
            *(b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding:"),
            *(b"TRANSFER-ENCODING: identity", b"Transfer-Encoding: xchunked, gzip"),
            *(b"Transfer-Encoding: \t chunked", b"Transfer-Encoding: a\r\nTransfer-Encoding: b"),
        ):
            with self.subTest(line):
                self.assertEqual(self.status(request_with(line)), 501)
                self.assertEqual(self.status(request_with(line, first=b"POST / HTTP/1.0")), 501)

    def test_a_disguised_transfer_encoding_is_refused(self):
        for line in (
            *(b"Transfer-Encoding : chunked", b"Transfer-Encoding\x0b: chunked"),
            *(b" Transfer-Encoding: chunked", b"Transfer-Encoding: \x0bchunked"),
            *(b"Transfer-Encoding\r\n : chunked", b"X: y\rTransfer-Encoding: chunked"),
            *(b"X: y\nTransfer-Encoding: chunked", b"\0Transfer-Encoding: chunked"),
        ):
            with self.subTest(line):
                self.assertEqual(self.status(request_with(line)), 400)

    def test_content_length_with_transfer_encoding_is_refused(self):
        lines = [b"Content-Length: 5", b"Transfer-Encoding: chunked"]
        self.assert_all(
            400,
            {"length first": request_with(*lines), "length last": request_with(*lines[::-1])},
        )

    def test_a_host_that_is_missing_repeated_or_malformed_is_refused(self):
        self.assert_all(
            400,
            {
                "missing": request_with(host=b""),
                "twice": request_with(b"Host: h"),
                "twice in HTTP/1.0": request_with(b"Host: h", first=b"GET / HTTP/1.0"),
                "missing beside an absolute target": request_with(
                    first=b"GET http://h/ HTTP/1.1", host=b""
                ),
            },
        )
        for host in (
            *(b"a b", b"a/b", b"a@b", b"user:pass@h", b"h:port", b"h:-1", b"h:65536", b"h:999999"),
            *(b"h:80:80", b"[::1", b"::1", b"[]", b"[g::1]", b"%", b"%4", b"%zz", b"a\\b", b"<h>"),
            *(b"h?", b"h#", b'"h"', "ü".encode()),
        ):
            with self.subTest(host):
                self.assertEqual(self.status(request_with(host=b"Host: " + host)), 400)
                line = b"GET / HTTP/1.0"
                self.assertEqual(self.status(request_with(first=line, host=b"Host: " + host)), 400)

    def test_an_absolute_target_without_a_valid_authority_is_refused(self):
        for target in (
            *(b"http:///a", b"http://", b"http:/a", b"http:a", b"http://a b/", b"http://u@h/"),
            *(b"http://h:99999/", b"http://:80/", b"ftp://h/", b"http://[::1/", b"http://h\\@x/"),
            *(b"http://h#f", b"http://h/#f"),
        ):
            with self.subTest(target):
                head = request_with(first=b"GET %b HTTP/1.1" % target)
                self.assertEqual(self.status(head), 400)

    def test_a_target_that_is_no_path_of_visible_ascii_is_refused(self):
        for target in (
            *(b"version.txt", b"", b"/a\x00", b"/a\x7f", b"/a\tb", b"/a b", b"/\xc3\xbc", b"/a#b"),
            *(b"?a", b"../a", b"\\", b"*", b"/\x1b[2J"),
        ):
            with self.subTest(target):
                head = request_with(first=b"GET %b HTTP/1.1" % target)
                self.assertEqual(self.status(head), 400)

    def test_a_request_line_of_another_shape_is_refused(self):
        for line in (
            *(b"GET /", b"GET", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1"),
            *(b"GET\t/\tHTTP/1.1", b"GET / HTTP/1", b"GET / HTTP/1.", b"GET / HTTP/11.1"),
            *(b"GET / http/1.1", b"GET / HTTP/1.1x", b"GET / HTTP /1.1", b"GET / ", b"GET / X/1.1"),
            *(
                b"G(T / HTTP/1.1",
                b"/ HTTP/1.1",
                b"GET / HTTP/1.\xb2",
                "GET / HTTP/1.\u0661".encode(),
            ),
        ):
            with self.subTest(line):
                self.assertEqual(self.status(request_with(first=line)), 400)

    def test_http_0_9_is_refused(self):
        self.assert_all(400, {"with a path": b"GET /\r\n", "without": b"GET\r\n"})

    def test_other_major_versions_of_http_are_not_supported(self):
        for line in (b"GET / HTTP/0.9", b"GET / HTTP/2.0", b"GET / HTTP/3.0"):
            with self.subTest(line):
                self.assertEqual(self.status(request_with(first=line)), 505)
        self.assertEqual(self.status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505)


class LimitTest(ReaderCase):
    def test_a_head_may_have_16_kib_and_no_more(self):
        self.assertEqual(self.status(head_of(MAX_HEAD_BYTES)), 0)
        self.assertEqual(self.status(head_of(MAX_HEAD_BYTES + 1)), 431)

    def test_empty_lines_before_a_head_do_not_count(self):
        self.assertEqual(self.status(b"\r\n\r\n" + head_of(MAX_HEAD_BYTES)), 0)

    def test_a_head_may_have_64_fields_and_no_more(self):
        lines = [b"f%d: x" % number for number in range(MAX_FIELDS)]
        self.assertEqual(self.status(request_with(*lines[1:])), 0)
        self.assertEqual(self.status(request_with(*lines)), 431)
        same = [b"f: x"] * MAX_FIELDS
        self.assertEqual(self.status(request_with(*same)), 431)

    def test_a_request_line_may_have_8000_bytes_and_no_more(self):
        self.assertEqual(MAX_REQUEST_LINE_BYTES, 8000)
        path = b"p" * (MAX_REQUEST_LINE_BYTES - len(b"GET / HTTP/1.1"))
        self.assertEqual(self.status(request_with(first=b"GET /%b HTTP/1.1" % path)), 0)
        self.assertEqual(self.status(request_with(first=b"GET /%bp HTTP/1.1" % path)), 414)

    def test_a_long_request_line_is_a_long_uri_also_where_the_whole_head_is_too_long(self):
        line = b"GET /" + b"p" * MAX_HEAD_BYTES
        self.assert_all(
            414,
            {
                "not ended": line,
                "ended": line + b" HTTP/1.1\r\n",
                "whole": request_with(first=line + b" HTTP/1.1"),
                "never ended": b"GET /" + b"p" * MAX_REQUEST_LINE_BYTES,
            },
        )


class HopelessTest(ReaderCase):
    def test_a_partial_head_that_cannot_become_one_is_refused_at_once(self):
        self.assert_all(
            400,
            {
                "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                "SSH": b"\x00\x00\x01",
                "blank first": b" GET",
                "bare LF": b"GET / HTTP/1.1\n",
                "bare CR": b"GET /\rx",
                "HTTP/0.9": b"GET /version.txt\r\n",
                "no version": b"GET / HTTP\r\nHost: h\r\n",
                "bare LF in a field": b"GET / HTTP/1.1\r\nHost: h\n",
                "three empty lines": b"\r\n\r\n\r\n",
            },
        )
        self.assert_all(
            505, {"HTTP/2 preface, first line": b"PRI * HTTP/2.0\r\n", "two": b"GET / HTTP/2.0\r\n"}
        )

    def test_a_head_that_does_not_end_is_refused_at_its_limit(self):
        start = b"GET / HTTP/1.1\r\nHost: h\r\nfiller: "
        self.assertIsNone(read_request(start + b"x" * (MAX_HEAD_BYTES - len(start) - 4)))
        self.assertEqual(self.status(start + b"x" * MAX_HEAD_BYTES), 431)
        self.assertEqual(self.status(start + b"x" * 100 * MAX_HEAD_BYTES), 431)
        self.assertEqual(self.status(start + b"x\r\nfiller: " * MAX_HEAD_BYTES), 431)


class CostTest(ReaderCase):
    def test_no_head_takes_long(self):
        room = MAX_HEAD_BYTES - 100
        hostile = {
            "blanks in a value": request_with(b"a:" + b" " * room + b"b"),
            "blanks at the end of a value": request_with(b"a: b" + b" " * room),
            "blanks and a control byte": request_with(b"a:" + b" \t" * (room // 2) + b"\x01"),
            "blanks for a name": request_with(b" " * room),
            "colons": request_with(b":" * room),
            "commas in Connection": request_with(b"Connection: " + b"," * room),
            "blanks in Connection": request_with(b"Connection: " + b" ," * (room // 2)),
            "digits in Content-Length": request_with(b"Content-Length: " + b"1" * room),
            "long host": request_with(host=b"Host: " + b"a" * room + b"/"),
            "percents in the host": request_with(host=b"Host: " + b"%41" * (room // 3) + b"%"),
            "colons in the host": request_with(host=b"Host: " + b":" * room),
            "digits in the port": request_with(host=b"Host: h:" + b"1" * room),
            "authority": request_with(first=b"GET http://" + b"a:" * 2000 + b"/ HTTP/1.1"),
            "blanks in the request line": request_with(first=b"GET" + b" " * 4000 + b"/ HTTP/1.1"),
            "CRs in a part": b"GET / HTTP/1.1\r\n" + b"\r" * room,
            "empty lines": b"\r\n" * room,
            "one name many times": request_with(*[b"a:" + b" " * 240 + b"b"] * 63),
        }
        for name, head in hostile.items():
            with self.subTest(name):
                begin = time.process_time()
                self.status(head)
                self.assertLess(time.process_time() - begin, SECONDS_FOR_A_HEAD)

    def test_a_head_that_comes_byte_by_byte_costs_little_more_than_its_bytes(self):
        start = b"GET / HTTP/1.1\r\nHost: h\r\na: "
        buffer = bytearray(start)
        begin = time.process_time()
        for _ in range(2000):
            buffer += b"x"
            self.assertIsNone(read_request(buffer))
        self.assertLess(time.process_time() - begin, SECONDS_FOR_A_HEAD)


class ReplyTest(unittest.TestCase):
    def head(self, length: int | None, keep_alive: bool, minor_version: int) -> list[bytes]:
        fields = field_lines([("ETag", '"x"')])
        head = reply_head(HTTPStatus.OK, fields, length, 784111777, keep_alive, minor_version)
        return head.split(b"\r\n")

    def test_a_reply_head_has_a_date_its_fields_and_its_length(self):
        self.assertEqual(
            self.head(7, True, 1),
            [
                b"HTTP/1.1 200 OK",
                b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
                b'ETag: "x"',
                b"Content-Length: 7",
                b"",
                b"",
            ],
        )

    def test_a_reply_says_what_becomes_of_the_connection_where_that_is_not_the_default(self):
        for keep_alive, minor_version, line in (
            (True, 1, None),
            (False, 1, b"Connection: close"),
            (True, 0, b"Connection: keep-alive"),
            (False, 0, b"Connection: close"),
        ):
            with self.subTest(keep_alive=keep_alive, minor_version=minor_version):
                lines = self.head(7, keep_alive, minor_version)
                found = [one for one in lines if one.startswith(b"Connection")]
                self.assertEqual(found, [line] if line else [])

    def test_a_reply_without_a_length_names_none(self):
        self.assertNotIn(b"Content-Length", b"".join(self.head(None, True, 1)))

    def test_a_line_end_in_a_reply_field_is_a_bug_and_not_sent(self):
        for name, value in (("a", "b\r\nc: d"), ("a", "b\nc"), ("a\r\n", "b"), ("a", "b\r")):
            with self.subTest(name=name, value=value), self.assertRaises(ValueError):
                field_lines([(name, value)])

    def test_the_phrases_are_those_of_rfc_9110_on_every_python(self):
        for status, phrase in (
            (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"413 Content Too Large"),
            (HTTPStatus.REQUEST_URI_TOO_LONG, b"414 URI Too Long"),
            (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"416 Range Not Satisfiable"),
        ):
            with self.subTest(status):
                head = reply_head(status, b"", 0, 0, True, 1)
                self.assertTrue(head.startswith(b"HTTP/1.1 %b\r\n" % phrase), head)

    def test_a_date_is_an_imf_fixdate(self):
        self.assertEqual(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT")
        chance = random.Random(0)
        leap_days = (951_782_400, 951_868_799, 951_868_800, 4_107_542_400)
        for seconds in (*leap_days, *(chance.randrange(2**32) for _ in range(200))):
            expected = email.utils.formatdate(seconds, usegmt=True)
            self.assertEqual(http_date(seconds), expected)
