"""Stories of devices under a rollout: what a server would have written, folded as it is told."""

from typing import Any

from ota_server.evaluation.feedback import Feedback
from ota_server.evaluation.scope import RolloutScope
from ota_server.evaluation.tally import Tally
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import RolloutPlan

START_MS = 1_790_000_000_000
MINUTE_MS = 60_000
DAY_MINUTES = 24 * 60
OLD, RELEASE = "v1.0.0", "v2.0.0"
SIZE = 50 * 1024
SHA256 = "ab" * 32

PLAN = RolloutPlan("id", RELEASE, "", (100.0,), format_time(START_MS), OLD)
RELEASES = frozenset(("1.0.0", "1.1.0", "2.0.0"))


def mac(number: int) -> str:
    """Return the MAC of a device of a story."""
    return number.to_bytes(6).hex(":").replace("00", "02", 1)


class Story:
    """Tells records to a fold; `now` is in minutes after the start of the rollout.

    Every device is old enough to count, unless it is `born`, and polls once an hour before.
    Devices from 1000 up are held back; ten of them poll each minute while time passes.
    """

    def __init__(
        self,
        plan: RolloutPlan = PLAN,
        *,
        devices: int = 10,
        completion_unknown: bool = False,
        aliases: dict[str, str] | None = None,
        held_at: str | None = None,
        homes: dict[int, str] | None = None,
        devices_proven: bool = False,
    ) -> None:
        self.known = RolloutScope(
            frozenset(map(mac, range(1000))),
            releases=RELEASES,
            aliases=aliases or {},
            completion_unknown=completion_unknown,
        )
        self.plan = plan
        self.feedback = Feedback(plan, self.known, 0, START_MS, devices_proven)
        self.devices = range(1, devices + 1)
        self.held = range(1000, 1010)
        self.held_at = held_at
        self.homes = homes or {}
        self.now = -2.0 * DAY_MINUTES
        self.records: list[dict[str, Any]] = []
        for hour in range(-48, 0, 4):
            self.now = hour * 60.0
            for number in (*self.devices, *self.held):
                self.now += 0.01
                self.check(number, told=None)
        self.now = 0.0

    @property
    def now_ms(self) -> int:
        """Return the time that it is."""
        return START_MS + round(self.now * MINUTE_MS)

    def tell(self, event: str, number: int, version: str = OLD, **fields: Any) -> None:
        """Tell one record."""
        site = self.held_at if number >= 1000 else self.homes.get(number)
        record = {
            "time": format_time(self.now_ms),
            "event": event,
            "product": "",
            "mac": mac(number),
            "firmware_version": version,
            "last_seen_time": format_time(self.now_ms),
            "update_time": None,
            "target_version": RELEASE,
            "address": site or f"10.0.{number // 250}.{number % 250}",
            **fields,
        }
        self.records.append(record)
        self.feedback.observe(record)

    def check(self, number: int, version: str = OLD, told: str | None = RELEASE, **f: Any) -> None:
        """Have a device ask which version to run."""
        self.tell("check", number, version, target_version=told, **f)

    def begin(self, number: int, version: str = OLD, start: int | None = None, **f: Any) -> None:
        """Have a transfer begin, from a byte on where a range was asked for."""
        fields = {"download_version": RELEASE, "download_sha256": SHA256, "download_size": SIZE}
        fields |= {"status": 200} if start is None else {"status": 206, "range_start": start}
        self.tell("begin", number, version, **{**fields, **f})

    def end(
        self,
        number: int,
        sent: int = SIZE,
        complete: bool = True,
        start: int | None = None,
        **f: Any,
    ) -> None:
        """Have it end."""
        fields = {"bytes_sent": sent, "complete": complete, "duration_seconds": 1.5}
        fields |= {"release_version": RELEASE, "release_sha256": SHA256}
        fields |= {"status": 200} if start is None else {"status": 206, "range_start": start}
        self.tell("download", number, **{**fields, **f})

    def download(self, number: int, **fields: Any) -> None:
        """Have a device ask, and fetch all of it."""
        self.check(number, **fields)
        self.begin(number, **fields)
        self.end(number, **fields)

    def update(self, number: int, **fields: Any) -> None:
        """Have a device fetch it, and report it a minute later."""
        self.download(number, **fields)
        self.wait(1)
        self.check(number, RELEASE, **fields)

    def wait(self, minutes: float, *others: int) -> None:
        """Let time pass; devices that are held back poll once a minute, and so do others."""
        end = self.now + minutes
        while self.now + 1 <= end:
            self.now += 1
            for number in self.held:
                self.check(number, told=OLD)
            for number in others:
                self.check(number)
        self.now = end

    def tally(self) -> Tally:
        """Count."""
        return self.feedback.tally(self.now_ms)

    def state(self, number: int = 1) -> str:
        """Return what became of the only device that did anything; "": nothing."""
        tally = self.tally()._asdict()
        names = ("offered", "downloading", "cut", "undecided", "updated", "failed", "mislabelled")
        found = [
            name for name in (*names, "silent", "displaced", "surplus", "too_new") if tally[name]
        ]
        return " ".join(found)
