"""Sends one notice to a URL, in a process of its own; what came of it is its output. I/O.

The server starts it for each notice (`notice_receiver.PostProgram`): so the server loads neither
an HTTP client nor OpenSSL, and a name that takes minutes to resolve is a process that is killed.

    standard input    {"url", "secret_file" or null, "seconds", "id", "body"}, one JSON object
    standard output   a `Delivery`, one JSON object
"""

import http.client
import json
import os
import signal
import socket
import ssl
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ota_server import __version__
from ota_server.model.notice import Delivery
from ota_server.model.webhook import (
    WebhookUrl,
    delivery_of,
    parse_webhook_url,
    signature,
)
from ota_server.system import process_start
from ota_server.system.secret_file import read_secret

# For each address that the name has: one of them may not answer.
_CONNECT_SECONDS = 4.0
# The rest of an answer is read, so that the other side can end it, but no more than this.
_MOST_REST_BYTES = 16 * 1024
_REST_SECONDS = 0.5
# To begin takes a tenth of a second of a processor, which devices have first.
_NICENESS = 10


class _TooLong(Exception):
    """The time is over."""


def post(
    url: WebhookUrl, secret_file: Path | None, seconds: float, notice_id: str, body: bytes
) -> Delivery:
    """Send a notice; return what came of it.

    Args:
        seconds: until the head of the answer is there. A name may take longer to be resolved.
    """
    fields = {"Content-Type": "application/json", "User-Agent": f"ota_server/{__version__}"}
    timestamp = int(time.time())
    fields |= {"webhook-id": notice_id, "webhook-timestamp": str(timestamp), "Connection": "close"}
    try:
        if secret_file is not None:
            key = read_secret(secret_file)
            fields["webhook-signature"] = signature(key, notice_id, timestamp, body)
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else problem
        return Delivery(False, f"it is not sent unsigned: {secret_file}: {why}")
    # Once the head of an answer is there, nothing that follows changes what it says.
    answered: list[Delivery] = []
    why = ""
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        _exchange(url, fields, body, answered)
    except _TooLong:
        why = f"it did not answer within {seconds:g} s"
    except (OSError, http.client.HTTPException, ValueError) as problem:
        why = _why(problem)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    delivery = answered[0] if answered else Delivery(False, why)
    return delivery._replace(seconds=round(time.monotonic() - began, 3))


def _exchange(
    url: WebhookUrl, fields: dict[str, str], body: bytes, answered: list[Delivery]
) -> None:
    connection: http.client.HTTPConnection
    if url.is_https:
        # The certificates of the system; SSL_CERT_FILE names others.
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(url.host, url.port, context=context)
    else:
        connection = http.client.HTTPConnection(url.host, url.port)
    connection.timeout = _CONNECT_SECONDS
    with closing(connection):
        connection.connect()
        connection.sock.settimeout(None)  # the alarm rings
        connection.request("POST", url.target, body, fields)
        answer = connection.getresponse()
        answered.append(delivery_of(answer.status, answer.getheader("Retry-After")))
        signal.setitimer(signal.ITIMER_REAL, _REST_SECONDS)
        answer.read(_MOST_REST_BYTES)


def _why(problem: Exception) -> str:
    """Return what went wrong, in words; nothing that came from the other side."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        why = problem.verify_message or "it does not fit"
        return f"its certificate is not accepted: {why} (SSL_CERT_FILE names your own authority)"
    if isinstance(problem, ssl.SSLError):
        return f"TLS failed: {problem.reason or problem.strerror}"
    if isinstance(problem, socket.gaierror):
        return f"its name cannot be resolved: {problem.strerror}"
    if isinstance(problem, TimeoutError):
        return "it cannot be reached: no answer"
    # Before OSError: it is one of both kinds.
    if isinstance(problem, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(problem, OSError):
        return f"it cannot be reached: {problem.strerror or type(problem).__name__}"
    return f"its answer is not HTTP: {type(problem).__name__}"


def _give_up(_signum: int, _frame: FrameType | None) -> None:
    raise _TooLong


def main() -> int:
    """Send the notice on standard input; return 0 if it was told."""
    process_start.begin()
    with suppress(OSError):
        os.nice(_NICENESS)
    job: dict[str, Any] = json.load(sys.stdin)
    secret_file = None if job["secret_file"] is None else Path(job["secret_file"])
    url = parse_webhook_url(job["url"])
    delivery = post(url, secret_file, job["seconds"], job["id"], job["body"].encode("utf-8"))
    print(json.dumps(delivery._asdict()), flush=True)
    return 0 if delivery.is_told else 1


if __name__ == "__main__":
    sys.exit(main())
