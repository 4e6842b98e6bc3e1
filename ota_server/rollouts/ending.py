"""How rollouts end: what a halt and a good end change, and what must not go on. I/O."""

import hashlib
import logging
from pathlib import Path

from ota_server.model.refusal import BadPolicy
from ota_server.model.timestamp import format_time
from ota_server.model.version import image_name, meaning, spellings
from ota_server.policy import audit
from ota_server.policy.policy import Policy, RolloutState, StoppedState
from ota_server.policy.rollout_plan import RolloutPlan, RolloutProgress
from ota_server.policy.targets import (
    clear_group_targets,
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
from ota_server.system.files import Found, Signature, find, open_found
from ota_server.system.locks import locked

log = logging.getLogger(__name__)

# Who it was, in the audit log.
CONTROLLER = "controller"
# For so long a target that cannot be read may be one that is being written.
_UNREADABLE_SECONDS = 2.0


class Obstacles:
    """What stands against it that a rollout goes on by itself."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._firmware_dir = data_dir / "firmware"
        self._hashed: tuple[Signature, str] | None = None
        self._unreadable_since: float | None = None

    def reason(self, plan: RolloutPlan, policy: Policy, now: float) -> str | None:
        """Return why a rollout pauses; "" where nothing is in the way, None where that shows soon.

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
            return f"the target cannot be read: {problem}; mend that, then `rollout resume`"
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
        """Say whether somebody made the release of a rollout the target already."""
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
        names = [image_name(spelling) for spelling in spellings(version)]
        found = next(filter(None, (find(self._firmware_dir, name) for name in names)), None)
        if found is None or not found.signature.size:
            return f"the image of {version} is missing: put it back, then `rollout resume`"
        if meaning(version) in policy.unusable:
            return f"the manifest of {version} cannot be used: mend it, then `rollout resume`"
        manifest = policy.manifests.get(meaning(version))
        if manifest is not None and manifest.sha256 != self._sha256(found):
            return (
                f"the image of {version} is not the one that was published (`release verify` names "
                "it): put that back, then `rollout resume`"
            )
        return ""

    def _sha256(self, found: Found) -> str:
        """Return the SHA-256 of an image, read once as long as its file is as it was."""
        if self._hashed is None or self._hashed[0] != found.signature:
            with open(open_found(found), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._hashed = (found.signature, digest)
        return self._hashed[1]


def bring_about(data_dir: Path, plan: RolloutPlan, progress: RolloutProgress, now_ms: int) -> str:
    """Change what all go by as a rollout ends; return why that is not to be, "" where it is done.

    Raises:
        Busy, BadPolicy, OSError: it cannot be done now.
    """
    if progress.state == RolloutState.HALTED and not plan.is_revert:
        withdraw(data_dir, plan, progress.reason, now_ms)
    return finish(data_dir, plan) if progress.state == RolloutState.DONE else ""


def withdraw(data_dir: Path, plan: RolloutPlan, reason: str, now_ms: int) -> None:
    """Take a release back that was halted, unless that is done already.

    Raises:
        Busy: an operator's command is under way; this waits for none.
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
        entry = {}  # what it held while it was good is in force
    reason = entry.get("reason")
    return reason if isinstance(reason, str) and reason else "it was withdrawn by an operator"


def finish(data_dir: Path, plan: RolloutPlan) -> str:
    """Make a release the target of those that all have it; return why not, "" where it is.

    Raises:
        Busy: an operator's command is under way; this waits for none.
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
            _let_go(data_dir, plan, plan.reverts)
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


def _let_go(data_dir: Path, plan: RolloutPlan, version: str) -> None:
    """Keep nobody on a release any more that the fleet came back from."""
    before = stopped_entry(read_stopped(data_dir), version)
    if before is None:
        return
    after = None
    if before.get("state") == StoppedState.WITHDRAWN:
        # It stays withdrawn; kept on it is who has no other target than this one, that is, nobody.
        after = {**before, "instead_of": version}
        if not plan.group:
            # A group that got a target meanwhile has that one; while it goes back it is left alone.
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
