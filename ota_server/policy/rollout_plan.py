"""Rollouts on record: what an operator wants, and how far the controller has come. Pure.

Two files for each, with one writer each: commands write the plan, the controller the progress. The
states of a rollout (`RolloutProgress.state`):

    no progress --> running <--> paused       running or paused --> halted, done or aborted

    state    who is offered it    next     because
    -------  -------------------  -------  -------------------------------------------------------
    none     no device            running  the controller has read the journal
    running  the open waves       running  the next wave opens: by itself, or by `rollout promote`
                                  paused   `rollout pause`; the wave's time is over; a person has to
                                           decide; the target or the image has changed
                                  halted   too many devices did badly, or it was withdrawn
                                  done     the last wave is through, or it is already the target
                                  aborted  `rollout abort`
    paused   no further devices   running  `rollout resume`; `promote` if it paused by itself; its
                                           cause is gone
                                  halted, done, aborted: as from running
    halted   none: withdrawn      -        it is over
    done     all: the target      -        it is over
    aborted  no further devices   -        it is over; a device that has it stays on it

A rollout that ends stays paused on record until all changes that follow from the end have been
written (see `mover`).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from ota_server.model.json_object import format_object, parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time, parse_time
from ota_server.model.version import is_version
from ota_server.policy.policy import Rollout, RolloutState, is_group_name

OVER = (RolloutState.HALTED, RolloutState.DONE, RolloutState.ABORTED)
GOING_ON = (RolloutState.RUNNING, RolloutState.PAUSED)
# The state that is shown while there is no progress yet.
NOT_BEGUN = "waiting"
MOST_SECONDS = 366 * 86400
MOST_NOTE = 500  # characters


class RolloutWish(StrEnum):
    """What an operator wants of a rollout that has begun."""

    RUN = "run"
    PAUSE = "pause"
    ABORT = "abort"


class RolloutPlan(NamedTuple):
    """What an operator wants of a rollout.

    Attributes:
        id: unique, so the progress of an earlier rollout is not taken for its own.
        group: whom it is for; "" is the whole fleet.
        waves: percentages, rising, up to 100.
        first_group: its members are a wave before these.
        instead_of: the target when it began; None: there was no target.
        promoted: the wave that an operator has opened by hand, counted from 0; -1: no wave;
            `wave_count`: the rollout ends without the devices that the last wave still lacks.
        max_failures: the limit of the failure rate, in percent.
        count_new: devices that were known for less than a day when it began count too.
        is_revert: it takes devices back from a rollout that was aborted or halted.
        reverts: the release that they are taken back from; None: it is not a revert.
        resumed: how often an operator has resumed it after a pause, whoever paused it.
        counted: how many active devices each wave added when it began; (): not counted.
        groups_too: it includes groups that have their own target.
        is_mixed: its image is for other devices than that of the target, and it was forced: the
            way back would give them one that is not for them.
        note: what the operator wrote of it, for people; "": nothing.
    """

    id: str
    version: str
    group: str
    waves: tuple[float, ...]
    time: str
    instead_of: str | None
    first_group: str | None = None
    wanted: RolloutWish = RolloutWish.RUN
    promoted: int = -1
    max_failures: float = 2.0
    min_devices: int = 20
    soak_seconds: float = 3600.0
    grace_seconds: float = 900.0
    wave_timeout_seconds: float = 7 * 86400.0
    held_unknown: str = "keep"
    count_new: bool = False
    is_revert: bool = False
    reverts: str | None = None
    resumed: int = 0
    counted: tuple[int, ...] = ()
    groups_too: bool = False
    is_mixed: bool = False
    note: str = ""

    @property
    def has_way_back(self) -> bool:
        """Whether `abort --revert` is the thing to do if it ends badly."""
        return self.instead_of is not None and not self.is_mixed

    @property
    def wave_count(self) -> int:
        """The number of waves, including that of the first group."""
        return len(self.waves) + (self.first_group is not None)

    def has(self, progress: "RolloutProgress") -> bool:
        """Return whether a progress is of this plan; by hand its wave may have become any."""
        return progress.id == self.id and progress.wave < self.wave_count

    def percent(self, wave: int) -> float:
        """Return the percentage up to which devices are in a wave, counted from 0."""
        index = wave - (self.first_group is not None)
        return self.waves[min(index, len(self.waves) - 1)] if index >= 0 else 0.0

    def command(self, part: str) -> str:
        """Return the command that does something about this rollout and about no other one."""
        return f"`rollout {part}{f' --group {self.group}' * bool(self.group)}`"

    def waves_at(self, percents: Iterable[float]) -> Iterator[int]:
        """Yield the first wave that holds a device at each percentage; `wave_count`: none does."""
        waves, first = self.waves, self.first_group is not None
        return (bisect_right(waves, percent) + first for percent in percents)


_NEEDED = len(RolloutPlan._fields) - len(RolloutPlan._field_defaults)


class RolloutProgress(NamedTuple):
    """How far a rollout has come.

    Attributes:
        id: of its plan.
        reason: why it is not running, in words.
        wave: counted from 0.
        wave_time: when that wave opened, RFC 3339.
        counts: how many devices are in which state, for people.
        resumed: the `resumed` of the plan when the last pause ended. A paused rollout stays paused
            until the plan has a higher number.
        before: the counts of each earlier wave, as they were when the next one opened.
        waiting: what the open wave waits for, in words; if it is paused, what still keeps it from
            being halted or done; "": nothing.
        lifts: a pause that ends when its cause does.
        is_blocked: paused because its image cannot be had as it was published; ends with that.
        asks: the MACs of the devices that a person has to look at before it goes on.
        accepted: the MACs of devices that a person went on without: they do not count.
        notes: what else a person should know, in sentences.
        bad: if it was halted, the MACs of the devices that did badly; the first ones of many.
        is_halting: it is paused only until its halt is on record: that waits for nobody.
    """

    id: str
    state: RolloutState
    wave: int
    wave_time: str
    reason: str = ""
    counts: Mapping[str, int] = {}
    resumed: int = 0
    before: tuple[Mapping[str, int], ...] = ()
    waiting: str = ""
    lifts: bool = False
    asks: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    is_blocked: bool = False
    is_halting: bool = False


def plan_name(group: str) -> str:
    """Return the name of a plan's file in `version/`."""
    return f"rollout_{group}.json" if group else "rollout.json"


def progress_name(group: str) -> str:
    """Return the name of a progress's file in `version/`."""
    return f"progress_{group}.json" if group else "progress.json"


def group_of_plan_name(name: str) -> str | None:
    """Return the group that the plan in a file is for, or None if it is not a plan's file."""
    if name == plan_name(""):
        return ""
    group = name.removeprefix("rollout_").removesuffix(".json")
    return group if name == plan_name(group) and is_group_name(group) else None


def in_force(plan: RolloutPlan, progress: RolloutProgress | None) -> Rollout | None:
    """Return the rollout as decisions need it; None: it is over."""
    if plan.wanted == RolloutWish.ABORT:
        return None
    if progress is None or not plan.has(progress):
        # The controller has not seen it yet: no device is offered it, or taken back from it.
        return _rollout(plan, RolloutState.PAUSED, 0.0)
    if progress.state in OVER:
        return None
    state = progress.state if plan.wanted == RolloutWish.RUN else RolloutState.PAUSED
    return _rollout(plan, state, plan.percent(progress.wave))


def _rollout(plan: RolloutPlan, state: RolloutState, percent: float) -> Rollout:
    more = plan.first_group, plan.held_unknown, plan.groups_too, plan.reverts
    return Rollout(plan.version, state, percent, *more)


def is_over(plan: RolloutPlan, progress: RolloutProgress | None) -> bool:
    """Return whether the controller has nothing more to do about a rollout."""
    return progress is not None and plan.has(progress) and progress.state in OVER


def begun_by(plan: RolloutPlan, now_ms: int) -> RolloutPlan:
    """Return a plan that began now at the latest: a clock that was ahead may have written more.

    Else nothing that devices do would count until that time has come.
    """
    return plan if parse_time(plan.time) <= now_ms else plan._replace(time=format_time(now_ms))


def waits_for_person(plan: RolloutPlan, progress: RolloutProgress | None) -> bool:
    """Return whether a rollout goes no further before a person does something about it.

    One that an operator has paused does not count: somebody knows of it.
    """
    if progress is None or progress.is_halting or plan.wanted != RolloutWish.RUN:
        return False
    if plan.promoted > progress.wave:
        return False
    if progress.state == RolloutState.PAUSED:
        return plan.resumed <= progress.resumed
    return progress.state == RolloutState.RUNNING and bool(progress.asks)


def format_plan(plan: RolloutPlan | RolloutProgress) -> bytes:
    """Return a plan or a progress as JSON that a person can read."""
    return format_object(plan._asdict())


def parse_plan(content: bytes) -> RolloutPlan:
    """Read a plan.

    Raises:
        BadPolicy: it is not a plan.
    """
    fields = _known(content, RolloutPlan)
    missing = [name for name in RolloutPlan._fields[:_NEEDED] if name not in fields]
    if missing:
        raise BadPolicy(f"is not a rollout that a command wrote: it lacks {', '.join(missing)}")
    try:
        plan = RolloutPlan(**fields)._replace(
            waves=tuple(float(percent) for percent in fields["waves"]),
            counted=tuple(fields.get("counted", ())),
        )
        problem = plan_problem(plan)
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise BadPolicy(
            "is not a rollout that a command wrote: a value in it is of the wrong type"
        ) from None
    if problem:
        raise BadPolicy(f"is not a rollout that a command wrote: {problem}")
    return plan._replace(wanted=RolloutWish(plan.wanted))


def plan_problem(plan: RolloutPlan) -> str:
    """Return what is wrong with a plan, for the operator; "" where it is right."""
    parse_time(plan.time)
    waves = plan.waves
    if (type(plan.id), type(plan.group), type(plan.promoted)) != (str, str, int):
        return f"{plan.id!r:.40} or {plan.group!r:.40} is not a name"
    others = (each for each in (plan.instead_of, plan.reverts) if each is not None)
    for version in (plan.version, *others):
        if not is_version(version):
            return f"{version[:40]!r} is not a version"
    if any(type(each) is not int or each < 0 for each in (plan.resumed, *plan.counted)):
        return "resumed and counted have to be whole numbers"
    for group in (plan.group or None, plan.first_group):
        if group is not None and not is_group_name(group):
            return f"{group[:40]!r} is not a group's name"
    if not waves or any(not 0 < percent <= 100 for percent in waves):
        return "waves have to be percentages above 0, up to 100"
    if list(waves) != sorted(set(waves)) or waves[-1] != 100:
        return "waves have to rise, and the last one has to be 100"
    if plan.wanted not in tuple(RolloutWish) or plan.held_unknown not in ("keep", "target"):
        return f"{plan.wanted!r:.40} or {plan.held_unknown!r:.40} is not known"
    for name in ("groups_too", "is_mixed"):
        if type(getattr(plan, name)) is not bool:
            return f"{name} has to be true or false, not {getattr(plan, name)!r:.40}"
    if type(plan.note) is not str or len(plan.note) > MOST_NOTE:
        return f"the note has to be a text of up to {MOST_NOTE} characters"
    if not 0 <= plan.max_failures < 100:
        return "the limit of failures has to be a percentage from 0 to under 100"
    if not 1 <= plan.min_devices <= 1_000_000:
        return "the least number of devices has to be from 1 to 1,000,000"
    seconds = (plan.soak_seconds, plan.grace_seconds, plan.wave_timeout_seconds)
    if any(not 0 <= each <= MOST_SECONDS for each in seconds):
        return "times have to be from 0 to a year"
    return ""


def parse_progress(content: bytes) -> RolloutProgress:
    """Read a progress.

    Raises:
        BadPolicy: it is not a progress.
    """
    try:
        progress = RolloutProgress(**_known(content, RolloutProgress))
        parse_time(progress.wave_time)
        progress = progress._replace(
            state=RolloutState(progress.state),
            before=tuple(dict(each) for each in progress.before),
            asks=tuple(map(str, progress.asks)),
            accepted=tuple(map(str, progress.accepted)),
            notes=tuple(map(str, progress.notes)),
            bad=tuple(map(str, progress.bad)),
        )
        numbers = (progress.wave, progress.resumed, *progress.counts.values())
        is_right = type(progress.reason) is type(progress.waiting) is str
        is_right = is_right and all(type(each) is int and each >= 0 for each in numbers)
    except (AttributeError, TypeError, ValueError, OverflowError) as trouble:
        raise BadPolicy(f"is not the progress of a rollout: {trouble!s:.200}") from None
    if not is_right:
        raise BadPolicy("is not the progress of a rollout")
    return progress


def _known(content: bytes, kind: type[RolloutPlan] | type[RolloutProgress]) -> dict[str, Any]:
    """Return the fields that a type has; further ones are ignored."""
    try:
        fields = parse_object(content)
    except ValueError as problem:
        raise BadPolicy(str(problem)) from None
    return {name: fields[name] for name in kind._fields if name in fields}
