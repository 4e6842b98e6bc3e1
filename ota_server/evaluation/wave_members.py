"""The devices of a wave, heard from or not, and what keeps a small one from going on. Pure."""

from collections.abc import Collection, Container, Mapping, Sequence
from typing import NamedTuple

from ota_server.evaluation.device_case import BAD, Case, DeviceState
from ota_server.evaluation.outcomes import UNSEEN
from ota_server.evaluation.poll_history import PollHistory
from ota_server.evaluation.silence import Silence
from ota_server.evaluation.tally import ASKING_WAVE, TINY_WAVE
from ota_server.model.address import address_of

_WEEK_MS = 7 * 24 * 3600 * 1000
# Of a wave with more devices than that, a sample tells how many are active, and how many slow.
_MOST_LOOKED_AT = 4096


class BelievedDevice(NamedTuple):
    """A device as it is believed.

    Attributes:
        source: the address that answers for its state.
        is_home: that is its home.
        is_unseen: it is undecided, and stays so (`Case.is_unseen`).
    """

    case: Case
    state: DeviceState
    source: int
    is_home: bool
    is_unseen: bool


Devices = Mapping[int, BelievedDevice]  # by their rows


class WaveMembers:
    """The members of the wave that is open, and of those before it: what has to update."""

    def __init__(
        self,
        polls: PollHistory,
        silence: Silence,
        devices: Devices,
        displaced: Container[int],
        wave: int,
        left_out: Collection[int],
    ) -> None:
        """Take what `WaveCounter` has found of each device, by its row.

        Args:
            displaced: those that are heard where few are believed.
            left_out: those that the rollout goes on without, or that cannot take it.
        """
        self._polls = polls
        self._silence = silence
        self._devices = devices
        self._displaced = displaced
        self._wave = wave
        self._left_out = left_out

    def size(self, reach: int) -> int:
        """Return how many members the open wave and those before it have, where they are few."""
        if reach > _MOST_LOOKED_AT:
            return reach
        return sum(
            wave <= self._wave and self._is_member(row) for row, wave in enumerate(self._polls.wave)
        )

    def count(self, soak_ms: float) -> tuple[int, float, dict[int, str]]:
        """Return how many devices this wave has, the share of slow ones, and those stuck in it."""
        rows, count = self._polls.rows_in_wave(self._wave, _MOST_LOOKED_AT)
        active = [row for row in rows if self._is_member(row)]
        slow = sum(self._polls.is_slow(row, soak_ms) for row in active)
        members = round(count * len(active) / max(len(rows), 1))
        stuck = self._stuck(active, members) if members <= ASKING_WAVE else {}
        return members, slow / max(len(active), 1), stuck

    def _stuck(self, rows: Sequence[int], members: int) -> dict[int, str]:
        """Return what keeps each device of a small wave from being through; not while some move."""
        stuck = dict[int, str]()
        for row in rows:
            device = self._devices.get(row)
            if device is None:
                stuck[row] = DeviceState.DISPLACED if row in self._displaced else "not heard from"
            elif device.state != DeviceState.UPDATED or not device.case.confirmed:
                stuck[row] = UNSEEN if device.is_unseen else device.state
            elif not device.is_home and members < TINY_WAVE:
                at = address_of(device.source)
                stuck[row] = f"heard only at {at}, which is not its home"
        is_over = all(state in BAD or self._is_late(row) for row, state in stuck.items())
        return stuck if is_over else {}

    def _is_late(self, row: int) -> bool:
        device = self._devices.get(row)
        if device is None:
            return self._silence.is_late(row)
        # It may have been offered the release long after the wave opened, such as after a hold.
        # Each is set once: a download that breaks again and again is late all the same.
        last_ms = max(device.case.offered, device.case.whole, device.case.updated)
        return self._silence.is_late(row, last_ms, device.state == DeviceState.UPDATED)

    def _is_member(self, row: int) -> bool:
        seen_ms = self._polls.seen[row]
        is_active = seen_ms >= 0 and seen_ms >= self._silence.since_ms - _WEEK_MS
        device = self._devices.get(row)
        is_surplus = device is not None and device.state == DeviceState.SURPLUS
        is_counted = self._polls.counts[row] and not is_surplus
        return bool(is_counted and is_active and row not in self._left_out)
