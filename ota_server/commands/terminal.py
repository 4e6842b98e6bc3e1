"""What commands show on a terminal: tables of text, and a progress bar."""

import re
import shutil
import sys
import time
from collections.abc import Sequence

# What a column keeps on a narrow terminal: enough to recognise a version or an address.
_NARROWEST = 8
_CUT = ".."
_MILLISECONDS = re.compile(r"\.\d+(?=Z$)")
# Of the progress bar.
_CELLS = 30
_EVERY_SECONDS = 0.1


def printable(value: object) -> str:
    """Return text without control characters, whatever somebody wrote into a file."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def to_the_second(time: object) -> str:
    """Return a time as it stands in a file, without its milliseconds."""
    return _MILLISECONDS.sub("", str(time))


def write_table(
    header: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    cut_first: Sequence[int] = (),
    whole: Sequence[int] = (0,),
) -> None:
    """Print aligned columns; on a terminal the widest ones are cut until a line fits.

    Args:
        cut_first: the columns to cut before others, in this order.
        whole: those that are never cut.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if sys.stdout.isatty():
        widths = _fitted(widths, shutil.get_terminal_size().columns, cut_first, whole)
    for row in (header, *rows):
        cells = (cut(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _fitted(
    widths: list[int], columns: int, cut_first: Sequence[int], whole: Sequence[int]
) -> list[int]:
    """Return widths that fit into `columns`, as far as columns may be cut."""
    widths = list(widths)
    others = [column for column in range(len(widths)) if column not in whole]
    excess = sum(widths) + 2 * (len(widths) - 1) - columns
    for _ in range(excess):
        least = [column for column in cut_first if widths[column] > _NARROWEST]
        widest = least[0] if least else max(others, key=lambda column: widths[column])
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


def cut(cell: str, size: int) -> str:
    """Return text cut to `size` characters, with `..` at its end if it was longer."""
    return cell if len(cell) <= size else cell[: size - len(_CUT)] + _CUT


class ProgressBar:
    """Shows on standard error how much of something is done, where that is a terminal.

    All on one line, which it wipes at the end.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_shown = sys.stderr.isatty()
        self._next_at = 0.0

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, size: int) -> None:
        """Show that `done` of `size` bytes are done, at most ten times a second."""
        now = time.monotonic()
        if not self._is_shown or (now < self._next_at and done < size):
            return
        self._next_at = now + _EVERY_SECONDS
        share = min(1.0, done / size) if size else 1.0
        bar = ("#" * round(share * _CELLS)).ljust(_CELLS, ".")
        text = f"\r{self._what} {bar} {share:4.0%}"
        print(text, end="", file=sys.stderr, flush=True)
