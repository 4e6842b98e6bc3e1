"""What became of the devices of the open waves, in groups with all but the device in common. Pure.

`WaveOutcomes` is made by the thread that counts, for which all rollouts wait; its groups are made
by whoever wants to know. So the first is copies of columns, and a step for each device that was
offered the release; the second takes some steps for each device that there is.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import compress, repeat
from typing import NamedTuple

from ota_server.evaluation.device_case import DeviceState
from ota_server.evaluation.outcomes import DeviceOutcome
from ota_server.evaluation.poll_history import PollHistory, known_ms
from ota_server.evaluation.wave_members import Devices
from ota_server.model.address import address_of

_SILENT = DeviceState.SILENT
# The number of its key (`model.identity`), the address that answers for its state (`source_of`),
# and its poll gaps, as `PollHistory` has them; 0: none is known.
GroupedDevice = tuple[int, int, int]


class OutcomeGroup(NamedTuple):
    """Devices with the same outcome.

    Attributes:
        like: the outcome of each, without its key, address and gap.
        numbers, sources, gaps: of each `GroupedDevice`; no gaps at all: none is known.
    """

    like: DeviceOutcome
    numbers: "array[int]"
    sources: "array[int]"
    gaps: "array[int]"

    def devices(self) -> Iterator[GroupedDevice]:
        """Yield them, in no order."""
        return zip(self.numbers, self.sources, self.gaps or repeat(0), strict=False)

    def outcomes(self, key_of: Callable[[int], str]) -> Iterator[DeviceOutcome]:
        """Yield the outcome of each."""
        for number, source, gaps in self.devices():
            address, gap_ms = address_of(source), known_ms(gaps)
            yield self.like._replace(key=key_of(number), address=address, gap_ms=gap_ms)


class RowGroup(NamedTuple):
    """Devices with the same outcome, by their rows.

    Attributes:
        sources: the address that answers for each; none at all: from which it was heard last.
    """

    like: DeviceOutcome
    rows: "array[int]"
    sources: "array[int]"


class WaveOutcomes(NamedTuple):
    """The outcomes at one moment; nothing in it changes.

    Attributes:
        numbers, sources, gaps: of all rows, as `PollHistory` has them.
        believed: devices that were heard from, or are waited for.
        others: devices that are displaced, or cannot take the release.
        unheard: 1 for each row whose device is in the open waves, and in no group.
    """

    numbers: "array[int]"
    sources: "array[int]"
    gaps: "array[int]"
    believed: tuple[RowGroup, ...]
    others: tuple[RowGroup, ...]
    unheard: bytes

    def groups(self) -> Iterator[OutcomeGroup]:
        """Yield all groups that have devices."""
        for each in self.believed:
            yield self._group(each, array("Q", map(self.gaps.__getitem__, each.rows)))
        for each in self.others:
            yield self._group(each, array("Q"))
        if any(self.unheard):
            like = DeviceOutcome("", DeviceState.NOT_HEARD_FROM, "")
            numbers, sources = (
                array("Q", compress(column, self.unheard))
                for column in (self.numbers, self.sources)
            )
            yield OutcomeGroup(like, numbers, sources, array("Q"))

    def _group(self, group: RowGroup, gaps: "array[int]") -> OutcomeGroup:
        numbers = array("Q", map(self.numbers.__getitem__, group.rows))
        sources = group.sources or array("Q", map(self.sources.__getitem__, group.rows))
        return OutcomeGroup(group.like, numbers, sources, gaps)


def wave_outcomes(
    polls: PollHistory,
    wave: int,
    believed: Iterable[RowGroup],
    others: Iterable[RowGroup],
    told: Iterable[Iterable[int]],
) -> WaveOutcomes:
    """Return what became of the devices of the waves up to one.

    Args:
        told: the rows of devices that are not unheard.
    """
    unheard = bytearray(polls.in_waves(wave))
    for rows in told:
        for row in rows:
            unheard[row] = 0
    columns = polls.rows.numbers(), polls.source[:], polls.gaps[:]
    return WaveOutcomes(*columns, tuple(believed), tuple(others), bytes(unheard))


def believed_groups(
    devices: Devices, blamed: set[int], but: DeviceState | None
) -> Iterator[RowGroup]:
    """Yield groups of devices that were heard from, or are waited for.

    Args:
        blamed: the rows of silent devices that are not excused.
        but: a state whose devices are left out.
    """
    # To look a state up by itself takes longer than all the rest.
    found: dict[tuple[int, ...], RowGroup] = {}
    for row, (case, state, source, _, is_unseen) in devices.items():
        if state is but:
            continue
        is_excused = state is _SILENT and row not in blamed
        how = id(state), case.failing, is_excused, is_unseen
        group = found.get(how)
        if group is None:
            like = DeviceOutcome("", state, "", case.failing, is_excused, is_unseen=is_unseen)
            group = found[how] = RowGroup(like, array("L"), array("Q"))
        group.rows.append(row)
        group.sources.append(source)
    return iter(found.values())
