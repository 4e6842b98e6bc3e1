"""The shape of the package: what it may import, how large its parts may grow."""

import ast
import functools
import re
import sys
import tomllib
import unittest
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from tests.support import ROOT

PACKAGE = "ota_server"
PURE = {
    "evaluation.binomial",
    "policy.loop_breaker",
    "httpd.byterange",
    "evaluation.device_case",
    "evaluation.counting",
    "evaluation.feedback",
    "evaluation.contested",
    "httpd.http1",
    "releases.chips",
    "releases.header",
    "policy.lease",
    "model.address",
    "model.device",
    "model.json_object",
    "model.manifest",
    "model.quantity",
    "model.refusal",
    "model.timestamp",
    "model.version",
    "evaluation.int_index",
    "releases.publish_request",
    "httpd.pacing",
    "device_port.slots",
    "policy.rollout_plan",
    "policy.policy",
    "policy.text",
    "evaluation.poll_history",
    "evaluation.proposal",
    "journal.record",
    "journal.record_fields",
    "httpd.reply",
    "evaluation.rhythm",
    "policy.begun_download",
    "policy.decision",
    "policy.explain",
    "policy.reason",
    "policy.situation",
    "commands.rollout_view",
    "journal.scan",
    "evaluation.silence",
    "evaluation.address_caps",
    "evaluation.tally",
    "evaluation.uptime",
    "evaluation.waves",
    "device_port.window",
}
# Modules of the standard library that touch the world. `datetime` is there to convert alone.
IMPURE = {
    "asyncio",
    "fcntl",
    "io",
    "logging",
    "mmap",
    "os",
    "pathlib",
    "queue",
    "random",
    "resource",
}
IMPURE |= {"select", "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess"}
IMPURE |= {"sys", "tempfile", "termios", "threading", "time"}
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today"}
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60

SOURCES = {
    ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts): path.read_text("utf-8")
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}


@functools.cache
def tree_of(name: str) -> ast.Module:
    """Return the syntax tree of a module of the package."""
    return ast.parse(SOURCES[name], name)


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of what a module imports when it is imported, or later."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = f"{'.' * node.level}{node.module or ''}"
            # `from ota_server import reply` imports a module of the package.
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif not is_apart(node):
            yield from imported(node)


def is_apart(node: ast.AST) -> bool:
    """Say whether a statement does not run on import: for type checkers, or for a command."""
    guards = ("TYPE_CHECKING", "__name__ == '__main__'")
    return isinstance(node, ast.If) and ast.unparse(node.test) in guards


def own_imports(name: str) -> set[str]:
    """Return the modules of the package that a module of it imports."""
    names = (full.split(".") for full in imported(tree_of(name)))
    inside = [parts[1:] for parts in names if parts[0] == PACKAGE]
    # `ota_server.model.device.Device` is imported from the module `model.device`.
    dotted = {".".join(parts[:size]) for parts in inside for size in range(1, len(parts) + 1)}
    return dotted & SOURCES.keys()


class LayoutTest(unittest.TestCase):
    def test_nothing_outside_the_standard_library_is_imported(self):
        known = {*sys.stdlib_module_names, PACKAGE}
        for name in SOURCES:
            with self.subTest(module=name):
                self.assertLessEqual(
                    {full.split(".")[0] for full in imported(tree_of(name))}, known
                )

    def test_imports_form_no_circle(self):
        try:
            TopologicalSorter({name: own_imports(name) for name in SOURCES}).prepare()
        except CycleError as problem:
            self.fail(" → ".join(problem.args[1]))

    def test_pure_modules_import_pure_ones_alone(self):
        for name in PURE:
            with self.subTest(module=name):
                self.assertEqual(own_imports(name) - PURE, set())

    def test_pure_modules_import_nothing_that_touches_the_world(self):
        for name in PURE:
            with self.subTest(module=name):
                tops = {full.split(".")[0] for full in imported(tree_of(name))}
                self.assertEqual(tops & IMPURE, set())

    def test_pure_modules_open_print_and_ask_the_time_nowhere(self):
        for name in PURE:
            calls = (node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call))
            called = {ast.unparse(call.func).split(".")[-1] for call in calls}
            with self.subTest(module=name):
                self.assertEqual(called & IMPURE_CALLS, set())

    def test_files_and_functions_stay_short(self):
        for name, source in SOURCES.items():
            with self.subTest(file=name):
                self.assertLessEqual(len(source.splitlines()), MOST_LINES_OF_A_FILE)
            for node in ast.walk(tree_of(name)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    with self.subTest(file=name, function=node.name):
                        self.assertLessEqual(length, MOST_LINES_OF_A_FUNCTION)

    def test_every_ignored_type_error_is_named(self):
        for name, source in SOURCES.items():
            with self.subTest(file=name):
                self.assertIsNone(re.search(r"# type: ignore(?!\[)", source))


class NothingToInstallTest(unittest.TestCase):
    def test_requirements_name_no_package(self):
        lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
        self.assertEqual([line for line in lines if line.partition("#")[0].strip()], [])

    def test_the_project_has_no_dependency_at_run_time(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        self.assertEqual(project["dependencies"], [])
        self.assertNotIn("dependencies", project.get("dynamic", []))
