"""The one command of which all others are parts."""

import argparse
import os
import subprocess
import sys
import unittest

from ota_server.cli import COMMANDS, make_parser
from tests.support import ROOT, TIMEOUT_SECONDS, DataDirCase


def help_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the help of each command."""
    (parts,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {name: part.format_help() for name, part in parts.choices.items()}


class ParserTest(unittest.TestCase):
    def test_a_command_alone_is_what_it_is_among_all(self):
        of_all = help_of(make_parser())
        self.assertEqual(list(of_all), list(COMMANDS))
        for name in COMMANDS:
            with self.subTest(name):
                self.assertEqual(help_of(make_parser(name))[name], of_all[name])


class LoadingTest(DataDirCase):
    def test_a_command_of_an_operator_does_not_load_the_server(self):
        code = (
            "import sys; from ota_server.cli import main; code = main(sys.argv[1:]);"
            "print([name for name in sys.modules if name.endswith(('.server', '.event_loop'))])"
        )
        for command in (["audit"], ["devices"], ["hold"], ["release", "list"]):
            with self.subTest(command):
                done = subprocess.run(
                    [sys.executable, "-c", code, *command],
                    cwd=ROOT,
                    env={**os.environ, "OTA_SERVER_DATA": str(self.data_dir)},
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT_SECONDS,
                )
                self.assertEqual((done.stdout.splitlines()[-1], done.stderr), ("[]", ""))

    def test_no_command_and_an_unknown_one_are_wrong_usage(self):
        for arguments, words in (
            ([], "arguments are required: COMMAND"),
            (["herd"], "invalid choice: 'herd'"),
        ):
            with self.subTest(arguments):
                done = subprocess.run(
                    [sys.executable, "-m", "ota_server", *arguments],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT_SECONDS,
                )
                self.assertEqual(done.returncode, 2)
                self.assertIn(words, done.stderr)
