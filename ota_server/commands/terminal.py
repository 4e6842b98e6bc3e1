"""Tables of text, as commands print them."""

import shutil
import sys
from collections.abc import Sequence

# What a column keeps on a narrow terminal: enough to recognise a version or an address.
_NARROWEST = 8
_CUT = ".."


def printable(value: object) -> str:
    """Return text without control characters, whatever somebody wrote into a file."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


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
