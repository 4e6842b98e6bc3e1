"""What tests share: a server on a free port, a data directory, raw sockets, real clients."""

from tests.support.client import (
    DEVICE,
    MAC,
    TIMEOUT_SECONDS,
    Answer,
    Client,
    parse_reply_head,
    request_head,
    until,
)
from tests.support.data_dir import NOBODY, ROOT, DataDirCase, bare
from tests.support.server import TRANSPORT, Process, ServerCase, Tracebacks

__all__ = [
    "DEVICE",
    "MAC",
    "NOBODY",
    "ROOT",
    "TIMEOUT_SECONDS",
    "TRANSPORT",
    "Answer",
    "Client",
    "DataDirCase",
    "Process",
    "ServerCase",
    "Tracebacks",
    "bare",
    "parse_reply_head",
    "request_head",
    "until",
]
