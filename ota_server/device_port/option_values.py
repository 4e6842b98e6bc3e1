"""Parsing the values of the serving command's options; what is wrong is said to who typed it."""

import argparse
import re
from datetime import tzinfo
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from ota_server.device_port.window import Window, parse_window
from ota_server.model.address import plain_network
from ota_server.model.quantity import parse_duration, parse_size
from ota_server.policy.admin_address import DEFAULT_ADMIN_HOST, DEFAULT_ADMIN_PORT


class AdminAddress(NamedTuple):
    """Where operators reach the page."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


DEFAULT_ADMIN = AdminAddress(DEFAULT_ADMIN_HOST, DEFAULT_ADMIN_PORT)
_ADMIN = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\[\]:]*)):([0-9]{1,5})")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-.]{0,252}[A-Za-z0-9])?")
# A longer one would make devices look away that are there.
MOST_RECORD_SECONDS = 3600
# At a lower rate a packet would take longer than a client waits.
_LEAST_RATE = 1024
_MOST_OVERDUE_SECONDS = 3660 * 86400


def port_argument(text: str) -> int:
    """Parse a port."""
    return _whole_number(text, 0, 65535)


def admin_argument(text: str) -> AdminAddress:
    """Parse where operators reach the page."""
    match = _ADMIN.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise argparse.ArgumentTypeError(
            f"{text!r:.60} is not HOST:PORT, such as 127.0.0.1:7778 or [::1]:7778"
        )
    return AdminAddress(match[1] or match[2], int(match[3]))


def host_name_argument(text: str) -> str:
    """Parse the name of a host."""
    if not _HOST_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r:.60} is not the name of a host, without a port")
    return text.lower()


def positive_argument(text: str) -> int:
    """Parse a number from 1."""
    return _whole_number(text, 1, 10**12)


def count_argument(text: str) -> int:
    """Parse a number."""
    return _whole_number(text, 0, 10**12)


def record_seconds_argument(text: str) -> int:
    """Parse an interval."""
    return _whole_number(text, 1, MOST_RECORD_SECONDS)


def _whole_number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


def seconds_argument(text: str) -> float:
    """Parse seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0 to 86400 seconds")
    return seconds


def network_argument(text: str) -> IPv4Network | IPv6Network:
    """Parse a network of trusted proxies."""
    try:
        network = plain_network(ip_network(text))
    except ValueError as problem:
        raise argparse.ArgumentTypeError(
            f"{text!r:.60} is not an address or a network such as 10.0.0.0/8: {problem!s:.80}"
        ) from None
    if not network.prefixlen:
        raise argparse.ArgumentTypeError(
            f"{text!r:.60} is everybody: any client could claim any address"
        )
    return network


def slots_argument(text: str) -> int:
    """Parse how many downloads."""
    return _whole_number(text, 1, 1_000_000)


def rate_argument(text: str) -> int:
    """Parse bytes a second."""
    try:
        rate = parse_size(text)
    except ValueError:
        rate = 0
    if rate < _LEAST_RATE:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a rate such as 500K or 10M, at least 1K"
        )
    return rate


def command_argument(text: str) -> str:
    """Parse a command."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: nobody would be told")
    return text


def window_argument(text: str) -> Window:
    """Parse a maintenance window."""
    try:
        return parse_window(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def zone_argument(text: str) -> tzinfo:
    """Parse a time zone."""
    # Imported here, since most servers do not need it.
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is not a time zone that this system knows; give a name such as "
            "Europe/Berlin or UTC, or install the system's tzdata package"
        ) from None


def duration_argument(text: str) -> float:
    """Parse a duration."""
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
