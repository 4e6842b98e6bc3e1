"""Devices of a model: how they poll, download, boot and fail, and what a server writes of that.

Time is in milliseconds since the epoch and goes as fast as it is asked for.
"""

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.fleet_shapes import (
    DAY_MS,
    HOUR_MS,
    JITTER,
    MINUTE_MS,
    POLLS_BEFORE,
    SHAPES,
    Shape,
    carrier_address,
    own_address,
    renumbered_address,
    shared_address,
)
from ota_server.model.timestamp import format_time
from ota_server.model.version import UNKNOWN_VERSION
from ota_server.policy.decision import cohort_percent

_SHORTEST_MS = 5 * MINUTE_MS
_CHURN = 0.01  # so many devices leave within a day, whatever they run
_IMAGE_BYTES = 1_000_000
_SHA256 = "ab" * 32
_NO_POWER = 0.05  # so many devices lose their power where there are no sites
_SLOW_MS = 12 * HOUR_MS  # a device that polls less often than that is a slow poller
_FAR_MS = 1 << 60


@dataclass(frozen=True)
class ModelScenario:
    """What a release does to devices, or the world to all of them.

    Attributes:
        cannot_boot, bricked, falls_back: the share of the devices to which that happens.
        only_from: such happens to devices that ran this version alone.
        cut: the share of all transfers that end early.
        outage: from when until when the server does not answer, hours after the start.
        dark_site: when one site has no power, the same; where there are no sites, one device of
            twenty has none.
        asleep: the share of all devices that have none then either, wherever they are.
        forged: MACs that somebody made up, all in the first wave and behind one address, known for
            long; they say of a good release that it fails, and of a bad one that it is good.
        spoken_for: the share of all devices that one address speaks for too, each half an hour, and
            in turn as if they ran the release, their old version, or neither.
        roaming: the share of the devices that come back from another address after a download.
        sleepers: MACs that somebody made up, behind one address, that stop as the rollout begins.
        unseen: the share of all devices that say no version.
        stepping_stone_bricks: the share of the devices from `only_from` that the stepping stone on
            their way bricks.
    """

    name: str
    is_good: bool = False
    unseen: float = 0.0
    cannot_boot: float = 0.0
    bricked: float = 0.0
    falls_back: float = 0.0
    only_from: str | None = None
    cut: float = 0.0
    outage: tuple[float, float] | None = None
    dark_site: tuple[float, float] | None = None
    asleep: float = 0.0
    forged: int = 0
    spoken_for: float = 0.0
    roaming: float = 0.0
    sleepers: int = 0
    stepping_stone_bricks: float = 0.0


SCENARIOS = (
    ModelScenario("good", is_good=True),
    ModelScenario("good; half of all transfers are cut", is_good=True, cut=0.5),
    ModelScenario("good; the server is away for three hours", is_good=True, outage=(1.0, 4.0)),
    ModelScenario("good; a site has no power for six hours", is_good=True, dark_site=(0.5, 6.5)),
    ModelScenario("good; half of all sleep for six hours", True, dark_site=(0.5, 6.5), asleep=0.5),
    ModelScenario("good; twenty forged MACs say it fails", is_good=True, forged=20),
    ModelScenario("30 % cannot boot it", cannot_boot=0.3),
    ModelScenario("30 % are bricked, silently", bricked=0.3),
    ModelScenario("it fails on devices from v0.9.0 only", cannot_boot=1.0, only_from="v0.9.0"),
    ModelScenario("30 % fall back after a good first boot", falls_back=0.3),
    ModelScenario("30 % cannot boot it; half of all is cut", cannot_boot=0.3, cut=0.5),
    ModelScenario("30 % cannot boot it; twenty forged are happy", cannot_boot=0.3, forged=20),
    ModelScenario("good; one address speaks for all", is_good=True, spoken_for=1.0),
    ModelScenario("good; half of all move with it", is_good=True, roaming=0.5),
    ModelScenario("30 % cannot boot it; one speaks for all", cannot_boot=0.3, spoken_for=1.0),
    ModelScenario("30 % are bricked; one speaks for all", bricked=0.3, spoken_for=1.0),
    ModelScenario("30 % are bricked; half of all move", bricked=0.3, roaming=0.5),
    ModelScenario("30 % are bricked; 5000 made up fall asleep", bricked=0.3, sleepers=5000),
    ModelScenario("a stone bricks all from v0.9.0", only_from="v0.9.0", stepping_stone_bricks=1.0),
)
# Nobody lives at these: one address has made-up devices, the other speaks for devices elsewhere.
MADE_UP_AT = "203.0.113.66"
_FORGER = "203.0.113.99"
_FORGES_EVERY_MS = 30 * MINUTE_MS
_STEPPING_STONE = "v1.5.0"
_STEPPING_STONE_SHA256 = "cd" * 32


@dataclass(slots=True)
class _ModelDevice:
    mac: str
    address: str
    site: int  # -1: it has an address of its own
    old: str
    interval_ms: float
    percent: float
    leaves_ms: int
    moves_ms: int  # when it gets another address
    is_dark: bool  # has no power for some time
    is_forged: bool = False
    is_unseen: bool = False  # it says no version
    fate: float = 1.0  # from 0 to 1, its own: what the release does to it
    runs: str = ""
    fetches: str = ""
    got: int = 0  # bytes of the image
    has_downloaded: bool = False
    is_fetching: bool = False
    is_bricked: bool = False


class ModelFleet:
    """The devices of one run.

    Ask for `stands`, which make the waves; `forge`; then take the `history`, and what follows.

    Attributes:
        downloaded: how many ever had the whole image, or that of a stepping stone.
        stepping_stones: the releases on the way to it.
    """

    release = "v2.0.0"
    versions = ("v1.1.0", "v1.0.0", "v0.9.0")

    def __init__(
        self, scenario: ModelScenario, seed: int, shape: Shape = SHAPES[0], start_ms: int = 0
    ) -> None:
        self.downloaded = 0
        self._scenario = scenario
        self._shape = shape
        self._random = random.Random(f"{scenario.name} {shape.name} {seed}")
        self._start_ms = start_ms
        self._percent = 0.0
        self._is_offered = True
        self._is_over = False
        self._outage = self._span(scenario.outage)
        self._dark = self._span(scenario.dark_site)
        self._changes_at = [self._random.randrange(24 * 60) for _ in range(shape.addresses)]
        self._devices = [self._device(number) for number in range(shape.devices)]
        self._by_mac = {device.mac: device for device in self._devices}
        self.stepping_stones = (_STEPPING_STONE,) if scenario.stepping_stone_bricks else ()
        self._rounds = 0
        self._end_ms = _FAR_MS - 1
        self._events: list[tuple[int, int, int]] = []
        self._written: list[dict[str, Any]] = []
        self._actions = (
            self._poll,
            self._end,
            self._boot,
            self._fall_back,
            self._begin,
            self._check,
            self._speak,
        )

    def _span(self, hours: tuple[float, float] | None) -> tuple[int, int]:
        if hours is None:
            return _FAR_MS, _FAR_MS
        return self._start_ms + int(hours[0] * HOUR_MS), self._start_ms + int(hours[1] * HOUR_MS)

    # Who is there

    def _device(self, number: int) -> _ModelDevice:
        chance, shape = self._random, self._shape
        mac = (0x02_00_00_00_00_00 + chance.randrange(1 << 20) * 16384 + number).to_bytes(6)
        text = mac.hex(":")
        is_at_site = shape.addresses > 0 and chance.random() < shape.at_addresses
        site = number % shape.addresses if is_at_site else -1
        leaves_ms = self._start_ms + int(chance.random() * DAY_MS)
        old = chance.choices(self.versions, (60, 25, 15))[0]
        is_dark = site == 0 if shape.has_sites else chance.random() < _NO_POWER
        return _ModelDevice(
            mac=text,
            address=shared_address(site) if is_at_site else own_address(number),
            site=site,
            old=old,
            interval_ms=self._interval_ms(),
            percent=cohort_percent(self.release, text),
            leaves_ms=leaves_ms if chance.random() < _CHURN else _FAR_MS,
            moves_ms=-_FAR_MS if shape.is_moving else _FAR_MS,
            is_dark=is_dark or chance.random() < self._scenario.asleep,
            is_unseen=random.Random(f"{text} unseen").random() < self._scenario.unseen,
            fate=random.Random(text).random(),
            runs=old,
        )

    def _interval_ms(self) -> float:
        shape = self._shape
        if shape.daily and self._random.random() < shape.daily:
            return DAY_MS
        return _between(*shape.minutes, self._random.random())

    def forge(self, first_percent: float) -> None:
        """Add the MACs that somebody made up, once it is known up to where the first wave goes."""
        scenario = self._scenario
        for number in range(scenario.forged):
            self._devices.append(self._forged(number, first_percent))
        for number in range(scenario.sleepers):
            self._devices.append(self._sleeper(number, first_percent))

    def _forged(self, number: int, first_percent: float) -> _ModelDevice:
        device = self._device(1 << 14 | number)
        is_asleep = number >= 1 << 13
        while (device.percent < first_percent) == is_asleep:
            device = self._device(1 << 14 | number)
        device.address, device.site = MADE_UP_AT, -1
        device.interval_ms = _SHORTEST_MS
        device.leaves_ms = device.moves_ms = _FAR_MS
        device.is_dark, device.is_forged = False, True
        return device

    def _sleeper(self, number: int, first_percent: float) -> _ModelDevice:
        device = self._forged(1 << 13 | number, first_percent)
        device.address, device.percent = _FORGER, 100.0
        device.interval_ms = _between(*SHAPES[0].minutes, self._random.random())
        device.leaves_ms = self._start_ms
        return device

    def stands(self) -> list[tuple[float, bool]]:
        """Return where each device stands in the rollout, in percent, and if it polls slowly."""
        return [
            (device.percent, device.interval_ms > _SLOW_MS)
            for device in self._devices
            if not device.is_forged
        ]

    def counted(self, waves: Sequence[float]) -> tuple[int, ...]:
        """Return how many devices each wave adds, as a server counts them: made-up ones too."""
        percents = [cohort_percent(self.release, device.mac) for device in self._devices]
        within = [sum(percent < wave for percent in percents) for wave in waves]
        return tuple(count - before for count, before in zip(within, [0, *within], strict=False))

    def exposed_at_most(self, waves: Sequence[float]) -> int:
        """Return how many devices are in the waves up to the first that holds a harmed one.

        Until then nothing shows that a release is bad. Where harm is silence, it holds two: one
        alone may have been unplugged.
        """
        honest = [device for device in self._devices if not device.is_forged]
        harmed = sorted(device.percent for device in honest if self._is_harmed(device))
        is_silent = self._scenario.bricked or self._scenario.stepping_stone_bricks
        lowest = harmed[min(1 if is_silent else 0, len(harmed) - 1)] if harmed else 0.0
        limit = next(wave for wave in waves if lowest < wave) if harmed else 100.0
        return sum(device.percent < limit for device in honest)

    def _is_harmed(self, device: _ModelDevice) -> bool:
        """Return whether the release, or a stepping stone before it, harms a device that stays."""
        scenario = self._scenario
        shares = (
            scenario.cannot_boot,
            scenario.bricked,
            scenario.falls_back,
            scenario.stepping_stone_bricks,
        )
        is_hit = scenario.only_from in (None, device.old)
        return is_hit and device.fate < max(shares) and device.leaves_ms == _FAR_MS

    def is_lost(self, mac: str, now_ms: int) -> bool:
        """Return whether a device is dead or has no power, and not because of the release."""
        device = self._by_mac.get(mac)
        if device is None or device.is_bricked:
            return False
        has_no_power = device.is_dark and self._dark[0] <= now_ms < self._dark[1]
        return has_no_power or device.leaves_ms <= now_ms

    # What they do

    def history(self) -> list[dict[str, Any]]:
        """Return what the journal holds at the start, and have each device poll on."""
        known_ms = self._start_ms - self._shape.known_ms
        for device in self._devices:
            self._settle(device, known_ms)
            self._write("device", device, known_ms)
        self._written.append({"event": "snapshot"})
        polls = []
        for index, device in enumerate(self._devices):
            next_ms = self._start_ms + self._random.random() * device.interval_ms
            self._events.append((int(next_ms), 0, index))
            for at_ms in self._polls_before(device, next_ms):
                self._settle(device, at_ms)
                polls.append((at_ms, index, device.address))
        if self._scenario.spoken_for:
            self._events.append((self._start_ms + 1, 6, 0))
        heapq.heapify(self._events)
        for at_ms, index, address in sorted(polls):
            self._write("check", self._devices[index], at_ms, details={"address": address})
        return self._taken()

    def _polls_before(self, device: _ModelDevice, next_ms: float) -> list[int]:
        """Return when a device polled before the start, the oldest poll first."""
        times: list[int] = []
        # Of devices that move, more is on record: the addresses that they had.
        from_ms = self._start_ms - (0 if device.is_forged else self._shape.history_ms)
        while len(times) < POLLS_BEFORE or next_ms > from_ms:
            next_ms -= self._wait_ms(device)
            if next_ms < self._start_ms:
                times.append(int(next_ms))
        return times[::-1]

    def _settle(self, device: _ModelDevice, at_ms: int) -> None:
        """Give a device another address, if it is time for that."""
        if at_ms < device.moves_ms or device.is_fetching:
            return
        if self._shape.moves_hours is not None:
            device.address = carrier_address(self._random.random())
            device.moves_ms = at_ms + int(self._random.uniform(*self._shape.moves_hours) * HOUR_MS)
            return
        first_ms = self._start_ms + self._changes_at[device.site] * MINUTE_MS
        day, since_ms = divmod(at_ms - first_ms, DAY_MS)
        device.address = renumbered_address(device.site, day, self._shape.addresses)
        device.moves_ms = at_ms - since_ms + DAY_MS

    def _wait_ms(self, device: _ModelDevice) -> float:
        return device.interval_ms * (1 - JITTER + 2 * JITTER * self._random.random())

    def records_until(
        self, now_ms: int, percent: float, *, is_offered: bool = True
    ) -> list[dict[str, Any]]:
        """Return what is written up to a time.

        Args:
            percent: so much of the fleet is in the wave that is open, and those before it.
            is_offered: the rollout is not paused: these are told to run the release.
        """
        self._percent, self._is_offered = percent, is_offered
        events = self._events
        while events and events[0][0] < now_ms:
            at_ms, action, index = heapq.heappop(events)
            device = self._devices[index]
            if at_ms >= device.leaves_ms and action != 6:
                continue
            back_ms = self._back_ms(device, at_ms)
            if back_ms > at_ms:
                # It tries again by its interval, and later goes on with what it has.
                at_ms = int(back_ms + self._wait_ms(device) * self._random.random())
                device.is_fetching &= action not in (1, 4)
                heapq.heappush(events, (at_ms, 5 if action in (1, 4) else action, index))
                continue
            if at_ms >= device.moves_ms:
                self._settle(device, at_ms)
            self._actions[action](device, at_ms, index)
        return self._taken()

    def _taken(self) -> list[dict[str, Any]]:
        taken, self._written = self._written, []
        return taken

    def _back_ms(self, device: _ModelDevice, at_ms: int) -> int:
        """Return when a device can reach the server again; at once, where it can."""
        if self._outage[0] <= at_ms < self._outage[1]:
            return self._outage[1]
        return self._dark[1] if device.is_dark and self._dark[0] <= at_ms < self._dark[1] else at_ms

    def _poll(self, device: _ModelDevice, at_ms: int, index: int) -> None:
        if not (self._is_over and device.runs == self.release):
            next_ms = at_ms + int(self._wait_ms(device))
            heapq.heappush(self._events, (next_ms, 0, index))
        self._check(device, at_ms, index)

    def _check(self, device: _ModelDevice, at_ms: int, index: int) -> None:
        is_offered = self._is_offered and device.percent < self._percent
        target = self._next_stop(device) if is_offered else device.runs
        self._write("check", device, at_ms, target)
        if is_offered and device.runs != self.release and not device.is_fetching:
            self._begin(device, at_ms, index)

    def _begin(self, device: _ModelDevice, at_ms: int, index: int) -> None:
        device.is_fetching = True
        details = {"range_start": device.got, "status": 206} if device.got else {"status": 200}
        device.fetches = self._next_stop(device)
        details |= _image(device, "download")
        self._write("begin", device, at_ms, device.fetches, details)
        heapq.heappush(self._events, (at_ms + self._random.randint(3_000, 60_000), 1, index))

    def _end(self, device: _ModelDevice, at_ms: int, index: int) -> None:
        start, rest = device.got, _IMAGE_BYTES - device.got
        complete = self._random.random() >= self._scenario.cut
        sent = rest if complete else self._random.randrange(rest)
        device.got += sent
        details = {"bytes_sent": sent, "complete": complete, "status": 206 if start else 200}
        details |= _image(device, "release")
        details |= {"range_start": start} if start else {}
        self._write("download", device, at_ms, device.fetches, details)
        if not complete:
            heapq.heappush(self._events, (at_ms + 10_000, 4, index))
            return
        device.is_fetching = False
        device.got = 0
        self.downloaded += not (device.has_downloaded or device.is_forged)
        device.has_downloaded = True
        heapq.heappush(self._events, (at_ms + 20_000, 2, index))

    def _boot(self, device: _ModelDevice, at_ms: int, index: int) -> None:
        scenario = self._scenario
        if device.is_forged and scenario.is_good:
            self._write("check", device, at_ms, self.release)
            return
        if self._random.random() < scenario.roaming:
            device.address = carrier_address(self._random.random())
        if device.fetches == _STEPPING_STONE:
            if device.fate < scenario.stepping_stone_bricks:
                device.leaves_ms, device.is_bricked = at_ms, True
                return
            device.runs = _STEPPING_STONE
            self._check(device, at_ms, index)
            return
        is_hit = scenario.only_from in (None, device.old) and not device.is_forged
        if is_hit and device.fate < scenario.bricked:
            device.leaves_ms, device.is_bricked = at_ms, True
            return
        if is_hit and device.fate < scenario.cannot_boot:
            self._write("check", device, at_ms, self.release)  # and waits for its next poll
            return
        device.runs = self.release
        if is_hit and device.fate < scenario.falls_back:
            minutes = self._random.uniform(5, 40)
            heapq.heappush(self._events, (at_ms + int(minutes * MINUTE_MS), 3, index))
        self._check(device, at_ms, index)

    def _fall_back(self, device: _ModelDevice, at_ms: int, index: int) -> None:
        device.runs = device.old
        self._write("check", device, at_ms, self.release)

    def _write(
        self,
        event: str,
        device: _ModelDevice,
        at_ms: int,
        target: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        if self._is_over:
            return  # nobody reads it
        record = {
            "time": format_time(at_ms),
            "event": event,
            "product": "",
            "mac": device.mac,
            "firmware_version": UNKNOWN_VERSION if device.is_unseen else device.runs,
            "target_version": target or device.runs,
            "address": device.address,
        }
        if details is not None:
            record.update(details)
        self._written.append(record)

    def _next_stop(self, device: _ModelDevice) -> str:
        is_direct = not self.stepping_stones or device.runs != self._scenario.only_from
        return self.release if is_direct else _STEPPING_STONE

    def _speak(self, _: _ModelDevice, at_ms: int, index: int) -> None:
        """Have one address speak for devices of the wave that is open."""
        if self._is_over:
            return
        heapq.heappush(self._events, (at_ms + _FORGES_EVERY_MS, 6, index))
        self._rounds += 1
        for number, device in enumerate(self._devices):
            if device.percent >= self._percent or device.fate >= self._scenario.spoken_for:
                continue
            version = (self.release, device.old, "v9.9.9")[(number + self._rounds) % 3]
            forged: dict[str, Any] = {"address": _FORGER, "firmware_version": version}
            self._write("check", device, at_ms, self.release, forged)
            if version == device.old:
                forged |= {"release_version": self.release, "release_sha256": _SHA256}
                begun = forged | {"download_version": self.release, "download_sha256": _SHA256}
                begun |= {"download_size": _IMAGE_BYTES}
                self._write("begin", device, at_ms, self.release, begun)
                forged |= {"bytes_sent": _IMAGE_BYTES, "complete": True}
                self._write("download", device, at_ms, self.release, forged)

    def finish(self, now_ms: int) -> None:
        """Let the others have it too, once it is the target of all."""
        self._is_over = True
        self._end_ms = now_ms + int(2.2 * self._shape.slowest_ms)
        self.records_until(self._end_ms, 100.0)

    @property
    def reached(self) -> float:
        """The share of those that run it, of the devices that are there."""
        honest = (device for device in self._devices if not device.is_forged)
        there = [device for device in honest if device.leaves_ms > self._end_ms]
        return sum(device.runs == self.release for device in there) / max(len(there), 1)


def _between(least: int, most: int, number: float) -> float:
    """Return an interval in milliseconds from one number of minutes to another, rather short."""
    return least * MINUTE_MS * math.exp(number * math.log(most / least))


def _image(device: _ModelDevice, kind: str) -> dict[str, Any]:
    """Return what a record tells of the image that a device fetches."""
    sha256 = _STEPPING_STONE_SHA256 if device.fetches == _STEPPING_STONE else _SHA256
    return {
        f"{kind}_version": device.fetches,
        f"{kind}_sha256": sha256,
        "download_size": _IMAGE_BYTES,
    }
