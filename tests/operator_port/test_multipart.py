"""Forms with a file, as browsers and curl send them, and what else may come."""

import unittest
from collections.abc import Iterator

from ota_server.operator_port.asked import Malformed
from ota_server.operator_port.multipart import FormWithFile, boundary_of

BOUNDARY = b"----WebKitFormBoundaryAbC123"
FILE = bytes(range(256)) * 9 + b"\r\n--" + BOUNDARY[:-1] + b"\r\n\r\n--"


def part(head: bytes, content: bytes) -> bytes:
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + end


TOKEN = part(b'Content-Disposition: form-data; name="form_token"', b"secret")
IMAGE = part(
    b'Content-Disposition: form-data; name="image"; filename="app.bin"\r\n'
    b"Content-Type: application/octet-stream",
    FILE,
)


def read(body: bytes, piece_bytes: int = 1 << 20) -> tuple[dict[str, str], str, bytes]:
    """Return fields, the name of the file and its content, from a body in pieces of a size."""

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), piece_bytes):
            yield body[at : at + piece_bytes]
        while True:
            yield b""

    arriving = pieces()
    found = FormWithFile(BOUNDARY, lambda: next(arriving))
    found.read_fields()
    return found.fields, found.file_name, b"".join(found.pieces())


class FormWithFileTest(unittest.TestCase):
    def test_a_file_comes_out_as_it_went_in_whatever_the_pieces_are(self):
        for size in (1, 2, 3, 7, 61, 1000, 1 << 20):
            with self.subTest(size=size):
                self.assertEqual(
                    read(form(TOKEN, IMAGE), size), ({"form_token": "secret"}, "app.bin", FILE)
                )

    def test_the_last_line_end_may_be_missing(self):
        self.assertEqual(read(form(TOKEN, IMAGE, end=b"--"))[2], FILE)

    def test_an_empty_file_is_a_file(self):
        empty = part(b'content-disposition:form-data; name="f"; filename=""', b"")
        self.assertEqual(read(form(empty)), ({}, "", b""))

    def test_names_are_read_as_browsers_and_curl_escape_them(self):
        for said, name in (
            (b"a%22b.bin", 'a"b.bin'),
            (b'a\\"b\\\\.bin', 'a"b\\.bin'),
            ("bläh<b>.bin".encode(), "bläh<b>.bin"),
            (b"\xff.bin", "\ufffd.bin"),
            (b"a%0D%0Ab", "a\r\nb"),
        ):
            with self.subTest(name):
                head = b'Content-Disposition: form-data; name="f"; filename="' + said + b'"'
                self.assertEqual(read(form(part(head, b"x")))[1], name)

    def test_what_is_not_fields_and_then_one_file_is_refused(self):
        field = part(b'Content-Disposition: form-data; name="x"', b"y")
        for name, body in {
            "nothing": b"",
            "no boundary": b"hello",
            "something before the boundary": b"preamble\r\n" + form(IMAGE),
            "no file": form(TOKEN),
            "a field behind the file": form(IMAGE, TOKEN),
            "two files": form(IMAGE, IMAGE),
            "an end that is missing": form(IMAGE)[:-4],
            "a cut in the file": form(IMAGE)[:-400],
            "something behind the end": form(IMAGE) + b"more",
            "a boundary that goes on": form(IMAGE, end=b"xx"),
            "no name": form(part(b"Content-Disposition: form-data", b"x")),
            "another kind": form(part(b'Content-Disposition: attachment; name="x"', b"x")),
            "no head": form(part(b"", b"x")),
            "a long head": form(part(b"X: " + b"y" * 5000, b"x"), IMAGE),
            "a long field": form(
                part(b'Content-Disposition: form-data; name="x"', b"y" * 5000), IMAGE
            ),
            "many fields": form(*[field] * 20, IMAGE),
            "a field of other bytes": form(
                part(b'Content-Disposition: form-data; name="x"', b"\xff"), IMAGE
            ),
        }.items():
            for size in (1, 1 << 20):
                with self.subTest(name, size=size), self.assertRaises(Malformed):
                    read(body, size)

    def test_a_long_field_is_refused_before_it_is_in_memory(self):
        taken = 0

        def receive() -> bytes:
            nonlocal taken
            taken += 1000
            return b"y" * 1000

        reader = FormWithFile(BOUNDARY, receive)
        with self.assertRaises(Malformed):
            reader.read_fields()
        self.assertLess(taken, 10_000)


class BoundaryTest(unittest.TestCase):
    def test_the_boundary_is_read_as_clients_write_it(self):
        for said, boundary in (
            (b"multipart/form-data; boundary=abc", b"abc"),
            (b'Multipart/Form-Data;boundary="a b:c"', b"a b:c"),
            (b"multipart/form-data; boundary=------------------------d74496d66958873e",) * 2,
            (b"multipart/form-data", None),
            (b"multipart/form-data; boundary=", None),
            (b"multipart/form-data; boundary=" + b"a" * 71, None),
            (b"multipart/mixed; boundary=abc", None),
            (b"multipart/form-data; boundary=abc; charset=utf-8", None),
            (b"application/octet-stream", None),
        ):
            with self.subTest(said):
                if boundary == said:
                    boundary = said.partition(b"boundary=")[2]
                self.assertEqual(boundary_of(said), boundary)
