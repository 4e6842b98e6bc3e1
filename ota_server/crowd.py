"""The options for when the whole fleet comes at once: who is let in."""

import argparse

from ota_server.admission import Admission
from ota_server.places import Places


def add_crowd_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--max-downloads",
        type=_places,
        metavar="N",
        help="devices that may download at once; others are told their own version, and come "
        "again at their next poll (default: as many as come)",
    )


def make_admission(arguments: argparse.Namespace) -> Admission | None:
    """Make what lets devices in; None: nothing keeps any out."""
    if arguments.max_downloads is None:
        return None
    return Admission(Places(arguments.max_downloads))


def _places(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no whole number from 1 to 1000000")
    return int(text)
