"""Has the processes that tests start compile the package once, not each of them anew.

Images of containers often set PYTHONDONTWRITEBYTECODE. Then every server and every command that a
test starts compiles all that it imports: `python -m ota_server.server --help` took 410 ms instead
of 95, and a run of the tests starts such processes many hundreds of times.
"""

import atexit
import os
import shutil
import sys
import tempfile


def keep_bytecode() -> None:
    """Have new processes keep bytecode in a temporary folder where they would keep none."""
    if not sys.dont_write_bytecode:
        return
    # Not in the checkout: who set the variable wants no files there.
    folder = tempfile.mkdtemp(prefix="ota-server-tests-")
    os.environ["PYTHONPYCACHEPREFIX"] = folder
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # not at the end of a process that a test has forked
        shutil.rmtree(folder, ignore_errors=True)
