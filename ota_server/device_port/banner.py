"""What the server prints at its start: where it listens, what it offers, and what is wrong."""

import argparse
import logging
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from ota_server import __version__
from ota_server.device_port.server import OTAServer
from ota_server.model.address import is_loopback
from ota_server.model.quantity import count_of, format_duration, format_size
from ota_server.model.version import is_sample
from ota_server.policy.hold import hold_lines
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.store import NoImage, NotHashed, NotNow, Store
from ota_server.system.hints import hints
from ota_server.system.server_log import one_line

log = logging.getLogger(__name__)

_EVERYWHERE = ("::", "0.0.0.0")
_SAMPLE = (
    "  NOTE       this is the shipped sample: it is offered to clients on this machine",
    "             only; `release publish FILE --version V`, then",
    "             `release activate V` offer your own image",
)
_BEHIND_PROXY = "  NOTE       only the proxy on this machine reaches that"
_DEVELOPMENT = "  NOTE       --development: devices may fetch one image again and again"


def show(server: OTAServer, log_dir: Path, limits: str, operators_url: str) -> None:
    """Print what is known at once, and the image of the target once it is hashed.

    Args:
        limits: who may download when, and how fast, in words; "" if nothing is limited.
        operators_url: where operators find the page; "": nowhere.
    """
    _say(_first_lines(server, log_dir, limits, operators_url))
    announcing = threading.Thread(target=_announce_image, args=(server.service.store,), daemon=True)
    with suppress(RuntimeError):  # no further thread can be started: not worth a server
        announcing.start()


def _first_lines(server: OTAServer, log_dir: Path, limits: str, operators_url: str) -> list[str]:
    """Return what is known at once; the image has to be hashed first."""
    host, port = server.server_name, server.server_port
    shown = f"[{host}]" if ":" in host else host
    where = " (all interfaces)" if host in _EVERYWHERE else ""
    fleet = server.service.fleet
    lines = [
        f"ota_server {__version__}",
        f"  listening  http://{shown}:{port}/{where}",
        *_address_lines(host, port, server.proxies is not None),
        *([f"  operators  {operators_url}"] if operators_url else []),
        *([_DEVELOPMENT] if server.service.offers.is_development else []),
        f"  journal    {log_dir / 'devices.jsonl'}, known devices: {len(fleet)}",
    ]
    if limits:
        lines.append(f"  limits     {limits}")
    lines += [f"  WARNING    {line}" for line in hold_lines(log_dir.parent)]
    if fleet.bad_lines:
        lines.append(f"  WARNING    bad lines in the journal, skipped: {fleet.bad_lines}")
    return lines


def _address_lines(host: str, port: int, is_behind_proxy: bool = False) -> list[str]:
    """Return what devices can be given, where that is not what the server listens on."""
    if host in _EVERYWHERE:
        own = _own_address(host)
        return [f"  devices    http://{f'[{own}]' if ':' in own else own}:{port}/"]
    if is_loopback(host) and is_behind_proxy:
        return [_BEHIND_PROXY]
    if is_loopback(host):
        return ["  NOTE       only clients on this machine reach that; --host sets another address"]
    return []


def _own_address(host: str) -> str:
    """Return the address that this machine has in its network, as far as it knows."""
    families = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
    if host == "0.0.0.0":
        del families[socket.AF_INET6]
    for family, somewhere in families.items():
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))  # sends nothing: it only asks for the route
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "ADDRESS-OF-THIS-MACHINE"


def _announce_image(store: Store) -> None:
    lines = _target_lines(store)
    if lines:
        _say(lines)


def _say(lines: list[str]) -> None:
    try:
        print("\n".join(one_line(hints.paste(line)) for line in lines), flush=True)
    except OSError as problem:
        # The reader may have stopped: `... | head -1`.
        log.warning("standard output cannot be written: %s", problem.strerror)


def _target_lines(store: Store) -> list[str]:
    """Wait until it is known what is offered and return that; [] if the server ends before."""
    try:
        target = store.target()
    except NoTarget as problem:
        return [
            f"  WARNING    no target version: {problem}",
            "             devices are answered 503 until there is one; no restart is needed:",
            "             `release publish FILE --version V`",
            "             `release activate V`",
            "             or by hand: copy an image to firmware/firmware_v1.0.0.bin, then write",
            "             v1.0.0 into version/version.txt",
        ]
    lines = [f"  target     {target.version}"]
    image = None
    while image is None:
        try:
            image = store.image(target.version)
        except NotHashed as not_ready:
            not_ready.hashing.done.wait()
            if store.is_closed:
                return []  # it will never be hashed, and this loop would use all of a processor
        except NoImage as problem:
            return [
                *lines,
                f"  WARNING    no image: {problem}",
                "             copy the image there under that name; no restart is needed",
            ]
        except NotNow as problem:
            return [*lines, f"  WARNING    the image cannot be read now: {problem}"]
    lines.append(f"  image      {target.image_name}, {image.size} bytes")
    lines.append(f"  SHA-256    {image.sha256}")
    if is_sample(image.size, image.sha256):
        lines += _SAMPLE
    return lines


def limits_text(arguments: argparse.Namespace) -> str:
    """Return the limits that are in force, in words; "" if there are none."""
    limits = []
    if arguments.max_downloads is not None:
        count = arguments.max_downloads
        limits.append(f"{count_of(count, 'download')} at once")
    if arguments.max_rate is not None:
        limits.append(f"{format_size(arguments.max_rate)} bytes/s in all")
    if arguments.max_download_rate is not None:
        limits.append(f"{format_size(arguments.max_download_rate)} bytes/s each")
    if arguments.window:
        zone = arguments.window_zone or f"the system's time, {time.localtime().tm_zone}"
        limits.append(f"downloads begin {', '.join(map(str, arguments.window))} ({zone})")
    if arguments.window_overdue is not None:
        overdue = format_duration(arguments.window_overdue)
        limits.append(f"or after {overdue} of waiting for that")
    return ", ".join(limits)
