"""Devices of a model: how they poll, download, boot and fail, and what a server writes of that.

Time is in milliseconds since the epoch and goes as fast as it is asked for.
"""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ota_server.record import format_time
from ota_server.rollout import cohort_percent

MINUTE_MS = 60_000
_HOUR_MS = 60 * MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_SHORTEST_MS = 5 * MINUTE_MS
_SPREAD = 100  # from the shortest poll interval to the longest
_JITTER = 0.1
_POLLS_BEFORE = 4
_CHURN = 0.01  # so many devices leave within a day, whatever they run
_IMAGE_BYTES = 1_000_000
_SHA256 = "ab" * 32
_SITES = 20
_AT_SITES = 0.4  # so many devices are behind one of these addresses; the others have their own
_FAR_MS = 1 << 60


@dataclass(frozen=True)
class Scenario:
    """What a release does to devices, or the world to all of them.

    Attributes:
        cannot_boot, bricked, falls_back: the share of the devices to which that happens.
        only_from: such happens to devices that ran this version alone.
        cut: the share of all transfers that end early.
        outage: from when until when the server does not answer, hours after the start.
        dark_site: when one site of twenty has no power, the same.
        asleep: the share of all devices that have none then either, wherever they are.
        forged: MACs that somebody made up, all in the first wave and behind one address, known for
            long; they say of a good release that it fails, and of a bad one that it is good.
        spoken_for: the share of all devices that one address speaks for too, each half an hour, and
            in turn as if they ran the release, their old version, or neither.
        roaming: the share of the devices that come back from another address after a download.
        sleepers: MACs that somebody made up, behind one address, that stop as the rollout begins.
        stone_bricks: the share of the devices from `only_from` that the stone on their way kills.
    """

    name: str
    is_good: bool = False
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
    stone_bricks: float = 0.0


SCENARIOS = (
    Scenario("good", is_good=True),
    Scenario("good; half of all transfers are cut", is_good=True, cut=0.5),
    Scenario("good; the server is away for three hours", is_good=True, outage=(1.0, 4.0)),
    Scenario("good; a site has no power for six hours", is_good=True, dark_site=(0.5, 6.5)),
    Scenario("good; half of all sleep for six hours", True, dark_site=(0.5, 6.5), asleep=0.5),
    Scenario("good; twenty forged MACs say it fails", is_good=True, forged=20),
    Scenario("30 % cannot boot it", cannot_boot=0.3),
    Scenario("30 % are bricked, silently", bricked=0.3),
    Scenario("it fails on devices from v0.9.0 only", cannot_boot=1.0, only_from="v0.9.0"),
    Scenario("30 % fall back after a good first boot", falls_back=0.3),
    Scenario("30 % cannot boot it; half of all is cut", cannot_boot=0.3, cut=0.5),
    Scenario("30 % cannot boot it; twenty forged are happy", cannot_boot=0.3, forged=20),
    Scenario("good; one address speaks for all", is_good=True, spoken_for=1.0),
    Scenario("good; half of all move with it", is_good=True, roaming=0.5),
    Scenario("30 % cannot boot it; one speaks for all", cannot_boot=0.3, spoken_for=1.0),
    Scenario("30 % are bricked; one speaks for all", bricked=0.3, spoken_for=1.0),
    Scenario("30 % are bricked; half of all move", bricked=0.3, roaming=0.5),
    Scenario("30 % are bricked; 5000 made up fall asleep", bricked=0.3, sleepers=5000),
    Scenario("a stone bricks all from v0.9.0", only_from="v0.9.0", stone_bricks=1.0),
)
_FORGER = "203.0.113.99"
_FORGES_EVERY_MS = 30 * MINUTE_MS
_STONE = "v1.5.0"
_STONE_SHA256 = "cd" * 32


@dataclass(slots=True)
class _Device:
    mac: str
    address: str
    old: str
    interval_ms: float
    percent: float
    leaves_ms: int
    is_dark: bool  # has no power for some time
    is_forged: bool = False
    runs: str = ""
    fetches: str = ""
    got: int = 0  # bytes of the image
    has_downloaded: bool = False
    is_fetching: bool = False


class Fleet:
    """The devices of one run.

    Attributes:
        downloaded: how many ever had the whole image, or that of a stone.
        stones: the releases on the way to it.
    """

    release = "v2.0.0"
    versions = ("v1.1.0", "v1.0.0", "v0.9.0")

    def __init__(self, scenario: Scenario, seed: int, devices: int, start_ms: int) -> None:
        self.downloaded = 0
        self._scenario = scenario
        self._random = random.Random(f"{scenario.name} {seed}")
        self._start_ms = start_ms
        self._percent = 0.0
        self._is_over = False
        self._outage = self._span(scenario.outage)
        self._dark = self._span(scenario.dark_site)
        self._devices = [self._device(number) for number in range(devices)]
        self._devices += (self._forged(number) for number in range(scenario.forged))
        self._devices += (self._sleeper(number) for number in range(scenario.sleepers))
        self.stones = (_STONE,) if scenario.stone_bricks else ()
        self._rounds = 0
        self._events: list[tuple[int, int, int]] = []
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
        return self._start_ms + int(hours[0] * _HOUR_MS), self._start_ms + int(hours[1] * _HOUR_MS)

    def _device(self, number: int) -> _Device:
        chance = self._random
        mac = (0x02_00_00_00_00_00 + chance.randrange(1 << 20) * 16384 + number).to_bytes(6)
        text = mac.hex(":")
        site = chance.randrange(_SITES) if chance.random() < _AT_SITES else None
        leaves_ms = self._start_ms + int(chance.random() * _DAY_MS)
        old = chance.choices(self.versions, (60, 25, 15))[0]
        return _Device(
            mac=text,
            address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            if site is None
            else f"198.51.100.{site}",
            old=old,
            interval_ms=_SHORTEST_MS * math.exp(chance.random() * math.log(_SPREAD)),
            percent=cohort_percent(self.release, text),
            leaves_ms=leaves_ms if chance.random() < _CHURN else _FAR_MS,
            is_dark=site == 0 or chance.random() < self._scenario.asleep,
            runs=old,
        )

    def _forged(self, number: int) -> _Device:
        device = self._device(1 << 14 | number)
        is_asleep = number >= 1 << 13
        while (device.percent < 1) == is_asleep:
            device = self._device(1 << 14 | number)
        device.address = "203.0.113.66"
        device.interval_ms = _SHORTEST_MS
        device.leaves_ms = _FAR_MS
        device.is_dark, device.is_forged = False, True
        return device

    def _sleeper(self, number: int) -> _Device:
        device = self._forged(1 << 13 | number)
        device.address, device.percent = _FORGER, 100.0
        device.interval_ms = _SHORTEST_MS * math.exp(self._random.random() * math.log(_SPREAD))
        device.leaves_ms = self._start_ms
        return device

    def history(self) -> Iterator[dict[str, Any]]:
        """Yield what the journal holds at the start, and have each device poll on."""
        for device in self._devices:
            yield self._record("device", device, self._start_ms - 2 * _DAY_MS)
        yield {"event": "snapshot"}
        polls = []
        for index, device in enumerate(self._devices):
            at_ms = self._start_ms + self._random.random() * device.interval_ms
            self._events.append((int(at_ms), 0, index))
            for _ in range(_POLLS_BEFORE):
                at_ms -= self._wait_ms(device)
                polls.append((int(at_ms), index))
        if self._scenario.spoken_for:
            self._events.append((self._start_ms + 1, 6, 0))
        heapq.heapify(self._events)
        for at_ms, index in sorted(polls):
            if at_ms < self._start_ms:
                yield self._record("check", self._devices[index], at_ms)

    def _wait_ms(self, device: _Device) -> float:
        return device.interval_ms * self._random.uniform(1 - _JITTER, 1 + _JITTER)

    def records_until(self, now_ms: int, percent: float) -> Iterator[dict[str, Any]]:
        """Yield what is written up to a time, while the release is out to some of the fleet."""
        self._percent = percent
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
            yield from self._actions[action](device, at_ms, index)

    def _back_ms(self, device: _Device, at_ms: int) -> int:
        """Return when a device can reach the server again; at once, where it can."""
        if self._outage[0] <= at_ms < self._outage[1]:
            return self._outage[1]
        return self._dark[1] if device.is_dark and self._dark[0] <= at_ms < self._dark[1] else at_ms

    def _poll(self, device: _Device, at_ms: int, index: int) -> Iterator[dict[str, Any]]:
        if not (self._is_over and device.runs == self.release):
            next_ms = at_ms + int(self._wait_ms(device))
            heapq.heappush(self._events, (next_ms, 0, index))
        yield from self._check(device, at_ms, index)

    def _check(self, device: _Device, at_ms: int, index: int) -> Iterator[dict[str, Any]]:
        is_offered = device.percent < self._percent
        target = self._next_stop(device) if is_offered else device.runs
        yield self._record("check", device, at_ms, target)
        if is_offered and device.runs != self.release and not device.is_fetching:
            yield from self._begin(device, at_ms, index)

    def _begin(self, device: _Device, at_ms: int, index: int) -> Iterator[dict[str, Any]]:
        device.is_fetching = True
        details = {"range_start": device.got, "status": 206} if device.got else {"status": 200}
        device.fetches = self._next_stop(device)
        details |= _image(device, "download")
        yield self._record("begin", device, at_ms, device.fetches, details)
        heapq.heappush(self._events, (at_ms + self._random.randint(3_000, 60_000), 1, index))

    def _end(self, device: _Device, at_ms: int, index: int) -> Iterator[dict[str, Any]]:
        start, rest = device.got, _IMAGE_BYTES - device.got
        complete = self._random.random() >= self._scenario.cut
        sent = rest if complete else self._random.randrange(rest)
        device.got += sent
        details = {"bytes_sent": sent, "complete": complete, "status": 206 if start else 200}
        details |= _image(device, "release")
        details |= {"range_start": start} if start else {}
        yield self._record("download", device, at_ms, device.fetches, details)
        if not complete:
            heapq.heappush(self._events, (at_ms + 10_000, 4, index))
            return
        device.is_fetching = False
        device.got = 0
        self.downloaded += not (device.has_downloaded or device.is_forged)
        device.has_downloaded = True
        heapq.heappush(self._events, (at_ms + 20_000, 2, index))

    def _boot(self, device: _Device, at_ms: int, index: int) -> Iterator[dict[str, Any]]:
        scenario = self._scenario
        if device.is_forged and scenario.is_good:
            yield self._record("check", device, at_ms, self.release)
            return
        if self._random.random() < scenario.roaming:
            device.address = f"100.64.{self._random.randrange(8)}.{self._random.randrange(250)}"
        if device.fetches == _STONE:
            if _fate(device.mac) < scenario.stone_bricks:
                device.leaves_ms = at_ms
                return
            device.runs = _STONE
            yield from self._check(device, at_ms, index)
            return
        is_hit = scenario.only_from in (None, device.old) and not device.is_forged
        if is_hit and _fate(device.mac) < scenario.bricked:
            device.leaves_ms = at_ms
            return
        if is_hit and _fate(device.mac) < scenario.cannot_boot:
            yield self._record("check", device, at_ms, self.release)  # and waits for its next poll
            return
        device.runs = self.release
        if is_hit and _fate(device.mac) < scenario.falls_back:
            minutes = self._random.uniform(5, 40)
            heapq.heappush(self._events, (at_ms + int(minutes * MINUTE_MS), 3, index))
        yield from self._check(device, at_ms, index)

    def _fall_back(self, device: _Device, at_ms: int, index: int) -> Iterator[dict[str, Any]]:
        device.runs = device.old
        yield self._record("check", device, at_ms, self.release)

    def _record(
        self,
        event: str,
        device: _Device,
        at_ms: int,
        target: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        record = {
            "time": format_time(at_ms),
            "event": event,
            "product": "",
            "mac": device.mac,
            "firmware_version": device.runs,
            "target_version": target or device.runs,
            "address": device.address,
        }
        return record | (details or {})

    def _next_stop(self, device: _Device) -> str:
        is_direct = not self.stones or device.runs != self._scenario.only_from
        return self.release if is_direct else _STONE

    def _speak(self, _: _Device, at_ms: int, index: int) -> Iterator[dict[str, Any]]:
        """Have one address speak for devices of the wave that is open."""
        heapq.heappush(self._events, (at_ms + _FORGES_EVERY_MS, 6, index))
        self._rounds += 1
        for number, device in enumerate(self._devices):
            if device.percent >= self._percent or _fate(device.mac) >= self._scenario.spoken_for:
                continue
            version = (self.release, device.old, "v9.9.9")[(number + self._rounds) % 3]
            forged = {"address": _FORGER, "firmware_version": version}
            yield self._record("check", device, at_ms, self.release, forged)
            if version == device.old:
                forged |= {"release_version": self.release, "release_sha256": _SHA256}
                begun = forged | {"download_version": self.release, "download_sha256": _SHA256}
                begun |= {"download_size": _IMAGE_BYTES}
                yield self._record("begin", device, at_ms, self.release, begun)
                forged |= {"bytes_sent": _IMAGE_BYTES, "complete": True}
                yield self._record("download", device, at_ms, self.release, forged)

    def finish(self, now_ms: int) -> None:
        """Let the others have it too, once it is the target of all."""
        self._is_over = True
        until_ms = now_ms + int(2 * _SHORTEST_MS * _SPREAD)
        for _ in self.records_until(until_ms, 100.0):
            pass
        self._end_ms = until_ms

    @property
    def reached(self) -> float:
        """The share of those that run it, of the devices that are there."""
        end_ms = getattr(self, "_end_ms", _FAR_MS - 1)
        honest = (device for device in self._devices if not device.is_forged)
        there = [device for device in honest if device.leaves_ms > end_ms]
        return sum(device.runs == self.release for device in there) / max(len(there), 1)


def _image(device: _Device, kind: str) -> dict[str, Any]:
    """Return what a record tells of the image that a device fetches."""
    sha256 = _STONE_SHA256 if device.fetches == _STONE else _SHA256
    return {
        f"{kind}_version": device.fetches,
        f"{kind}_sha256": sha256,
        "download_size": _IMAGE_BYTES,
    }


def _fate(mac: str) -> float:
    """Return a number from 0 to 1 that is a device's own, and nothing else's."""
    return random.Random(mac).random()
