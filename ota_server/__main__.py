"""`python -m ota_server COMMAND`."""

import sys

from ota_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
