"""What went wrong, as a person reads it: one wrapped message, and no more than that is new."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ota_server.system.hints import hints
from ota_server.system.wrapping import wrapped

_COLUMNS = 80  # where there is no terminal


def print_problem(text: str) -> None:
    """Print to standard error, wrapped on a terminal; commands in it can be pasted."""
    shown = "".join(char if char.isprintable() else "?" for char in hints.paste(text))
    columns = _columns() if sys.stderr.isatty() else sys.maxsize
    print("\n".join(wrapped(shown, columns)), file=sys.stderr)


def _columns() -> int:
    """Return how wide the terminal is, as `shutil` does, which takes 1 MB with what it imports."""
    try:
        columns = int(os.environ.get("COLUMNS", 0))
        return columns if columns > 0 else os.get_terminal_size(1).columns or _COLUMNS
    except (ValueError, OSError):
        return _COLUMNS


class HelpLines(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal; argparse makes one for each option that it is told of."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong without listing all options before it.

    Attributes:
        parts: the commands that it consists of; None: it is one command.
    """

    parts: Any = None

    def __init__(self, *names: Any, **named: Any) -> None:
        super().__init__(*names, **{"formatter_class": HelpLines, **named})

    def add_subparsers(self, **named: Any) -> Any:
        """Add commands, which are parsers of this kind too."""
        self.parts = super().add_subparsers(**named)
        return self.parts

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse; what is left over is the fault of the command that was typed."""
        found, left = super().parse_known_args(args, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return found, left

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where help is; exit with 2."""
        print_problem(f"{self.prog}: {message}; `{self.prog} --help` says more")
        sys.exit(2)
