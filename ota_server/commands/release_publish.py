"""`release publish`: its arguments and what it prints."""

import argparse
import os
from pathlib import Path

from ota_server.commands.common import (
    say,
    version_argument,
    warn,
    warn_of_new_folder,
    warn_of_wrong_folder,
)
from ota_server.commands.terminal import ProgressBar, printable
from ota_server.operations import change_release
from ota_server.releases.build_file import version_in
from ota_server.releases.publish_request import PublishRequest

PUBLISH_EXAMPLES = """\
  %(prog)s build/blink.bin
      its version is what the image says
  %(prog)s app.bin --version v1.2.0
  %(prog)s app.bin --version v1.2.0 \\
      --notes 'fixes the clock'
  %(prog)s app.bin --version v1.2.0 \\
      --signature app.bin.minisig --verify-key key.pub
  %(prog)s app.bin --version v1.2.0 \\
      --reports-as 1.2.0-g3f9a
  %(prog)s app.bin --version v1.2.0 \\
      --filesystem littlefs.bin
  %(prog)s micropython/ --version v1.2.0
      a folder of files is a release too
  %(prog)s app.bin --version v2.0.0 \\
      --via v1.9.0 --direct-from 'v1.9.*'

No device is offered it before `release activate`. If the same bytes are
published again under the same version, only what the options say is updated.
With --via, devices get that release first, unless their version matches
--direct-from.
"""


def add_publish_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `release publish`."""
    parser.add_argument(
        "image",
        metavar="FILE",
        help="the image; or a folder, whose files are the release, as for MicroPython",
    )
    parser.add_argument(
        "--version",
        type=version_argument,
        metavar="VERSION",
        help="what to call it (default: what the image says, as those of ESP-IDF do)",
    )
    parser.add_argument("--notes", default="", metavar="TEXT", help="what is new, for people")
    parser.add_argument(
        "--reports-as",
        metavar="TEXT",
        help="what devices that run it report, if that is not its version",
    )
    parser.add_argument(
        "--via",
        type=version_argument,
        metavar="VERSION",
        help="the stepping stone: a release that devices have to run before this one",
    )
    parser.add_argument(
        "--direct-from",
        action="append",
        default=[],
        metavar="PATTERN",
        help="versions that may skip the stepping stone, such as 'v1.9.*'; may be repeated",
    )
    _add_companions(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="publish it even if its header says another version than --version, another chip, "
        "project or kind than the image of the target, or more bytes than it has (only U-Boot, "
        "MCUboot, UF2 and squashfs say that), or if the disk would then be nearly full",
    )


def _add_companions(parser: argparse.ArgumentParser) -> None:
    """Add the options of files that come with the image."""
    parser.add_argument(
        "--signature",
        metavar="FILE",
        help="its detached signature by minisign, signify or openssl, served beside it",
    )
    parser.add_argument(
        "--verify-key",
        metavar="FILE",
        help="check the signature with this public key, by the tool that made it",
    )
    parser.add_argument(
        "--filesystem",
        metavar="FILE",
        help="the image of its file system, for devices that ask for that (ESP8266, ESP32)",
    )


def publish_image(arguments: argparse.Namespace) -> int:
    """Publish an image, or a folder of files; return the exit code."""
    request = PublishRequest(
        source=arguments.image,
        version=arguments.version or version_in(Path(arguments.image)),
        notes=arguments.notes,
        reports_as=arguments.reports_as,
        via=arguments.via,
        direct_from=tuple(arguments.direct_from),
        signature=arguments.signature,
        verify_key=arguments.verify_key,
        filesystem=arguments.filesystem,
        is_forced=arguments.force,
    )
    is_new = not os.path.isdir(arguments.data_dir / "firmware")
    with ProgressBar(f"copying {request.version}") as progress:
        done = change_release.publish_image(arguments.data_dir, request, progress)
    for warning in done.warnings:
        warn(warning)
    for line in done.lines[:-1]:
        print(printable(line))
    say(done.lines[-1])
    if is_new:
        warn_of_new_folder(arguments.data_dir)
    else:
        warn_of_wrong_folder(arguments.data_dir)
    return 0
