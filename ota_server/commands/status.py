"""The commands `status` and `health`: how the server and the fleet are, and what needs a person."""

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial

from ota_server.commands.common import Commands, add_command, add_local_argument, run_as
from ota_server.commands.rollout_status import Paper, Screen
from ota_server.commands.status_products import products_lines
from ota_server.commands.status_view import status_lines, warning_lines
from ota_server.commands.terminal import in_local_time, printable
from ota_server.model.refusal import Misused
from ota_server.operations.fleet_overview import (
    MayNotRead,
    gatherers_of,
    overview,
)
from ota_server.operations.product_warnings import people_needed
from ota_server.operations.status_facts import StatusGatherer
from ota_server.operations.status_fields import status_fields
from ota_server.policy.fleet_status import FleetStatus
from ota_server.system.hints import hints

_STATUS_EXAMPLES = """\
  %(prog)s                  how it is now, on one screen
  %(prog)s --product plug   all of one, where there are several products
  %(prog)s --watch          the same, again and again
  %(prog)s --json           for programs

The exit code is 1 where something needs a person. The server need not run.
"""
_HEALTH_EXAMPLES = """\
  %(prog)s || mail -s 'firmware server' ops@example.org

Prints a line for each thing that needs a person, and nothing where all is well:
then the exit code is 0, else 1. For cron, and for checks in the way of Nagios.
"""
_COLUMNS = 80
_LEAST_SECONDS = 1.0
# A status of a large fleet takes seconds; so it takes at most a quarter of a processor.
_REST_FOR_WORK = 3.0


def add_commands(commands: Commands) -> None:
    """Add both commands."""
    parser = add_command(
        commands,
        "status",
        "show how the server and the fleet are",
        "Show how the server and the fleet are now, on one screen, and what needs a person.",
        _STATUS_EXAMPLES,
        _show,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object")
    form.add_argument("--watch", action="store_true", help="show it again and again")
    add_local_argument(parser)
    add_command(
        commands,
        "health",
        "list what needs a person",
        "List what needs a person; exit with 1 if anything does.",
        _HEALTH_EXAMPLES,
        _check,
    )


def _show(arguments: argparse.Namespace) -> int:
    gatherers = _gatherers(arguments)
    if arguments.watch:
        return _watch(gatherers, arguments.local)
    found = _look(gatherers)
    if arguments.json:
        first, *others = ({"product": name, **status_fields(found[name])} for name in found)
        print(json.dumps({**first, "products": others} if others else first))
    else:
        _print(_all_lines(found, _columns(), arguments.local))
    return int(any(status.needs_person for status in found.values()))


def _all_lines(found: Mapping[str, FleetStatus], columns: int, is_local: bool) -> list[str]:
    """Return the screen of a product, or a line for each where there are several."""
    (product, status), *others = found.items()
    if others:
        lines = products_lines(found, columns, hints.paste)
    else:
        lines = status_lines(status, columns, partial(hints.paste, product=product))
    return [in_local_time(line) if is_local else line for line in map(printable, lines)]


def _check(arguments: argparse.Namespace) -> int:
    people = people_needed(_look(_gatherers(arguments), counts_devices=False))
    if sys.stdout.isatty():
        _print(warning_lines(people, _columns()))
    else:
        _print([f"{each.about}: {'; '.join(filter(None, each[1:3]))}" for each in people])
    return int(bool(people))


def _gatherers(arguments: argparse.Namespace) -> dict[str, StatusGatherer]:
    """Return what gathers the facts of each product: of one, if that was named."""
    try:
        return gatherers_of(arguments.data_dir, is_one=arguments.product is not None)
    except MayNotRead as problem:
        raise Misused(f"{problem}; {run_as(arguments)}") from problem


def _look(
    gatherers: Mapping[str, StatusGatherer], counts_devices: bool = True
) -> dict[str, FleetStatus]:
    """Return how each product is, with commands that can be pasted."""
    # What cannot be read is shown as a warning, where it belongs.
    logging.disable(logging.CRITICAL)
    try:
        found = overview(gatherers, counts_devices)
    finally:
        logging.disable(logging.NOTSET)
    for product, status in found.items():
        warnings = []
        for each in status.warnings:
            text, remedy = (hints.paste(part, product) for part in each[1:3])
            warnings.append(each._replace(text=text, remedy=remedy))
        found[product] = status._replace(warnings=tuple(warnings))
    return found


def _watch(gatherers: Mapping[str, StatusGatherer], is_local: bool) -> int:
    draw = Screen() if sys.stdout.isatty() else Paper()
    try:
        while True:
            began = time.monotonic()
            found = _look(gatherers)
            # A screen that is redrawn leaves the last column free.
            draw.show(_all_lines(found, _columns() - 1, is_local))
            took = time.monotonic() - began
            time.sleep(max(_LEAST_SECONDS, took * _REST_FOR_WORK))
    finally:
        draw.end()


def _columns() -> int:
    return min(shutil.get_terminal_size((_COLUMNS, 24)).columns, _COLUMNS)


def _print(lines: list[str]) -> None:
    for line in lines:
        print(printable(line))
