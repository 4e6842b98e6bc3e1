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

# Arduino links a description of its own libraries, not of the sketch, into each image.
_ARDUINO_PROJECT = "arduino-lib-builder"


class PublishRequest(NamedTuple):
    """What an operator wants published; `Manifest` explains the other fields.

    Attributes:
        source: the file of the image.
        signature: the file of the detached signature.
        verify_key: the file of the public key to check the signature with.
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
    request: PublishRequest, size: int, header: ImageHeader | None, target: ImageHeader | None
) -> Iterator[str]:
    """Yield how an image contradicts the operator.

    Args:
        target: what the image of the target says of itself.
    """
    if header is None:
        return
    if header.format.startswith("ESP32 boot loader"):
        yield "it begins with a boot loader; a device that runs that as its application is lost"
    if header.least_size is not None and size < header.least_size:
        yield f"the image was cut: it has {size} bytes and says that it has {header.least_size}"
    version = None if header.project == _ARDUINO_PROJECT else header.version
    if version is not None and not _is_as_said(version, request):
        said = shlex.quote(version)
        yield (
            f"the image says that it is version {said}, not {request.version}: its devices would "
            "report that and fetch it for ever; if that is what they report, add --reports-as "
            f"{said}"
        )
    if target is not None and target.chip and header.chip and target.chip != header.chip:
        yield f"the image is for {header.chip}, that of the current target for {target.chip}"


def _is_as_said(version: str, request: PublishRequest) -> bool:
    return same_version(version, request.version) or version == request.reports_as
