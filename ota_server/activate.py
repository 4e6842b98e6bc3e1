"""The target of the whole fleet, changed by an operator: activated, or rolled back."""

from pathlib import Path
from typing import NamedTuple

from ota_server import audit
from ota_server.datadir import log_dir
from ota_server.files import replace
from ota_server.inventory import (
    VERSION_NAME,
    Progress,
    Release,
    Site,
    find_release,
    look_at,
    problem_with,
)
from ota_server.policy import Refused
from ota_server.rolloutfiles import clear_group_targets, read_stopped, write_stopped


class Activated(NamedTuple):
    """A new target. `previous`: the one before; None: there was none. `warning`: "" or what."""

    version: str
    previous: str | None
    warning: str


def activate(data_dir: Path, version: str, progress: Progress, is_forced: bool) -> Activated:
    """Make a release the target of the whole fleet, at once.

    Args:
        progress: is told how many bytes of the image are hashed.
        is_forced: also while a rollout to the fleet goes on.

    Raises:
        Refused: nothing was changed.
        Busy: another command goes on for too long.
        OSError: something cannot be read or written.
    """
    _check_image(data_dir, version, progress)
    with audit.locked(data_dir):
        return _change(look_at(data_dir), version, "activate", is_forced)


def rollback(data_dir: Path, progress: Progress, is_forced: bool) -> Activated:
    """Make the target before this one the target of the whole fleet, by the audit log.

    Raises:
        Refused, Busy, OSError: as `activate`.
    """
    version = _previous(look_at(data_dir))
    _check_image(data_dir, version, progress)
    with audit.locked(data_dir):
        site = look_at(data_dir)
        if _previous(site) != version:
            raise Refused(f"another command has changed the target to {site.target}; look again")
        return _change(site, version, "rollback", is_forced)


def _previous(site: Site) -> str:
    if site.previous is None:
        raise Refused(
            f"the audit log knows no target before {site.target or 'this one'}; "
            "name one by `release activate VERSION`"
        )
    return site.previous


def _check_image(data_dir: Path, version: str, progress: Progress) -> None:
    """Refuse what devices would get 404 for. It takes long, so the caller has no lock."""
    release = _release(data_dir, version)
    if release.manifest is None and not release.problem:
        return  # copied in by hand: there is nothing to compare it with
    problem = problem_with(release, progress)
    if problem:
        raise Refused(
            f"{release.version} cannot be offered: {problem}; publish the same build again, "
            "that restores it"
        )


def _release(data_dir: Path, version: str) -> Release:
    release = find_release(data_dir / "firmware", version)
    if release is None or release.image is None:
        raise Refused(
            f"there is no image of {version}; `release publish FILE --version {version}` brings "
            "one, `release list` shows what there is"
        )
    return release


def _change(site: Site, wanted: str, action: str, is_forced: bool) -> Activated:
    """Write the files. The caller holds the lock."""
    version = _release(site.data_dir, wanted).version
    if site.policy.is_withdrawn(version):
        raise Refused(f"{version} was withdrawn; `release withdraw --undo {version}` lifts that")
    warning = ""
    rollout = site.policy.rollouts.get("")
    if rollout is not None:
        if not is_forced:
            raise Refused(
                f"a rollout of {rollout.version} to the fleet is going on; `rollout abort` it "
                "first, or --force changes the target under it, which pauses it"
            )
        warning = f"the rollout of {rollout.version} is still there: `rollout abort` ends it"
    details = {"from": site.target, "to": version}
    audit.note(log_dir(site.data_dir), action, version, **details)
    # The target first: where a crash follows, devices stay on what was stopped, and do not go back
    # to the old target.
    try:
        replace(site.data_dir / "version" / VERSION_NAME, (version + site.end).encode("ascii"))
    except OSError:
        # Or `rollback` would go to a target that never was.
        audit.note(log_dir(site.data_dir), audit.NOT_DONE, version, of=action)
        raise
    if site.policy.group_targets:
        clear_group_targets(site.data_dir)
    if site.policy.stopped:
        _let_go(site.data_dir)
    return Activated(version, site.target, warning)


def _let_go(data_dir: Path) -> None:
    """Have devices that stayed on a release that was stopped go to the new target."""
    stopped = read_stopped(data_dir)
    for version, entry in list(stopped.items()):
        if entry["state"] == "aborted":
            del stopped[version]
        else:
            # Its devices stay on it for as long as that is the target: only while it is itself.
            entry["instead_of"] = version
            entry.pop("group_targets", None)
    write_stopped(data_dir, stopped)
