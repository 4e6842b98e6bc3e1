"""gooseBit as `python -m goosebit` runs it, on SQLite, but on 127.0.0.1 and without an access log.

GOOSEBIT_DB_URI=sqlite:///... python goosebit_app.py PORT
"""

import asyncio
import sys
from pathlib import Path

import goosebit
import uvicorn
from aerich import Command
from goosebit.db.config import TORTOISE_CONF


async def _make_tables() -> None:
    """Do what its documentation has the administrator do: `aerich upgrade`."""
    migrations = Path(goosebit.__file__).parent / "db" / "migrations"
    async with Command(tortoise_config=TORTOISE_CONF, location=str(migrations)) as command:
        await command.upgrade(run_in_transaction=True)


asyncio.run(_make_tables())
uvicorn.run(goosebit.app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, backlog=4096)
