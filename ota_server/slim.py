"""`ThreadingHTTPServer` without OpenSSL, which nobody here needs for plain HTTP: 4 MB of memory.

`http.server` imports `http.client` for a parser that this server does not use, and that imports
`ssl` where it is there. For this one import it is not; whoever imports `http.client` later gets it
anew and whole.
"""

import sys

_CLIENT = "http.client"

if _CLIENT in sys.modules or "ssl" in sys.modules:
    from http.server import ThreadingHTTPServer
else:
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        from http.server import ThreadingHTTPServer
    finally:
        del sys.modules["ssl"]
        sys.modules.pop(_CLIENT, None)

__all__ = ["ThreadingHTTPServer"]
