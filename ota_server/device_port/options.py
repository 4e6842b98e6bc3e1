"""The options for when the whole fleet comes at once: who is let in, when, and how fast."""

import argparse
from datetime import tzinfo

from ota_server.device_port.admission import Admission
from ota_server.device_port.slots import DownloadSlots
from ota_server.device_port.window import Hours, Window, parse_window
from ota_server.httpd.pacing import Pacing
from ota_server.model.quantity import format_duration, format_size, parse_duration, parse_size

# Less than this, and a packet would take longer than a client waits.
_LEAST_RATE = 1024
_MOST_OVERDUE_SECONDS = 3660 * 86400


class WrongOptions(Exception):
    """Options that do not go together; the message says what to do."""


def add_crowd_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--max-downloads",
        type=_slots,
        metavar="N",
        help="devices that may download at once; others are told their own version, and come "
        "again at their next poll (default: as many as come)",
    )
    parser.add_argument(
        "--max-rate",
        type=_rate,
        metavar="BYTES",
        help="bytes of images a second, all together, such as 500K or 10M (powers of 1024; "
        "default: as fast as it goes)",
    )
    parser.add_argument(
        "--max-download-rate",
        type=_rate,
        metavar="BYTES",
        help="bytes of images a second on each connection, such as 64K "
        "(default: as fast as it goes)",
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
        help="whose clock the window is by, such as Europe/Berlin (default: that of the system)",
    )
    parser.add_argument(
        "--window-overdue",
        type=_duration,
        metavar="TIME",
        help="let in devices that have waited for the window for so long, such as 7d "
        "(default: never)",
    )


def make_admission(arguments: argparse.Namespace) -> Admission | None:
    """Make what lets devices in; None: nothing keeps any out.

    Raises:
        WrongOptions: they do not go together.
    """
    if not arguments.window:
        for option in ("window-zone", "window-overdue"):
            if getattr(arguments, option.replace("-", "_")) is not None:
                raise WrongOptions(f"--{option} says nothing without --window; give one too")
    if arguments.max_downloads is None and not arguments.window:
        return None
    return Admission(
        DownloadSlots(arguments.max_downloads) if arguments.max_downloads is not None else None,
        Hours(arguments.window, arguments.window_zone) if arguments.window else None,
        arguments.window_overdue,
    )


def make_pacing(arguments: argparse.Namespace) -> Pacing | None:
    """Make what paces images; None: they are sent as fast as it goes."""
    rates = arguments.max_rate, arguments.max_download_rate
    return None if rates == (None, None) else Pacing(*rates)


def limits_text(arguments: argparse.Namespace) -> str:
    """Return the limits that are in force, in words; "" where there are none."""
    limits = []
    if arguments.max_downloads is not None:
        count = arguments.max_downloads
        limits.append(f"{count} download{'s' * (count != 1)} at once")
    if arguments.max_rate is not None:
        limits.append(f"{format_size(arguments.max_rate)} bytes/s in all")
    if arguments.max_download_rate is not None:
        limits.append(f"{format_size(arguments.max_download_rate)} bytes/s each")
    if arguments.window:
        zone = arguments.window_zone or "the system's time"
        limits.append(f"downloads begin {', '.join(map(str, arguments.window))} ({zone})")
    if arguments.window_overdue is not None:
        overdue = format_duration(arguments.window_overdue)
        limits.append(f"or after {overdue} of waiting for that")
    return ", ".join(limits)


def _slots(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no whole number from 1 to 1000000")
    return int(text)


def _rate(text: str) -> int:
    try:
        rate = parse_size(text)
    except ValueError:
        rate = 0
    if rate < _LEAST_RATE:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a rate such as 500K or 10M, from 1K on"
        )
    return rate


def _window(text: str) -> Window:
    try:
        return parse_window(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def _zone(text: str) -> tzinfo:
    # Here, for most servers do without it and what it imports.
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is no time zone that this system knows; give a name such as "
            "Europe/Berlin or UTC, or install the package tzdata of the system"
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
