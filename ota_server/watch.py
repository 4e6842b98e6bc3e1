"""`rollout status`, once or redrawn every second until it is over. Edge."""

import shutil
import sys
import time
from pathlib import Path

from ota_server import rolloutedits
from ota_server.admissionfile import read_standing
from ota_server.datadir import log_dir
from ota_server.keeper import is_attended
from ota_server.rolloutview import status_lines
from ota_server.survey import is_served

_EVERY_SECONDS = 1.0
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
# Each line is written over the old one and cleared from there on, so that nothing flickers.
_END_LINE, _CLEAR_BELOW = "\x1b[K\n", "\x1b[J"


def lines_of(data_dir: Path, group: str | None) -> list[str]:
    """Return the status of rollouts for people.

    Raises:
        Refused, BadPolicy, OSError: it cannot be told.
    """
    now_ms = time.time_ns() // 1_000_000
    logs = log_dir(data_dir)
    served = is_served(logs)
    standing = read_standing(logs) if served else None
    attended = not served or is_attended(logs, now_ms)
    lines: list[str] = []
    for plan, progress in rolloutedits.all_rollouts(data_dir):
        if group in (None, plan.group):
            lines += ["", *status_lines(plan, progress, now_ms, served, standing, attended)]
    return lines[1:]


def watch(data_dir: Path, group: str | None) -> int:
    """Show the status of rollouts until none of them is on; return the exit code."""
    draw = _Screen() if sys.stdout.isatty() else _Paper()
    try:
        while True:
            draw.show(lines_of(data_dir, group))
            found = rolloutedits.all_rollouts(data_dir)
            if not any(
                rolloutedits.is_on(*each) for each in found if group in (None, each[0].group)
            ):
                return 0
            time.sleep(_EVERY_SECONDS)
    finally:
        draw.end()


class _Paper:
    """Output that is no terminal: each picture that differs from the one before, once."""

    def __init__(self) -> None:
        self._before: list[str] = []

    def show(self, lines: list[str]) -> None:
        """Print lines."""
        if lines != self._before:
            print("\n".join(lines), end="\n\n", flush=True)
            self._before = lines

    def end(self) -> None:
        """Leave it as it is."""


class _Screen(_Paper):
    """A terminal: one picture, drawn over the one before."""

    def __init__(self) -> None:
        super().__init__()
        sys.stdout.write(_HIDE_CURSOR)

    def show(self, lines: list[str]) -> None:
        """Draw lines, cut to the width of the terminal: a longer one would move the others."""
        size = shutil.get_terminal_size()
        up = f"\x1b[{len(self._before)}F" if self._before else ""
        shown = [line[: size.columns - 1] for line in lines[: size.lines - 1]]
        sys.stdout.write(up + "".join(line + _END_LINE for line in shown) + _CLEAR_BELOW)
        sys.stdout.flush()
        self._before = shown

    def end(self) -> None:
        """Give the cursor back, below the last picture."""
        sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()
