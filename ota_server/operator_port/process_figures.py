"""What the system says of a process: processor time, memory, open files. I/O: reads `/proc`."""

import os
from contextlib import suppress
from pathlib import Path

from ota_server.operator_port.metrics_input import ProcessFigures

_PROC = Path("/proc")
# Of /proc/PID/stat, counted after the name of the program, which may have blanks and brackets.
_USER_TICKS, _SYSTEM_TICKS, _START_TICKS, _VIRTUAL_BYTES, _RESIDENT_PAGES = 11, 12, 19, 20, 21


def read_process(pid: int) -> ProcessFigures | None:
    """Return the figures of a process; None: it is gone, or the system is not Linux."""
    folder = _PROC / str(pid)
    try:
        fields = (folder / "stat").read_text("latin-1").rpartition(")")[2].split()
        user, system, start, virtual, resident = (
            int(fields[index])
            for index in (
                _USER_TICKS,
                _SYSTEM_TICKS,
                _START_TICKS,
                _VIRTUAL_BYTES,
                _RESIDENT_PAGES,
            )
        )
        started_seconds = _boot_seconds() + start / _ticks_a_second()
    except (OSError, ValueError, IndexError):
        return None
    return ProcessFigures(
        (user + system) / _ticks_a_second(),
        resident * os.sysconf("SC_PAGE_SIZE"),
        virtual,
        _open_files(folder),
        _most_files(folder),
        started_seconds,
    )


def _ticks_a_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _boot_seconds() -> int:
    for line in (_PROC / "stat").read_text("ascii").splitlines():
        name, _, value = line.partition(" ")
        if name == "btime":
            return int(value)
    raise ValueError("the system does not say when it was booted")


def _open_files(folder: Path) -> int:
    """Return how many files a process has open; 0 where that is for its user alone to know."""
    with suppress(OSError), os.scandir(folder / "fd") as entries:
        return sum(1 for _ in entries)
    return 0


def _most_files(folder: Path) -> int:
    with suppress(OSError, ValueError):
        for line in (folder / "limits").read_text("ascii").splitlines():
            if line.startswith("Max open files"):
                return int(line.split()[3])
    return 0
