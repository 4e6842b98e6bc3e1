"""`python -m benchmarks`: measure this server and its peers side by side, and write a report."""

import sys

from benchmarks.command import main

sys.exit(main())
