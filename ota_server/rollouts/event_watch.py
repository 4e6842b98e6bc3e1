"""Looks once a second for what `--on-event` tells of, and hands it on. I/O.

It runs beside the requests, in the thread of chores. `log/told.json` holds which step of each
rollout the command was told last.

1. What differs from that is told, at the start too: it happened while no server ran, or a server
   was killed before its command had ended.
2. A step counts as told when the command has ended well. One that it failed over is told again
   after a pause, one that was too much for now at the next look, each as it stands then.
3. A server that is killed between the end of the command and the writing of the file tells a step
   twice.
4. A journal that fails is not on record: it may be on the same full disk.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from ota_server.model.json_object import format_object, parse_object
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time
from ota_server.policy.rollout_plan import (
    OVER,
    RolloutPlan,
    RolloutProgress,
    parse_progress,
    plan_name,
    progress_name,
)
from ota_server.rollouts.events import ALARMS, journal_event, rollout_events
from ota_server.rollouts.files import groups_with_plan, read_end, read_plan, read_progress
from ota_server.system import clock
from ota_server.system.data_dir import log_dir, product_at
from ota_server.system.files import Found, find, read_if_there, replace
from ota_server.system.hints import hints

log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_FILE_NAME = "told.json"
_STEP = ("id", "state", "wave", "wave_time", "asks")

# The pause before what the command failed over is told again doubles with each failure.
_SHORTEST_PAUSE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 3600.0

# Of a plan and its progress.
_Stamps = tuple[Found | None, Found | None]
_Ended = Callable[[bool], None]
# Takes an event, whether it is an alarm, and what to call with whether it was told; it does not
# wait, and returns False if it cannot take the event now.
Tell = Callable[[Mapping[str, Any], bool, _Ended | None], bool]


class EventWatch:
    """Compares what it sees with what it has told."""

    def __init__(
        self,
        data_dir: Path,
        is_journal_failing: Callable[[], bool],
        tell: Tell,
        pause_seconds: float = _SHORTEST_PAUSE_SECONDS,
    ) -> None:
        """Read what was told before; if nothing ever was, what is there now is no event."""
        self._data_dir = data_dir
        self._product = product_at(data_dir)
        self._is_journal_failing = is_journal_failing
        self._tell = tell
        self._look_at = 0.0
        self._read: dict[str, tuple[_Stamps, RolloutPlan | None, RolloutProgress | None]] = {}
        self._shortest_pause = self._pause = pause_seconds
        self._again_at: float | None = None
        self._failed: set[str | None] = set()  # groups; None: the journal
        self._was_failing = False
        self._record = _ToldRecord(log_dir(data_dir) / _FILE_NAME)
        told = self._record.read()
        if told is None:
            found = self._rollouts()
            told = {group: progress for group, _, progress in found if progress is not None}
            self._record.begin(told)
        self._seen = told

    def look_after(self) -> None:
        """Look, once a second at most."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _EVERY_SECONDS
            self.look_again()

    def look_again(self) -> int:
        """Look, and tell what has happened; return how many changes could not be told yet."""
        self._forget_failed(time.monotonic())
        refused = 0
        # The journal is one for all products.
        is_failing = not self._product and self._is_journal_failing()
        if is_failing != self._was_failing:
            if self._hand_on(journal_event(is_failing), partial(self._note, None, None)):
                self._was_failing = is_failing
            else:
                refused += 1
        for group, plan, progress in self._rollouts():
            known = self._seen.get(group)
            if known is not None and known.id != plan.id and known.state not in OVER:
                # Another one took its place before its end was seen.
                end = read_end(log_dir(self._data_dir), known.id)
                if end is not None and not self._tell_step(group, *end):
                    refused += 1
                    continue
            if progress is not None and not self._tell_step(group, plan, progress):
                refused += 1
        return refused

    def _tell_step(self, group: str, plan: RolloutPlan, progress: RolloutProgress) -> bool:
        """Tell what has become of a rollout; False: it is to be told at the next look."""
        events = list(rollout_events(self._seen.get(group), plan, progress))
        when_ended = partial(self._note, group, progress)
        for event in events:
            if not self._hand_on(event, when_ended if event is events[-1] else None):
                return False
        self._seen[group] = progress
        return True

    def _hand_on(self, event: Mapping[str, Any], when_ended: _Ended | None) -> bool:
        product = self._product
        texts = {
            name: hints.paste(event[name], product) for name in ("text", "reason") if name in event
        }
        said = {"time": format_time(clock.now_ms()), **event, **texts}
        if product:
            said |= {"product": product, "text": f"product {product}: {texts['text']}"}
        return self._tell(said, event["event"] in ALARMS, when_ended)

    def _note(self, group: str | None, step: RolloutProgress | None, is_told: bool) -> None:
        """Note how a command has ended. Called by the threads that run commands."""
        if not is_told:
            self._failed.add(group)
            return
        self._pause = self._shortest_pause
        if group is not None and step is not None:
            self._record.note(group, step)

    def _forget_failed(self, now: float) -> None:
        """Have what the command failed over told again, after a pause."""
        if self._failed and self._again_at is None:
            self._again_at = now + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        if self._again_at is None or now < self._again_at:
            return
        self._again_at = None
        while self._failed:
            group = self._failed.pop()
            if group is None:
                self._was_failing = not self._is_journal_failing()
            elif (told := self._record.told.get(group)) is not None:
                self._seen[group] = told
            else:
                self._seen.pop(group, None)

    def _rollouts(self) -> Iterator[tuple[str, RolloutPlan, RolloutProgress | None]]:
        """Yield the rollouts on record; one that cannot be read is as it was until it can be."""
        folder = self._data_dir / "version"
        try:
            groups = groups_with_plan(self._data_dir)
        except OSError:
            return
        for group in groups:
            try:
                now = find(folder, plan_name(group)), find(folder, progress_name(group))
                # With a thousand groups it takes half a second to read all of them.
                known = self._read.get(group)
                if known is None or known[0] != now:
                    plan = read_plan(self._data_dir, group)
                    progress = None if plan is None else read_progress(self._data_dir, plan)
                    known = self._read[group] = now, plan, progress
                if known[1] is not None:
                    yield group, known[1], known[2]
            except (BadPolicy, OSError):
                continue  # its reader logs what is wrong with it


class _ToldRecord:
    """The file that holds which step of the last rollout to each group was told last: `told`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Two threads run commands. It is held while the file is written; nobody else waits for it.
        self._lock = Lock()
        self.told: dict[str, RolloutProgress] = {}

    def read(self) -> dict[str, RolloutProgress] | None:
        """Return what was told; None if there is no such file. After damage nothing was told."""
        try:
            content = read_if_there(self._path.parent, self._path.name)
            if content is None:
                return None
            self.told = {
                group: parse_progress(json.dumps(step).encode("ascii"))
                for group, step in parse_object(content).items()
            }
        except (BadPolicy, OSError, ValueError) as problem:
            log.warning("%s %s; --on-event is told again what is on record", self._path, problem)
        return dict(self.told)

    def begin(self, told: Mapping[str, RolloutProgress]) -> None:
        """Make the file."""
        self.told = dict(told)
        self._write()

    def note(self, group: str, step: RolloutProgress) -> None:
        """Record that a step was told, unless its rollout is known to be over."""
        with self._lock:
            told = self.told.get(group)
            if told is not None and told.id == step.id and told.state in OVER:
                return  # an alarm, which did not wait for this earlier step
            self.told[group] = step
            self._write()

    def _write(self) -> None:
        steps = {
            group: {name: getattr(step, name) for name in _STEP}
            for group, step in self.told.items()
        }
        try:
            replace(self._path, format_object(steps))
        except OSError as problem:
            log.warning("%s; what was told to --on-event may be told again", problem)
