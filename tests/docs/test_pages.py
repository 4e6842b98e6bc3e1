"""The pages are true: their commands run as written, and they leave no option, room or link out."""

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
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ota_server.cli import make_parser
from ota_server.device_port.options import DEFAULT_PORT
from ota_server.evaluation.device_case import DeviceState
from ota_server.httpd.channel import ChannelState
from ota_server.httpd.connection import ConnectionState
from ota_server.model.updater import FAMILY_NAMES
from ota_server.policy.admin_address import DEFAULT_ADMIN_PORT
from ota_server.policy.policy import RolloutState
from tests.support import ROOT, TIMEOUT_SECONDS

README = ROOT / "README.md"
DOCS = ROOT / "docs"
COMMANDS = DOCS / "commands.md"
PAGES = (README, *sorted(DOCS.glob("*.md")))
TEXTS = (*PAGES, *sorted((DOCS / "adr").glob("*.md")))
DEVICES = DOCS / "devices" / "README.md"
DEVICE_PAGES = sorted(set(DEVICES.parent.glob("*.md")) - {DEVICES})
COMMON_OPTIONS = ("--help", "--data-dir", "--product")
MOST_README_BYTES = 12 * 1024
SERVE = "python -m ota_server.server"
DOCUMENTED_CHECKOUT = "/srv/ota_server"
BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TOOLS = ("curl", "sha256sum")


def read(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


class Example(NamedTuple):
    """Commands of a page, and what it says that they print (None: it does not say)."""

    commands: str
    output: str | None


def examples(page: Path) -> list[Example]:
    """Return the `sh` blocks in their order, each with the `text` block that follows it."""
    blocks = [(match["kind"], match["text"]) for match in BLOCK.finditer(read(page))]
    after = [*blocks, ("", "")][1:]
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
    # The address of the machine, and the name of its Python.
    text = re.sub(r"^( +devices +http://).*$", r"\1ADDRESS", text, flags=re.MULTILINE)
    text = re.sub(r"`\S+ -m ota_server", "`python -m ota_server", text)
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
        # `python` as the pages have it is the one that runs the tests.
        tools = folder / "bin"
        tools.mkdir()
        (tools / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (tools / "python").chmod(0o755)
        environment = {name: os.environ[name] for name in os.environ if name != "OTA_SERVER_DATA"}
        self.environment = {**environment, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        self.port, self.admin_port = DEFAULT_PORT, DEFAULT_ADMIN_PORT

    def start(self, command: str, log: Path) -> tuple[subprocess.Popen[str], str]:
        """Start the server by its documented command, on a free port; return what it says."""
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*shlex.split(command), "--port", "0", "--admin", "127.0.0.1:0"],
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
            if "your own image" in line:
                break
        self.port = int(banner.split("://")[1].split("/")[0].rsplit(":", 1)[1])
        self.admin_port = int(banner.split("operators")[1].split("/\n")[0].rsplit(":", 1)[1])
        return process, self.as_documented(banner)

    def run(self, commands: str) -> str:
        """Run commands of a page in this checkout; return what they print."""
        there = commands.replace(f":{DEFAULT_PORT}/", f":{self.port}/")
        there = there.replace(f":{DEFAULT_ADMIN_PORT}/", f":{self.admin_port}/")
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
        """Return text with the path and the port that the pages have."""
        text = text.replace(f":{self.admin_port}/", f":{DEFAULT_ADMIN_PORT}/")
        return text.replace(str(self.path), DOCUMENTED_CHECKOUT).replace(
            f":{self.port}/", f":{DEFAULT_PORT}/"
        )


class PageCase:
    """Runs the commands of one page, in a fresh checkout with a server of its own."""

    PAGE: Path
    maxDiff = None

    @unittest.skipUnless(all(map(shutil.which, TOOLS)), f"needs {' and '.join(TOOLS)}")
    def test_each_command_prints_what_is_documented(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        checkout = Checkout(folder)
        log = folder / "server.log"
        process, banner = checkout.start(SERVE, log)
        try:
            for commands, output in examples(self.PAGE):
                with self.subTest(commands):
                    self.assertIsNotNone(output, "the output is not documented")
                    if SERVE in commands.splitlines():
                        self.assertEqual(comparable(banner), comparable(output))
                    else:
                        self.assert_prints(checkout, commands, output)
        finally:
            process.send_signal(signal.SIGTERM)
            with process:
                self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)
        self.assert_logged(checkout.as_documented(log.read_text()))

    def assert_prints(self, checkout: Checkout, commands: str, output: str) -> None:
        """Fail unless the commands print that."""
        printed = comparable(checkout.run(commands))
        until = time.monotonic() + TIMEOUT_SECONDS
        # The list of 401s is saved a few times a second, not before each answer.
        while "--rejected" in commands and printed != comparable(output):
            self.assertLess(time.monotonic(), until, printed)
            printed = comparable(checkout.run(commands))
        self.assertEqual(printed, comparable(output))

    def assert_logged(self, log: str) -> None:
        """Fail unless the lines of the server's log that the page shows are in its log."""
        for line in logged(self.PAGE):
            self.assertIn(line, log)


def logged(page: Path) -> list[str]:
    """Return the lines of the server's log that a page shows, without their time."""
    return re.findall(r"^[-0-9]+T[0-9:.]+Z (ERROR .*)$", read(page), re.MULTILINE)


class ReadmeTest(PageCase, unittest.TestCase):
    PAGE = README

    def test_the_quick_start_is_a_clone_and_the_two_commands(self):
        quick_start = read(README).split("## Quick start\n")[1].split("\n## ")[0]
        first = BLOCK.search(quick_start)
        clone, *commands = first["text"].splitlines()
        self.assertEqual(first["kind"], "sh")
        self.assertRegex(clone, r"^git clone .* && cd ota_server$")
        self.assertEqual(commands, [SERVE, "python -m unittest discover"])

    def test_a_person_reads_it_in_five_minutes(self):
        self.assertLessEqual(README.stat().st_size, MOST_README_BYTES)

    def test_every_room_is_named_and_nothing_else(self):
        rooms = [path.parent.name for path in (ROOT / "ota_server").glob("*/__init__.py")]
        named = re.findall(r"^\| `(\w+)/` \|", read(README), re.MULTILINE)
        self.assertEqual(sorted(named), sorted(rooms))

    def test_its_figures_stand_in_the_page_of_the_benchmarks(self):
        (_, *peers), *shown = table_of(README, "figures")
        summary = {peer: row for peer, *row in table_of(DOCS / "benchmarks.md", "summary")}
        columns = list(zip(*[summary[peer] for peer in peers], strict=True))
        self.assertEqual(len(shown), 4)
        for what, *figures in shown:
            with self.subTest(what):
                # All peers of a row from one column, and each from its own row.
                self.assertIn(tuple(figures), columns)
                self.assertTrue(all(figures))


class DeviceProtocolTest(PageCase, unittest.TestCase):
    PAGE = DOCS / "device-protocol.md"


class ReleasesTest(PageCase, unittest.TestCase):
    PAGE = DOCS / "releases.md"


class SteeringTest(PageCase, unittest.TestCase):
    PAGE = DOCS / "steering.md"


class CommandsTest(PageCase, unittest.TestCase):
    PAGE = COMMANDS


class PagesTest(unittest.TestCase):
    def test_the_commands_of_every_page_are_run(self):
        run = {case.PAGE for case in PageCase.__subclasses__()}
        self.assertEqual(run, {page for page in TEXTS if examples(page)})

    def test_some_page_shows_the_log_of_the_server(self):
        self.assertTrue([line for page in PAGES for line in logged(page)])

    def test_each_page_begins_with_one_sentence_that_says_for_whom_it_is(self):
        for page in PAGES:
            with self.subTest(page.name):
                self.assertRegex(read(page), r"\A# [^\n]+\n\nFor [^.]+\.\n\n")

    def test_the_index_links_every_page_and_every_decision(self):
        index = read(DOCS / "README.md")
        for page in TEXTS:
            if page not in (README, DOCS / "README.md"):
                with self.subTest(page.name):
                    self.assertIn(f"]({page.relative_to(DOCS)})", index)

    def test_every_picture_file_and_heading_that_is_linked_is_there(self):
        for page in (*TEXTS, DEVICES, *DEVICE_PAGES):
            for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", read(page))):
                if "://" in target:
                    continue
                path, _, heading = target.partition("#")
                with self.subTest(f"{page.name}: {target}"):
                    there = (page.parent / path).resolve() if path else page
                    self.assertTrue(there.exists())
                    if heading:
                        self.assertIn(heading, anchors(there))

    def test_every_file_of_the_code_that_is_named_is_there(self):
        for page in PAGES:
            for name in re.findall(r"`((?:\w+/)*\w+\.py)`", read(page)):
                with self.subTest(f"{page.name}: {name}"):
                    found = [ROOT / name, ROOT / "ota_server" / name]
                    self.assertTrue(any(path.is_file() for path in found))

    def test_the_diagrams_of_states_name_every_state(self):
        text = read(DOCS / "architecture.md").partition("\n## States\n")[2]
        states = (*ConnectionState, *ChannelState, *RolloutState, *DeviceState)
        self.assertTrue(states)
        for state in states:
            name = state.value if isinstance(state, StrEnum) else state.name
            with self.subTest(name):
                self.assertRegex(text, rf"\b{name}\b")

    def test_commands_are_as_a_checkout_has_them(self):
        for page in (*TEXTS, *DEVICE_PAGES, *sorted((ROOT / "deploy").iterdir())):
            # `COMMAND` stands where the page says what installing the package adds.
            installed = re.findall(r"(?:^|[` ])ota-server (?!COMMAND)[a-z]+", read(page), re.M)
            with self.subTest(page.name):
                self.assertEqual(installed, [])

    def test_no_path_of_a_machine_is_in_it(self):
        for page in PAGES:
            with self.subTest(page.name):
                self.assertNotRegex(read(page), r"/(home|root|Users|tmp|work)/")


class DevicePagesTest(unittest.TestCase):
    def test_the_table_links_every_page_and_names_every_family(self):
        named = {*re.findall(r"`([a-z0-9-]+)`", "".join(column_of(DEVICES, "`--family`")))}
        self.assertEqual(named, {*FAMILY_NAMES})
        for page in DEVICE_PAGES:
            with self.subTest(page.name):
                self.assertIn(f"]({page.name})", read(DEVICES))

    def test_every_page_says_where_a_product_is_found(self):
        for page in DEVICE_PAGES:
            with self.subTest(page.name):
                self.assertIn("product](../products.md)", read(page))

    def test_no_example_leaves_the_version_out_of_its_url(self):
        for page in DEVICE_PAGES:
            for match in BLOCK.finditer(read(page)):
                with self.subTest(page.name):
                    self.assertNotRegex(match["text"], r"/-/|fwv_\W+-")

    def test_every_page_says_what_happens_without_a_version(self):
        always_say_it = {"mongoose-os.md", "tasmota.md", "hawkbit.md"}
        for page in DEVICE_PAGES:
            with self.subTest(page.name):
                is_said = "\n**Without a version**" in read(page)
                self.assertEqual(is_said, page.name not in always_say_it)


def column_of(page: Path, title: str) -> list[str]:
    """Return the cells under a title in the first table of a page."""
    rows = [
        row.strip("| ").split(" | ") for row in re.findall(r"^\|.*\|$", read(page), re.MULTILINE)
    ]
    number = rows[0].index(title)
    return [row[number] for row in rows[2:]]


def table_of(page: Path, name: str) -> list[list[str]]:
    """Return the cells of a table that the benchmarks write, without the rule under its head."""
    begin, end = f"<!-- {name} of the benchmarks -->", f"<!-- end of {name} -->"
    text = read(page).split(begin)[1].split(end)[0]
    head, _, *rows = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in (head, *rows)]


def anchors(page: Path) -> list[str]:
    """Return what the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", read(page)), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]


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


def leaves() -> dict[str, argparse.ArgumentParser]:
    """Return the commands that do something, by name; not those that only hold others."""
    names = {name: command for name, command, _ in commands_of(make_parser())}
    return {
        name: command
        for name, command in names.items()
        if not any(other.startswith(f"{name} ") for other in names)
    }


def options_of(command: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options of a command by name, without those that all have."""
    found = {
        action.option_strings[-1]: action for action in command._actions if action.option_strings
    }
    return {name: found[name] for name in found if name not in COMMON_OPTIONS}


def arguments_of(command: argparse.ArgumentParser) -> list[str]:
    """Return what a command takes besides options, in brackets what may be left out."""
    found = [action for action in command._actions if not action.option_strings]
    return [f"[{each.metavar}]" if each.nargs == "?" else each.metavar for each in found]


class Row(NamedTuple):
    """A row of a table of options: of which command, the option, its metavar, what else it says."""

    command: str
    option: str
    metavar: str
    cells: list[str]


def option_rows() -> Iterator[Row]:
    """Yield the rows of all tables of options in docs/commands.md."""
    table = re.compile(r"^\| option of `([a-z ]+)` \|.*\n\|-.*\n((?:\|.*\n)+)", re.MULTILINE)
    for command, rows in table.findall(read(COMMANDS)):
        for row in rows.splitlines():
            name, *cells = row.strip("| ").split(" | ")
            option, _, metavar = name.strip("`").partition(" ")
            yield Row(command, option, metavar, cells)


class CompletenessTest(unittest.TestCase):
    def test_the_page_names_the_commands_that_there_are_and_the_options_of_each(self):
        documented: dict[str, set[str]] = {}
        for usage in re.findall(r"^\| `([a-z][^`]*)` \|", read(COMMANDS), re.MULTILINE):
            name = re.match(r"[a-z]+(?: [a-z]+)*", usage)[0]
            self.assertNotIn(name, documented)
            documented[name] = set(re.findall(r"--[a-z-]+", usage))
        for row in option_rows():
            options = documented.setdefault(row.command, set())
            self.assertNotIn(row.option, options)
            options.add(row.option)
        there = {name: set(options_of(command)) for name, command in leaves().items()}
        self.assertEqual(documented, there)

    def test_the_page_names_the_arguments_of_each_command_in_their_order(self):
        usages = re.findall(r"^\| `([a-z][^`]*)` \|", read(COMMANDS), re.MULTILINE)
        there = leaves()
        for usage in usages:
            name = re.match(r"[a-z]+(?: [a-z]+)*", usage)[0]
            # Without the options; `…` stands for more, and a bar is written as `\|` in a table.
            rest = re.sub(r"\[--[^]]*\]|…", "", usage[len(name) :]).replace("\\|", "|")
            with self.subTest(usage):
                self.assertEqual(rest.split(), arguments_of(there[name]))

    def test_every_command_has_the_option_that_the_page_says_all_have(self):
        self.assertIn("`--data-dir DIR`, which each command has", read(COMMANDS))
        for name, command in leaves().items():
            with self.subTest(name):
                self.assertIn("--data-dir", command._option_string_actions)

    def test_every_command_and_option_has_help(self):
        for name, command, summary in commands_of(make_parser()):
            with self.subTest(name):
                self.assertTrue(summary)
            for action in command._actions:
                self.assertTrue(action.help, f"{name}: {action.dest}")

    def test_every_command_has_examples(self):
        for name, command, _ in commands_of(make_parser()):
            with self.subTest(name):
                self.assertIn("examples:", command.epilog or "")

    def test_the_tables_of_options_have_the_values_and_defaults_of_the_command(self):
        commands = leaves()
        for row in option_rows():
            with self.subTest(f"{row.command} {row.option}"):
                action = options_of(commands[row.command])[row.option]
                if action.choices is None:
                    self.assertEqual(row.metavar, action.metavar or "")
                else:
                    self.assertRegex(row.metavar, r"^[A-Z]+$")
                default = row.cells[0].strip("`") if len(row.cells) > 1 else ""
                if re.match(r"\d", default):
                    self.assertEqual(action.type(default), action.default)
                elif action.choices is not None:
                    self.assertEqual(default.split("`")[0], action.default)
