"""The options of the serving command."""

import argparse
from datetime import tzinfo

from ota_server import __version__
from ota_server.device_port.window import Window, parse_window
from ota_server.httpd.listener import GRACE_SECONDS, IDLE_SECONDS
from ota_server.httpd.transports import TRANSPORTS
from ota_server.journal.device_table import MAX_DEVICES
from ota_server.journal.writer import FSYNC, KEEP_BYTES, KEEP_FILES, ROTATE_BYTES
from ota_server.model.quantity import parse_duration, parse_size
from ota_server.system.data_dir import add_data_dir_argument

DEFAULT_PORT = 7777
# At a lower rate a packet would take longer than a client waits.
_LEAST_RATE = 1024
_MOST_OVERDUE_SECONDS = 3660 * 86400
MEBIBYTE = 1024 * 1024

EXAMPLES = """\
examples:
  python -m ota_server.server
  python -m ota_server.server --port 8080 --data-dir /srv/ota
  OTA_SERVER_DATA=/srv/ota python -m ota_server.server --host 127.0.0.1

A data directory holds version/version.txt, firmware/firmware_<version>.bin and log/devices.jsonl.
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Give a parser the help and the options of the serving command."""
    parser.description = "Serve firmware to a fleet of devices and keep a record of each."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=f"ota_server {__version__}")
    _add_arguments(parser)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        default="",
        metavar="H",
        help="address to listen on (default: all interfaces, IPv4 and IPv6)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        metavar="N",
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    add_data_dir_argument(parser)
    _add_connection_arguments(parser)
    parser.add_argument(
        "--max-devices",
        type=_positive,
        default=MAX_DEVICES,
        metavar="N",
        help="how many devices to keep on record; further ones are still answered "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--buffering-proxy",
        action="store_true",
        help="a cache, or a proxy that buffers images, is in front of this server, so that it does "
        "not know what devices have received: a rollout counts a device as failed if it was "
        "offered a release three times and its grace is over",
    )
    _add_limit_arguments(parser)
    _add_journal_arguments(parser)


def _add_journal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--journal-rotate",
        type=_positive,
        default=ROTATE_BYTES // MEBIBYTE,
        metavar="MIB",
        help="begin a new journal file after this many MiB (default: %(default)s)",
    )
    parser.add_argument(
        "--fsync",
        choices=FSYNC,
        default="interval",
        help="sync records to the disk before each reply (all devices wait for it), every 100 ms, "
        "or when the system decides: what a power cut can lose (default: %(default)s)",
    )
    parser.add_argument(
        "--journal-files",
        type=_count,
        default=KEEP_FILES,
        metavar="N",
        help="rotated journal files to keep (default: %(default)s)",
    )
    parser.add_argument(
        "--journal-disk",
        type=_positive,
        default=KEEP_BYTES // MEBIBYTE,
        metavar="MIB",
        help="how many MiB the rotated journal files may take (default: %(default)s)",
    )


def _add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default=TRANSPORTS[0],
        help="what drives connections: one event loop, with epoll or poll, or a thread for each; "
        "only epoll sends images with sendfile (default: %(default)s)",
    )
    parser.add_argument(
        "--max-connections",
        type=_positive,
        metavar="N",
        help="connections at once; further ones get 503 "
        "(default: as many as the limit of open files allows)",
    )
    parser.add_argument(
        "--idle-timeout",
        type=_seconds,
        default=IDLE_SECONDS,
        metavar="SECONDS",
        help="close a connection that is idle for this long (default: %(default)g)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help="how long downloads may continue after SIGTERM or SIGINT (default: %(default)g)",
    )


def _add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that limit downloads: how many, when, and how fast."""
    parser.add_argument(
        "--max-downloads",
        type=_slots,
        metavar="N",
        help="how many devices may download at once; others are told their own version and ask "
        "again at their next poll (default: no limit)",
    )
    parser.add_argument(
        "--max-rate",
        type=_rate,
        metavar="BYTES",
        help="bytes of images per second, all together, such as 500K or 10M (powers of 1024; "
        "default: no limit)",
    )
    parser.add_argument(
        "--max-download-rate",
        type=_rate,
        metavar="BYTES",
        help="bytes of images per second on each connection, such as 64K (default: no limit)",
    )
    parser.add_argument(
        "--window",
        type=_window,
        action="append",
        default=[],
        metavar="HH:MM-HH:MM",
        help="when downloads may begin, such as 01:00-05:00 or 22:00-04:00; may be repeated "
        "(default: at any time)",
    )
    parser.add_argument(
        "--window-zone",
        type=_zone,
        metavar="ZONE",
        help="the time zone of the window, such as Europe/Berlin (default: that of the system)",
    )
    parser.add_argument(
        "--window-overdue",
        type=_duration,
        metavar="TIME",
        help="let in devices that have waited this long for the window, such as 7d "
        "(default: never)",
    )


def _port(text: str) -> int:
    return _whole_number(text, 0, 65535)


def _positive(text: str) -> int:
    return _whole_number(text, 1, 10**12)


def _count(text: str) -> int:
    return _whole_number(text, 0, 10**12)


def _whole_number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0 to 86400 seconds")
    return seconds


def _slots(text: str) -> int:
    return _whole_number(text, 1, 1_000_000)


def _rate(text: str) -> int:
    try:
        rate = parse_size(text)
    except ValueError:
        rate = 0
    if rate < _LEAST_RATE:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a rate such as 500K or 10M, at least 1K"
        )
    return rate


def _window(text: str) -> Window:
    try:
        return parse_window(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def _zone(text: str) -> tzinfo:
    # Imported here, since most servers do not need it.
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a time zone that this system knows; give a name such as "
            "Europe/Berlin or UTC, or install the system's tzdata package"
        ) from None


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= _MOST_OVERDUE_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a duration up to ten years: a number and s, m, h or d, "
            "such as 12h or 7d"
        )
    return seconds
