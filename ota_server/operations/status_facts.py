"""Gathers how the server and the fleet are, from files, whatever state these are in. I/O.

For `status` and `health`, and for pages and the API.

Each file that cannot be read becomes a warning, and the rest is shown all the same.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ota_server.device_port.admission_status import (
    FILE_NAME,
    NOT_SAID,
    quiet_ms,
    read_server_state,
    read_serving,
    read_standing,
)
from ota_server.journal.extent import journal_extent
from ota_server.journal.files import most_bytes
from ota_server.journal.rejected import FILE_NAME as REJECTED_NAME
from ota_server.journal.rejected import read_rejected
from ota_server.journal.writer import KEEP_BYTES, KEEP_FILES, ROTATE_BYTES
from ota_server.model.device import DAY_MS
from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import parse_time
from ota_server.model.version import is_sample, version_of_image_name
from ota_server.operations.damaged_files import damaged_files
from ota_server.operations.notice_warnings import notice_warnings
from ota_server.operations.rollout_words import state_of
from ota_server.policy import audit
from ota_server.policy.fleet_counts import FleetConditions, count_devices
from ota_server.policy.fleet_status import (
    DeviceCounts,
    DiskFacts,
    FleetFacts,
    FleetWarning,
    JournalFacts,
    RolloutFacts,
    TargetFacts,
)
from ota_server.policy.gather import FleetSituation, gather_fleet, image_on_disk
from ota_server.policy.hold import current_hold
from ota_server.policy.policy import Policy
from ota_server.policy.rollout_plan import OVER, waits_for_person
from ota_server.policy.rollout_text import what_to_do
from ota_server.policy.situation import ImageOnDisk
from ota_server.policy.targets import VERSION_NAME
from ota_server.policy.wanted import FLEET_TARGET, wanted_releases
from ota_server.rollouts.files import groups_with_plan, read_plan, read_progress
from ota_server.rollouts.find_rollout import RolloutOnFile, ended_ms, is_answered
from ota_server.rollouts.history import judged_by_rollouts
from ota_server.rollouts.keeper import is_attended
from ota_server.system.data_dir import access_problem, journal_dir, log_dir, root_of
from ota_server.system.files import open_regular
from ota_server.system.locks import LOCK_NAME


class StatusGatherer:
    """Gathers the facts of one data directory, as often as it is asked."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._logs = log_dir(data_dir)
        self._journal_dir = journal_dir(data_dir)
        self._found: list[FleetWarning] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a target nor an image, so that no device is served."""
        with suppress(OSError):
            if any(map(version_of_image_name, os.listdir(self._data_dir / "firmware"))):
                return False
        return not os.path.lexists(self._data_dir / "version" / VERSION_NAME)

    def facts(self, now_ms: int, counts_devices: bool = True) -> FleetFacts:
        """Return what is found now.

        Args:
            counts_devices: that takes most of the time, and no number of devices needs a person.
        """
        data_dir, logs = self._data_dir, self._logs
        self._found = list(damaged_files(data_dir))
        self._look_at_logs()
        server, standing = read_server_state(logs), read_standing(logs)
        serving = read_serving(logs) if server.runs else NOT_SAID
        if server.runs and serving == NOT_SAID:
            self._warn("server", f"{logs / FILE_NAME} does not say how the server is", False)
        self._found += notice_warnings(self._journal_dir, now_ms) if server.runs else ()
        fleet = gather_fleet(data_dir, now_ms, server)
        self._look_at_images(fleet)
        return FleetFacts(
            now_ms=now_ms,
            data_dir=str(root_of(data_dir)),
            server=server,
            serving=serving,
            quiet_ms=quiet_ms(logs, now_ms) if server.runs else 0,
            hold=current_hold(data_dir),
            target=_target_facts(fleet, data_dir / "firmware"),
            rollouts=tuple(self._rollouts(now_ms)),
            devices=self._devices(fleet) if counts_devices else None,
            rejected=_rejected(self._journal_dir, now_ms),
            journal=self._journal(serving.journal_bytes, now_ms),
            disks=tuple(_disks(data_dir)),
            window=standing.window if server.runs else "",
            unmet=standing.unmet if server.runs else 0,
            found=tuple(self._found),
        )

    def _warn(self, about: str, text: str, needs_person: bool = True) -> None:
        self._found.append(FleetWarning(about, text, needs_person=needs_person))

    def _look_at_logs(self) -> None:
        """Warn of what is in the place of a folder, and of files in `log/` that cannot be read."""
        for folder in (self._data_dir / "firmware", self._logs):
            if os.path.lexists(folder) and not folder.is_dir():
                self._warn("folder", f"{folder} is not a folder")
                if folder == self._logs:
                    return
        for name in (LOCK_NAME, audit.FILE_NAME, REJECTED_NAME):
            try:
                os.close(open_regular(self._logs / name))
            except FileNotFoundError:
                continue
            except OSError as problem:
                text = f"{self._logs / name} cannot be read: {problem.strerror}"
                self._warn("log", text, needs_person=name != REJECTED_NAME)

    def _look_at_images(self, fleet: FleetSituation) -> None:
        """Warn of images that are wanted and cannot be had."""
        target = None if fleet.target is None else fleet.target.version
        wanted = wanted_releases(fleet.policy, target, fleet.now_ms)
        for key, (version, whose) in wanted.items():
            image = image_on_disk(self._data_dir / "firmware", version)
            trouble = _trouble_with(image, key, fleet.policy)
            if not trouble and not fleet.server.runs:  # one that runs has tried
                trouble = access_problem(self._data_dir, self._data_dir / "firmware" / image.name)
            if trouble and not (whose == FLEET_TARGET and fleet.target_problem):
                self._warn("image", f"{trouble}: {whose}")

    def _rollouts(self, now_ms: int) -> Iterator[RolloutFacts]:
        try:
            groups = groups_with_plan(self._data_dir)
        except OSError:
            return  # `damaged_files` has said so
        for group in groups:
            try:
                plan = read_plan(self._data_dir, group)
                if plan is None:
                    continue
                on_file = RolloutOnFile(plan, read_progress(self._data_dir, plan))
                rollout = self._rollout(on_file, now_ms)
                if rollout.is_current or now_ms - ended_ms(self._data_dir, plan, now_ms) < DAY_MS:
                    yield rollout
            except (BadPolicy, OSError) as problem:
                self._warn("rollout", str(problem))

    def _rollout(self, rollout: RolloutOnFile, now_ms: int) -> RolloutFacts:
        plan, progress = rollout
        state = state_of(plan, progress)
        facts = RolloutFacts(
            plan.group,
            plan.version,
            state,
            parse_time(plan.time),
            waves=plan.wave_count,
            is_revert=plan.is_revert,
            has_way_back=plan.has_way_back,
            is_attended=is_attended(self._logs, now_ms),
        )
        if progress is None:
            return facts
        return facts._replace(
            reason=progress.reason if state == progress.state else "",
            waiting="" if state in OVER else progress.waiting,
            asks=progress.asks,
            to_do=what_to_do(plan, progress) if progress.asks or progress.is_blocked else "",
            waits_for_person=waits_for_person(plan, progress),
            wave=progress.wave + 1,
            percent=plan.percent(progress.wave),
            counts=progress.counts,
            is_answered=rollout.is_halted and is_answered(self._data_dir, rollout),
        )

    def _devices(self, fleet: FleetSituation) -> DeviceCounts | None:
        try:
            judged = judged_by_rollouts(self._data_dir, fleet.now_ms)
            return count_devices(self._journal_dir, FleetConditions(self._data_dir, fleet, judged))
        except OSError as problem:
            self._warn_of_journal(problem)
            return None

    def _warn_of_journal(self, problem: OSError) -> None:
        text = f"{problem.filename or 'the journal'} cannot be read: {problem.strerror}"
        if FleetWarning("journal", text) not in self._found:
            self._warn("journal", text)

    def _journal(self, kept_bytes: int, now_ms: int) -> JournalFacts:
        try:
            extent = journal_extent(self._journal_dir, now_ms)
        except OSError as problem:
            self._warn_of_journal(problem)
            return JournalFacts()
        kept_bytes = kept_bytes or most_bytes(ROTATE_BYTES, KEEP_FILES, KEEP_BYTES)
        return JournalFacts(extent.size, extent.oldest_ms, extent.days_kept(kept_bytes, now_ms))


def _target_facts(fleet: FleetSituation, firmware_dir: Path) -> TargetFacts:
    policy, target = fleet.policy, fleet.target
    image = None if target is None else image_on_disk(firmware_dir, target.version)
    return TargetFacts(
        None if target is None else target.version,
        (target.image_name or "") if target is not None else "",
        0 if target is None else target.image_size,
        fleet.target_problem,
        target is not None and policy.is_withdrawn(target.version),
        len(policy.group_targets),
        len(policy.pins) + len(policy.group_pins),
        image is not None and is_sample(image.size, image.sha256 or ""),
    )


def _trouble_with(image: ImageOnDisk, version: str, policy: Policy) -> str:
    """Return why devices cannot get a release; "": nothing that is known without reading it."""
    if image.problem:
        return image.problem
    if problem := policy.unusable.get(version):
        return f"the manifest of {image.name} {problem}"
    manifest = policy.manifests.get(version)
    if manifest is None or manifest.size == image.size:
        return policy.unserved.get(version, "")
    return f"{image.name} has {image.size} bytes, and was published with {manifest.size}"


def _rejected(logs: Path, now_ms: int) -> tuple[int, int]:
    requests, addresses = 0, set()
    for entry in read_rejected(logs):
        try:
            is_recent = now_ms - parse_time(entry["time"]) < DAY_MS
        except ValueError:
            continue
        if is_recent:
            requests += entry["count"]
            addresses.add(entry["address"])
    return requests, len(addresses)


def _disks(data_dir: Path) -> Iterator[DiskFacts]:
    """Yield the disks of the folders, each once."""
    seen = set()
    names = ("log", "firmware", "version", "")
    # Those of all products first: a disk has one name then.
    for folder in (each / name for each in (root_of(data_dir), data_dir) for name in names):
        try:
            device = os.stat(folder).st_dev
            disk = os.statvfs(folder)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            size, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
            yield DiskFacts(str(folder), size, free, disk.f_files, disk.f_favail)
