"""The one command of which all others are parts."""

import argparse
import os
import re
import subprocess
import sys
import unittest

from ota_server.cli import COMMANDS, make_parser
from ota_server.system.locks import LOCK_NAME, take_lock
from tests.support import MAC, ROOT, TIMEOUT_SECONDS, DataDirCase, bare


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


class PasteTest(DataDirCase):
    """A command in a message is pasted into the shell that showed it."""

    def test_it_does_what_the_message_says(self):
        data_dir = self.data_dir / "a fleet's"
        (data_dir / "version").mkdir(parents=True)
        command = [sys.executable, "-m", "ota_server", "hold"]
        how = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": TIMEOUT_SECONDS}
        bare = {name: os.environ[name] for name in os.environ if name != "OTA_SERVER_DATA"}
        named = {**bare, "OTA_SERVER_DATA": str(data_dir)}
        for given, environment in ((["--data-dir", str(data_dir)], bare), ([], named)):
            with self.subTest(given):
                said = subprocess.run([*command, *given], env=environment, **how).stdout
                (pasted,) = re.findall("`(.*)`", said)
                done = subprocess.run(["sh", "-c", pasted], env=environment, **how)
                self.assertEqual(done.stdout, "nothing is on hold any longer\n", pasted)

    def test_what_a_server_says_can_be_pasted_into_a_shell_without_its_variables(self):
        (self.data_dir / "version" / "hold.json").touch()
        command = [sys.executable, "-m", "ota_server.server", "--port", "0", "--host", "127.0.0.1"]
        command += ["--no-admin"]
        environment = {**os.environ, "OTA_SERVER_DATA": str(self.data_dir)}
        how = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, **how) as server:
            said = next(line for line in server.stdout if "unhold" in line)
            server.terminate()
        self.assertIn(f"unhold --data-dir {self.data_dir}`", said)

    def test_what_a_device_reports_is_no_command_of_ours(self):
        command = [sys.executable, "-m", "ota_server", "why", MAC, "--version", "`hold`"]
        command += ["--data-dir", str(self.data_dir)]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
        self.assertIn("`hold`", said)


class LoadingTest(DataDirCase):
    def test_a_command_of_an_operator_does_not_load_the_server(self):
        code = (
            "import sys; from ota_server.cli import main; code = main(sys.argv[1:]);"
            "print([name for name in sys.modules if name.endswith(('.server', '.event_loop'))])"
        )
        # As if a server ran, or `hold` would warn that none does.
        self.addCleanup(os.close, take_lock(self.data_dir / "log" / LOCK_NAME))
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

    def test_wrong_usage_is_one_message_that_says_what_to_type(self):
        for typed, words in (
            ("", "give a command: serve, status,"),
            ("herd", "there is no command 'herd'; "),
            ("stauts", "did you mean `status`?"),
            ("publish", "did you mean `release publish`?"),
            ("rollback", "did you mean `release rollback`?"),
            ("--data-dir X devices", "give the command first, and --data-dir after it"),
            ("serve -p", "serve: unrecognized arguments: -p; `"),
            ("serve --port abc", "serve: argument --port: 'abc' is not a whole number"),
            ("health --json", "health: unrecognized arguments: --json; `"),
            ("release publish x.bin v1", "release publish: unrecognized arguments: v1; `"),
            ("rollout start", "rollout start: the following arguments are required"),
        ):
            with self.subTest(typed):
                done = subprocess.run(
                    [sys.executable, "-m", "ota_server", *typed.split()],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT_SECONDS,
                )
                self.assertEqual(done.returncode, 2)
                said = bare(done.stderr)
                self.assertIn(words, said)
                self.assertTrue(said.endswith("--help` says more\n"), said)
                self.assertEqual(said.count("\n"), 1, said)

    def test_a_file_that_is_run_by_its_path_says_what_to_type(self):
        package = ROOT / "ota_server"
        for folder, typed, module in (
            (ROOT, ["ota_server/server.py", "--port", "0"], ".server"),
            (ROOT, ["ota_server", "devices"], ""),
            (package, ["cli.py"], ""),
            (package, ["-m", "server"], ".server"),
        ):
            with self.subTest(typed):
                command = [sys.executable, *typed]
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
                said = f"ota-server: run this as: cd {ROOT} && python -m ota_server{module}\n"
                self.assertEqual((done.returncode, done.stderr), (1, said))

    def test_a_problem_is_wrapped_on_a_terminal(self):
        text = " ".join(["word"] * 60)
        for typed, code in (("serve --port", 2), ("release activate", 2), ("pin nobody", 2)):
            with self.subTest(typed):
                rows = self.on_terminal(80, *typed.split(), text, code=code)
                self.assertGreater(len(rows), 1)
                self.assertEqual([row for row in rows if len(row) > 80 and "`" not in row], [])
