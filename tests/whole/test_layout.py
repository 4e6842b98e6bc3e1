"""The shape of the package: which room may import which, how large its parts may grow."""

import ast
import functools
import re
import sys
import tomllib
import unittest
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from tests.support import ROOT, Client, DataDirCase, Process

PACKAGE = "ota_server"
# The doors stand above all rooms; a room imports itself and the rooms below it.
ROOMS = (
    "commands",
    "operator_port",
    "operations",
    "device_port",
    "rollouts",
    "releases",
    "evaluation",
    "policy",
    "journal",
    "httpd",
    "system",
    "model",
)
DOORS = {"__init__", "__main__", "cli", "controller", "server"}
# What a room below it in the list may still not import.
APART = {
    "httpd": {"system", "model"},  # it knows no devices
    "device_port": {*ROOMS} - {"evaluation"},
}
# Tests of a room that are named for a behaviour; all others are named for a module of their room.
BEHAVIOURS = {
    "device_port": {"families", "herd", "limits", "withdrawal"},
    "evaluation": {"forged", "no_version", "rollout_model", "stepping_stones"},
    "httpd": {"fuzz", "malformed_requests", "pipelining"},
    "journal": {"hostile_journal", "sealing"},
    "policy": {"all_situations", "one_decision", "unknown_devices", "why_and_server"},
    "rollouts": {"fleets"},
}
NOT_IN_THE_SERVER = ("commands", "evaluation", "operations", "operator_port")
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
MOST_LINES_OF_A_FILE = 350
MOST_LINES_OF_A_FUNCTION = 50

SOURCES = {
    ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts): path.read_text("utf-8")
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
# Rooms that are pure as a whole; of the others, the modules that decide.
PURE = {name for name in SOURCES if name.partition(".")[0] in ("model", "evaluation")}
PURE |= {
    "commands.rollout_view",
    "commands.status_products",
    "commands.status_view",
    "operations.product_warnings",
    "operations.rollout_request",
    "operations.rollout_words",
    "operations.typed_values",
    "system.wrapping",
    "device_port.address_shares",
    "device_port.poll_interval",
    "device_port.root_page",
    "device_port.asked_for",
    "device_port.documents",
    "device_port.live_figures",
    "device_port.slots",
    "device_port.window",
    "httpd.app",
    "httpd.byterange",
    "httpd.http1",
    "httpd.incoming",
    "httpd.pacing",
    "httpd.reply",
    "httpd.turn_counts",
    "journal.record",
    "journal.record_fields",
    "journal.scan",
    "operations.device_filter",
    "operations.status_fields",
    "operations.index_answers",
    "operations.index_row",
    "policy.decision",
    "policy.device_state",
    "policy.explain",
    "policy.fit",
    "policy.fleet_status",
    "policy.lease",
    "policy.loop_breaker",
    "policy.parse",
    "policy.policy",
    "policy.reason",
    "policy.rollout_plan",
    "policy.rollout_text",
    "policy.situation",
    "policy.text",
    "model.archive",
    "operator_port.api_words",
    "operator_port.html",
    "operator_port.svg",
    "model.chips",
    "model.image_header",
    "operator_port.access",
    "operator_port.request_checks",
    "operator_port.session_cookie",
    "operator_port.request_site",
    "operator_port.wrong_tokens",
    "policy.tokens",
    "releases.publish_request",
    "rollouts.notices",
}


@functools.cache
def tree_of(name: str) -> ast.Module:
    """Return the syntax tree of a module of the package."""
    return ast.parse(SOURCES[name], name)


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of what a module imports, also late or for type checkers alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = f"{'.' * node.level}{node.module or ''}"
            # `from ota_server.httpd import reply` imports a module of the package.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """Return the modules of the package that a module of it imports."""
    names = (full.split(".") for full in imported(tree_of(name)))
    inside = [parts[1:] for parts in names if parts[0] == PACKAGE]
    # `ota_server.model.device.Device` is imported from the module `model.device`.
    dotted = {".".join(parts[:size]) for parts in inside for size in range(1, len(parts) + 1)}
    return dotted & SOURCES.keys()


def room_of(name: str) -> str | None:
    """Return the room of a module, None for a door."""
    return name.partition(".")[0] if "." in name else None


def allowed_below(room: str) -> set[str]:
    """Return the rooms that modules of a room may import."""
    below = {*ROOMS[ROOMS.index(room) :]}
    return below & {room, *APART.get(room, ROOMS)}


def all_imported(start: set[str]) -> set[str]:
    """Return modules with all that they import, and that those import."""
    found: set[str] = set()
    todo = [*start]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += own_imports(name)
    return found


def picture() -> ModuleType:
    """Return the module that draws the rooms."""
    spec = spec_from_file_location("diagram", ROOT / "screenshots" / "diagram.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RoomsTest(DataDirCase):
    def test_every_module_stands_in_a_room_or_is_a_door(self):
        self.assertEqual({room_of(name) for name in SOURCES if "." in name}, {*ROOMS})
        self.assertEqual({name for name in SOURCES if "." not in name}, DOORS)

    def test_a_room_imports_only_itself_and_rooms_below_it(self):
        for name in SOURCES:
            room = room_of(name)
            if room is None:
                continue
            with self.subTest(module=name):
                imports = own_imports(name)
                wrong = {each for each in imports if room_of(each) not in allowed_below(room)}
                self.assertEqual(wrong, set())

    def test_imports_form_no_circle(self):
        try:
            TopologicalSorter({name: own_imports(name) for name in SOURCES}).prepare()
        except CycleError as problem:
            self.fail(" → ".join(problem.args[1]))

    def test_the_head_of_a_room_says_what_it_is_for_and_holds_nothing_else(self):
        for room in ROOMS:
            with self.subTest(room):
                body = tree_of(f"{room}.__init__").body
                self.assertEqual([type(node) for node in body], [ast.Expr])
                docstring = ast.get_docstring(tree_of(f"{room}.__init__"))
                self.assertRegex(docstring or "", r"(?s)imports .*Begin\s+with `")

    def test_a_type_has_one_name_and_a_name_one_type(self):
        modules: dict[str, list[str]] = {}
        for name in SOURCES:
            for node in tree_of(name).body:
                if isinstance(node, ast.ClassDef):
                    modules.setdefault(node.name, []).append(name)
        self.assertEqual({name: where for name, where in modules.items() if len(where) > 1}, {})

    def test_the_picture_of_the_house_shows_what_each_process_imports(self):
        doors = {"c": {name for name in SOURCES if name.startswith("commands.")}}
        doors |= {"s": {"server"}, "r": {"controller"}}
        for room, _, users in picture().ROOMS:
            for door, start in doors.items():
                with self.subTest(room=room, door=door):
                    imported_rooms = {room_of(name) for name in all_imported(start)}
                    self.assertEqual(room in imported_rooms, door in users)
        self.assertEqual([room for room, _, _ in picture().ROOMS], [*ROOMS])

    def test_the_process_that_serves_loads_nothing_that_operators_or_evaluation_need(self):
        code = (
            "import atexit, sys;"
            "atexit.register(lambda: print('loaded', *sys.modules));"
            "from ota_server.server import main; sys.exit(main())"
        )
        self.put_image("v1.0.1", b"image")
        self.set_target("v1.0.1")
        server = Process("--data-dir", str(self.data_dir), code=code)
        self.addCleanup(server.kill)
        for path in ("/version.txt", "/firmware.bin"):
            with Client(server.port) as client:
                client.request(path)
                self.assertEqual(client.answer().status, 200)
        self.assertEqual(server.end()[0], 0)
        loaded = server.banner.rpartition("loaded ")[2].split()
        self.assertIn(f"{PACKAGE}.device_port.service", loaded)
        rooms = {name.split(".")[1] for name in loaded if name.startswith(f"{PACKAGE}.")}
        self.assertEqual(rooms & {*NOT_IN_THE_SERVER}, set())


class PureTest(unittest.TestCase):
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


class SizeTest(unittest.TestCase):
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


class TestsTest(unittest.TestCase):
    def test_a_file_of_tests_is_named_for_a_module_of_its_room_or_for_a_behaviour(self):
        for room in ROOMS:
            modules = {path.stem for path in (ROOT / PACKAGE / room).glob("*.py")}
            tests = {path.stem[5:] for path in (ROOT / "tests" / room).glob("test_*.py")}
            with self.subTest(room):
                self.assertEqual(tests - modules, BEHAVIOURS.get(room, set()))

    def test_every_folder_of_tests_is_found(self):
        for path in (ROOT / "tests").rglob("*.py"):
            with self.subTest(path.name):
                self.assertTrue((path.parent / "__init__.py").is_file())


class NothingToInstallTest(unittest.TestCase):
    def test_nothing_outside_the_standard_library_is_imported(self):
        known = {*sys.stdlib_module_names, PACKAGE}
        for name in SOURCES:
            with self.subTest(module=name):
                self.assertLessEqual(
                    {full.split(".")[0] for full in imported(tree_of(name))}, known
                )

    def test_requirements_name_no_package(self):
        lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
        self.assertEqual([line for line in lines if line.partition("#")[0].strip()], [])

    def test_the_project_has_no_dependency_at_run_time(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        self.assertEqual(project["dependencies"], [])
        self.assertNotIn("dependencies", project.get("dynamic", []))
