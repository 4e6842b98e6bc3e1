"""What an operator wants published, and what is wrong with that. Pure."""

import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ota_server.model.image_header import DAMAGED, ImageHeader, describe
from ota_server.model.manifest import (
    MAX_NOTES,
    Manifest,
    is_pattern,
    is_reported_text,
    stepping_stone_problem,
)
from ota_server.model.refusal import Misused, Refused
from ota_server.model.version import VERSION_RULE, is_version, meaning, same_version
from ota_server.policy.policy import Policy

# Arduino links a description of its own libraries, not of the sketch, into each image.
_ARDUINO_PROJECT = "arduino-lib-builder"
# What imgtool writes into the header of MCUboot where nobody gave it a version.
_NO_MCUBOOT_VERSION = "0.0.0"
# What images are called whose updater takes no others, though they say no chip. Others, such as a
# tar archive, can be for anything.
_KINDS = ("U-Boot", "MCUboot", "squashfs", "SWUpdate")
# It takes images that were compressed by gzip.
_UNPACKS_GZIP = "ESP8266"
# The updater of Arduino-Pico is the only one that does not look at the image.
_TRUSTING_CHIPS = "RP2"


class PublishRequest(NamedTuple):
    """What an operator wants published; `Manifest` explains the other fields.

    Attributes:
        source: the file of the image, or the folder of the files of a release of several.
        signature: the file of the detached signature.
        verify_key: the file of the public key to check the signature with.
        filesystem: the file of the image of a file system.
        is_forced: publish it whatever the image says of itself.
    """

    source: str
    version: str
    notes: str = ""
    reports_as: str | None = None
    via: str | None = None
    direct_from: tuple[str, ...] = ()
    signature: str | None = None
    verify_key: str | None = None
    filesystem: str | None = None
    is_forced: bool = False


def version_said(header: ImageHeader | None) -> str:
    """Return the version that an image says it has, if that can name a release.

    Raises:
        Misused: the message says what to give instead.
    """
    version = None if header is None else _version(header)
    if version in (None, _NO_MCUBOOT_VERSION):
        raise Misused("the image does not say which version it is; give --version VERSION")
    if not is_version(version):
        said = shlex.quote(version)
        raise Misused(
            f"the image says that it is version {said}, which cannot name a release; give another "
            f"name by --version VERSION (use {VERSION_RULE}), and --reports-as {said}"
        )
    return version


def check_request(request: PublishRequest) -> None:
    """Refuse what cannot be a release in any case.

    Raises:
        Misused: the message says why.
    """
    if not is_version(request.version):
        raise Misused(f"{request.version[:70]!r} is not a version: use {VERSION_RULE}")
    if request.via is not None and not is_version(request.via):
        raise Misused(f"--via {request.via[:70]!r} is not a version: use {VERSION_RULE}")
    if request.direct_from and request.via is None:
        raise Misused(
            "--direct-from says which versions may skip the stepping stone; give that by --via"
        )
    for pattern in request.direct_from:
        if not is_pattern(pattern):
            raise Misused(
                f"--direct-from {pattern[:70]!r} is neither a version nor a pattern of versions "
                "such as 'v1.1.*'"
            )
    if request.reports_as is not None and not is_reported_text(request.reports_as):
        raise Misused(
            f"--reports-as {request.reports_as[:70]!r} cannot be reported by a device: use 1 to "
            "64 printable ASCII characters, without a blank at either end"
        )
    if request.verify_key is not None and request.signature is None:
        raise Misused("--verify-key checks a signature; give its file by --signature FILE")
    if len(request.notes) > MAX_NOTES:
        raise Misused(f"--notes are over {MAX_NOTES} characters; shorten them, or give a link")


def check_against(request: PublishRequest, policy: Policy) -> None:
    """Refuse what conflicts with other releases.

    Raises:
        Refused: the message says why and what to do.
    """
    others = [
        other
        for other in policy.manifests.values()
        if not same_version(other.version, request.version)
    ]
    _check_reports(request, others, policy.images)
    # Only its stepping stone matters here, not its bytes.
    manifest = Manifest(
        request.version, "", "", 0, "", via=request.via, direct_from=request.direct_from
    )
    problem = stepping_stone_problem(manifest, others, {*policy.images, meaning(request.version)})
    if problem:
        raise Refused(f"{problem}; publish the stepping stone first, or name another one by --via")
    if request.via is not None and policy.is_withdrawn(request.via):
        raise Refused(f"{request.via} was withdrawn; name another stepping stone by --via")


def _check_reports(
    request: PublishRequest, others: Iterable[Manifest], images: Iterable[str]
) -> None:
    """Refuse a reported text that would mean two releases."""
    reported = request.reports_as
    for manifest in others:
        if manifest.reports_as == request.version:
            raise Refused(
                f"{request.version} is what devices that run {manifest.version} report; "
                "give this release another version"
            )
        if reported is not None and manifest.reports_as == reported:
            raise Refused(
                f"devices that run {manifest.version} already report {reported!r}; "
                "build an image that reports something else"
            )
    if reported is None or same_version(reported, request.version):
        return
    if meaning(reported) in images or any(same_version(reported, m.version) for m in others):
        raise Refused(
            f"--reports-as {reported} is the version of another release; build an image that "
            "reports something else"
        )


def doubts(
    request: PublishRequest,
    size: int,
    header: ImageHeader | None,
    target: ImageHeader | None,
    target_name: str = "the current target",
) -> Iterator[str]:
    """Yield how an image contradicts the operator.

    Args:
        target: what the image of the target says of itself.
        target_name: what that is, in a sentence.
    """
    is_trusted = target is not None and (target.chip or "").startswith(_TRUSTING_CHIPS)
    if target is not None and is_trusted and (header is None or header.chip is None):
        yield (
            f"the image does not begin like one for {target.chip}, as that of the current target "
            "does, and its devices write whatever they get"
        )
    else:
        yield from unlike(header, target, target_name, f"the image of {request.version}")
    if header is None:
        return
    if header.format.startswith("ESP32 boot loader"):
        yield "it begins with a boot loader; a device that runs that as its application is lost"
    if DAMAGED in header.format:
        yield f"it is an {header.format}: no boot loader starts it"
    if header.least_size is not None and size < header.least_size:
        yield f"the image was cut: it has {size} bytes and says that it has {header.least_size}"
    version = version_otherwise(header, request.version, request.reports_as)
    if version is not None:
        said = shlex.quote(version)
        leave = "leave --version out to publish it as that, or, " if is_version(version) else ""
        yield (
            f"the image says that it is version {said}, not {request.version}: its devices would "
            f"report that and fetch it for ever; {leave}if another name is meant, add --reports-as "
            f"{said}"
        )
    yield from mixed_up(header, target)


def unlike(
    header: ImageHeader | None, target: ImageHeader | None, name: str, image: str
) -> Iterator[str]:
    """Yield that an image is not of the kind of that of a target, where that is of a known one.

    1. Nothing is known of the target's format: nothing speaks against the image.
    2. Nothing is known of the image's format.
    3. The target's image is for one chip, or one updater; the image says neither.

    Args:
        header: None: nothing is known of an image that is there.
        name: of the target, in a sentence, as `image` is.
    """
    if target is None:
        return
    if header is None:
        yield f"{image} is of an unknown format, and that of {name} is not ({describe(target)})"
        return
    ours, theirs = (each.format.partition(" ")[0] for each in (header, target))
    is_open = target.chip is None and theirs not in _KINDS
    is_packed = ours == "gzip" and target.chip == _UNPACKS_GZIP
    has_chips = header.chip is not None and target.chip is not None
    if not (is_open or is_packed or has_chips or ours == theirs):
        theirs = f"that of {name} ({describe(target)})"
        yield f"{image} is of another kind ({describe(header)}) than {theirs}"


def new_kind(header: ImageHeader | None, name: str, version: str) -> Iterator[str]:
    """Yield that an image is of a known format, where that of the target is of an unknown one."""
    if header is not None:
        yield (
            f"the image of {version} is of a known format ({describe(header)}), and that of {name} "
            "is not; make sure that it is for the same devices"
        )


def mixed_up(
    header: ImageHeader | None,
    target: ImageHeader | None,
    name: str = "the current target",
    image: str = "the image",
) -> Iterator[str]:
    """Yield how an image is for other devices than that of a target; both are named in words."""
    if header is None or target is None:
        return
    if target.chip and header.chip and target.chip != header.chip:
        yield f"{image} is for {header.chip}, that of {name} for {target.chip}"
    ours, theirs = _project(header), _project(target)
    if ours and theirs and ours != theirs:
        yield (
            f"{image} is of the project {shlex.quote(ours)}, and {name} is of the "
            f"project {shlex.quote(theirs)}; for devices of two kinds use two groups, or a "
            "--data-dir and a server for each"
        )


def is_in_spite_of_chip(
    request: PublishRequest, header: ImageHeader | None, target: ImageHeader | None
) -> bool:
    """Return whether an image is forced that is for another chip than the target, or for none."""
    if not request.is_forced:
        return False
    chip = None if header is None else header.chip
    return chip is None or (target is not None and target.chip not in (None, chip))


def version_otherwise(
    header: ImageHeader | None, version: str, reports_as: str | None
) -> str | None:
    """Return which version an image says it is, if its devices will report that; else None."""
    said = None if header is None else _version(header)
    return None if said is None or same_version(said, version) or said == reports_as else said


def too_large(size: int, header: ImageHeader | None) -> Iterator[str]:
    """Yield that an image is larger than the flash that it was built for, if it is."""
    flash_size = None if header is None else header.flash_size
    if flash_size is not None and size > flash_size:
        yield (
            f"the image has {size} bytes, and was built for a flash of {flash_size}: no device can "
            "install it"
        )


def _version(header: ImageHeader) -> str | None:
    return None if header.project == _ARDUINO_PROJECT else header.version


def _project(header: ImageHeader) -> str | None:
    return None if header.project == _ARDUINO_PROJECT else header.project
