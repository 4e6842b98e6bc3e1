"""Measure how long sending holds its caller when the image is not in memory.

    python -m benchmarks.cold_image [--rounds 7] [--mebibytes 64]

Takes turns, in rounds: an image that is in memory; one that the kernel has dropped, sent as it
comes; the same, each window read by the server's thread before it is sent. Printed are the medians
over the rounds of the longest call of `sendfile` in milliseconds, and their spread.
"""

import argparse
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import BinaryIO

from ota_server.httpd.readahead import WINDOW_BYTES, ReadAhead, is_in_memory

_PIECE_BYTES = 256 * 1024


def forget(file: BinaryIO) -> None:
    """Have the kernel drop what it holds of a file."""
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def longest_call(sock: socket.socket, file: BinaryIO, size: int, ahead: ReadAhead | None) -> float:
    """Send a file; return the milliseconds of the longest call."""
    longest, offset = 0.0, 0
    while offset < size:
        last = min(offset + WINDOW_BYTES, size) - 1
        if ahead is not None and not is_in_memory(file.fileno(), offset, last):
            reading = ahead.begin(file, file.fileno(), offset)  # type: ignore[arg-type]
            while not reading.is_done:
                time.sleep(0.001)
        began = time.perf_counter()
        offset += os.sendfile(sock.fileno(), file.fileno(), offset, _PIECE_BYTES)
        longest = max(longest, (time.perf_counter() - began) * 1000)
    return longest


def read_all(client: socket.socket) -> None:
    """Read until the other side closes."""
    while client.recv(1024 * 1024):
        continue


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--mebibytes", type=int, default=64, help="default: %(default)s")
    arguments = parser.parse_args()
    size = arguments.mebibytes * 1024 * 1024
    ahead = ReadAhead()
    found: dict[str, list[float]] = {"in memory": [], "dropped": [], "dropped, read ahead": []}
    # Not in /tmp, which may be memory.
    with (
        tempfile.TemporaryFile(dir=Path(__file__).parent) as file,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        sock, _ = listener.accept()
        reader = threading.Thread(target=read_all, args=(client,))
        reader.start()
        for _ in range(arguments.mebibytes):
            file.write(os.urandom(1024 * 1024))
        file.flush()
        for _ in range(arguments.rounds):
            found["in memory"].append(longest_call(sock, file, size, None))
            forget(file)
            found["dropped"].append(longest_call(sock, file, size, None))
            forget(file)
            found["dropped, read ahead"].append(longest_call(sock, file, size, ahead))
        sock.close()
        reader.join()
    ahead.close()
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"{name:20} {middle:7.2f} ms ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
