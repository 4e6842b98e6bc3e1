"""Sending a notice to a URL, by a process of its own as the server does it."""

import base64
import os
import shutil
import time
import unittest
from pathlib import Path
from unittest import mock

from ota_server.model.notice import Delivery
from ota_server.model.webhook import parse_secret, parse_webhook_url, signature
from ota_server.system.notice_receiver import PostProgram, url_receiver
from tests.support import DataDirCase, until
from tests.support.webhook import Reaction, WebhookReceiver, closed_port, self_signed

NOTICE = {"time": "2026-11-29T12:00:00.000Z", "event": "test", "text": "a test ✓", "id": "abc"}


class PostTest(DataDirCase):
    def receiver(self, *reactions: Reaction, **more: object) -> WebhookReceiver:
        receiver = WebhookReceiver(*reactions, **more)
        self.addCleanup(receiver.close)
        return receiver

    def send(self, url: str, secret_file: Path | None = None) -> Delivery:
        """Send a notice to a URL, and return what came of it."""
        deliveries: list[Delivery] = []
        receiver = url_receiver(parse_webhook_url(url), secret_file, "key")
        self.assertTrue(receiver.tell(NOTICE, when_ended=deliveries.append))
        self.assertTrue(until(lambda: bool(deliveries)))
        receiver.end()
        (delivery,) = deliveries
        return delivery

    def reaction(self, name: str) -> tuple[WebhookReceiver, Delivery]:
        """Return a receiver that reacts by one of its methods, and what came of sending to it."""
        receiver = self.receiver(lambda out: getattr(receiver, name)(out))
        with self.assertNoLogs("ota_server") if name in ("flood", "drip_body") else self.logs():
            return receiver, self.send(receiver.url())

    def logs(self) -> "mock._patch[object]":
        return self.assertLogs("ota_server.system.notice_receiver")

    def test_it_is_a_post_of_the_json_with_its_id_and_time(self):
        receiver = self.receiver()
        delivery = self.send(receiver.url("/hook?m={{.text}}"))
        (posted,) = receiver.posted
        self.assertEqual((delivery.is_told, delivery.status), (True, 204))
        self.assertEqual((posted.path, posted.notice), ("/hook?m=%7B%7B.text%7D%7D", NOTICE))
        self.assertEqual(posted.fields["content-type"], "application/json")
        self.assertEqual(posted.fields["webhook-id"], NOTICE["id"])
        self.assertLess(abs(int(posted.fields["webhook-timestamp"]) - time.time()), 60)
        self.assertNotIn("webhook-signature", posted.fields)

    def test_it_is_signed_by_the_secret_as_the_file_has_it_at_that_moment(self):
        receiver, secret = self.receiver(), self.data_dir / "secret"
        for key in (b"1" * 32, b"2" * 32):
            secret.write_text(f"whsec_{base64.b64encode(key).decode()}\n")
            self.assertTrue(self.send(receiver.url(), secret).is_told)
            fields, body = receiver.posted[-1][1:]
            timestamp = int(fields["webhook-timestamp"])
            said = signature(parse_secret(secret.read_bytes()), "abc", timestamp, body)
            self.assertEqual(fields["webhook-signature"], said)

    def test_without_its_secret_it_is_not_sent_unsigned(self):
        receiver, secret = self.receiver(), self.data_dir / "secret"
        for content in (None, "short"):
            if content is not None:
                secret.write_text(content)
            with self.subTest(content), self.logs():
                delivery = self.send(receiver.url(), secret)
                self.assertIn("it is not sent unsigned", delivery.problem)
        self.assertEqual(receiver.posted, [])

    def test_what_a_receiver_cannot_do_is_said_without_the_secret_of_its_url(self):
        receiver = self.receiver(404)
        for url, problem in (
            (receiver.url(), "it answered 404 (Not Found)"),
            (f"http://127.0.0.1:{closed_port()}/s3cret", "it cannot be reached: Connection"),
            ("http://nowhere.invalid/s3cret", "its name cannot be resolved"),
        ):
            with self.subTest(problem), self.logs() as logs:
                delivery = self.send(url)
                self.assertIn(problem, delivery.problem)
                self.assertFalse(delivery.is_told)
                self.assertNotIn("s3cret", delivery.problem + "".join(logs.output))
                self.assertIn(problem, logs.output[0])

    def test_a_redirect_is_not_followed(self):
        other = self.receiver()

        redirect = f"HTTP/1.1 307 x\r\nLocation: {other.url()}\r\n\r\n".encode()
        with self.logs():
            delivery = self.send(self.receiver(redirect).url())
        self.assertIn("redirects are not followed", delivery.problem)
        self.assertEqual(other.posted, [])

    def test_an_answer_that_has_no_end_is_told_by_its_head(self):
        for name in ("flood", "drip_body"):
            with self.subTest(name):
                _, delivery = self.reaction(name)
                self.assertEqual((delivery.is_told, delivery.status), (True, 200))
                self.assertLess(delivery.seconds, 5)

    def test_a_head_that_has_no_end_is_an_error(self):
        _, delivery = self.reaction("flood_head")
        self.assertEqual(delivery.problem, "its answer is not HTTP: LineTooLong")

    def test_what_is_not_http_is_an_error(self):
        for content, problem in (
            (b"", "it closed the connection without an answer"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "its answer is not HTTP: BadStatusLine"),
            (b"HTTP/1.1 abc\r\n\r\n", "its answer is not HTTP: BadStatusLine"),
        ):
            with self.subTest(content), self.logs():
                receiver = self.receiver(content)
                self.assertEqual(self.send(receiver.url()).problem, problem)

    def test_a_receiver_that_hangs_is_given_up_when_its_time_is_over(self):
        for name in ("hang", "drip"):
            with self.subTest(name), mock.patch.object(PostProgram, "answer_seconds", 0.5):
                _, delivery = self.reaction(name)
                self.assertEqual(delivery.problem, "it did not answer within 0.5 s")
                self.assertGreaterEqual(delivery.seconds, 0.5)
                self.assertLess(delivery.seconds, 5)

    def test_it_has_ten_seconds_and_a_process_that_takes_longer_is_killed(self):
        self.assertEqual(PostProgram.answer_seconds, 10)
        with (
            mock.patch.object(PostProgram, "longest_seconds", 0.5),
            self.assertLogs("ota_server.system.notice_lane"),
        ):
            receiver = self.receiver(lambda out: receiver.hang(out))
            self.assertIn("was killed", self.send(receiver.url()).problem)

    @unittest.skipUnless(shutil.which("openssl"), "needs openssl")
    def test_a_certificate_of_its_own_is_refused_unless_the_system_is_told_of_it(self):
        context, certificate = self_signed(self.data_dir)
        receiver = self.receiver(context=context)
        with self.logs():
            delivery = self.send(receiver.url())
        self.assertRegex(delivery.problem, "its certificate is not accepted: self.signed")
        self.assertEqual(receiver.posted, [])
        with mock.patch.dict(os.environ, SSL_CERT_FILE=str(certificate)):
            self.assertTrue(self.send(receiver.url()).is_told)
            wrong = receiver.url().replace("127.0.0.1", "localhost")
            with self.logs():
                self.assertIn("its certificate is not accepted", self.send(wrong).problem)

    def test_a_sender_that_cannot_begin_is_said(self):
        with mock.patch("sys.executable", "/nowhere/python"), self.logs_of_lane():
            self.assertIn("it cannot be run", self.send("http://127.0.0.1:9/").problem)
        with mock.patch("sys.executable", "/bin/false"), self.logs():
            self.assertIn("ended by exit code 1", self.send("http://127.0.0.1:9/").problem)

    def logs_of_lane(self) -> "mock._patch[object]":
        return self.assertLogs("ota_server.system.notice_lane")
