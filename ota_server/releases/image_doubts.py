"""What speaks against an image that is to be published, before anything is changed. I/O."""

from typing import NamedTuple

from ota_server.model.image_header import ImageHeader
from ota_server.model.refusal import Refused
from ota_server.model.version import spellings
from ota_server.policy.policy import Policy
from ota_server.releases.inventory import DataDirState, release_at, used_by
from ota_server.releases.publish_request import (
    PublishRequest,
    check_against,
    doubts,
    new_kind,
    too_large,
)
from ota_server.releases.same_devices import has_own_image, header_of_release, name_of_target


class ImageDoubts(NamedTuple):
    """What speaks against an image.

    Attributes:
        target: what the image of the target says of itself; None: nothing.
        refused: why it is refused, unless that is forced.
        remarks: what else an operator should know.
    """

    target: ImageHeader | None
    refused: tuple[str, ...]
    remarks: tuple[str, ...]


def image_doubts(
    request: PublishRequest, size: int, header: ImageHeader | None, state: DataDirState
) -> ImageDoubts:
    """Return what speaks against an image.

    Args:
        header: what it says of itself; None: nothing.

    Raises:
        OSError: the image of the target cannot be read.
    """
    data_dir, version = state.data_dir, request.version
    target = None if state.target is None else header_of_release(data_dir, state.target)
    name = name_of_target(data_dir)
    remarks = [*too_large(size, header)]
    if target is None and has_own_image(data_dir, state.target):
        remarks += new_kind(header, name, version)
    if state.policy.is_withdrawn(version):
        lift = f"`release withdraw --undo {version}` undoes that"
        remarks.append(f"{version} is still withdrawn, and no device is offered it; {lift}")
    refused = tuple(doubts(request, size, header, target, name))
    return ImageDoubts(target, refused, tuple(remarks))


def check_others(request: PublishRequest, state: DataDirState, now_ms: int) -> None:
    """Refuse what conflicts with other releases.

    Raises:
        Refused: the message says why.
    """
    firmware = state.firmware_dir
    for spelling in spellings(request.version):
        if spelling != request.version and release_at(firmware, spelling).image:
            is_used = any(used_by(spelling, state, now_ms))
            or_remove = "" if is_used else f", or `release remove {spelling}` first"
            raise Refused(
                f"{spelling} is there, and {request.version} would mean the same "
                f"release; publish it as another version{or_remove}"
            )
    check_against(request, state.policy)


def other_bytes_text(version: str, recorded: str, sha256: str) -> str:
    """Return that a release is there with other bytes than those of an image."""
    return (
        f"{version} is there with other bytes: their SHA-256 is {recorded}, that of this image "
        f"is {sha256}; give each build a version of its own"
    )


def same_bytes_text(what: str, others: list[str], policy: Policy) -> str:
    """Return that other releases have the same bytes.

    Args:
        what: the version of the image, or words for it.
    """
    named = [
        f"{each}, which was withdrawn" if policy.is_withdrawn(each) else each for each in others
    ]
    return (
        f"{what} has the same bytes as {' and '.join(named)}: devices report one "
        "version for both; was it built again after its version was changed?"
    )
