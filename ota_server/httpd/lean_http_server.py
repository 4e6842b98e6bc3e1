"""`ThreadingHTTPServer` without the modules that it imports and this server does not use.

`http.server` imports `http.client` for a parser that is not used here, and that imports `email` and
`ssl`; `email.utils` for dates, which `http1` makes; and `html` for pages, of which there are none.
During this one import empty modules stand in their place. Whoever imports them later gets the real
ones.

To drop this file costs 2.3 MB of memory (Python 3.11; 5 rounds in turns with it and without): 28.0
in place of 25.7 MB with no connection, and 40.8 in place of 38.5 MB with 10,000 slow downloads,
whose bound is 40. A slow download takes 1.3 KB in some 20 objects, none of which is large: leaving
out one or two of them does not make up for it.
"""

import http
import sys
from types import ModuleType

_NOT_NEEDED = ("http.client", "email.utils", "html")

if "http.server" in sys.modules or "http.client" in sys.modules:
    from http.server import ThreadingHTTPServer
else:
    kept = {name: sys.modules.get(name) for name in _NOT_NEEDED}
    client = sys.modules["http.client"] = ModuleType("http.client")
    client.HTTPMessage = None  # type: ignore[attr-defined]
    http.client = client  # type: ignore[attr-defined]
    for name in _NOT_NEEDED[1:]:
        sys.modules.setdefault(name, ModuleType(name))
    try:
        from http.server import ThreadingHTTPServer
    finally:
        del http.client  # type: ignore[attr-defined]
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]

__all__ = ["ThreadingHTTPServer"]
