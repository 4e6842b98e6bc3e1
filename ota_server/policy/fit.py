"""Whether an image can run on a device: for its chip, and with the room that it has. Pure.

No updater names its chip. What is known of it:

1. the chip of the last image that it reported, by its hash or its version (`Updater.chip`);
2. the chip of the release that it runs;
3. the chips that updaters of its family run on.

An image that says no chip is given to any device, except to Arduino-Pico, whose updater writes
whatever it gets. A release that was published with --force in spite of its chip is given to all.
"""

from ota_server.model.device import Report
from ota_server.model.updater import CHIPS
from ota_server.model.version import meaning
from ota_server.policy.policy import Policy, known_chip
from ota_server.policy.reason import Cause, Reason
from ota_server.policy.situation import ImageOnDisk

# Its updater is the only one that does not look at the image.
_TRUSTING_FAMILY = "pico"


def why_unfit(
    report: Report, release: str, image: ImageOnDisk | None, policy: Policy
) -> Cause | None:
    """Return why a device cannot run the image of a release; None: nothing speaks against it.

    Args:
        image: what is known of it besides its manifest.
    """
    manifest = policy.manifests.get(meaning(release))
    known = manifest or image
    if known is None:
        return None
    space = None if report.updater is None else report.updater.free_space
    if space is not None and known.size > space:
        text = f"{known.size} bytes, and the device has room for {space}"
        return Cause(Reason.NO_ROOM, release, text=text)
    if manifest is not None and manifest.any_chip:
        return None
    problem = _wrong_chip(report, known_chip(known.chip), policy)
    return Cause(Reason.WRONG_CHIP, release, text=problem) if problem else None


def _wrong_chip(report: Report, chip: str | None, policy: Policy) -> str:
    """Return what is wrong with the chip of an image, in words; "": nothing."""
    family = "" if report.updater is None else report.updater.family
    chips = CHIPS.get(family, ())
    if chip is None:
        if family != _TRUSTING_FAMILY:
            return ""
        return "does not begin like one for this chip, and its updater would not notice"
    if chips and not chip.startswith(chips):
        return f"is for {chip}, and its updater, {family}, does not run on that"
    runs = chip_of(report.firmware_version, policy)
    known = (report.updater and report.updater.chip) or runs
    if known in (None, chip):
        return ""
    whose = "it runs one" if known == runs else "the last known image of this device is"
    return f"is for {chip}, and {whose} for {known}"


def chip_of(reported: str, policy: Policy) -> str | None:
    """Return the chip of the release that a device reports; None: that is not known."""
    manifest = policy.manifests.get(meaning(policy.release_of(reported)))
    return None if manifest is None else known_chip(manifest.chip)
