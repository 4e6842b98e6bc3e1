"""The options of the serving command."""

import argparse

from ota_server import __version__
from ota_server.device_port.notice_options import add_notice_arguments
from ota_server.device_port.option_values import (
    DEFAULT_ADMIN,
    MOST_RECORD_SECONDS,
    admin_argument,
    count_argument,
    duration_argument,
    host_name_argument,
    network_argument,
    port_argument,
    positive_argument,
    rate_argument,
    record_seconds_argument,
    seconds_argument,
    slots_argument,
    window_argument,
    zone_argument,
)
from ota_server.device_port.poll_interval import DEFAULT_SECONDS
from ota_server.httpd.listener import GRACE_SECONDS, IDLE_SECONDS
from ota_server.httpd.transports import TRANSPORTS
from ota_server.journal.device_table import MAX_DEVICES
from ota_server.journal.writer import FSYNC, KEEP_BYTES, KEEP_FILES, ROTATE_BYTES
from ota_server.system.data_dir import add_data_dir_argument

DEFAULT_PORT = 7777
# Of --unknown-devices: they stay on what they run.
KEEP = "keep"
MEBIBYTE = 1024 * 1024

EXAMPLES = """\
examples:
  %(prog)s
  %(prog)s --port 8080 --data-dir /srv/ota
  OTA_SERVER_DATA=/srv/ota %(prog)s --host 127.0.0.1
  %(prog)s -v --development
      at a desk

A data directory holds version/version.txt, firmware/firmware_<version>.bin
and log/devices.jsonl.
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Give a parser the help and the options of the serving command."""
    parser.description = "Serve firmware to a fleet of devices and keep a record of each."
    parser.epilog = EXAMPLES
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
        type=port_argument,
        default=DEFAULT_PORT,
        metavar="N",
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    add_data_dir_argument(parser)
    _add_connection_arguments(parser)
    parser.add_argument(
        "--max-devices",
        type=positive_argument,
        default=MAX_DEVICES,
        metavar="N",
        help="how many devices to keep on record; further ones are still answered "
        "(default: %(default)s)",
    )
    _add_proxy_arguments(parser)
    add_notice_arguments(parser)
    parser.add_argument(
        "--unknown-devices",
        choices=("target", KEEP),
        default="target",
        help="what a device that is in no group is told: the target of the fleet, or its own "
        "version, so that it gets nothing unless it is pinned (default: %(default)s)",
    )
    _add_client_arguments(parser)
    _add_admin_arguments(parser)
    _add_desk_arguments(parser)
    _add_limit_arguments(parser)
    _add_journal_arguments(parser)


def _add_admin_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the operators' port."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--admin",
        type=admin_argument,
        metavar="HOST:PORT",
        help="where operators find the page, the API and the metrics; elsewhere than on this "
        f"machine only with a token on record (default: {DEFAULT_ADMIN})",
    )
    form.add_argument("--no-admin", action="store_true", help="without the operators' port")
    parser.add_argument(
        "--admin-name",
        type=host_name_argument,
        action="append",
        default=[],
        metavar="NAME",
        help="a name of a host by which browsers reach that port, as through a proxy; others are "
        "refused, but for addresses, localhost and the name of this machine; may be repeated",
    )


def _add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for clients that speak in their own way."""
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="answer clients that do not say which device they are: they get the target of the "
        "fleet, are not on record, and no rollout reaches them (default: 401)",
    )
    parser.add_argument(
        "--poll-interval",
        type=duration_argument,
        default=DEFAULT_SECONDS,
        metavar="TIME",
        help="when devices should ask again, where they are told: those that speak hawkBit's DDI, "
        "and by Retry-After those that nothing can be offered to now; each up to a quarter sooner "
        "or later, and all later while many wait for a download slot (default: 5m)",
    )


def _add_desk_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for those who build firmware."""
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="log each check, each download and each refused request, not only devices that "
        "change their version",
    )
    parser.add_argument(
        "--development",
        action="store_true",
        help="for a desk where one device is flashed all day: a device may fetch one image as "
        "often as it likes; refused while a rollout is on, as rollouts are meanwhile",
    )


def _add_proxy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--buffering-proxy",
        action="store_true",
        help="a proxy or a cache is in front of this server, so that it does not know what devices "
        "have received: a rollout counts a device as failed if it comes back three times without "
        "the release after its grace, and its downloads were not cut",
    )
    parser.add_argument(
        "--trusted-proxy",
        type=network_argument,
        action="append",
        default=[],
        metavar="NET",
        help="believe a proxy at this address or in this network, such as 127.0.0.1 or 10.0.0.0/8, "
        "about the addresses of its clients: by X-Forwarded-For, or by the PROXY protocol (version "
        "1 or 2); may be repeated; implies --buffering-proxy (default: nobody)",
    )


def _add_journal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--journal-rotate",
        type=positive_argument,
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
        "--record-interval",
        type=record_seconds_argument,
        metavar="SECONDS",
        help="record a device that says nothing new, and is told to stay on its version, once in "
        f"this time, up to {MOST_RECORD_SECONDS} s; the journal then knows by so much later that "
        "it was seen, and while a rollout is on each check is recorded (default: each check)",
    )
    parser.add_argument(
        "--journal-files",
        type=count_argument,
        default=KEEP_FILES,
        metavar="N",
        help="rotated journal files to keep (default: %(default)s)",
    )
    parser.add_argument(
        "--journal-disk",
        type=positive_argument,
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
        type=positive_argument,
        metavar="N",
        help="connections at once; further ones get 503 "
        "(default: as many as the limit of open files allows)",
    )
    parser.add_argument(
        "--idle-timeout",
        type=seconds_argument,
        default=IDLE_SECONDS,
        metavar="SECONDS",
        help="close a connection that is idle for this long (default: %(default)g)",
    )
    parser.add_argument(
        "--grace",
        type=seconds_argument,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help="how long downloads may continue after SIGTERM or SIGINT (default: %(default)g)",
    )


def _add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that limit downloads: how many, when, and how fast."""
    parser.add_argument(
        "--max-downloads",
        type=slots_argument,
        metavar="N",
        help="how many devices may download at once; others are told their own version and ask "
        "again at their next poll (default: no limit)",
    )
    parser.add_argument(
        "--max-rate",
        type=rate_argument,
        metavar="BYTES",
        help="bytes of images per second, all together, such as 500K or 10M (powers of 1024; "
        "default: no limit)",
    )
    parser.add_argument(
        "--max-download-rate",
        type=rate_argument,
        metavar="BYTES",
        help="bytes of images per second on each connection, such as 64K (default: no limit)",
    )
    parser.add_argument(
        "--window",
        type=window_argument,
        action="append",
        default=[],
        metavar="HH:MM-HH:MM",
        help="when downloads may begin, such as 01:00-05:00 or 22:00-04:00; may be repeated "
        "(default: at any time)",
    )
    parser.add_argument(
        "--window-zone",
        type=zone_argument,
        metavar="ZONE",
        help="the time zone of the window, such as Europe/Berlin (default: that of the system)",
    )
    parser.add_argument(
        "--window-overdue",
        type=duration_argument,
        metavar="TIME",
        help="let in devices that have waited this long for the window, such as 7d "
        "(default: never)",
    )
