"""OTA firmware server for fleets of small devices, on the standard library alone."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said here, before a newer syntax fails
    raise SystemExit("ota_server needs Python 3.11 or newer; this is " + sys.version.split()[0])

__version__ = "0.1.0"
