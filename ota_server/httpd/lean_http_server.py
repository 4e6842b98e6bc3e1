"""`ThreadingHTTPServer` without what nobody here needs of it: 6 MB of memory.

`http.server` imports `http.client` for a parser that this server does not use, and that imports
`email` and `ssl`; `email.utils` for dates, which `http1` makes; and `html` for pages that nobody
makes here. For this one import there are empty modules in their place; whoever imports them later
gets them anew and whole.
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
