"""What the server prints at its start: where it listens, what it offers, and what is wrong."""

import argparse
import logging
import textwrap
import threading
from pathlib import Path

from ota_server import __version__
from ota_server.device_port.server import OTAServer
from ota_server.model.quantity import format_duration, format_size
from ota_server.model.version import is_sample
from ota_server.releases.fleet_target import NoTarget
from ota_server.releases.store import NoImage, NotHashed, Store

log = logging.getLogger(__name__)


def show(server: OTAServer, log_dir: Path, limits: str) -> None:
    """Print what is known at once, and the image of the target once it is hashed.

    Args:
        limits: who may download when, and how fast, in words; "" if nothing is limited.
    """
    _say(_first_lines(server, log_dir, limits))
    threading.Thread(target=_announce_image, args=(server.service.store,), daemon=True).start()


def _first_lines(server: OTAServer, log_dir: Path, limits: str) -> list[str]:
    """Return what is known at once; the image has to be hashed first."""
    host, port = server.server_name, server.server_port
    shown = f"[{host}]" if ":" in host else host
    where = " (all interfaces)" if host in ("::", "0.0.0.0") else ""
    fleet = server.service.fleet
    lines = [
        f"ota_server {__version__}",
        f"  listening  http://{shown}:{port}/{where}",
        f"  journal    {log_dir / 'devices.jsonl'}, known devices: {len(fleet)}",
    ]
    if limits:
        lines.append(f"  limits     {limits}")
    if fleet.bad_lines:
        lines.append(f"  WARNING    bad lines in the journal, skipped: {fleet.bad_lines}")
    return lines


def _announce_image(store: Store) -> None:
    lines = _target_lines(store)
    if lines:
        _say(lines)


def _say(lines: list[str]) -> None:
    try:
        print("\n".join(lines), flush=True)
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
            "             devices are answered 503; `release publish FILE --version V`, then",
            "             `release activate V`, or by hand: copy an image to",
            "             firmware/firmware_v1.0.0.bin, then write v1.0.0 into",
            "             version/version.txt; no restart is needed",
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
    lines.append(f"  image      {target.image_name}, {image.size} bytes")
    lines.append(f"  SHA-256    {image.sha256}")
    if is_sample(image.size, image.sha256):
        lines += textwrap.wrap(
            "this is the shipped sample: it is offered to clients on this machine only; put your "
            "own image into firmware/ and its version into version/version.txt",
            width=88,
            initial_indent="  NOTE       ",
            subsequent_indent="             ",
        )
    return lines


def limits_text(arguments: argparse.Namespace) -> str:
    """Return the limits that are in force, in words; "" if there are none."""
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
