"""The options for notices: what they refuse, without showing what is secret in it."""

import argparse
import base64
import contextlib
import io

from ota_server.device_port.notice_options import add_notice_arguments, wrong_notice_options
from ota_server.system.usage import Parser
from tests.support import DataDirCase


class NoticeOptionsTest(DataDirCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = self.data_dir / "file"
        self.secret = self.data_dir / "secret"
        self.secret.write_bytes(b"whsec_" + base64.b64encode(b"k" * 32))

    def parse(self, *options: str) -> argparse.Namespace:
        parser = Parser(prog="serve")
        add_notice_arguments(parser)
        return parser.parse_args(options)

    def problem(self, *options: str) -> str:
        """Return why options are refused; "": they are not."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                return wrong_notice_options(self.parse(*options))
            except SystemExit as end:
                self.assertEqual(end.code, 2)
        return said.getvalue()

    def test_options_that_would_tell_nobody_are_refused(self):
        self.file.touch()
        url, secret = ("--notify-url", "http://a.example/s3cret"), "--notify-secret-file"
        for options, problem in (
            (("--notify-url", "a.example/s3cret"), "not a URL of http or https"),
            (("--notify-url", "https://ann:s3cret@a.example"), "holds a user and a password"),
            (("--notify-url", f"@{self.data_dir}/none"), "No such file"),
            (("--notify-url", f"@{self.data_dir}"), "not a regular file"),
            (("--notify-url", f"@{self.file}"), "not a URL"),
            ((*url, secret, str(self.file)), "does not hold a secret"),
            ((*url, secret, f"{self.data_dir}/none"), "No such file"),
            ((secret, str(self.secret)), "no effect without --notify-url"),
            (url * 6, "5 at most"),
            (("--notify-command", " "), "--notify-command: is empty"),
            (("--on-event", ""), "is empty"),
        ):
            with self.subTest(options):
                said = self.problem(*options)
                self.assertIn(problem, said)
                self.assertNotIn("s3cret", said)

    def test_options_that_fit_together_are_taken(self):
        self.file.write_text("https://a.example/from/file\n")
        urls = ("--notify-url", "http://a.example/", "--notify-url", f"@{self.file}")
        options = (*urls, "--notify-secret-file", str(self.secret), "--notify-command", "cat")
        self.assertEqual(self.problem(*options), "")
        parsed = self.parse(*options)
        self.assertEqual(
            [each.url for each in parsed.notify_url],
            ["http://a.example/", "https://a.example/from/file"],
        )
        self.assertEqual(parsed.notify_secret_file, self.secret)

    def test_the_old_name_of_the_command_is_no_other_option(self):
        self.assertEqual(self.parse("--on-event", "cat").notify_command, "cat")
        self.assertIsNone(self.parse().notify_command)
