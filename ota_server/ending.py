"""How rollouts end: what a halt and a good end change, and what must not go on. I/O."""

import hashlib
import logging
from pathlib import Path

from ota_server import audit
from ota_server.datadir import log_dir
from ota_server.files import Found, Signature, find, open_found
from ota_server.plan import Plan
from ota_server.policy import BadPolicy, Policy
from ota_server.record import format_time
from ota_server.release import image_name, meaning, same_version, spellings
from ota_server.rolloutfiles import (
    clear_group_targets,
    read_base,
    read_group_targets,
    read_stopped,
    read_target,
    set_group_target,
    set_stopped,
    stopped_entry,
    write_target,
)

log = logging.getLogger(__name__)

# Who it was, in the audit log.
CONTROLLER = "controller"


class ImageLook:
    """Looks whether the image of a release is there, and the one that was published."""

    def __init__(self, data_dir: Path) -> None:
        self._firmware_dir = data_dir / "firmware"
        self._hashed: tuple[Signature, str] | None = None

    def problem(self, version: str, policy: Policy) -> str:
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


def is_same_target(one: str | None, other: str | None) -> bool:
    """Say whether two targets are the same, by meaning; None: there is none."""
    if one is None or other is None:
        return one is other
    return same_version(one, other)


def withdraw(data_dir: Path, plan: Plan, reason: str, now_ms: int) -> None:
    """Take a release back that was halted, unless that is done already.

    Raises:
        Busy: an operator's command goes on for too long.
        BadPolicy, OSError: stopped.json cannot be used or written.
    """
    with audit.locked(data_dir):
        entry = {
            "state": "withdrawn",
            **targets_before(data_dir, plan),
            "reason": reason,
            "time": format_time(now_ms),
        }
        before = stopped_entry(read_stopped(data_dir), plan.version)
        if before is not None and before.get("state") == "withdrawn":
            return
        # A full disk must not keep a bad release going.
        _note(data_dir, "halt", plan, reason=reason)
        set_stopped(data_dir, plan.version, entry)


def targets_before(data_dir: Path, plan: Plan) -> dict[str, object]:
    """Return what was the target before a rollout, of the fleet and of groups, for stopped.json."""
    try:
        groups = read_group_targets(data_dir)
    except (BadPolicy, OSError) as problem:
        # It must not keep a bad release going; nobody is offered anything while that is so.
        log.error("the targets of groups cannot be read: %s", problem)
        groups = {}
    if not plan.group:
        return {"instead_of": plan.instead_of, "group_targets": groups}
    if plan.group in groups and plan.instead_of is not None:
        groups[plan.group] = plan.instead_of
    return {"instead_of": read_target(data_dir), "group_targets": groups}


def finish(data_dir: Path, plan: Plan) -> str:
    """Make a release the target of those that all have it; return why not, "" where it is.

    Raises:
        Busy: an operator's command goes on for too long.
        BadPolicy, OSError: a file cannot be used or written.
    """
    with audit.locked(data_dir):
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
            # Before version.txt: a group's older target would take its devices back.
            clear_group_targets(data_dir)
            if not is_target:
                write_target(data_dir, plan.version)
    return ""


def _let_go(data_dir: Path, plan: Plan, version: str) -> None:
    """Keep nobody on a release any more that the fleet came back from."""
    before = stopped_entry(read_stopped(data_dir), version)
    if before is None:
        return
    after = None
    if before.get("state") == "withdrawn":
        # It stays withdrawn; kept on it is who has no other target than this one, that is, nobody.
        after = {**before, "instead_of": version}
        if plan.group in before.get("group_targets", {}):
            targets = {**before["group_targets"], plan.group: version}
            after = {**before, "group_targets": targets}
    if after != before:
        _note(data_dir, "rollout done", plan, **{"from": version, "to": plan.version})
        set_stopped(data_dir, version, after)


def _note(data_dir: Path, action: str, plan: Plan, **details: str | None) -> None:
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
