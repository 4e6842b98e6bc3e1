"""`rollout status`, once or redrawn every second until it is over. I/O."""

import shutil
import sys
import time
from pathlib import Path

from ota_server.commands.rollout_view import status_lines
from ota_server.commands.terminal import printable
from ota_server.operations.rollout_facts import look_around, rollouts_shown
from ota_server.operations.rollout_words import state_of
from ota_server.policy.hold import hold_lines
from ota_server.policy.policy import RolloutState
from ota_server.rollouts.files import devices_command
from ota_server.rollouts.find_rollout import end_of
from ota_server.system import clock
from ota_server.system.hints import hints
from ota_server.system.wrapping import cut_to

_EVERY_SECONDS = 1.0
_NONE_SHOWN = "no rollout is on, and none ended within a day; `rollout history` has older ones"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
# Each line is written over the old one and cleared from there on, so that nothing flickers.
_END_LINE, _CLEAR_BELOW = "\x1b[K\n", "\x1b[J"


def lines_of(data_dir: Path, group: str | None) -> list[str]:
    """Return the status of rollouts for people.

    Raises:
        Refused, BadPolicy, OSError: a file cannot be used or read.
    """
    now_ms = clock.now_ms()
    scene = look_around(data_dir, now_ms)
    lines: list[str] = []
    for each in rollouts_shown(data_dir, group, now_ms):
        ended_ms = end_of(data_dir, each, now_ms)
        command = devices_command(data_dir, each.plan.group)
        shown = status_lines(
            *each,
            now_ms,
            scene.is_served,
            scene.standing,
            scene.is_attended,
            scene.held,
            ended_ms,
            command,
        )
        head, *others = map(hints.paste, shown)
        # A command in a note is not ours.
        note = [f"  note: {printable(each.plan.note)}"] if each.plan.note else []
        lines += ["", head, *note, *others]
    lines = lines or ["", hints.paste(_NONE_SHOWN)]
    on_hold = hold_lines(data_dir)
    return [*lines[1:], *(["", *map(hints.paste, on_hold)] if on_hold else [])]


def watch(data_dir: Path, group: str | None) -> int:
    """Show the status of rollouts until none of them is on.

    Returns:
        The exit code: 1 if a rollout was halted or aborted meanwhile; if none was on at the start,
            before that.
    """
    draw = Screen() if sys.stdout.isatty() else Paper()
    watched: set[str] = set()
    try:
        while True:
            draw.show(lines_of(data_dir, group))
            shown = rollouts_shown(data_dir, group, clock.now_ms())
            on = {each.plan.id for each in shown if each.is_on}
            watched |= on
            if not on:
                ends = [state_of(*each) for each in shown if not watched or each[0].id in watched]
                return int(RolloutState.HALTED in ends or RolloutState.ABORTED in ends)
            time.sleep(_EVERY_SECONDS)
    finally:
        draw.end()


class Paper:
    """Output that is not a terminal: the status is printed whenever it has changed."""

    def __init__(self) -> None:
        self._before: list[str] = []

    def show(self, lines: list[str]) -> None:
        """Print lines."""
        if lines != self._before:
            print("\n".join(lines), end="\n\n", flush=True)
            self._before = lines

    def end(self) -> None:
        """Do nothing."""


class Screen(Paper):
    """A terminal: the status is drawn over the one before."""

    def __init__(self) -> None:
        super().__init__()
        sys.stdout.write(_HIDE_CURSOR)

    def show(self, lines: list[str]) -> None:
        """Draw lines, wrapped to the width of the terminal, as many as it has room for."""
        size = shutil.get_terminal_size()
        # If the window was made narrower, a line that was shown takes several rows now.
        rows = sum(-(-len(line) // size.columns) or 1 for line in self._before)
        up = f"\x1b[{min(rows, size.lines - 1)}F" if rows else ""
        shown = [row for line in lines for row in cut_to(line, size.columns - 1)]
        if (more := len(shown) - (size.lines - 1)) > 0:
            # Without a sign of it, what is cut would be taken for all there is.
            shown = [*shown[: size.lines - 2], f".. {more + 1} more lines: make the window taller"]
        sys.stdout.write(up + "".join(line + _END_LINE for line in shown) + _CLEAR_BELOW)
        sys.stdout.flush()
        self._before = shown

    def end(self) -> None:
        """Show the cursor again, below the last status."""
        sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()
