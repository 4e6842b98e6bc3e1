"""The operators' port while many mean harm: who has the right token notices nothing."""

import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.rollouts.test_mover import children
from tests.support.client import DEVICE, Client, until
from tests.support.operators import Operators, OperatorsCase, some_devices

MANY = 300
# Before those who hold connections are cut (`HEAD_SECONDS`). On a quiet machine a page takes 10 ms.
SOON_SECONDS = 9.0
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"


class LoadTest(OperatorsCase):
    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(20))
        cls.await_devices(20)
        (cls.controller,) = children(cls.server.process.pid)

    def head(self, line: str, *fields: str) -> bytes:
        lines = "".join(f"{each}\r\n" for each in (f"Host: 127.0.0.1:{self.port}", *fields))
        return f"{line} HTTP/1.1\r\n{lines}".encode()

    @property
    def port(self) -> int:
        return self.server.admin_port

    @property
    def token(self) -> str:
        return f"Authorization: Bearer {self.operators.token}"

    @contextmanager
    def many(self, content: bytes, count: int = MANY) -> Iterator[list[socket.socket]]:
        """Open connections that each send something, and read nothing."""
        with ExitStack() as stack:
            opened = []
            for _ in range(count):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
                sock.sendall(content)
                opened.append(sock)
            yield opened

    def held(self) -> tuple[int, int]:
        """Return how many descriptors and threads the controller has."""
        folder = Path(f"/proc/{self.controller}")
        return len(os.listdir(folder / "fd")), len(os.listdir(folder / "task"))

    def assert_well(self) -> None:
        began = time.monotonic()
        self.assertEqual(self.operators.get("/devices").status, 200)
        self.assertLess(time.monotonic() - began, SOON_SECONDS)
        with Client(self.server.port) as client:
            client.request("/version.txt", DEVICE)
            self.assertEqual(client.answer().status, 200)

    def assert_all_is_given_back(self) -> None:
        # A connection of SQLite has three descriptors, and four are kept for the next query.
        self.assertTrue(until(lambda: self.held()[1] <= 6), self.held())
        self.assertLess(self.held()[0], 40)

    def test_requests_that_never_end_keep_nobody_out(self):
        sent = {
            "heads": self.head("GET /devices")[:-9],
            "logins": self.head("POST /login", FORM + "Content-Length: 4000") + b"\r\ncode=",
            "uploads": self.head("POST /releases/upload", "Content-Length: 400000") + b"\r\nabc",
            "uploads by a token": self.head(
                "POST /releases/upload?name=a", "Content-Length: 400000", self.token
            )
            + b"\r\nabc",
            "requests nobody reads": (self.head("GET /devices.csv") + b"\r\n") * 5,
            "long heads": self.head("GET /") + b"X: " + b"a" * 20_000,
        }
        for name, content in sent.items():
            with self.subTest(name), self.many(content):
                self.assert_well()
                self.assert_well()
        self.assert_all_is_given_back()

    def test_long_bodies_of_one_who_may_act_do_not_fill_the_memory(self):
        content = self.head("POST /devices/act", FORM + "Content-Length: 4000000", self.token)
        with self.many(content + b"\r\n" + b"a" * 3_900_000, 40):
            self.assert_well()
            said = Path(f"/proc/{self.controller}/status").read_text()
            memory_kib = next(line for line in said.splitlines() if line.startswith("VmRSS"))
            self.assertLess(int(memory_kib.split()[1]), 150_000)
        self.assert_all_is_given_back()

    def test_of_a_hundred_streams_those_without_room_are_told_when_to_come_again(self):
        with self.many(self.head("GET /events", self.token) + b"\r\n", 100) as opened:
            heads = [sock.recv(4096) for sock in opened]
            self.assertEqual(
                Counter(each.split(b" ")[1] for each in heads), {b"200": 32, b"503": 68}
            )
            self.assertTrue(all(b"Retry-After: " in each for each in heads if b" 503 " in each))
            self.assert_well()
        self.assert_all_is_given_back()

    def test_a_thousand_wrong_tokens_slow_nobody_and_are_ten_lines_of_the_log(self):
        wrong = Operators(self.port, "ota_wrong")
        statuses = Counter(wrong.get("/devices").status for _ in range(1000))
        self.assertEqual(statuses, {401: 10, 429: 990})
        self.assert_well()
        self.assertEqual(self.server.logged().count("a wrong token"), 10)
        self.assert_all_is_given_back()

    def test_what_breaks_http_is_ten_lines_of_the_log(self):
        for _ in range(100):
            with Client(self.port) as client:
                client.send(b"GET / HTTP/9\r\n\r\n")
                client.read_all()
        said = re.findall(r"operators' port: \d+ for", self.server.logged())
        self.assertIn(len(said), range(1, 11))

    def test_a_head_request_has_no_body_even_if_it_was_sent_one(self):
        for path in ("/login", "/devices", "/nothing"):
            for body in (b"", b"a=b"):
                with self.subTest(path=path, body=body), Client(self.port) as client:
                    fields = [FORM + f"Content-Length: {len(body)}"] if body else []
                    content = self.head(f"HEAD {path}", "Connection: close", *fields)
                    client.send(content + b"\r\n" + body)
                    reply = client.read_all()
                    self.assertTrue(reply.endswith(b"\r\n\r\n"), reply[-40:])
