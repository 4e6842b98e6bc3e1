"""The door of all commands: `python -m ota_server COMMAND`, or `ota-server` once installed."""

import os
import sys

if not __package__:  # run by its path: nothing of the package can be imported
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(f"ota-server: run this as: cd {folder} && python -m ota_server")

from ota_server.system import process_start


def main() -> int:
    """Run the command that was typed; return its exit code."""
    if sys.argv[1:2] == ["serve"]:
        process_start.begin_to_serve()
    else:
        process_start.begin()
    from ota_server import cli  # only now: it takes a while

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
