"""Which devices `devices` shows, in which order, and which columns of them: its options. Pure."""

import argparse
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice

from ota_server.model.address import plain_network
from ota_server.model.quantity import parse_duration
from ota_server.model.updater import FAMILY_NAMES
from ota_server.operations.device_filter import DeviceFilter, word_of
from ota_server.operations.fleet_row import COLUMNS, FleetRow, row_tests
from ota_server.policy.device_state import Condition
from ota_server.policy.policy import is_group_name

_NAMES = ", ".join(COLUMNS)

FILTERS = (
    *("version", "not_version", "outdated", "group", "state", "not_seen", "address", "label"),
    *("family", "sort", "columns"),
)


def add_filters(parser: argparse._ArgumentGroup) -> None:
    """Add the options that choose devices, their order and their columns."""
    add = parser.add_argument
    add("--version", action="append", metavar="V", help="that report this; may be repeated")
    add("--not-version", action="append", metavar="V", help="that report something else")
    add(
        "--outdated",
        action="store_true",
        help="that do not run what they should, or fell silent, whatever keeps them from it",
    )
    add("--group", type=_group, metavar="G", help="of this group")
    states = ", ".join(map(word_of, Condition))
    add("--state", type=_state, action="append", metavar="S", help=f"that are {states}")
    add("--not-seen", type=_seconds, metavar="TIME", help="not heard from for that long, as 7d")
    add("--address", type=_network, metavar="A", help="last heard at this address or network")
    add("--label", type=_some, metavar="TEXT", help="whose label holds this text")
    families = ", ".join(FAMILY_NAMES)
    add("--family", type=_family, action="append", metavar="F", help=f"of one of {families}")
    add("--sort", type=_column, metavar="COLUMN", help=f"by one of {_NAMES}")
    add("--columns", type=_columns, metavar="C,...", help="of the table or the CSV, of the same")


def _state(text: str) -> Condition:
    # `held-back` is how it was typed before.
    typed = text.replace("-", "_")
    found = next((each for each in Condition if typed in (each.value, word_of(each))), None)
    if found is None:
        states = ", ".join(map(word_of, Condition))
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not one of {states}")
    return found


def _family(text: str) -> str:
    if text.lower() not in FAMILY_NAMES:
        families = ", ".join(FAMILY_NAMES)
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not one of {families}")
    return text.lower()


def _some(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: every label holds that; leave it out")
    return text


def _group(text: str) -> str:
    if not is_group_name(text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a group's name")
    return text


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a duration: a number and s, m, h or d, such as 7d"
        ) from None


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return plain_network(ip_network(text, strict=False))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text[:45]!r} is neither an address nor a network such as 192.0.2.0/24"
        ) from None


def _column(text: str) -> str:
    if text.strip() not in COLUMNS:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not one of {_NAMES}")
    return text.strip()


def _columns(text: str) -> tuple[str, ...]:
    return tuple(map(_column, text.split(",")))


# What follows from it


def filter_of(arguments: argparse.Namespace) -> DeviceFilter:
    """Return the filter that the options mean, for devices of any product."""
    return DeviceFilter(
        versions=tuple(arguments.version or ()),
        not_versions=tuple(arguments.not_version or ()),
        outdated=arguments.outdated,
        states=tuple(arguments.state or ()),
        families=tuple(arguments.family or ()),
        group=arguments.group,
        network=arguments.address,
        label=arguments.label,
        not_seen_seconds=arguments.not_seen,
    )


def chosen(rows: Iterable[FleetRow], arguments: argparse.Namespace, now_ms: int) -> list[FleetRow]:
    """Return the rows that all filters let through, in the order that was asked for."""
    tests = row_tests(filter_of(arguments), now_ms)
    rows = (row for row in rows if all(test(row) for test in tests))
    if arguments.sort:
        rows = sorted(rows, key=COLUMNS[arguments.sort].key)
    return list(islice(rows, arguments.limit))
