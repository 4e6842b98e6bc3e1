"""How far a run is: a bar on a terminal, else a line for each measurement."""

import sys
import time
from typing import TextIO

_BAR = 24


class Progress:
    """Counts the measurements of a run, of which there are `total`."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._done = 0
        self._what = ""
        self._began = time.monotonic()

    def begin(self, what: str) -> None:
        """Say what is being measured."""
        self._what = what
        if self._stream.isatty():
            self._draw()

    def end(self, figure: str) -> None:
        """Say what came of it."""
        self._done += 1
        if not self._stream.isatty() or figure.startswith("FAILED"):
            clear = "\r\x1b[K" if self._stream.isatty() else ""
            line = f"{clear}{self._done:4}/{self._total} {self._what}: {figure}"
            print(line, file=self._stream, flush=True)
        if self._stream.isatty():
            self._draw()

    def note(self, text: str) -> None:
        """Print a line that is no measurement."""
        clear = "\r\x1b[K" if self._stream.isatty() else ""
        print(f"{clear}{text}", file=self._stream, flush=True)

    def _draw(self) -> None:
        full = _BAR * self._done // max(self._total, 1)
        spent = time.monotonic() - self._began
        left = spent / self._done * (self._total - self._done) if self._done else 0.0
        line = (
            f"\r\x1b[K[{'#' * full}{'.' * (_BAR - full)}] {self._done}/{self._total}"
            f" {left / 60:.0f} min left · {self._what}"
        )
        print(line[:110], end="", file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the line of the bar."""
        if self._stream.isatty():
            print(file=self._stream, flush=True)
