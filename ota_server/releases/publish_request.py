"""What an operator wants published, and what is wrong with that. Pure."""

import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

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
from ota_server.releases.header import ImageHeader

# Arduino links a description into each image that is of its own libraries, not of the sketch.
_ARDUINO_PROJECT = "arduino-lib-builder"


class PublishRequest(NamedTuple):
    """What an operator wants published; see `Manifest` for what the fields mean.

    Attributes:
        source: the image.
        signature: the file that holds the detached signature.
        verify_key: the file of the public key to check the signature by.
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
    is_forced: bool = False


def check_request(request: PublishRequest) -> None:
    """Refuse what can be no release, whatever there is.

    Raises:
        Misused: the message says why.
    """
    if not is_version(request.version):
        raise Misused(f"{request.version[:70]!r} is no version: use {VERSION_RULE}")
    if request.via is not None and not is_version(request.via):
        raise Misused(f"--via {request.via[:70]!r} is no version: use {VERSION_RULE}")
    if request.direct_from and request.via is None:
        raise Misused(
            "--direct-from says who need not go over a stone; name the stone by --via VERSION"
        )
    for pattern in request.direct_from:
        if not is_pattern(pattern):
            raise Misused(
                f"--direct-from {pattern[:70]!r} is no version and no pattern of versions, "
                "such as 'v1.1.*'"
            )
    if request.reports_as is not None and not is_reported_text(request.reports_as):
        raise Misused(
            f"--reports-as {request.reports_as[:70]!r} is nothing that a device can report: use 1 "
            "to 64 printable ASCII characters, no blank at either end"
        )
    if request.verify_key is not None and request.signature is None:
        raise Misused("--verify-key checks a signature; name its file by --signature FILE")
    if len(request.notes) > MAX_NOTES:
        raise Misused(f"--notes are over {MAX_NOTES} characters; shorten them, or give a link")


def check_against(request: PublishRequest, policy: Policy) -> None:
    """Refuse what does not go with the releases that there are.

    Raises:
        Refused: the message says why and what to do.
    """
    others = [
        other
        for other in policy.manifests.values()
        if not same_version(other.version, request.version)
    ]
    _check_reports(request, others, policy.images)
    # What it says of the way; nothing is known of its bytes here.
    manifest = Manifest(
        request.version, "", "", 0, "", via=request.via, direct_from=request.direct_from
    )
    problem = stepping_stone_problem(manifest, others, {*policy.images, meaning(request.version)})
    if problem:
        raise Refused(f"{problem}; publish the stone first, or name another one by --via")
    if request.via is not None and policy.is_withdrawn(request.via):
        raise Refused(f"{request.via} was withdrawn; name another stone by --via")


def _check_reports(
    request: PublishRequest, others: Iterable[Manifest], images: Iterable[str]
) -> None:
    """Refuse a text that would stand for two releases."""
    reported = request.reports_as
    for manifest in others:
        if manifest.reports_as == request.version:
            raise Refused(
                f"{request.version} is what devices report that run {manifest.version}; "
                "give this release another version"
            )
        if reported is not None and manifest.reports_as == reported:
            raise Refused(
                f"devices that run {manifest.version} report {reported!r} already; "
                "build an image that reports something of its own"
            )
    if reported is None or same_version(reported, request.version):
        return
    if meaning(reported) in images or any(same_version(reported, m.version) for m in others):
        raise Refused(
            f"--reports-as {reported}: that is the name of another release; build an image that "
            "reports something of its own"
        )


def doubts(
    request: PublishRequest, size: int, header: ImageHeader | None, target: ImageHeader | None
) -> Iterator[str]:
    """Yield in which ways an image says that it is not what the operator says.

    Args:
        target: what the image of the target says.
    """
    if header is None:
        return
    if header.format.startswith("ESP32 boot loader"):
        yield "it begins with a boot loader, and a device that runs that as its application is lost"
    if header.least_size is not None and size < header.least_size:
        yield f"the image was cut: it has {size} bytes and says that it has {header.least_size}"
    version = None if header.project == _ARDUINO_PROJECT else header.version
    if version is not None and not _is_as_said(version, request):
        said = shlex.quote(version)
        yield (
            f"the image says that it is version {said}, not {request.version}: its devices would "
            "report that, and fetch it for ever; --reports-as "
            f"{said} cures that, if it is what they report"
        )
    if target is not None and target.chip and header.chip and target.chip != header.chip:
        yield f"the image is for {header.chip}, and that of the current target for {target.chip}"


def _is_as_said(version: str, request: PublishRequest) -> bool:
    return same_version(version, request.version) or version == request.reports_as
