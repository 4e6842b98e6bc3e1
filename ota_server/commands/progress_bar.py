"""A progress bar on standard error, where that is a terminal."""

import sys
import time

_CELLS = 30
_EVERY_SECONDS = 0.1


class ProgressBar:
    """Shows how much is done, on one line, which it clears at the end."""

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
