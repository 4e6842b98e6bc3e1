"""Measure a start with many known devices: seconds until the first answer, and memory.

    python -m benchmarks.known_devices [--devices 1000000]

Writes a journal in which every field of every device is set, starts the server on it as its own
process, asks for the version, waits until all rows are loaded, and prints the times and the memory
of the process (VmRSS and its peak, VmHWM, from /proc: Linux only).
"""

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from ota_server.device import Device, Download
from ota_server.record import format_marker, format_record

_START_MS = 1_760_000_000_000


def write_journal(path: Path, devices: int) -> None:
    """Write one line for each device, and the marker that closes a snapshot."""
    with path.open("wb") as journal:
        for number in range(devices):
            seen_ms = _START_MS + number
            download = Download("v1.0.1", f"{number:064x}", 4096, seen_ms - 5000)
            address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            device = Device(
                seen_ms, "v1.0.1", seen_ms, seen_ms - 1000, "v1.0.1", address, False, download
            )
            mac = (0x020000000000 + number).to_bytes(6, "big").hex(":")
            journal.write(format_record("device", mac, device))
        journal.write(format_marker(_START_MS, devices))


def memory(process: int) -> dict[str, int]:
    """Return VmRSS and VmHWM of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    pairs = (line.split() for line in lines if line.startswith(("VmRSS", "VmHWM")))
    return {name.rstrip(":"): int(kilobytes) * 1024 // 1_000_000 for name, kilobytes, _ in pairs}


def ask(url: str) -> None:
    """Ask for the version as a known device."""
    headers = {"_br_mac_": "02:00:00:00:00:07", "_br_fwv_": "v1.0.1"}
    urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60).read()


def main() -> None:
    """Run once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000_000, help="default: %(default)s")
    devices = parser.parse_args().devices
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        for name in ("log", "version"):
            (data_dir / name).mkdir()
        (data_dir / "version" / "version.txt").write_text("v1.0.1")
        journal = data_dir / "log" / "devices.jsonl"
        write_journal(journal, devices)
        print(f"{devices} devices, {journal.stat().st_size // 1_000_000} MB of journal")
        began = time.monotonic()
        command = [sys.executable, "-m", "ota_server.server", "--port", "0"]
        server = subprocess.Popen(
            [*command, "--data-dir", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert server.stdout is not None
        try:
            line = next(line for line in server.stdout if "listening" in line)
            port = line.split("//")[1].split("/")[0].rsplit(":", 1)[1]
            ask(f"http://localhost:{port}/version.txt")
            print(f"first answer after {time.monotonic() - began:.1f} s: {memory(server.pid)} MB")
            files = Path(f"/proc/{server.pid}/fd")
            # The journal is open twice until the rows are loaded: to be read, and to be written.
            while [str(file.readlink()) for file in files.iterdir()].count(str(journal)) > 1:
                time.sleep(0.5)
            print(
                f"all rows loaded after {time.monotonic() - began:.1f} s: {memory(server.pid)} MB"
            )
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
