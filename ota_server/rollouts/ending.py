"""How rollouts end: what a halt and a good end change, and what keeps one from going on. I/O."""

import logging
from pathlib import Path

from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time
from ota_server.model.version import meaning
from ota_server.policy import audit
from ota_server.policy.policy import Policy, RolloutState, StoppedState
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from ota_server.policy.targets import (
    clear_group_targets,
    find_image,
    is_same_target,
    read_base,
    read_stopped,
    set_group_target,
    set_stopped,
    stopped_entry,
    targets_before,
    write_target,
)
from ota_server.system.data_dir import log_dir
from ota_server.system.files import Found, Signature, sha256_of
from ota_server.system.locks import locked

log = logging.getLogger(__name__)

# Who it was, in the audit log.
CONTROLLER = "controller"
# For so long a target that cannot be read may be one that is being written.
_UNREADABLE_SECONDS = 2.0


class Obstacles:
    """What keeps a rollout from going on by itself: the target or the image is not as it was."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._firmware_dir = data_dir / "firmware"
        self._hashed: tuple[Signature, str] | None = None
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
            return f"the target cannot be read: {problem}; fix that, then `rollout resume`"
        if not is_same_target(base, plan.instead_of):
            whose = f"the target of {plan.group}" if plan.group else "version.txt"
            return (
                f"somebody changed {whose}: it was {plan.instead_of or 'nothing'} when this "
                f"began and is {base or 'nothing that can be used'} now; `rollout resume` goes on "
                "all the same, `rollout abort` ends it"
            )
        try:
            return self._image_problem(plan.version, policy)
        except OSError as trouble:
            return f"the image of {plan.version} cannot be read: {trouble}"

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

    def _image_problem(self, version: str, policy: Policy) -> str:
        """Return what is wrong with the image of a release; "" where it is right.

        Raises:
            OSError: it cannot be read.
        """
        image = find_image(self._firmware_dir, version)
        if image is None:
            return f"the image of {version} is missing: put it back, then `rollout resume`"
        if meaning(version) in policy.unusable:
            return f"the manifest of {version} cannot be used: fix it, then `rollout resume`"
        manifest = policy.manifests.get(meaning(version))
        if manifest is not None and manifest.sha256 != self._sha256(image[1]):
            return (
                f"the image of {version} is not the one that was published (`release verify` names "
                "it): put that back, then `rollout resume`"
            )
        return ""

    def _sha256(self, found: Found) -> str:
        """Return the SHA-256 of an image, read again only when its file has changed."""
        if self._hashed is None or self._hashed[0] != found.signature:
            self._hashed = (found.signature, sha256_of(found))
        return self._hashed[1]


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
        # A full disk must not keep a bad release going.
        _note(data_dir, "halt", plan, reason=reason)
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
                _note(data_dir, "rollout done", plan, **{"from": base, "to": plan.version})
                set_group_target(data_dir, plan.group, plan.version)
        else:
            if not is_target:
                _note(data_dir, "activate", plan, **{"from": base, "to": plan.version})
            if plan.groups_too:
                # Before version.txt: a group's older target would take its devices back.
                clear_group_targets(data_dir)
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
        _note(data_dir, "rollout done", plan, **{"from": version, "to": plan.version})
        set_stopped(data_dir, version, after)


def _note(data_dir: Path, action: str, plan: RolloutPlan, **details: str | None) -> None:
    try:
        audit.note(
            log_dir(data_dir),
            action,
            plan.version,
            group=plan.group or None,
            rollout=plan.id,
            user=CONTROLLER,
            **details,
        )
    except OSError as problem:
        log.error("the audit log cannot be written: %s", problem)
        if action != "halt":
            raise
