"""The options that say who is told of notices, for the serving command and for `notify test`. I/O.

What they hold is checked where it is typed: a receiver that never hears anything is noticed late.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ota_server.device_port.option_values import command_argument
from ota_server.system.files import open_regular

if TYPE_CHECKING:
    from ota_server.model.webhook import WebhookUrl

MOST_URLS = 5
_FROM_FILE = "@"


def add_notice_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the serving command."""
    parser.add_argument(
        "--notify-command",
        type=command_argument,
        metavar="COMMAND",
        help="run this with a shell, with JSON on its standard input, when a rollout moves, waits "
        "for a person, is halted or ends, when a hold begins or ends, and when the journal cannot "
        "be written or can again",
    )
    # Its name until notices had a second receiver; it stays for those who have it in their units.
    parser.add_argument(
        "--on-event",
        dest="notify_command",
        type=command_argument,
        metavar="COMMAND",
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--notify-url",
        type=notify_url_argument,
        action="append",
        default=[],
        metavar="URL",
        help="POST the same JSON to this URL, of http or https; @FILE reads the URL from a file, "
        f"so that it is not in the list of processes; may be repeated, up to {MOST_URLS} times",
    )
    add_secret_argument(parser, "--notify-secret-file")


def add_secret_argument(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option for the secret, by its name."""
    parser.add_argument(
        name,
        type=secret_file_argument,
        metavar="FILE",
        help="sign what is sent to URLs with the secret in this file, by HMAC-SHA256 in the way of "
        "Standard Webhooks",
    )


def notify_url_argument(text: str) -> "WebhookUrl":
    """Parse a URL, or read it from the file that is named after an @."""
    # Loaded here, since most servers do not need it.
    from ota_server.model.webhook import MOST_URL, parse_webhook_url

    where = "the URL"
    try:
        if text.startswith(_FROM_FILE):
            where = f"the URL in {text[1:]}"
            with open(open_regular(Path(text[1:])), "rb") as file:
                text = file.read(MOST_URL + 2).decode("ascii", "replace").strip()
        return parse_webhook_url(text)
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else problem
        raise argparse.ArgumentTypeError(f"{where} {why}") from None


def secret_file_argument(text: str) -> Path:
    """Parse the name of a secret file, and check that it holds a secret."""
    from ota_server.system.secret_file import read_secret

    try:
        read_secret(Path(text))
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else problem
        raise argparse.ArgumentTypeError(f"{text[:200]} {why}") from None
    return Path(text)


def wrong_notice_options(arguments: argparse.Namespace) -> str:
    """Return why the options of the serving command do not fit together; "": they do."""
    if len(arguments.notify_url) > MOST_URLS:
        return f"--notify-url was given {len(arguments.notify_url)} times: {MOST_URLS} at most"
    if arguments.notify_secret_file is not None and not arguments.notify_url:
        return "--notify-secret-file has no effect without --notify-url; give that too"
    return ""
