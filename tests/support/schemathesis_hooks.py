"""For schemathesis: each connection comes from another address of this machine.

It sends hundreds of wrong tokens to see that each is refused; of those from one address all after
the tenth in a minute are answered 429, which it takes for a failure.
"""

import itertools
from typing import Any

from urllib3.connection import HTTPConnection  # type: ignore[import-not-found]

_addresses = itertools.cycle(f"127.0.0.{number}" for number in range(2, 250))
_connect = HTTPConnection._new_conn


def _from_another_address(connection: Any) -> Any:
    connection.source_address = (next(_addresses), 0)
    return _connect(connection)


HTTPConnection._new_conn = _from_another_address
