"""The fold of the journal under a rollout: its time a record, its memory, its checkpoint.

    python -m benchmarks.fold --devices 100000

All devices poll before the start and under the first wave, each from its home. Then a few other
addresses speak for each of them in turn. Run it for two versions in turn to compare them.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ota_server.evaluation.feedback import Feedback
from ota_server.evaluation.scope import RolloutScope
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan

_START_MS = 1_790_000_000_000
_HOUR_MS = 3_600_000
_OLD, _NEW = "v1.0.0", "v2.0.0"


def _records(
    devices: int, hour: int, version: str, told: str, address: str | None
) -> Iterator[dict[str, Any]]:
    """Yield a check of each device within one hour."""
    for number in range(devices):
        at_ms = _START_MS + hour * _HOUR_MS + number * _HOUR_MS // devices
        yield {
            "time": format_time(at_ms),
            "event": "check",
            "product": "",
            "mac": (0x02_00_00_00_00_00 + number).to_bytes(6).hex(":"),
            "firmware_version": version,
            "target_version": told,
            "address": address or f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
        }


def _fold(feedback: Feedback, records: Iterator[dict[str, Any]]) -> float:
    """Fold records; return the seconds of processor time that it took."""
    found = list(records)
    began = time.process_time()
    for record in found:
        feedback.observe(record)
    return time.process_time() - began


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """Fold and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.fold", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--devices", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--addresses", type=int, default=4, help="(default: %(default)s)")
    options = parser.parse_args()
    plan = RolloutPlan("id", _NEW, "", (10.0, 100.0), format_time(_START_MS), _OLD, count_new=True)
    known = RolloutScope(releases=frozenset(("1.0.0", "2.0.0")))
    feedback = Feedback(plan, known, 0, _START_MS)
    devices = options.devices
    rounds = [_fold(feedback, _records(devices, hour, _OLD, _OLD, None)) for hour in range(-4, 0)]
    rounds += [_fold(feedback, _records(devices, hour, _OLD, _NEW, None)) for hour in range(2)]
    _say("from their homes", rounds, devices, feedback, 2)
    rounds = [
        _fold(feedback, _records(devices, 2 + site, _NEW, _NEW, f"203.0.113.{site}"))
        for site in range(options.addresses)
    ]
    _say(f"{options.addresses} others speak for all", rounds, devices, feedback, 6)


def _say(what: str, rounds: list[float], devices: int, feedback: Feedback, hour: int) -> None:
    began = time.process_time()
    feedback.tally(_START_MS + hour * _HOUR_MS)
    tally = time.process_time() - began
    print(
        f"{what}: {sum(rounds) / len(rounds) / devices * 1e6:.1f} µs a record, a tally takes "
        f"{tally:.2f} s, {_resident_mb():.0f} MB, a "
        f"checkpoint of {len(feedback.dump()) / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
