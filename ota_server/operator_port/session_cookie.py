"""The cookie of a session, and the token that its forms have. Pure.

Cookies are the same for all ports of a host, so the name has the port: two servers on one host have
a session each. A name with `__Host-` would need Secure, and browsers keep no Secure cookie that
comes by plain HTTP.

The token of forms is made from the secret of the session: nobody has to keep it, and a restart of
the server changes nothing. From the token nobody can find the secret.
"""

import hashlib
import hmac
from urllib.parse import parse_qs

from ota_server.httpd.http1 import Request
from ota_server.operator_port.request_site import site_of

FORM_TOKEN_FIELD = "form_token"
FORM_TOKEN_HEADER = b"x-form-token"
_FORM = b"application/x-www-form-urlencoded"
# A bulk action names each device that was chosen.
MOST_FIELDS = 200_000


def session_secret(request: Request, origin: str) -> str:
    """Return the secret that a request has in its cookie; "": in none, or in several.

    Args:
        origin: of the server, as its client sees it.
    """
    name = _name(origin)
    found = set()
    for part in request.fields.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name and value:
            found.add(value)
    # A server on another port of this host can add one: nobody knows which of the two is ours.
    return found.pop() if len(found) == 1 else ""


def set_cookie(origin: str, secret: str, max_age_seconds: int) -> str:
    """Return the value of a Set-Cookie that begins a session; with "" and 0 one that ends it."""
    secure = "; Secure" if origin.startswith("https:") else ""
    how = f"Max-Age={max_age_seconds}; Path=/; HttpOnly; SameSite=Strict{secure}"
    return f"{_name(origin)}={secret}; {how}"


def form_token_of(secret: str) -> str:
    """Return the token that forms of a session have."""
    return hmac.new(secret.encode("utf-8"), b"form", hashlib.sha256).hexdigest()


def form_token_in(request: Request) -> str:
    """Return the token that a request was sent with; "": none, or several."""
    header = request.get(FORM_TOKEN_HEADER)
    if header is not None:
        return header.decode("latin-1")
    kind = request.fields.get(b"content-type", b"").partition(b";")[0]
    if kind.strip().lower() != _FORM:
        return ""
    try:
        found = parse_qs(request.body.decode("utf-8", "replace"), max_num_fields=MOST_FIELDS)
    except ValueError:
        return ""
    values = found.get(FORM_TOKEN_FIELD, [])
    return values[0] if len(values) == 1 else ""


def _name(origin: str) -> str:
    site = site_of(origin)
    return f"ota_session_{site.port}" if site else "ota_session"
