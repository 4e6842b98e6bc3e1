"""The options of `python -m benchmarks`."""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

from benchmarks.metrics import WORKLOADS
from benchmarks.peers import PEERS

_VENV = Path(__file__).with_name(".venv")
_MILLION = 1_000_000


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this server and its peers side by side; write a report and plots.",
    )
    parser.add_argument("--setup", action="store_true", help="install the Python peers, no run")
    parser.add_argument("--list", action="store_true", help="list workloads and peers, no run")
    parser.add_argument(
        "--short",
        action="store_true",
        help="one round of a second: shows that it works; fails where a bound of memory is broken",
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 where a bound of memory is broken"
    )
    _add_amounts(parser)
    return parser


def _add_amounts(parser: argparse.ArgumentParser) -> None:
    """Add what says how much is measured, and where to."""
    parser.add_argument("--rounds", type=_positive, metavar="N", help="default: 7")
    parser.add_argument(
        "--seconds", type=_positive, metavar="S", help="of one measurement (default: 5)"
    )
    parser.add_argument(
        "--only", type=_names(WORKLOADS), metavar="WORKLOAD,...", help="default: all"
    )
    parser.add_argument("--peers", type=_names(PEERS), metavar="NAME,...", help="default: all")
    parser.add_argument(
        "--devices",
        type=_positive,
        default=_MILLION,
        metavar="N",
        help="known ones, in `restart` (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="for the report and the plots (default: benchmarks/ and screenshots/; for a run "
        "that is short or of a part only, build/benchmarks/)",
    )
    parser.add_argument(
        "--venv", type=Path, default=_VENV, metavar="DIR", help="default: benchmarks/.venv"
    )


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _names(known_names: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads a list of names by commas."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known_names:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known_names)}")
        return names

    return read
