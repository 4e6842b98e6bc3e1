"""The command `notify test`: whether notices arrive, and what came back."""

import argparse
import logging
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

from ota_server.commands.common import Commands, add_command, add_command_of_parts, warn
from ota_server.commands.terminal import printable
from ota_server.device_port.notice_options import add_secret_argument, notify_url_argument
from ota_server.device_port.notice_status import ask_for_test, read_notice_status
from ota_server.device_port.notices import receivers_of
from ota_server.device_port.option_values import command_argument
from ota_server.model.notice import Delivery
from ota_server.model.refusal import Misused, Refused
from ota_server.model.timestamp import format_time
from ota_server.rollouts.notices import test_notice
from ota_server.system import clock
from ota_server.system.data_dir import journal_dir
from ota_server.system.locks import is_served
from ota_server.system.notice_receiver import log as receivers_log
from ota_server.system.secret_file import who_else_reads

_EXAMPLES = """\
  %(prog)s
      has the running server tell those whom it tells of everything
  %(prog)s --url https://hooks.example.org/ota --secret-file notify.secret
  %(prog)s --command 'jq -r .text | wall'

Prints what came back; the exit code is 1 if anybody was not told.
"""
# A command may take a minute, and the server looks twice a second.
_MOST_SECONDS = 65.0
_LOOK_SECONDS = 0.1


def add_commands(commands: Commands) -> None:
    """Add `notify test`."""
    parts = add_command_of_parts(
        commands,
        "notify",
        "test whether notices arrive",
        "Test whether notices arrive where --notify-url and --notify-command send them.",
        "  %(prog)s test\n",
        "test",
    )
    parser = add_command(
        parts,
        "test",
        "send a test notice, and print what came back",
        "Send one test notice: to those whom the running server tells, or to a URL or a command "
        "that is given here.",
        _EXAMPLES,
        _test,
        has_product=False,
    )
    parser.add_argument(
        "--url",
        type=notify_url_argument,
        metavar="URL",
        help="send it to this URL, or to that in @FILE, and not to those of the running server",
    )
    parser.add_argument(
        "--command",
        dest="notify_command",  # `command` is the one that was typed
        type=command_argument,
        metavar="COMMAND",
        help="run this with a shell, as --notify-command is run",
    )
    add_secret_argument(parser, "--secret-file")


def _test(arguments: argparse.Namespace) -> int:
    if arguments.secret_file is not None and arguments.url is None:
        raise Misused("--secret-file has no effect without --url; give that too")
    if arguments.url is None and arguments.notify_command is None:
        deliveries = _tested_by_server(arguments.data_dir)
    else:
        deliveries = _tested_here(arguments)
    for name, delivery in deliveries.items():
        print(printable(f"{name}: {_said(delivery)}"))
    return int(not all(each.is_told for each in deliveries.values()))


def _said(delivery: Delivery) -> str:
    if delivery.is_told:
        answer = f" and answered {delivery.status}" if delivery.status else ""
        return f"was told{answer}, after {delivery.seconds:.2f} s"
    return f"was not told, after {delivery.seconds:.2f} s: {delivery.problem}"


def _tested_by_server(data_dir: Path) -> Mapping[str, Delivery]:
    """Return what came of a test by the running server, by the names of its receivers."""
    logs = journal_dir(data_dir)
    if not is_served(logs):
        raise Refused(f"no server runs on {data_dir}; start it, or give --url or --command")
    if read_notice_status(logs) is None:
        raise Refused(
            "the running server tells nobody: `serve` needs --notify-url or --notify-command"
        )
    test = secrets.token_hex(8)
    ask_for_test(logs, test)
    give_up_at = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < give_up_at:
        status = read_notice_status(logs)
        if status is not None and status.test == test and status.is_tested:
            return status.deliveries
        time.sleep(_LOOK_SECONDS)
    raise Refused(f"the server did not do it within {_MOST_SECONDS:g} s; `status` says how it is")


def _tested_here(arguments: argparse.Namespace) -> dict[str, Delivery]:
    """Return what came of a test of what was given, by name."""
    if arguments.secret_file is not None and (who := who_else_reads(arguments.secret_file)):
        warn(who)
    urls = [] if arguments.url is None else [arguments.url]
    receivers = receivers_of(arguments.notify_command, urls, arguments.secret_file)
    notice = test_notice(format_time(clock.now_ms()), secrets.token_hex(8))
    deliveries: dict[str, Delivery] = {}
    are_done = Event()

    def note(name: str, delivery: Delivery) -> None:
        deliveries[name] = delivery
        if len(deliveries) == len(receivers):
            are_done.set()

    with _prints_what_commands_say():
        try:
            for each in receivers:
                each.tell(notice, True, partial(note, each.name))
            are_done.wait(_MOST_SECONDS)
        finally:
            for each in receivers:
                each.end()
    return deliveries


@contextmanager
def _prints_what_commands_say() -> Iterator[None]:
    """Print what a command prints; what went wrong is printed as what came of it."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(lambda record: record.levelno == logging.INFO)
    before, receivers_log.propagate = receivers_log.propagate, False
    receivers_log.addHandler(handler)
    receivers_log.setLevel(logging.INFO)
    try:
        yield
    finally:
        receivers_log.removeHandler(handler)
        receivers_log.setLevel(logging.NOTSET)
        receivers_log.propagate = before
