"""Compare what sending a file costs: sendfile, or a read and a send, on loopback.

    python benchmarks/copy_or_sendfile.py [--rounds 7] [--mebibytes 512]

Both take turns, in rounds; printed are the medians of the processor time of the sending process per
GiB, their spread, and the median of the ratios within a round.
"""

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time

_PIECE = 256 * 1024
_TURN = 1024 * 1024


def receive(port: int, size: int) -> None:
    """Read `size` bytes from a port of this machine."""
    buffer = bytearray(_PIECE)
    with socket.create_connection(("127.0.0.1", port)) as client:
        while size > 0:
            size -= client.recv_into(buffer) or size


def by_sendfile(sock: socket.socket, descriptor: int, size: int) -> None:
    """Have the kernel send the file."""
    offset = 0
    while offset < size:
        offset += os.sendfile(sock.fileno(), descriptor, offset, _TURN)


def by_copy(sock: socket.socket, descriptor: int, size: int) -> None:
    """Read pieces and send them."""
    offset = 0
    while offset < size:
        offset += sock.send(os.pread(descriptor, _PIECE, offset))


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--mebibytes", type=int, default=512, help="default: %(default)s")
    arguments = parser.parse_args()
    size = arguments.mebibytes * 1024 * 1024
    seconds: dict[str, list[float]] = {"sendfile": [], "read and send": []}
    with tempfile.TemporaryFile() as file, socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(arguments.mebibytes):
            file.write(os.urandom(1024 * 1024))
        file.flush()
        port = listener.getsockname()[1]
        for _ in range(arguments.rounds):
            for name, send in (("sendfile", by_sendfile), ("read and send", by_copy)):
                reader = multiprocessing.Process(target=receive, args=(port, size))
                reader.start()
                sock, _ = listener.accept()
                began = time.process_time()
                send(sock, file.fileno(), size)
                sock.close()
                seconds[name].append((time.process_time() - began) * 2**30 / size)
                reader.join()
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:14} {middle:.2f} s/GiB ({min(values):.2f} to {max(values):.2f})")
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    print(f"read and send / sendfile: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
