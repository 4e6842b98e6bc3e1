"""What Linux tells of a process and its children: processor time, memory, threads."""

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM, _ENDED_USER, _ENDED_SYSTEM = 1, 11, 12, 13, 14


def _stat(process: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold blanks itself."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it; nothing where it has ended."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(_stat(int(entry))[_PARENT]), []).append(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    found = [root] if Path(f"/proc/{root}").exists() else []
    for process in found:
        found += children.get(process, [])
    return found


def cpu_seconds(root: int) -> float:
    """Return the user and system time of a tree, of all its threads and of ended children."""
    fields = [_stat(process) for process in tree(root)]
    wanted = (_USER, _SYSTEM, _ENDED_USER, _ENDED_SYSTEM)
    return sum(int(one[place]) for one in fields for place in wanted) / _TICKS


def _status(root: int, name: str) -> int:
    """Return the sum of one number of /proc/PID/status over a tree."""
    total = 0
    for process in tree(root):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                total += int(line.split()[1])
    return total


def rss_mb(root: int) -> float:
    """Return the memory of a tree in MB of 10^6 bytes; what its processes share counts in each."""
    return _status(root, "VmRSS") * 1024 / 1e6


def peak_mb(root: int) -> float:
    """Return the most memory that the processes of a tree ever had, in MB of 10^6 bytes."""
    return _status(root, "VmHWM") * 1024 / 1e6


def threads(root: int) -> int:
    """Return the number of threads of a tree."""
    return _status(root, "Threads")


def open_files(process: int) -> list[str]:
    """Return the paths that a process has open, each as often as it is open."""
    paths = []
    for file in Path(f"/proc/{process}/fd").iterdir():
        try:
            paths.append(os.readlink(file))
        except FileNotFoundError:
            continue
    return paths


def cpu_clock(process: int) -> float:
    """Return the processor time of all threads of one process, also of ended ones, in seconds.

    `cpu_seconds` counts in hundredths; this is the clock that clock_getcpuclockid(3) names.
    """
    return time.clock_gettime((~process << 3) | 2)


def waited_seconds(process: int) -> float:
    """Return for how long the main thread of a process was ready, but had no processor."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
