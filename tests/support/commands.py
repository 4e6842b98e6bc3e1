"""Commands on a data directory, in this process: a tenth of the time of one of their own.

What only a process of its own can show is tested by one: exit codes, signals, streams, terminals.
"""

import contextlib
import io
import logging
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from typing import TextIO
from unittest import mock

from ota_server.cli import main
from tests.support.data_dir import bare


def call(
    *arguments: str, given: str = "", env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Return what came of `python -m ota_server` with these arguments.

    Args:
        given: what the command can read from standard input.
        env: what is different in its environment.
    """
    streams = [io.TextIOWrapper(io.BytesIO(each), "utf-8") for each in (given.encode(), b"", b"")]
    into, out, err = streams
    with (
        mock.patch.dict(os.environ, env or {}),
        mock.patch("sys.stdin", into),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _logged_to(err),
    ):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    for stream in (out, err):
        stream.seek(0)
    return subprocess.CompletedProcess(arguments, code, bare(out.read()), bare(err.read()))


@contextlib.contextmanager
def _logged_to(stream: TextIO) -> Iterator[None]:
    """Write the warnings of this thread to a stream, whoever else listens to the log."""
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    me = threading.get_ident()
    handler.addFilter(lambda record: record.thread == me)  # not those of a server beside it
    log = logging.getLogger("ota_server")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
