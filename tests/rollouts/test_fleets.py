"""Whole fleets, behind few addresses and many: good releases end, bad ones stop, people are asked.

Each fleet has a server process of its own, with the controller that it starts, and is rolled out to
by the command as an operator types it; only soak and grace are made short.
"""

import re
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from ota_server.journal.record import format_marker, format_record
from ota_server.model.device import Device
from ota_server.policy.decision import cohort_percent
from ota_server.policy.rollout_plan import RolloutPlan, parse_plan
from tests.support import until
from tests.support.fleet import (
    NEW,
    OLD,
    FleetAtHome,
    read_progress,
    run_rollout,
    start_server,
    write_images,
)

SHORT = ("--soak", "1s", "--apply-grace", "1s")
# Rounds in which homes and rhythms are measured before the start.
_ROUNDS_BEFORE = 6
_PAUSE_SECONDS = 0.1
_TIMEOUT_SECONDS = 120.0
_HOUR_MS = 3_600_000
_MOST_FLEETS = 12
_OVER = ("done", "halted", "aborted")


def boots_all(_mac: str) -> bool:
    return True


class ServedFleet:
    """A fleet that has been known for three days, and the server of its own that it asks.

    Attributes:
        boots: whether a device runs the new image once it has it.
        devices_in_order: the MACs in the order in which a rollout reaches them.
    """

    def __init__(self, case: unittest.TestCase, data_dir: Path, *sizes: int) -> None:
        """Start its server; so many devices live at each address."""
        self.devices = FleetAtHome(*sizes)
        self.boots: Callable[[str], bool] = boots_all
        self.devices_in_order = sorted(
            self.devices.versions, key=lambda mac: cohort_percent(NEW, mac)
        )
        self._data_dir = data_dir
        self._know()
        self.server = start_server(case, data_dir)
        case.addCleanup(self.devices.hang_up)

    def _know(self) -> None:
        """Write the journal of a server that ended a minute ago, which begins with a snapshot."""
        now_ms = time.time_ns() // 1_000_000 - 60_000
        first_seen_ms = now_ms - 72 * _HOUR_MS
        with (self._data_dir / "log" / "devices.jsonl").open("wb") as journal:
            for mac, address in self.devices.homes.items():
                device = Device(now_ms, OLD, now_ms, None, OLD, address, False, None, first_seen_ms)
                journal.write(format_record("device", mac, device))
            journal.write(format_marker(now_ms, len(self.devices.homes)))

    def ask(self) -> None:
        """Have each device ask once."""
        self.devices.ask(self.server.port, self.boots)

    def ask_until(self, is_so: Callable[[], bool]) -> None:
        """Have the devices ask until something is so.

        Raises:
            AssertionError: it did not come.
        """

        def is_so_after_a_round() -> bool:
            self.ask()
            return is_so()

        if not until(is_so_after_a_round, _TIMEOUT_SECONDS, _PAUSE_SECONDS):
            raise AssertionError(f"{self.status()}\n{self.server.end()[1]}")

    def start(self) -> None:
        """Begin the rollout."""
        self.run("start", NEW, *SHORT)

    def run(self, *arguments: str) -> str:
        """Return what a command prints.

        Raises:
            AssertionError: it failed.
        """
        code, out, err = run_rollout(self._data_dir, *arguments)
        assert code == 0, err
        return out

    def status(self) -> str:
        """Return what `rollout status` prints, in one line, whether a person has to act or not."""
        _, out, _ = run_rollout(self._data_dir, "status")
        return " ".join(out.split())

    @property
    def state(self) -> str:
        """The state of the rollout; "" before the controller has seen it."""
        return str(read_progress(self._data_dir).get("state", ""))

    @property
    def wave(self) -> int:
        """The wave that is open, counted from 0; -1 before the controller has seen the rollout."""
        return int(read_progress(self._data_dir).get("wave", -1))

    def is_over(self) -> bool:
        return self.state in _OVER

    def first_wave(self) -> set[str]:
        """Return the devices of the first wave."""
        plan: RolloutPlan = parse_plan((self._data_dir / "version" / "rollout.json").read_bytes())
        return {mac for mac in self.devices.versions if cohort_percent(NEW, mac) < plan.percent(0)}


@unittest.skipUnless(sys.platform == "linux", "needs all of 127.0.0.0/8")
class FleetsCase(unittest.TestCase):
    """Fleets that are served, each in a data directory of its own."""

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.images = [Path(folder.name) / str(number) for number in range(_MOST_FLEETS)]
        for each in cls.images:
            write_images(each)

    def fleet(self, *sizes: int) -> ServedFleet:
        """Return a fleet of which so many devices live at each address."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        data_dir = Path(folder.name)
        for name in ("version", "log"):
            (data_dir / name).mkdir()
        self.images.pop().rename(data_dir / "firmware")
        (data_dir / "version" / "version.txt").write_text(OLD)
        return ServedFleet(self, data_dir, *sizes)

    def start(self, *fleets: ServedFleet) -> None:
        """Have each fleet poll for some rounds, and begin its rollout."""
        rounds = iter(range(_ROUNDS_BEFORE))

        def have_polled() -> bool:
            for fleet in fleets:
                fleet.ask()
            return next(rounds, None) is None

        until(have_polled, _TIMEOUT_SECONDS, _PAUSE_SECONDS)
        for fleet in fleets:
            self.assertEqual(set(fleet.devices.told), {OLD})
            fleet.start()

    def started(self, *sizes: int) -> ServedFleet:
        """Return a fleet whose rollout has begun."""
        fleet = self.fleet(*sizes)
        self.start(fleet)
        return fleet

    def end(self, *fleets: ServedFleet) -> None:
        """Have the fleets ask, side by side, each until its rollout is over, or for long enough."""
        on = list(fleets)

        def are_over() -> bool:
            for fleet in on:
                fleet.ask()
            on[:] = [fleet for fleet in on if not fleet.is_over()]
            return not on

        until(are_over, _TIMEOUT_SECONDS, _PAUSE_SECONDS)


class GoodReleaseTest(FleetsCase):
    TAKES_LONG = True

    def test_it_is_done_in_fleets_of_every_size_at_few_addresses_and_many(self):
        fleets = {
            sizes: self.fleet(*sizes)
            for sizes in (
                (3,) * 4,
                (4,) * 10,
                (60,),
                (80, 70, 50),
                (2,) * 5,
                (5,) * 10,
                (10,) * 10,
                (40,) * 5,
                (30,) * 10,
                (50,) * 20,
            )
        }
        self.start(*fleets.values())
        self.end(*fleets.values())
        for sizes, fleet in fleets.items():
            with self.subTest(sizes=sizes):
                self.assertEqual(fleet.state, "done", fleet.status())
                self.assertEqual(set(fleet.devices.versions.values()), {NEW})


class AddressTest(FleetsCase):
    def test_an_address_that_speaks_for_all_devices_is_named_and_keeps_it_from_nothing(self):
        fleet = self.started(*(5,) * 10)
        stranger = FleetAtHome(50)
        stranger.move("127.0.9.9")
        self.addCleanup(stranger.hang_up)
        named = re.compile(r"127\.0\.9\.9 said of \d+ devices? what their home does not confirm")

        def is_named() -> bool:
            stranger.ask(fleet.server.port, fetches=False)
            return named.search(fleet.status()) is not None

        fleet.ask_until(is_named)

        def is_over() -> bool:
            stranger.ask(fleet.server.port, fetches=False)
            return fleet.is_over()

        fleet.ask_until(is_over)
        self.assertEqual(fleet.state, "done", fleet.status())
        self.assertRegex(fleet.status(), named)

    def test_a_nat_whose_address_changes_in_mid_rollout_keeps_it_from_nothing(self):
        fleet = self.started(60)
        fleet.ask_until(lambda: fleet.wave == 1)
        fleet.devices.move("127.0.2.1")
        self.end(fleet)
        self.assertEqual(fleet.state, "done", fleet.status())
        self.assertEqual(set(fleet.devices.versions.values()), {NEW})


class BadReleaseTest(FleetsCase):
    def test_it_is_halted_before_the_second_wave_gets_it_at_one_address_as_at_many(self):
        fleets = {sizes: self.fleet(*sizes) for sizes in ((40,) * 5, (60,), (5,))}
        for sizes, fleet in fleets.items():
            fleet.boots = self.bricks(fleet) if sizes == (5,) else self.is_spared
        self.start(*fleets.values())
        self.end(*fleets.values())
        for sizes, fleet in fleets.items():
            with self.subTest(sizes=sizes):
                self.assertEqual(fleet.state, "halted", fleet.status())
                self.assertTrue(fleet.devices.holders)
                self.assertLessEqual(fleet.devices.holders, fleet.first_wave())

    def is_spared(self, mac: str) -> bool:
        """Say whether a device is of the seventy of a hundred that boot it."""
        return int(mac[-2:], 16) % 10 >= 3

    def bricks(self, fleet: ServedFleet) -> Callable[[str], bool]:
        def boots(mac: str) -> bool:
            fleet.devices.off.add(mac)
            return False

        return boots


class SmallFleetTest(FleetsCase):
    def setUp(self) -> None:
        super().setUp()
        self.twelve = self.started(*(3,) * 4)
        self.lame = self.twelve.devices_in_order[6]
        self.assertNotIn(self.lame, self.twelve.first_wave())

    def pause(self) -> None:
        """Have the device that cannot boot the release pause the rollout."""
        self.twelve.boots = lambda mac: mac != self.lame
        self.twelve.ask_until(lambda: self.twelve.state == "paused")

    def assert_asked(self) -> None:
        """Assert that a person is asked about the device, and told what to do."""
        status = self.twelve.status()
        self.assertIn(self.lame, status)
        self.assertIn("promote", status)
        self.assertNotIn("resume", status)

    def test_one_device_that_cannot_boot_it_is_named_and_promote_goes_on_without(self):
        self.pause()
        self.assert_asked()
        self.twelve.run("promote")
        self.twelve.ask_until(self.twelve.is_over)
        self.assertEqual(self.twelve.state, "done", self.twelve.status())

    def test_a_pause_ends_by_itself_when_the_device_recovers(self):
        self.pause()
        self.twelve.boots = boots_all
        self.twelve.devices.versions[self.lame] = NEW
        self.twelve.ask_until(self.twelve.is_over)
        self.assertEqual(self.twelve.state, "done", self.twelve.status())
        self.assertEqual(set(self.twelve.devices.versions.values()), {NEW})

    def test_one_device_that_is_unplugged_is_named_and_promote_ends_it_without(self):
        self.twelve.devices.off.add(self.lame)
        self.twelve.ask_until(lambda: self.lame in self.twelve.status())
        self.assert_asked()
        self.twelve.run("promote")
        self.twelve.ask_until(self.twelve.is_over)
        self.assertEqual(self.twelve.state, "done", self.twelve.status())
