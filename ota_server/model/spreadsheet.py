"""Lines of CSV that a spreadsheet reads as they are meant. Pure."""

import re
from collections.abc import Iterable

# A cell that begins with one of these is a formula to a spreadsheet (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# What LibreOffice and Excel take for a number, a date or a time, as some versions look.
_NUMBER = re.compile(
    r"[+-]?(?:[0-9][0-9,]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? ?%?"
    r"|[0-9]{1,4}[-/][0-9]{1,4}(?:[-/][0-9]{1,4})?"
    r"|[0-9]{1,2}:[0-9]{1,2}(?::[0-9]{1,2})?"
)
_QUOTED = frozenset(',"\r\n')


def as_text(cell: str) -> str:
    """Return a cell that is no formula to a spreadsheet."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def never_a_number(cell: str) -> str:
    """Return a cell that stays text in a spreadsheet: the version 1.10 is not the number 1.1."""
    return f"'{cell}" if _NUMBER.fullmatch(cell) else cell


def csv_line(cells: Iterable[str]) -> str:
    """Return a line of CSV (RFC 4180) with its end; no cell of it is a formula."""
    return ",".join(map(_quoted, map(as_text, cells))) + "\r\n"


def _quoted(cell: str) -> str:
    if _QUOTED.isdisjoint(cell):
        return cell
    return '"' + cell.replace('"', '""') + '"'
