"""Files, locks, the data directory and the server's log, without surprises.

It imports `model` alone. Begin with `files`.
"""
