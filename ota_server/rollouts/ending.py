"""How rollouts end: what a halt and a good end change, and what keeps one from going on. I/O."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time
from ota_server.model.version import meaning
from ota_server.policy import audit
from ota_server.policy.policy import Policy, RolloutState, StoppedState
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from ota_server.policy.targets import (
    find_image,
    is_same_target,
    read_base,
    read_group_targets,
    read_stopped,
    set_group_target,
    set_stopped,
    stopped_entry,
    targets_before,
    write_group_targets,
    write_target,
)
from ota_server.system.data_dir import log_dir
from ota_server.system.files import Found, Stamp, open_found, sha256_of, unreadable_text
from ota_server.system.locks import locked

# Who it was, in the audit log.
CONTROLLER = "controller"
# For so long a target that cannot be read may be one that is being written.
_UNREADABLE_SECONDS = 2.0


class Obstacles:
    """What keeps a rollout from going on by itself: the target or the image is not as it was."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._firmware_dir = data_dir / "firmware"
        self._hashed: tuple[Stamp, str] | None = None
        self._unreadable_since: float | None = None

    def reason(self, plan: RolloutPlan, policy: Policy, now: float) -> str | None:
        """Return why a rollout pauses; "" where it goes on, None where that is known in a moment.

        Args:
            now: in seconds of a monotonic clock.
        """
        base, problem = self._base(plan)
        if base is None and plan.instead_of is not None:
            # Somebody may be writing to the file in place.
            if self._unreadable_since is None:
                self._unreadable_since = now
            if now - self._unreadable_since < _UNREADABLE_SECONDS:
                return None
        else:
            self._unreadable_since = None
        if problem:
            return f"the target cannot be read: {problem}; fix that, then {plan.command('resume')}"
        if not is_same_target(base, plan.instead_of):
            whose = f"the target of {plan.group}" if plan.group else "version.txt"
            return (
                f"somebody changed {whose}: it was {plan.instead_of or 'nothing'} when this "
                f"began and is {base or 'nothing that can be used'} now; "
                f"{plan.command('resume')} goes on all the same, {plan.command('abort')} ends it"
            )
        return self.image_problem(plan, policy)

    def image_problem(self, plan: RolloutPlan, policy: Policy) -> str:
        """Return what is wrong with the image of a rollout, and what to do; "" if it is right."""
        return image_problem(self._firmware_dir, plan.version, policy, self._sha256)

    def is_target(self, plan: RolloutPlan) -> bool:
        """Return whether somebody made the release of a rollout the target already."""
        return plan.reverts is None and is_same_target(self._base(plan)[0], plan.version)

    def _base(self, plan: RolloutPlan) -> tuple[str | None, str]:
        """Return the target that the rollout would replace, and why it cannot be read."""
        try:
            return read_base(self._data_dir, plan.group), ""
        except BadPolicy as problem:
            return None, f"targets.json {problem}"
        except OSError as problem:
            return None, str(problem)

    def _sha256(self, found: Found) -> str:
        """Return the SHA-256 of an image, read again only when its file has changed."""
        if self._hashed is None or self._hashed[0] != found.stamp:
            self._hashed = (found.stamp, sha256_of(found))
        return self._hashed[1]


def image_problem(
    firmware_dir: Path, version: str, policy: Policy, hashed: Callable[[Found], str] = sha256_of
) -> str:
    """Return what is wrong with the image of a release, and what to do; "" if it is right."""
    what = f"the image of {version}"
    try:
        image = find_image(firmware_dir, version)
        if image is None:
            return f"{what} is missing: put it back"
        if problem := policy.unusable.get(meaning(version)):
            return f"the manifest of {version} {problem}: fix it"
        manifest = policy.manifests.get(meaning(version))
        if manifest is not None and manifest.sha256 != hashed(image[1]):
            return f"{what} is not the one that was published: publish the same build again"
        os.close(open_found(image[1]))
    except OSError as trouble:
        return f"{what} {unreadable_text(trouble)}"
    return ""


def bring_about(data_dir: Path, plan: RolloutPlan, progress: RolloutProgress, now_ms: int) -> str:
    """Change what the end of a rollout changes; return why that must not be, "" where it is done.

    Raises:
        Busy, BadPolicy, OSError: it cannot be done now.
    """
    if progress.state == RolloutState.HALTED and not plan.is_revert:
        withdraw(data_dir, plan, progress.reason, now_ms)
    return finish(data_dir, plan) if progress.state == RolloutState.DONE else ""


def withdraw(data_dir: Path, plan: RolloutPlan, reason: str, now_ms: int) -> None:
    """Withdraw a release that was halted, unless that is done already.

    Raises:
        Busy: an operator's command is under way. The controller does not wait for it.
        BadPolicy, OSError: stopped.json cannot be used or written.
    """
    if _is_withdrawn(data_dir, plan):
        return
    with locked(data_dir, wait_seconds=0.0):
        if _is_withdrawn(data_dir, plan):
            return
        entry = {
            "state": StoppedState.WITHDRAWN,
            **targets_before(data_dir, plan),
            "reason": reason,
            "time": format_time(now_ms),
        }
        # An audit log that cannot be written must not keep a bad release going.
        with _noted(data_dir, "halt", plan, reason=reason):
            set_stopped(data_dir, plan.version, entry)


def _is_withdrawn(data_dir: Path, plan: RolloutPlan) -> bool:
    entry = stopped_entry(read_stopped(data_dir), plan.version)
    return entry is not None and entry.get("state") == StoppedState.WITHDRAWN


def withdrawn_for(data_dir: Path, version: str) -> str:
    """Return why an operator withdrew a release, in words."""
    try:
        entry = stopped_entry(read_stopped(data_dir), version) or {}
    except (BadPolicy, OSError):
        entry = {}  # what it held while it could be read is in force
    reason = entry.get("reason")
    return reason if isinstance(reason, str) and reason else "it was withdrawn by an operator"


def finish(data_dir: Path, plan: RolloutPlan) -> str:
    """Make a release that all devices have the target; return why not, "" where it is.

    Raises:
        Busy: an operator's command is under way. The controller does not wait for it.
        BadPolicy, OSError: a file cannot be used or written.
    """
    with locked(data_dir, wait_seconds=0.0):
        base = read_base(data_dir, plan.group)
        is_target = is_same_target(base, plan.version)
        if not is_target and not is_same_target(base, plan.instead_of):
            return (
                f"it has reached all, but the target was changed to {base or 'nothing'} meanwhile"
            )
        if plan.reverts is not None:
            _keep_no_device_on(data_dir, plan, plan.reverts)
        elif plan.group:
            if not is_target:
                with _noted(data_dir, "rollout done", plan, **{"from": base, "to": plan.version}):
                    set_group_target(data_dir, plan.group, plan.version)
        else:
            lost = read_group_targets(data_dir) if plan.groups_too else {}
            change = {"from": base, "to": plan.version, audit.GROUP_TARGETS: lost or None}
            is_so = is_target and not lost
            with nullcontext() if is_so else _noted(data_dir, "activate", plan, **change):
                if lost:
                    # Before version.txt: a group's older target would take its devices back.
                    write_group_targets(data_dir, {})
                if not is_target:
                    write_target(data_dir, plan.version)
    return ""


def _keep_no_device_on(data_dir: Path, plan: RolloutPlan, version: str) -> None:
    """Let devices that still run a release that the fleet came back from have their target."""
    before = stopped_entry(read_stopped(data_dir), version)
    if before is None:
        return
    after = None
    if before.get("state") == StoppedState.WITHDRAWN:
        # It stays withdrawn. A device is kept on it only where its target is that release: none is.
        after = {**before, "instead_of": version}
        if not plan.group:
            # A group that got a target meanwhile keeps it.
            after.pop("group_targets", None)
        elif plan.group in before.get("group_targets", {}):
            targets = {**before["group_targets"], plan.group: version}
            after = {**before, "group_targets": targets}
    if after != before:
        with _noted(data_dir, "rollout done", plan, **{"from": version, "to": plan.version}):
            set_stopped(data_dir, version, after)


def _noted(
    data_dir: Path, action: str, plan: RolloutPlan, **details: Any
) -> AbstractContextManager[None]:
    """Put on record what the controller changes, which it tries again where it fails."""
    more = {"group": plan.group or None, "rollout": plan.id, "user": CONTROLLER, **details}
    return audit.noted(
        log_dir(data_dir), action, plan.version, lambda _: action == "halt", True, **more
    )
