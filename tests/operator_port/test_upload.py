"""Images that operators send, in all ways that there are, through a real server."""

import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from ota_server.operations.uploads import MOST_AT_ONCE
from tests.support import until
from tests.support.client import Client
from tests.support.operators import Operators, OperatorsCase, make_token

IMAGE = os.urandom(300_000)
RAW = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
BOUNDARY = "AbCdEf"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form_of(token: str, image: bytes = IMAGE, name: str = "app.bin") -> bytes:
    """Return the body of a form as a browser sends it."""
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="form_token"\r\n\r\n{token}\r\n'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
    return (field + head + "\r\n").encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


class UploadTest(OperatorsCase):
    def setUp(self) -> None:
        self.addCleanup(self.assert_no_traceback)

    def assert_no_traceback(self) -> None:
        self.assertNotIn("Traceback", self.server.logged())

    def uploads(self) -> list[Path]:
        return [*(self.data_dir / "firmware").glob(".firmware_upload_*")]

    def browser(self, may_act: bool = True) -> Operators:
        operators = Operators(self.server.admin_port)
        operators.sign_in(self.data_dir, may_act)
        return operators

    def test_the_body_is_the_image_and_the_answer_names_its_page(self):
        answer = self.operators.ask("POST", "/releases/upload?name=app.bin", IMAGE, RAW)
        self.assertEqual(answer.status, 201, answer.body)
        said = json.loads(answer.body)
        self.assertEqual((said["name"], said["size"]), ("app.bin", len(IMAGE)))
        self.assertEqual(answer.fields["location"], said["page"])
        (path,) = [each for each in self.uploads() if said["id"] in each.name]
        self.assertEqual(path.read_bytes(), IMAGE)

    def test_a_form_without_script_leads_to_the_page(self):
        browser = self.browser()
        body = form_of(browser.form_token())
        answer = browser.ask("POST", "/releases/upload", body, FORM)
        self.assertEqual(answer.status, 303, answer.body)
        upload_id = answer.fields["location"].rpartition("/")[2]
        (path,) = [each for each in self.uploads() if upload_id in each.name]
        self.assertEqual(path.read_bytes(), IMAGE)

    def test_curl_sends_such_a_form(self):
        with tempfile.NamedTemporaryFile(suffix=' "a";b.bin') as file:
            file.write(IMAGE)
            file.flush()
            name = file.name.replace("\\", "\\\\").replace('"', '\\"')
            done = subprocess.run(
                [
                    *("curl", "-sS", "-F", "form_token=", "-F", f'image=@"{name}"'),
                    *("-H", f"Authorization: Bearer {self.operators.token}"),
                    f"http://127.0.0.1:{self.server.admin_port}/releases/upload",
                ],
                capture_output=True,
                check=True,
            )
        said = json.loads(done.stdout)
        self.assertEqual((said["name"], said["size"]), (os.path.basename(file.name), len(IMAGE)))

    def test_only_who_may_act_with_a_form_of_their_session_can_send_one(self):
        reader = Operators(self.server.admin_port, make_token(self.data_dir, "reader", False))
        nobody = Operators(self.server.admin_port)
        browser, looker = self.browser(), self.browser(may_act=False)
        before = self.uploads()
        wrong = {**RAW, "X-Form-Token": "wrong"}
        right = {**RAW, "X-Form-Token": browser.form_token()}
        for name, who, body, fields, status in (
            ("nobody", nobody, IMAGE, RAW, 401),
            ("nobody, by a form", nobody, form_of(""), FORM, 401),
            ("who may only read", reader, IMAGE, RAW, 403),
            ("who may only read, by a form", looker, form_of(looker.form_token()), FORM, 403),
            ("a session without a token", browser, IMAGE, RAW, 403),
            ("a session with a wrong token", browser, IMAGE, wrong, 403),
            ("a form with a wrong token", browser, form_of("wrong"), FORM, 403),
            ("a form without a token", browser, form_of("")[74:], FORM, 400),
            ("a page of another site", browser, IMAGE, {**right, "Origin": "http://a.b"}, 403),
            ("the right one", browser, IMAGE, right, 201),
        ):
            with self.subTest(name):
                answer = who.ask("POST", "/releases/upload", body, fields)
                self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(len(self.uploads()), len(before) + 1)

    def test_what_is_no_image_leaves_nothing(self):
        before = self.uploads()
        browser = self.browser()
        for name, body, fields, status in (
            ("nothing", b"", RAW, 400),
            ("an empty file", form_of(browser.form_token(), b""), FORM, 409),
            ("a form that is cut", form_of(browser.form_token())[:-9], FORM, 400),
            ("a form with more", form_of(browser.form_token()) + b"more", FORM, 400),
        ):
            with self.subTest(name):
                fields = {**fields, "X-Form-Token": browser.form_token()}
                answer = browser.ask("POST", "/releases/upload", body, fields)
                self.assertEqual(answer.status, status, answer.body)
        answer = self.operators.ask("POST", "/releases/upload?product=none", b"x", RAW)
        self.assertEqual(answer.status, 404)
        self.assertEqual(self.uploads(), before)

    def test_what_would_fill_the_disk_is_refused_at_once(self):
        with Client(self.server.admin_port) as client:
            client.send(self.head(10**15) + b"some")
            answer = client.answer()
        self.assertEqual(answer.status, 507)
        self.assertIn("the disk would fill up", json.loads(answer.body)["detail"])

    def head(self, length: int, more: str = "") -> bytes:
        return (
            f"POST /releases/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
            f"Authorization: Bearer {self.operators.token}\r\n{more}\r\n"
        ).encode()

    def test_one_that_breaks_off_leaves_nothing(self):
        before = self.uploads()
        with Client(self.server.admin_port) as client:
            client.send(self.head(len(IMAGE)) + IMAGE[:-1])
            self.assertTrue(until(lambda: len(self.uploads()) > len(before)))
        self.assertTrue(until(lambda: self.uploads() == before))

    def test_a_client_that_waits_to_be_asked_is_asked(self):
        with Client(self.server.admin_port) as client:
            client.send(self.head(3, "Expect: 100-continue\r\n"))
            self.assertEqual(client.read_until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
            client.send(b"abc")
            self.assertEqual(client.answer().status, 201)

    def test_a_few_arrive_at_once_and_the_next_one_is_told_to_wait(self):
        clients = [Client(self.server.admin_port) for _ in range(MOST_AT_ONCE)]
        before = len(self.uploads())
        try:
            for client in clients:
                client.send(self.head(1000) + b"some")
            self.assertTrue(until(lambda: len(self.uploads()) == before + MOST_AT_ONCE))
            answer = self.operators.ask("POST", "/releases/upload", IMAGE, RAW)
            self.assertEqual((answer.status, answer.fields["retry-after"]), (503, "5"))
            clients[0].send(b"x" * 996)
            self.assertEqual(clients[0].answer().status, 201)
            answer = self.operators.ask("POST", "/releases/upload", IMAGE, RAW)
            self.assertEqual(answer.status, 201)
        finally:
            for client in clients:
                client.sock.shutdown(socket.SHUT_RDWR)
                client.sock.close()
        self.assertTrue(until(lambda: len(self.uploads()) == before + 2))


class KilledUploadTest(OperatorsCase):
    def test_what_a_killed_controller_left_is_gone_when_the_next_one_answers(self):
        upload = self.operators.ask("POST", "/releases/upload?name=a", IMAGE, RAW)
        page = json.loads(upload.body)["page"]
        files = self.data_dir / "firmware"
        with Client(self.server.admin_port) as client:
            client.send(
                b"POST /releases/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
                + f"Authorization: Bearer {self.operators.token}\r\n\r\nsome".encode()
            )
            self.assertTrue(until(lambda: len([*files.glob(".firmware_upload_*")]) == 2))
            (child,) = controllers_of(self.server.process.pid)
            os.kill(child, signal.SIGKILL)
        self.assertTrue(until(lambda: not [*files.glob(".firmware_upload_*")]))
        answer = self.operators.get(page)
        self.assertEqual(answer.status, 404, answer.body)


class LargeUploadTest(OperatorsCase):
    def test_a_large_image_is_never_in_memory(self):
        small = self.operators.ask("POST", "/releases/upload", IMAGE, RAW)
        self.assertEqual(small.status, 201)
        (child,) = controllers_of(self.server.process.pid)
        before, size = peak_kib(child), 80_000_000
        with Client(self.server.admin_port) as client:
            client.send(
                b"POST /releases/upload HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                + f"Content-Length: {size}\r\n".encode()
                + f"Authorization: Bearer {self.operators.token}\r\n\r\n".encode()
            )
            piece = bytes(1_000_000)
            for _ in range(size // len(piece)):
                client.send(piece)
            answer = client.answer()
        self.assertEqual(json.loads(answer.body)["size"], size)
        self.assertLess(peak_kib(child) - before, 8 * 1024)


def controllers_of(server: int) -> list[int]:
    """Return the processes that a server has started."""
    tasks = Path(f"/proc/{server}/task").glob("*/children")
    return [int(each) for task in tasks for each in task.read_text().split()]


def peak_kib(process: int) -> int:
    """Return the most memory that a process has taken so far."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(each.split()[1]) for each in lines if each.startswith("VmHWM:"))
