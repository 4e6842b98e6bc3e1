"""Commands in messages, as they can be pasted into the shell that showed them."""

import argparse
import ast
import contextlib
import io
import os
import re
import sys
import unittest
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import ota_server
from ota_server.cli import COMMANDS as ALL
from ota_server.cli import make_parser
from ota_server.system.hints import COMMANDS, Hints, program


class PasteTest(unittest.TestCase):
    def setUp(self) -> None:
        self.hints = Hints()

    def test_each_command_is_known(self):
        self.assertEqual(set(COMMANDS), set(ALL))

    def test_a_command_is_what_has_to_be_typed(self):
        with mock.patch.object(sys, "argv", ["/nowhere/ota-server"]):
            for text, pasted in (
                ("`unhold` ends that", "`/nowhere/ota-server unhold` ends that"),
                (
                    "`release activate v1`, then `why MAC`",
                    "`/nowhere/ota-server release activate v1`, then `/nowhere/ota-server why MAC`",
                ),
                ("`touch version/hold.json` works", "`touch version/hold.json` works"),
                ("`held` is no command, nor is hold", "`held` is no command, nor is hold"),
            ):
                with self.subTest(text):
                    self.assertEqual(self.hints.paste(text), pasted)

    def test_a_command_about_the_rollout_to_the_fleet_says_so_where_it_has_to(self):
        self.hints.must_name_fleet = lambda: True
        with mock.patch.object(sys, "argv", ["/nowhere/ota-server"]):
            for command, more in (
                ("rollout resume", " --group ''"),
                ("rollout promote", " --group ''"),
                ("rollout abort --revert", " --group ''"),
                ("rollout abort --revert --group beta", ""),
                ("rollout start VERSION", ""),  # that begins one to the fleet
                ("rollout status", ""),  # that shows all
                ("unhold", ""),
            ):
                with self.subTest(command):
                    pasted = self.hints.paste(f"`{command}`")
                    self.assertEqual(pasted, f"`/nowhere/ota-server {command}{more}`")

    def test_a_data_directory_that_was_given_has_to_be_given_again(self):
        self.hints.data_dir = Path("/srv/my fleet")
        with mock.patch.object(sys, "argv", ["/nowhere/ota-server"]):
            self.assertEqual(
                self.hints.paste("`hold`"),
                "`/nowhere/ota-server hold --data-dir '/srv/my fleet'`",
            )


# What stands for a placeholder in upper case, and for a value that is put in.
_PLACEHOLDERS = {
    "MAC": "00:11:22:33:44:55",
    "VERSION": "v1.0.0",
    "V": "v1.0.0",
    "FILE": "image.bin",
    "WHO": "beta",
    "NAME": "beta",
    "N": "5",
}
_VALUES = ("", " --group beta", "v1.0.0", "00:11:22:33:44:55", "beta", "abort", "1h")
# What a message names, and nobody types: it is what they have just typed.
_NAMED = ("restore",)
# Help names commands; what is shown to be typed has their arguments.
_HELP = ("description", "help", "epilog")


def commands_in(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each command in the messages of a module; {} is a value."""
    tree = ast.parse(source)
    passed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.add(node.value)  # what documents a module, a class or a function
        elif isinstance(node, ast.JoinedStr):
            passed |= set(node.values)
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").endswith(
            "EXAMPLES"
        ):
            passed.add(node.value)
        elif isinstance(node, ast.keyword) and node.arg in _HELP:
            passed |= set(ast.walk(node.value))
        elif isinstance(node, ast.Call) and _name(node.func) in (
            "add",
            "_add",
            "add_command",
            "add_command_of_parts",
        ):
            passed |= set(node.args)
        elif isinstance(node, ast.Call) and _name(node.func) == "command" and node.args:
            yield node.lineno, f"rollout {_text(node.args[0])}"
    for node in ast.walk(tree):
        if node not in passed:
            for match in Hints()._pattern.finditer(_text(node)):
                yield node.lineno, re.sub(r"%s|\{\w+\}", "{}", match[1])


def _name(node: ast.AST) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.FormattedValue):
        return "{}"
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


class MessagesTest(unittest.TestCase):
    def test_each_command_in_a_message_can_be_typed_with_its_placeholders_filled_in(self):
        parser = make_parser()
        wrong, count = [], 0
        for path in sorted(Path(ota_server.__file__).parent.rglob("*.py")):
            for line, text in commands_in(path.read_text(encoding="utf-8")):
                count += 1
                if text not in _NAMED and not any(
                    self.is_right(parser, typed) for typed in self.filled(text)
                ):
                    wrong.append(f"{path.name}:{line}: {text}")
        self.assertGreater(count, 50)
        self.assertEqual(wrong, [])

    def filled(self, text: str) -> Iterator[list[str]]:
        """Yield the command with each value in each place."""
        for values in product(_VALUES, repeat=text.count("{}")):
            words = text.format(*values).split()
            yield [_PLACEHOLDERS.get(word, word) for word in words]

    def is_right(self, parser: argparse.ArgumentParser, words: list[str]) -> bool:
        """Return whether the parser takes a command."""
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                parser.parse_args(words)
        except SystemExit:
            return False
        return True


class ProgramTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = self.enterContext(TemporaryDirectory())
        self.here = os.path.join(self.folder, "ota-server")
        Path(self.here).touch()

    def test_it_is_called_by_its_name_where_the_search_path_leads_to_it(self):
        with (
            mock.patch.object(sys, "argv", [self.here]),
            mock.patch.dict(os.environ, {"PATH": self.folder}),
        ):
            self.assertEqual(program(), "ota-server")

    def test_and_by_its_path_where_another_one_would_be_called(self):
        with TemporaryDirectory() as before:
            Path(before, "ota-server").touch()
            path = os.pathsep.join((before, self.folder))
            with (
                mock.patch.object(sys, "argv", [self.here]),
                mock.patch.dict(os.environ, {"PATH": path}),
            ):
                self.assertEqual(program(), self.here)

    def test_a_package_is_called_by_the_python_that_runs_it(self):
        with (
            mock.patch.object(sys, "argv", ["/srv/ota_server/__main__.py"]),
            mock.patch.object(sys, "executable", "/opt/my venv/bin/python"),
        ):
            self.assertEqual(program(), "'/opt/my venv/bin/python' -m ota_server")
