"""How a fleet and its server are, and what a person has to do about it. Pure.

`FleetFacts` is what was found, by whoever can read files; `assess` says what is wrong with that.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ota_server.model.quantity import approximate_size, count_of, first_of, rounded_duration
from ota_server.policy.device_state import HELD_BY, Condition
from ota_server.policy.policy import RolloutState
from ota_server.policy.reason import Reason
from ota_server.policy.rollout_plan import OVER
from ota_server.policy.situation import ServerState, Serving
from ota_server.policy.text import Hold, hold_text

_GIBIBYTE = 1024**3
# A disk is nearly full with less than a twentieth of it, but a gibibyte is room enough on any.
_LEAST_SHARE = 20
_FILES_ENOUGH = 1000
# A server that has just begun has no controller yet; it is killed if it is silent for so long.
_CONTROLLER_MS = 60_000
_MOST_NAMED = 3
# A server that is well shows a sign of life every ten seconds.
_QUIET_MS = 30_000


class FleetWarning(NamedTuple):
    """Something that is not as it should be.

    Attributes:
        about: what, in a word.
        remedy: what to do; "": nothing, or `text` says it.
        needs_person: it does not pass by itself, and devices suffer or a rollout stands still.
    """

    about: str
    text: str
    remedy: str = ""
    needs_person: bool = True


class TargetFacts(NamedTuple):
    """What devices should run if nothing else is decided for them.

    Attributes:
        version: that is in force; None: there is none.
        problem: what is wrong with version.txt or the image.
    """

    version: str | None = None
    image: str = ""
    image_size: int = 0
    problem: str = ""
    is_withdrawn: bool = False
    groups: int = 0
    pins: int = 0
    is_sample: bool = False


class RolloutFacts(NamedTuple):
    """The last rollout to the fleet (`group` "") or to a group.

    Attributes:
        state: in one word, as `rollout status` says it.
        waiting: what the open wave waits for.
        asks: MACs of the devices that a person has to look at.
        to_do: what a person can do about these; "": there are none.
        waits_for_person: as `rollout status` says it.
        wave: counted from 1; 0: none is open.
        is_attended: the controller looks after it.
        is_answered: it ended, and another target was set since.
        has_way_back: `abort --revert` is the thing to do after a halt.
    """

    group: str
    version: str
    state: str
    since_ms: int
    reason: str = ""
    waiting: str = ""
    asks: tuple[str, ...] = ()
    to_do: str = ""
    waits_for_person: bool = False
    wave: int = 0
    waves: int = 0
    percent: float = 0.0
    counts: Mapping[str, int] = {}
    is_revert: bool = False
    is_attended: bool = True
    is_answered: bool = False
    has_way_back: bool = True

    @property
    def is_current(self) -> bool:
        """Whether it is on, or was halted and nobody has done anything about that."""
        is_halted = self.state == RolloutState.HALTED
        return self.state not in OVER or (is_halted and not self.is_answered)

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        what = "revert" if self.is_revert else "rollout"
        to = "to" if self.is_revert else "of"
        group = f" to group {self.group}" if self.group else ""
        return f"the {what} {to} {self.version}{group}"


class DeviceCounts(NamedTuple):
    """How many devices there are; `conditions` add up to `total`, and so do `versions`.

    Attributes:
        conditions: how many are in each.
        causes: of those that are held back, by what keeps them, in words.
        versions: by the version that they report.
        stuck: MACs that the loop breaker holds until a person has looked.
        waiting_to_retry: those that it has wait for an hour or more.
        bad_lines: how many lines of the journal are not records.
    """

    total: int = 0
    conditions: Mapping[Condition, int] = {}
    causes: Mapping[str, int] = {}
    versions: Mapping[str, int] = {}
    stuck: tuple[str, ...] = ()
    waiting_to_retry: tuple[str, ...] = ()
    bad_lines: int = 0


class DiskFacts(NamedTuple):
    """A disk, by a folder on it; sizes in bytes.

    Attributes:
        files: how many files it can have; 0: as many as there is room for.
        files_free: how many more.
    """

    folder: str
    size: int
    free: int
    files: int = 0
    files_free: int = 0

    @property
    def is_nearly_full(self) -> bool:
        """Whether too little is free for a release or for what comes in a night."""
        return self.free < min(self.size // _LEAST_SHARE, _GIBIBYTE)

    @property
    def is_short_of_files(self) -> bool:
        """Whether hardly any more files can be made: each change of a file makes a new one."""
        return self.files_free < min(self.files // _LEAST_SHARE, _FILES_ENOUGH)


class JournalFacts(NamedTuple):
    """How much journal there is; `days`: how long it will keep, None: it is too early to say."""

    size: int = 0
    since_ms: int | None = None
    days: float | None = None


class FleetFacts(NamedTuple):
    """What was found at one moment.

    Attributes:
        quiet_ms: for how long the server that runs has shown no sign of life.
        hold: None: nothing is on hold.
        devices: None: the journal cannot be read.
        rejected: requests of the last day that were answered 401, and from how many addresses.
        unmet: devices that have waited for the maintenance window for a day.
        found: warnings about what cannot be read, by who tried.
    """

    now_ms: int
    data_dir: str
    server: ServerState = ServerState()
    serving: Serving = Serving()
    quiet_ms: int = 0
    hold: Hold | None = None
    target: TargetFacts = TargetFacts()
    rollouts: tuple[RolloutFacts, ...] = ()
    devices: DeviceCounts | None = DeviceCounts()
    rejected: tuple[int, int] = (0, 0)
    journal: JournalFacts = JournalFacts()
    disks: tuple[DiskFacts, ...] = ()
    window: str = ""
    unmet: int = 0
    found: tuple[FleetWarning, ...] = ()

    @property
    def quiet_text(self) -> str:
        """For how long the server has shown no sign of life, in words; "": it is well."""
        seconds = rounded_duration(self.quiet_ms / 1000)
        return f"no sign of life for {seconds}" if self.quiet_ms > _QUIET_MS else ""

    def is_left_alone(self, rollout: RolloutFacts) -> bool:
        """Return whether a server runs, and its controller should look after a rollout by now."""
        is_new = self.now_ms - self.serving.since_ms <= _CONTROLLER_MS
        return self.server.runs and not is_new and not rollout.is_attended


class FleetStatus(NamedTuple):
    """What was found, and what is wrong with it: what needs a person first."""

    facts: FleetFacts
    warnings: tuple[FleetWarning, ...]

    @property
    def needs_person(self) -> tuple[FleetWarning, ...]:
        """The warnings that need a person."""
        return tuple(each for each in self.warnings if each.needs_person)


def assess(facts: FleetFacts) -> FleetStatus:
    """Return how a fleet is, by what was found."""
    found = [
        *_server_warnings(facts),
        *_target_warnings(facts.target),
        *(each for rollout in facts.rollouts for each in _rollout_warnings(rollout, facts)),
        *_disk_warnings(facts),
        *facts.found,
        *_device_warnings(facts),
    ]
    return FleetStatus(facts, tuple(sorted(found, key=lambda each: not each.needs_person)))


def _server_warnings(facts: FleetFacts) -> Iterator[FleetWarning]:
    server, hold = facts.server, facts.hold
    if not server.runs:
        yield FleetWarning(
            "server",
            f"no server runs on {facts.data_dir}",
            "start its service again, or `serve` with the options that it had",
        )
    if facts.quiet_text:
        remedy = "its log may say why; `kill -CONT PID` if it was stopped, else start it again"
        text = f"the server has given {facts.quiet_text}: it hangs, is stopped, or is starting"
        yield FleetWarning("server", text, remedy)
    if hold is not None:
        yield FleetWarning("hold", hold_text(hold), f"{hold.end} ends that")
    if server.is_journal_failing:
        remedy = "make room or repair the disk; no rollout offers anything until then"
        yield FleetWarning("journal", "the server cannot write the journal", remedy)
    if server.runs and not server.is_policy_usable:
        text = "the server offers nothing: a file in version/ could not be read at its start"
        yield FleetWarning("policy", text, "repair the file, which its log names")
    if server.is_table_full:
        text = "the table of devices is full: new devices are answered, and not on record"
        remedy = "`device forget --unseen 90d`, or more by `serve --max-devices N`"
        yield FleetWarning("devices", text, remedy)


def _target_warnings(target: TargetFacts) -> Iterator[FleetWarning]:
    if target.version is None:
        text = "there is no target: devices are answered 503"
        remedy = "`release activate VERSION` sets it"
        yield FleetWarning(
            "target", f"{text} ({target.problem})" if target.problem else text, remedy
        )
    elif target.problem:
        remedy = "repair it, or `release activate VERSION` sets another"
        yield FleetWarning(
            "target", f"the target is {target.version}, but {target.problem}", remedy
        )
    elif target.is_withdrawn:
        text = f"the target {target.version} was withdrawn: it is offered to no device"
        yield FleetWarning("target", text, "`release activate VERSION` sets another")
    elif target.is_sample:
        text = (
            f"the target {target.version} is the shipped sample: it is offered to clients on the "
            "server's machine only, and to no other device"
        )
        remedy = "`release activate VERSION` sets another"
        yield FleetWarning("target", text, remedy, needs_person=False)


def _rollout_warnings(rollout: RolloutFacts, facts: FleetFacts) -> Iterator[FleetWarning]:
    name, state = rollout.name, rollout.state
    why = f": {rollout.reason}" if rollout.reason else ""
    option = f" --group {rollout.group}" if rollout.group else ""
    if state == RolloutState.HALTED and not rollout.is_answered:
        remedy = f"`rollout abort --revert{option}` goes back; or roll out a fixed release"
        if rollout.is_revert or not rollout.has_way_back:
            remedy = f"`rollout status{option}` says more; then `rollout start VERSION{option}`"
        yield FleetWarning("rollout", f"{name} was halted{why}", remedy)
    elif state == RolloutState.PAUSED:
        goes_on = f"`rollout resume{option}`, or `rollout abort{option}`"
        if not rollout.waits_for_person:  # an operator paused it: somebody knows of it
            yield FleetWarning("rollout", f"{name} is paused{why}", goes_on, needs_person=False)
            return
        if not (remedy := rollout.to_do) and "`" not in rollout.reason:
            remedy = f"when that is settled: {goes_on}"
        yield FleetWarning("rollout", f"{name} waits for a person{why}", remedy)
    elif rollout.waits_for_person:
        text = f"{name} waits for a person: {rollout.waiting}"
        yield FleetWarning("rollout", text, rollout.to_do)
    elif state == RolloutState.RUNNING and facts.is_left_alone(rollout):
        text = f"{name} stands still: its controller does not answer or cannot write"
        yield FleetWarning("rollout", text, "the server's log says why")


def _disk_warnings(facts: FleetFacts) -> Iterator[FleetWarning]:
    for disk in facts.disks:
        if disk.is_nearly_full:
            free, size = approximate_size(disk.free), approximate_size(disk.size)
            text = f"the disk of {disk.folder} is nearly full: {free} of {size} are free"
            remedy = "make room: `release remove VERSION` for old ones, or elsewhere"
            yield FleetWarning("disk", text, remedy)
        if disk.is_short_of_files:
            left = f"{disk.files_free:,} of {disk.files:,}"
            text = f"the disk of {disk.folder} has room for few more files (inodes): {left}"
            yield FleetWarning("disk", text, "delete some")


def _device_warnings(facts: FleetFacts) -> Iterator[FleetWarning]:
    devices = facts.devices or DeviceCounts()
    for condition, verb, listed in (
        (Condition.FAILED, "failed", "`devices --state failed`"),
        (Condition.SILENT, "fell silent", "`devices --state silent`"),
    ):
        count = devices.conditions.get(condition, 0)
        if count:
            which = f"{count_of(count, 'device')} {verb}"
            text = f"{which}: {listed} lists {'them' if count > 1 else 'it'}"
            yield FleetWarning("devices", text, needs_person=False)
    stays = devices.causes.get(HELD_BY[Reason.STOPPED], 0)
    is_told = any(each.is_current and each.state in OVER for each in facts.rollouts)
    if stays and not is_told:
        stay = "stay" if stays > 1 else "stays"
        which = f"{count_of(stays, 'device')} {stay} on a release that was stopped"
        remedy = (
            "`rollout abort --revert` takes back what a rollout brought; so does another target"
        )
        yield FleetWarning("devices", which, remedy, needs_person=False)
    for macs, how in (
        (devices.stuck, "stuck: fetched an image ten times, and do not run it"),
        (devices.waiting_to_retry, "told to wait: fetched an image again and again"),
    ):
        if macs:
            text = f"{len(macs)} {how}: {first_of(macs, _MOST_NAMED)}"
            remedy = "`why MAC` says more; `retry MAC` lets one try again"
            yield FleetWarning("devices", text, remedy, needs_person=False)
    if devices.bad_lines:
        text = f"lines of the journal that are not records, and were skipped: {devices.bad_lines}"
        yield FleetWarning("journal", text, needs_person=False)
    if facts.unmet:
        text = f"devices that never ask within the window {facts.window}: {facts.unmet}"
        remedy = "`serve --window-overdue 7d` lets such devices in"
        yield FleetWarning("devices", text, remedy, needs_person=False)
