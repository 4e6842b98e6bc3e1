"""What a process inherits from whoever started it, set right: the first thing that each door does.

| inherited | what would follow | what is done |
|---|---|---|
| SIGCHLD ignored | exit codes of children are lost, and read as 0 | back to its default |
| SIGTERM ignored | nobody can end a command | the same |
| blocked signals | the signal to end never arrives | all are unblocked |
| a closed standard stream | a file of ours gets its number, and text | it gets /dev/null |
| one that does not wait | output is lost while its reader is slow | it waits |
| an encoding without some letters | a path that cannot be printed ends us | they are escaped |
| a umask against the owner | we cannot open our own files again | the owner may |

Ignored SIGHUP and SIGINT (`nohup`, `&` in a script) were meant: commands leave them so.

It imports next to nothing: signals are looked after before the imports that take long.
"""

import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType

_RELIED_ON = (signal.SIGCHLD, signal.SIGTERM)


def begin(ignore: tuple[signal.Signals, ...] = (), end: tuple[signal.Signals, ...] = ()) -> None:
    """Set right what this process inherits; more than once does no harm.

    Args:
        ignore: the signals to ignore until somebody handles them.
        end: those that end the process with exit code 0 until then: nothing is begun yet.
    """
    for signum in _RELIED_ON:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # In the middle of an import it would be a traceback; see `raise_on_interrupt`.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for signum in ignore:
        signal.signal(signum, signal.SIG_IGN)
    for signum in end:
        signal.signal(signum, _end)
    # Only now: a signal that was blocked may arrive at once.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _open_standard_streams()
    os.umask(os.umask(0o077) & 0o077)


def begin_to_serve() -> None:
    """Begin as a server. SIGHUP would kill it before it can open a journal again."""
    begin(ignore=(signal.SIGHUP,), end=(signal.SIGINT, signal.SIGTERM))


def begin_to_control() -> None:
    """Begin as a controller. A terminal sends these to all, but the server decides when it ends."""
    begin(ignore=(signal.SIGINT, signal.SIGHUP))


def raise_on_interrupt() -> None:
    """Make SIGINT a KeyboardInterrupt, so that a command cleans up; unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_signum: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _open_standard_streams() -> None:
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.set_blocking(number, True)
        except OSError:
            # The lowest number that is free is this one. Children get it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:  # so it is in Python if it was closed
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # An error is of the file that the stream was when Python opened it.
        with suppress(OSError):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
