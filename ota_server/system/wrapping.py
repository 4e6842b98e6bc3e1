"""Text in lines of a width, broken between words. Pure."""

import re
from textwrap import wrap

# A command, and what stands for its blanks while lines are wrapped.
_COMMAND = re.compile("`[^`]*`")
_BLANK = "\0"


def wrap_words(text: str, columns: int, further: str = "", first: str = "") -> list[str]:
    """Wrap text; a command in backticks stays in one line, however long, so that it can be pasted.

    Args:
        further: what the second line and those after it begin with.
        first: what the first line begins with.
    """
    lines = wrap(
        _COMMAND.sub(lambda command: command[0].replace(" ", _BLANK), text),
        columns,
        initial_indent=first,
        subsequent_indent=further,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line.replace(_BLANK, " ") for line in lines]


def wrapped(line: str, columns: int) -> list[str]:
    """Wrap a line as `wrap_words`; the second row and those after it are indented more."""
    return wrap_words(line, max(columns, 20), " " * (len(line) - len(line.lstrip()) + 2)) or [""]


def cut_to(line: str, columns: int) -> list[str]:
    """Wrap a line so that no row is longer than a screen is wide, not even a long command."""
    return [
        row[at : at + columns]
        for row in wrapped(line, columns)
        for at in range(0, max(len(row), 1), columns)
    ]
