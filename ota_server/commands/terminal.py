"""What commands show: tables of text, CSV, wrapped lines, times, and a progress bar."""

import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from ota_server.model.spreadsheet import csv_line
from ota_server.system.wrapping import wrap_words, wrapped

# What a column keeps on a narrow terminal: enough to recognise a version or an address.
_NARROWEST = 8
# In a narrow column a reason of a sentence would take ten lines.
_MOST_LINES = 3
_BELOW = "    "
_CUT = ".."
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_MILLISECONDS = re.compile(r"\.\d+(?=Z$)")
# Of the progress bar.
_CELLS = 30
_EVERY_SECONDS = 0.1


def printable(value: object) -> str:
    """Return text without control characters, whatever somebody wrote into a file."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


def to_the_second(time: object, is_local: bool = False) -> str:
    """Return a time as it stands in a file, without its milliseconds.

    Args:
        is_local: in the time zone of this machine, with its offset, where it can be converted.
    """
    text = str(time)
    if is_local:
        with suppress(ValueError, OverflowError, OSError):
            return datetime.fromisoformat(text).astimezone().isoformat(timespec="seconds")
    return _MILLISECONDS.sub("", text)


def in_local_time(line: str) -> str:
    """Return a line with its times in the time zone of this machine."""
    return _TIME.sub(lambda time: to_the_second(time[0], is_local=True), line)


def shown_columns() -> int:
    """Return to how many columns text is wrapped: those of the terminal, if it is one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def print_wrapped(lines: Iterable[str]) -> None:
    """Print lines; on a terminal each is wrapped between words."""
    columns = shown_columns()
    for line in lines:
        print("\n".join(wrapped(line, columns)))


def write_table(
    header: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    cut_first: Sequence[int] = (),
    whole: Sequence[int] = (0,),
    wrapped: int | None = None,
) -> None:
    """Print aligned columns; on a terminal the widest ones are cut until a line fits.

    Args:
        cut_first: the columns to cut before others, in this order.
        whole: those that are never cut.
        wrapped: one that goes on in the next line, between words, before any is cut; where there is
            hardly room for it, it stands below its row.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        if wrapped is not None:
            excess = max(sum(widths) + 2 * (len(widths) - 1) - columns, 0)
            if excess and widths[wrapped] - excess < _least(row[wrapped] for row in rows):
                _write_below((header, *rows), widths, columns, cut_first, whole, wrapped)
                return
            widths[wrapped] -= excess
        widths = _fitted(widths, columns, cut_first, (*whole, wrapped or 0))
    line = "  ".join(f"%-{size}s" for size in widths)
    for row in (header, *rows):
        for cells in _lines_of(row, widths, wrapped):
            print((line % tuple(map(cut, cells, widths))).rstrip())


def _least(cells: Iterable[str]) -> int:
    """Return the columns that cells need to be wrapped to a few lines, with no word broken."""
    different = set(cells)
    words = (word for cell in different for word in wrap_words(cell, 1))
    return max(max(map(len, words), default=0), max(map(len, different)) // _MOST_LINES)


def _write_below(
    rows: Sequence[Sequence[str]],
    widths: list[int],
    columns: int,
    cut_first: Sequence[int],
    whole: Sequence[int],
    below: int,
) -> None:
    """Print rows, the first one a header, with one column in lines of its own below each."""
    # It takes no room beside them, and so neither is it cut.
    widths = _fitted(
        [*widths[:below], 0, *widths[below + 1 :]], columns + 2, cut_first, (*whole, below)
    )
    for row in rows:
        cells = [cut(cell, size).ljust(size) for cell, size in zip(row, widths, strict=True)]
        print("  ".join((*cells[:below], *cells[below + 1 :])).rstrip())
        if row is not rows[0] and row[below] not in ("", "-"):
            print("\n".join(wrap_words(row[below], columns, _BELOW, _BELOW)))


def _lines_of(
    row: Sequence[str], widths: Sequence[int], wrapped: int | None
) -> Iterator[Sequence[str]]:
    """Yield the lines of a row: more than one where the wrapped column does not fit."""
    if wrapped is None or len(row[wrapped]) <= widths[wrapped]:
        yield row
        return
    first, *others = wrap_words(row[wrapped], widths[wrapped])
    yield [*row[:wrapped], first, *row[wrapped + 1 :]]
    for part in others:
        yield [part if column == wrapped else "" for column in range(len(row))]


def _fitted(
    widths: list[int], columns: int, cut_first: Sequence[int], whole: Sequence[int]
) -> list[int]:
    """Return widths that fit into `columns`, as far as columns may be cut."""
    widths = list(widths)
    others = [column for column in range(len(widths)) if column not in whole]
    excess = sum(widths) + 2 * (len(widths) - 1) - columns
    for _ in range(excess):
        least = [column for column in cut_first if widths[column] > _NARROWEST]
        widest = least[0] if least else max(others, key=lambda column: widths[column], default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


def cut(cell: str, size: int) -> str:
    """Return text cut to `size` characters, with `..` at its end if it was longer."""
    return cell if len(cell) <= size else cell[: size - len(_CUT)] + _CUT


def write_csv(header: Sequence[str], entries: Iterable[Mapping[str, object]]) -> None:
    """Print entries as CSV with a header line; no cell is a formula to a spreadsheet."""
    sys.stdout.write(csv_line(header))
    sys.stdout.writelines(map(csv_line, _csv_rows(header, entries)))


def _csv_rows(
    header: Sequence[str], entries: Iterable[Mapping[str, object]]
) -> Iterator[list[str]]:
    for entry in entries:
        cells = ["" if entry.get(name) is None else str(entry[name]) for name in header]
        yield [printable(cell) for cell in cells]


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
