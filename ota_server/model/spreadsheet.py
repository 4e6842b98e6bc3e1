"""Lines of CSV that a spreadsheet reads as they are meant. Pure."""

from collections.abc import Iterable

# A cell that begins with one of these is a formula to a spreadsheet (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_QUOTED = frozenset(',"\r\n')


def as_text(cell: str) -> str:
    """Return a cell that is no formula to a spreadsheet."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def csv_line(cells: Iterable[str]) -> str:
    """Return a line of CSV (RFC 4180) with its end; no cell of it is a formula."""
    return ",".join(map(_quoted, map(as_text, cells))) + "\r\n"


def _quoted(cell: str) -> str:
    if _QUOTED.isdisjoint(cell):
        return cell
    return '"' + cell.replace('"', '""') + '"'
