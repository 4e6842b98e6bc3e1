"""What an operator should know of a release when devices are told to run it. I/O."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ota_server.model.version import is_sample, may_be_sample
from ota_server.releases.inventory import Release, header_of
from ota_server.releases.publish_request import version_otherwise
from ota_server.system.data_dir import access_problem
from ota_server.system.files import sha256_of


def remarks(data_dir: Path, release: Release) -> Iterator[str]:
    """Yield why devices will not get a release, or not stay on it, as far as it can be read."""
    image, manifest = release.image, release.manifest
    if image is None:
        return
    if problem := access_problem(data_dir, image.path):
        yield problem
    with suppress(OSError):
        size = image.stamp.size
        if may_be_sample(size) and is_sample(size, sha256_of(image)):
            yield (
                f"{release.version} is the shipped sample: it is offered to clients on this "
                "machine only, and to no other device"
            )
        reports_as = None if manifest is None else manifest.reports_as
        said = version_otherwise(header_of(image), release.version, reports_as)
        if said is not None:
            yield (
                f"the image of {release.version} says that it is version {shlex.quote(said)}: its "
                "devices will report that, and fetch it for ever; build it again with its version"
            )
