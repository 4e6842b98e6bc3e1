"""Benchmarks: this server and its peers side by side, by one command: `python -m benchmarks`."""
