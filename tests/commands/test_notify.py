"""`notify test`, and what `status` and `health` say of those who cannot be told."""

import json
from pathlib import Path

from ota_server.device_port.notice_status import read_notice_status
from tests.support import Process, until
from tests.support.commands import call
from tests.support.data_dir import DataDirCase
from tests.support.webhook import Reaction, WebhookReceiver, closed_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class NotifyTest(DataDirCase):
    def receiver(self, *reactions: Reaction) -> WebhookReceiver:
        receiver = WebhookReceiver(*reactions)
        self.addCleanup(receiver.close)
        return receiver

    def said(self, *options: str, code: int = 0) -> str:
        """Return what `notify test` prints."""
        done = call("notify", "test", *options, "--data-dir", str(self.data_dir))
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout + done.stderr

    def serve(self, *options: str) -> Process:
        server = Process("--data-dir", str(self.data_dir), *options)
        self.addCleanup(server.kill)
        return server

    def serve_and_tell(self, *options: str) -> Process:
        server = self.serve(*options)
        self.assertTrue(until((self.data_dir / "log" / "notices.json").exists))
        return server

    def test_a_url_that_takes_it_and_one_that_does_not_are_said(self):
        secret = self.data_dir / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        receiver = self.receiver(204, 410)
        url = ("--url", receiver.url(), "--secret-file", str(secret))
        self.assertRegex(self.said(*url), r"/\.\.\.: was told and answered 204, after \d+\.\d\d s$")
        self.assertRegex(
            self.said(*url, code=1),
            r"was not told, after \d+\.\d\d s: it answered 410 \(Gone\): it wants no notices",
        )
        self.assertEqual(receiver.names(), ["test", "test"])
        self.assertIn("webhook-signature", receiver.posted[0].fields)

    def test_what_a_command_prints_and_how_it_ends_is_said(self):
        text = "cat; echo; echo no >&2; exit 3"
        said = self.said("--command", text, code=1)
        self.assertIn('"event": "test"', said)
        self.assertIn("--notify-command (test): no\n", said)
        self.assertRegex(said, r"--notify-command: was not told, after \S+ s: .* exit code 3\n$")
        self.assertRegex(self.said("--command", "true"), "^--notify-command: was told, after")

    def test_both_are_tested_and_one_that_was_not_told_counts(self):
        receiver = self.receiver()
        said = self.said("--command", "false", "--url", receiver.url(), code=1)
        self.assertIn("was told and answered 204", said)
        self.assertIn("was not told", said)

    def test_a_secret_for_nobody_and_one_that_others_can_read_are_said(self):
        secret = self.data_dir / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o644)
        option = ("--secret-file", str(secret))
        self.assertIn("no effect without --url", self.said(*option, code=2))
        self.assertIn("chmod 600", self.said(*option, "--url", self.receiver().url()))

    def test_the_running_server_tells_all_whom_it_tells(self):
        receiver = self.receiver()
        dead = f"http://127.0.0.1:{closed_port()}/s3cret"
        told = self.data_dir / "told"
        urls = ("--notify-url", receiver.url(), "--notify-url", dead)
        self.serve_and_tell(*urls, "--notify-command", f"cat >> {told}")
        said = self.said(code=1)
        self.assertIn("--notify-command: was told, after", said)
        self.assertRegex(said, r"/\.\.\.: was told and answered 204")
        self.assertIn("it cannot be reached: Connection refused", said)
        self.assertNotIn("s3cret", said)
        self.assertEqual(json.loads(told.read_text())["event"], "test")
        self.said(code=1)
        self.assertEqual(len({each.notice["id"] for each in receiver.posted}), 2)
        self.assertFalse((self.data_dir / "log" / "notice_test.json").exists())

    def test_without_a_server_or_one_that_tells_nobody_it_says_what_to_do(self):
        self.assertIn("no server runs on", self.said(code=1))
        self.serve()
        self.assertIn("the running server tells nobody", self.said(code=1))

    def test_a_test_that_arrives_has_what_waits_told_at_once(self):
        receiver = self.receiver(404, 204)
        self.serve_and_tell("--notify-url", receiver.url())
        call("hold", "--data-dir", str(self.data_dir))
        self.assertTrue(until(self.is_failing))
        self.said()
        # Else it would wait for an hour.
        self.assertTrue(until(lambda: len(receiver.posted) == 3))
        self.assertEqual(receiver.names(), ["hold_begun", "test", "hold_begun"])

    def is_failing(self) -> bool:
        status = read_notice_status(self.data_dir / "log")
        return status is not None and bool(status.receivers[0].health.problem)

    def test_status_and_health_say_who_cannot_be_told(self):
        self.put_image("v1.0.1", b"image")
        self.set_target("v1.0.1")
        self.serve_and_tell("--notify-url", self.receiver(404).url())
        call("hold", "--data-dir", str(self.data_dir))
        self.assertTrue(until(self.is_failing))
        call("unhold", "--data-dir", str(self.data_dir))
        path = self.data_dir / "log" / "notices.json"
        done = call("status", "--json", "--data-dir", str(self.data_dir))
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("is not told of notices since", done.stdout)
        # Five minutes later.
        _set_back(path)
        done = call("health", "--data-dir", str(self.data_dir))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stdout,
            r"^notices: http://\S+/\.\.\. is not told of notices since \S+Z: it answered 404 "
            r"\(Not Found\); \d notices? waiting; `notify test` tries it now\n$",
        )


def _set_back(path: Path) -> None:
    """Let the file say that it has been so for long."""
    fields = json.loads(path.read_text())
    fields["receivers"][0]["failing_since_time"] = "2026-01-01T00:00:00.000Z"
    new = path.with_name("new")
    new.write_text(json.dumps(fields))
    new.replace(path)
