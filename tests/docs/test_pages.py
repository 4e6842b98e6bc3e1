"""The README is true: its commands run as written, and it leaves no option or module out."""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ota_server.cli import make_parser
from ota_server.device_port.options import DEFAULT_PORT
from tests.support import ROOT, TIMEOUT_SECONDS

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
DOCUMENTED_CHECKOUT = "/srv/ota_server"
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TOOLS = ("curl", "sha256sum")


class Example(NamedTuple):
    """Commands of the README, and what it says that they print (None: it does not say)."""

    commands: str
    output: str | None


def examples() -> list[Example]:
    """Return the `sh` blocks in their order, each with the `text` block that follows it."""
    blocks = [(match["kind"], match["text"]) for match in BLOCK.finditer(TEXT)]
    after = [*blocks[1:], ("", "")]
    return [
        Example(text, output if kind_after == "text" else None)
        for (kind, text), (kind_after, output) in zip(blocks, after, strict=True)
        if kind == "sh"
    ]


def comparable(text: str) -> str:
    """Return output without what differs from run to run: times, and the blanks that align them."""
    text = re.sub(r"\b(\d+[smhd] ago|now)\b", "AGO", text)
    text = re.sub(r"^Date: .*$", "Date", text, flags=re.MULTILINE)
    text = re.sub(r"\b\d{4}-\d{2}-\d{2}T[\d:.]+Z", "TIME", text)
    text = re.sub(r"\S+@\S+", "USER@HOST", text)
    return re.sub(r"[ \t\r]+", " ", text).strip()


class Checkout:
    """A copy of what a clone holds, without what the tests or an operator left there."""

    def __init__(self, folder: Path) -> None:
        self.path = folder.resolve() / "ota_server"
        shutil.copytree(
            ROOT / "ota_server",
            self.path / "ota_server",
            ignore=shutil.ignore_patterns("log", "__pycache__"),
        )
        shutil.copy(ROOT / "pyproject.toml", self.path)
        (self.path / "build").mkdir()
        (self.path / "build" / "firmware.bin").write_bytes(b"a build of one's own " * 1000)
        # `python` as the README has it is the one that runs the tests.
        tools = folder / "bin"
        tools.mkdir()
        (tools / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (tools / "python").chmod(0o755)
        environment = {name: os.environ[name] for name in os.environ if name != "OTA_SERVER_DATA"}
        self.environment = {**environment, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        self.port = DEFAULT_PORT

    def start(self, command: str, log: Path) -> tuple[subprocess.Popen[str], str]:
        """Start the server by its documented command, on a free port; return what it says."""
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*shlex.split(command), "--port", "0"],
                cwd=self.path,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert process.stdout is not None
        banner = ""
        for line in process.stdout:
            banner += line
            if "version/version.txt" in line:
                break
        self.port = int(banner.split("://")[1].split("/")[0].rsplit(":", 1)[1])
        return process, self.as_documented(banner)

    def run(self, commands: str) -> str:
        """Run commands of the README in this checkout; return what they print."""
        there = commands.replace(f":{DEFAULT_PORT}/", f":{self.port}/")
        done = subprocess.run(
            ["sh", "-e"],
            input=there,
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        assert done.returncode == 0, f"{commands}{done.stdout}{done.stderr}"
        return self.as_documented(done.stdout)

    def as_documented(self, text: str) -> str:
        """Return text with the path and the port that the README has."""
        return text.replace(str(self.path), DOCUMENTED_CHECKOUT).replace(
            f":{self.port}/", f":{DEFAULT_PORT}/"
        )


class CommandsTest(unittest.TestCase):
    maxDiff = None

    def test_the_quick_start_is_a_clone_and_the_two_commands(self):
        quick_start = TEXT.split("## Quick start\n")[1].split("\n## ")[0]
        first = BLOCK.search(quick_start)
        clone, *commands = first["text"].splitlines()
        self.assertEqual(first["kind"], "sh")
        self.assertRegex(clone, r"^git clone .* && cd ota_server$")
        self.assertEqual(commands, ["python -m ota_server.server", "python -m unittest discover"])

    @unittest.skipUnless(all(map(shutil.which, TOOLS)), f"needs {' and '.join(TOOLS)}")
    def test_each_command_prints_what_is_documented(self):
        start, *others = examples()
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        checkout = Checkout(folder)
        log = folder / "server.log"
        process, banner = checkout.start(start.commands.splitlines()[1], log)
        try:
            self.assertEqual(comparable(banner), comparable(start.output))
            for commands, output in others:
                with self.subTest(commands):
                    self.assertIsNotNone(output, "the output is not documented")
                    printed = comparable(checkout.run(commands))
                    until = time.monotonic() + TIMEOUT_SECONDS
                    # The list of 401s is saved a few times a second, not before each answer.
                    while "--rejected" in commands and printed != comparable(output):
                        self.assertLess(time.monotonic(), until, printed)
                        printed = comparable(checkout.run(commands))
                    self.assertEqual(printed, comparable(output))
        finally:
            process.send_signal(signal.SIGTERM)
            with process:
                self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)
        self.assert_logged(checkout.as_documented(log.read_text()))

    def assert_logged(self, log: str) -> None:
        """Fail unless the lines of the server's log that the README shows are in its log."""
        shown = re.findall(r"^[-0-9]+ [0-9:,]+ (ERROR .*)$", TEXT, re.MULTILINE)
        self.assertTrue(shown)
        for line in shown:
            self.assertIn(line, log)


def commands_of(
    parser: argparse.ArgumentParser, before: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser, str | None]]:
    """Yield each command with its name and summary, and after it its own parts."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield f"{before}{name}", command, summaries.get(name)
                yield from commands_of(command, f"{before}{name} ")


class CompletenessTest(unittest.TestCase):
    def test_every_command_and_option_is_documented_and_has_help(self):
        for name, command, summary in commands_of(make_parser()):
            with self.subTest(name):
                self.assertRegex(TEXT, rf"`[^`]*\b{name}\b[^`]*`")
                self.assertTrue(summary)
            for action in command._actions:
                for option in action.option_strings[-1:]:
                    with self.subTest(f"{name} {option}"):
                        self.assertRegex(TEXT, rf"`[^`\n]*{option}\b[^`\n]*`")
                self.assertTrue(action.help, f"{name}: {action.dest}")

    def test_every_command_has_examples(self):
        for name, command, _ in commands_of(make_parser()):
            with self.subTest(name):
                self.assertIn("examples:", command.epilog or "")

    def test_the_defaults_in_the_table_of_options_are_those_of_the_command(self):
        arguments = make_parser().parse_args(["serve"])
        for row in re.findall(r"^\| `--([a-z-]+) [A-Z]+` \| (\d+) \|", TEXT, re.MULTILINE):
            with self.subTest(row[0]):
                default = getattr(arguments, row[0].replace("-", "_"))
                self.assertEqual(default, int(row[1]))

    def test_every_room_is_named(self):
        rooms = [path.parent.name for path in (ROOT / "ota_server").glob("*/__init__.py")]
        self.assertEqual(sorted(re.findall(r"^\| `(\w+)/` \|", TEXT, re.M)), sorted(rooms))

    def test_every_picture_and_every_file_that_is_linked_is_there(self):
        targets = re.findall(r"\]\(([^)\s]+)\)", TEXT)
        for target in targets:
            if "://" in target:
                continue
            path, _, heading = target.partition("#")
            with self.subTest(target):
                self.assertTrue((ROOT / path).exists())
                if heading:
                    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
                    self.assertIn(heading, [text.lower().replace(" ", "-") for text in headings])

    def test_no_path_of_a_machine_is_in_it(self):
        self.assertNotRegex(TEXT, r"/(home|root|Users|tmp|work)/")
