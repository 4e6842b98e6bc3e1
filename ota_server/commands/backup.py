"""`backup` and `restore`: arguments in, text out."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from ota_server.commands.common import Commands, add_command, say, warn
from ota_server.model.quantity import format_size
from ota_server.model.refusal import BadPolicy, Misused
from ota_server.policy.admin_address import read_tokens
from ota_server.releases.backup_file import back_up
from ota_server.releases.restore import restore


def add_commands(commands: Commands) -> None:
    """Add `backup` and `restore`."""
    parser = add_command(
        commands,
        "backup",
        "copy the data directory into one file, while the server runs",
        "Copy all that the data directory holds (target, releases, groups, pins, rollouts, the "
        "journal) into a tar file. The server may run, and devices do not notice. The file is "
        "replaced only by a whole backup.",
        "  %(prog)s /var/backups/ota.tar\n  ssh HOST ota-server backup - > ota.tar",
        _back_up,
        has_product=False,
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="the file to write; -: standard output"
    )
    parser = add_command(
        commands,
        "restore",
        "make a data directory from a backup",
        "Check a backup, then put all of it into a data directory that holds nothing yet. Nothing "
        "is written if the backup is damaged, or if there is anything in the directory.",
        "  %(prog)s /var/backups/ota.tar --data-dir /var/lib/ota_server",
        _restore,
        has_product=False,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a file that `backup` has written")


def _back_up(arguments: argparse.Namespace) -> int:
    is_output = str(arguments.file) == "-"
    if is_output and sys.stdout.isatty():
        raise Misused("standard output is a terminal; send it to a file or a program")
    done = back_up(arguments.data_dir, arguments.file, sys.stdout.buffer if is_output else None)
    for problem in done.left_out:
        warn(f"left out: {problem}")
    text = f"{done.files} files, {format_size(done.size)} bytes"
    if is_output:
        print(f"standard output: {text}", file=sys.stderr)
    else:
        print(f"{arguments.file}: {text}")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    count = restore(arguments.file, arguments.data_dir)
    say(f"{arguments.data_dir}: {count} files restored; start the server: `serve`")
    with suppress(BadPolicy, OSError):
        if read_tokens(arguments.data_dir):
            say("the tokens of the backup are valid, also those revoked since; see `token list`")
    return 0
