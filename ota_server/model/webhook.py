"""Notices by HTTP: the URL, the secret, the signature, and what an answer means. Pure.

The signature is that of Standard Webhooks 1.0.0 (standardwebhooks.com): HMAC-SHA256 over
`id.timestamp.body`, in base64 after `v1,`.
"""

import base64
import hmac
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from ota_server.model.notice import Delivery

SECRET_PREFIX = "whsec_"
# Of the key, in bytes, as the standard has it.
LEAST_SECRET, MOST_SECRET = 24, 64
MOST_URL = 2000
# An answer that nothing but a person will change: the URL is wrong, or nobody wants notices there.
LONG_WAIT_SECONDS = 3600.0
# What a URL may hold besides letters and digits; `{{.text}}` of a template is escaped, as it is
# by browsers.
_URL_CHARACTERS = "/?:@!$&'()*+,;=-._~%[]"
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_SAYS_WHEN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class WebhookUrl(NamedTuple):
    """Where notices are sent to.

    Attributes:
        shown: for people and logs. The path and the query may be all that keeps strangers out, so
            they are left out.
        target: path and query, as they stand in a request.
    """

    url: str
    shown: str
    is_https: bool
    host: str
    port: int
    target: str


def parse_webhook_url(text: str) -> WebhookUrl:
    """Read a URL.

    Raises:
        ValueError: notices cannot be sent there; the message says why, without the URL's secrets.
    """
    if len(text) > MOST_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"is not a URL: up to {MOST_URL} ASCII characters, without blanks")
    try:
        parts = urlsplit(text)
    except ValueError:
        # Not in its words, which may repeat a part of the URL.
        raise ValueError("is not a URL: what stands between [ and ] is no address") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("is not a URL of http or https")
    if "@" in parts.netloc:
        raise ValueError(
            "holds a user and a password, which everybody on this machine could read; put them "
            "into a file for curl, and that into --notify-command"
        )
    if parts.fragment:
        raise ValueError("ends with a fragment (#), which is never sent")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ValueError("has no host, or a port that is not one")
    is_https = parts.scheme == "https"
    target = quote(parts.path or "/", _URL_CHARACTERS)
    target += f"?{quote(parts.query, _URL_CHARACTERS)}" if parts.query else ""
    shown = f"{parts.scheme}://{parts.netloc}" + "/..." * (target != "/")
    return WebhookUrl(text, shown, is_https, host, port or (443 if is_https else 80), target)


def parse_secret(content: bytes) -> bytes:
    """Return the key that a secret file holds: `whsec_` and base64, or base64 alone.

    Raises:
        ValueError: it does not hold one; the message says what to do.
    """
    try:
        key = base64.b64decode(content.strip().removeprefix(SECRET_PREFIX.encode()), validate=True)
    except ValueError:
        key = b""
    if not LEAST_SECRET <= len(key) <= MOST_SECRET:
        raise ValueError(
            f"does not hold a secret: {SECRET_PREFIX} and the base64 of {LEAST_SECRET} to "
            f"{MOST_SECRET} bytes, as `echo {SECRET_PREFIX}$(openssl rand -base64 32)` makes one"
        )
    return key


def signature(key: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a notice; `timestamp` is in seconds since the epoch."""
    signed = f"{notice_id}.{timestamp}.".encode("ascii") + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode("ascii")


def delivery_of(status: int, retry_after: str | None) -> Delivery:
    """Return what an answer means for a notice: whether it was told, and when to try again.

    Args:
        retry_after: the field of that name; only whole seconds count.
    """
    if 200 <= status < 300:
        return Delivery(True, status=status)
    said = f"it answered {status}{_phrase(status)}"
    if status == HTTPStatus.GONE:
        said += ": it wants no notices any more, so take the URL out of the options"
    elif 300 <= status < 400:
        said += ": redirects are not followed, so give the URL that it leads to"
    if 300 <= status < 500 and status not in _LATER:
        return Delivery(False, said, LONG_WAIT_SECONDS, status)
    wait = 0.0
    if status in _SAYS_WHEN and retry_after and retry_after.isascii() and retry_after.isdigit():
        wait = min(float(retry_after[:9]), LONG_WAIT_SECONDS)
    return Delivery(False, said, wait, status)


def _phrase(status: int) -> str:
    # Not what the other side calls it: that is a text from a stranger.
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""
