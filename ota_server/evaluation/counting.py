"""How many devices of a wave did well or badly, and what that says of a release. Pure.

`contested` says who is believed; `silence`, whose fault it is that a device is not heard from.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from ota_server.evaluation.binomial import most_by_chance
from ota_server.evaluation.contested import (
    Account,
    believed,
    capped,
    heard_at,
    large_homes,
    largest,
    move_homes,
    surplus_of,
)
from ota_server.evaluation.device_case import BAD, NO_EVIDENCE, NOT_FAILED, Case, DeviceState, Terms
from ota_server.evaluation.outcome_groups import (
    RowGroup,
    WaveOutcomes,
    believed_groups,
    wave_outcomes,
)
from ota_server.evaluation.outcomes import DeviceOutcome
from ota_server.evaluation.poll_history import PollHistory
from ota_server.evaluation.silence import Silence
from ota_server.evaluation.tally import ASKING_WAVE, SLOW, TINY_WAVE, Evidence, Tally
from ota_server.evaluation.unfit import cause_in_words
from ota_server.evaluation.wave_members import BelievedDevice, Devices, WaveMembers
from ota_server.model.address import address_of
from ota_server.policy.reason import Cause, Reason


class WaveCounter:
    """Counts the devices of the waves that are open, at one moment."""

    def __init__(
        self,
        polls: PollHistory,
        silence: Silence,
        terms: Terms,
        wave: int,
        chosen_wave: int,
        accepted: Collection[int],
        now_ms: int,
    ) -> None:
        """Take a moment.

        Args:
            chosen_wave: the wave whose devices an operator chose.
            accepted: rows of devices that a person goes on without.
        """
        self._polls = polls
        self._silence = silence
        self._terms = terms
        self._wave = wave
        self._chosen_wave = chosen_wave
        self._accepted = accepted
        self._now_ms = now_ms
        self._devices: dict[int, BelievedDevice] = {}
        self._displaced: dict[int, int] = {}  # from which address, by the row
        self._blamed: set[int] = set()  # of the silent ones
        self._at_risk: set[int] = set()
        self._unfit: dict[int, Cause] = {}
        self._left_out: frozenset[int] = frozenset(accepted)
        self._share_of: Callable[[int], float] | None = None  # of silence; None: nobody is silent

    def tally(self, accounts: Mapping[int, Account], unfit: Mapping[int, Cause]) -> Tally:
        """Return the counts of these devices, by their rows.

        Args:
            unfit: why the server does not give some of them the release.
        """
        polls = self._polls
        self._unfit = {
            row: why
            for row, why in unfit.items()
            if polls.wave[row] <= self._wave
            and polls.counts[row]
            and not (row in accounts and any(each.asked >= 0 for each in accounts[row].cases()))
        }
        self._left_out = frozenset((*self._accepted, *self._unfit))

        def is_at_risk(row: int) -> bool:
            account = accounts.get(row)
            cases = () if account is None else account.cases()
            return any(case.is_on_its_way(self._terms) for case in cases)

        move_homes(polls, accounts, self._has_missed, self._silence.is_expected, is_at_risk)
        concerned = {row: each for row, each in accounts.items() if self._is_concerned(row, each)}
        for row, case, is_home in believed(concerned, self._may_speak, self._has_missed):
            source = polls.home[row] if is_home else concerned[row].away_source
            if case is None:
                self._displaced[row] = source
            else:
                if case.failing != NOT_FAILED:
                    source = heard_at(case, source, self._terms)
                is_home = source == polls.home[row]
                state = self._state(row, case)
                unseen = state == DeviceState.UNDECIDED and case.is_unseen(self._terms)
                self._devices[row] = BelievedDevice(case, state, source, is_home, unseen)
        self._leave_out_surplus()
        return self._sum_up(accounts)

    def outcomes(self, but: DeviceState | None = None) -> WaveOutcomes:
        """Return what became of the devices that `tally` has counted; call that before.

        Args:
            but: a state whose devices are left out.
        """
        believed = believed_groups(self._devices, self._blamed, but)
        like = DeviceOutcome("", DeviceState.DISPLACED, "")
        others = [RowGroup(like, array("L", self._displaced), array("Q", self._displaced.values()))]
        unfit: dict[str, array[int]] = {}
        for row, why in self._unfit.items():
            unfit.setdefault(cause_in_words(why), array("L")).append(row)
        for words, rows in unfit.items():
            like = DeviceOutcome("", DeviceState.CANNOT_TAKE_IT, "", why=words)
            others.append(RowGroup(like, rows, array("Q")))
        told = self._devices, self._displaced, self._left_out
        return wave_outcomes(self._polls, self._wave, believed, others, told)

    # Each device

    def _is_concerned(self, row: int, account: Account) -> bool:
        if self._polls.wave[row] > self._wave or row in self._left_out:
            return False
        if self._silence.is_heard(row):
            return True
        is_waited_for = any(case.is_on_its_way(self._terms) for case in account.cases())
        return is_waited_for and self._silence.is_expected(row)

    def _may_speak(self, row: int, account: Account) -> bool:
        if self._has_missed(row, account):
            return True
        assert account.away is not None
        is_good = self._state(row, account.away) == DeviceState.UPDATED
        return is_good and self._state(row, account.case) not in BAD

    def _has_missed(self, row: int, account: Account) -> bool:
        return self._silence.has_missed(row, max(account.case.seen, self._polls.polled[row]))

    def _is_slow(self, row: int) -> bool:
        return self._polls.is_slow(row, self._terms.soak_ms)

    def _is_at_risk(self, row: int, case: Case) -> bool:
        """Return whether its silence may be the release's fault: up to the end of its wave."""
        is_fresh = self._polls.wave[row] == self._wave
        return case.is_on_its_way(self._terms) or (is_fresh and case.updated >= 0)

    def _state(self, row: int, case: Case) -> DeviceState:
        if not self._polls.counts[row]:
            return DeviceState.TOO_NEW
        is_silent = self._is_at_risk(row, case) and self._silence.is_silent(row, case.seen)
        return case.state(self._terms, self._now_ms, is_silent)

    def _leave_out_surplus(self) -> None:
        """Have no more devices of one home count than is its share, but for chosen devices."""
        polls, chosen, too_new = self._polls, self._chosen_wave, DeviceState.TOO_NEW
        rows = [
            row
            for row, each in self._devices.items()
            if each.state != too_new and polls.wave[row] != chosen
        ]
        for row in surplus_of(polls, rows, self._wave, self._terms):
            surplus = self._devices[row]._replace(state=DeviceState.SURPLUS, is_unseen=False)
            self._devices[row] = surplus

    # All of them

    def _sum_up(self, accounts: Mapping[int, Account]) -> Tally:
        polls, displaced = self._polls, Counter(self._displaced.values())
        states = Counter(device.state for device in self._devices.values())
        counting = {r: each for r, each in self._devices.items() if each.state not in NO_EVIDENCE}
        bad = self._bad(counting)
        reach = sum(polls.in_waves(self._wave)) - states[DeviceState.SURPLUS]
        reach -= sum(polls.wave[row] <= self._wave for row in self._left_out)
        wave_members = self._wave_members()
        size = wave_members.size(reach)
        large = self._large(bad, counting)
        members, slow_share, stuck = wave_members.count(self._terms.soak_ms)
        soaked = self._soaked(counting, size)
        said_by = (account.contradicted_by for account in accounts.values())
        contradictors = Counter(source for source in said_by if source is not None)
        unseen = [polls.wave[row] for row, each in counting.items() if each.is_unseen]
        waiting = states.pop(DeviceState.WAITING, 0)
        named = list(bad.items())[:ASKING_WAVE]
        mislabelled = (each for each in bad.values() if each.state == DeviceState.MISLABELLED)
        labels = Counter(each.case.runs for each in mislabelled).most_common(1)
        return Tally(
            **{state.value: count for state, count in states.items()},
            active=waiting + sum(n for name, n in states.items() if name not in NO_EVIDENCE),
            displaced=displaced.total(),
            contradicted=contradictors.total(),
            cannot_take_it=len(self._unfit),
            no_room=sum(why.reason is Reason.NO_ROOM for why in self._unfit.values()),
            unseen=len(unseen),
            unseen_fresh=unseen.count(self._wave),
            reach=reach,
            heard=sum(polls.wave[row] <= self._wave and polls.counts[row] for row in accounts),
            overall=self._evidence(counting, bad, large),
            whole=self._evidence(counting, bad, None),
            parts=self._parts(counting, bad, large),
            fresh=sum(polls.wave[row] == self._wave for row in counting),
            to_come=polls.wave.count(self._wave),
            members=members,
            size=size,
            slow_share=slow_share,
            soaked=len(soaked),
            slow_soaked=sum(map(self._is_slow, soaked)) if slow_share else 0,
            silence_rate=_mean(self._silence_of(counting)),
            bad={row: f"{each.state} at {address_of(each.source)}" for row, each in named},
            label=labels[0][0] if labels else "",
            bad_elsewhere=sum(not each.is_home for each in bad.values()),
            bad_at=largest(Counter(each.source for each in bad.values())),
            displaced_at=largest(displaced),
            contradicted_at=largest(contradictors),
            stuck=stuck,
        )

    def _wave_members(self) -> WaveMembers:
        found = self._devices, self._displaced, self._wave, self._left_out
        return WaveMembers(self._polls, self._silence, *found)

    def _soaked(self, counting: Devices, size: int) -> list[int]:
        """Return the devices of this wave that have soaked; of a tiny one, those at home alone."""
        updated, waves = DeviceState.UPDATED, self._polls.wave
        return [
            row
            for row, each in counting.items()
            if waves[row] == self._wave
            and each.state == updated
            and each.case.confirmed
            and (each.is_home or size >= TINY_WAVE)
        ]

    def _bad(self, counting: Devices) -> dict[int, BelievedDevice]:
        """Return the devices that speak against the release; of the silent ones, those blamed."""
        bad = {row: each for row, each in counting.items() if each.state in BAD}
        rows = [row for row, each in bad.items() if each.state == DeviceState.SILENT]
        silent = {row: (bad[row].source, bad[row].case.seen) for row in rows}
        if not silent:
            return bad
        self._at_risk = {row for row, each in counting.items() if self._is_at_risk(row, each.case)}
        # Those that have soaked are at risk up to the end of their wave, and show how others fare.
        devices, terms = self._devices.items(), self._terms
        on_their_way = {row for row, each in devices if each.case.is_on_its_way(terms)}
        blamed = self._blamed = self._silence.blamed(silent, on_their_way)
        homes = Counter(counting[row].source for row in self._at_risk)
        self._share_of = self._silence.shares(on_their_way, homes)
        return {row: each for row, each in bad.items() if row not in silent or row in blamed}

    def _large(self, bad: Devices, counting: Devices) -> Collection[int] | None:
        if len(bad) < 2:
            return ()
        polls, silence = self._polls, self._silence

        def is_there(row: int) -> bool:
            return row in counting or not silence.has_missed(row, polls.seen[row])

        living = Counter(polls.home[row] for row in counting)
        return large_homes(polls, living, is_there, self._terms)

    def _parts(
        self, counting: Devices, bad: Devices, large: Collection[int] | None
    ) -> dict[str, Evidence]:
        """Return the evidence of those from each version that some bad ones ran, and slow ones."""
        parts: dict[str, dict[int, BelievedDevice]] = {
            old: {} for old in sorted({each.case.old for each in bad.values()} - {""})
        }
        if any(map(self._is_slow, bad)):
            parts[SLOW] = {row: each for row, each in counting.items() if self._is_slow(row)}
        for row, each in counting.items() if bad else ():
            if each.case.old in parts:
                parts[each.case.old][row] = each
        return {
            name: self._evidence(part, {row: bad[row] for row in bad if row in part}, large)
            for name, part in parts.items()
        }

    def _evidence(self, counting: Devices, bad: Devices, large: Collection[int] | None) -> Evidence:
        """Return the evidence of some devices.

        Args:
            large: homes that may give more than a quarter of it; None: all of them.
        """

        def count(devices: Iterable[BelievedDevice]) -> int:
            sources = Counter(each.source for each in devices)
            return sources.total() if large is None else capped(sources, large)

        failing = [each for each in bad.values() if each.case.failing != NOT_FAILED]
        others = [each for each in bad.values() if each.case.failing == NOT_FAILED]
        quiet = [each for each in others if each.state == DeviceState.SILENT]
        failed = count(failing)
        silent = count((*failing, *quiet)) - failed
        mislabelled = count(each for each in others if each.state == DeviceState.MISLABELLED)
        shares = self._silence_of(counting) if silent else ()
        excused = min(silent, most_by_chance(len(shares), _mean(shares)))
        expected = min(silent, int(sum(shares)))
        unseen = sum(each.is_unseen for each in counting.values())
        return Evidence(len(counting), failed, silent, mislabelled, excused, expected, unseen)

    def _silence_of(self, counting: Devices) -> Sequence[float]:
        """Return how likely each device at risk would be silent without the release."""
        if self._share_of is None:
            return ()
        return [self._share_of(row) for row in counting if row in self._at_risk]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
