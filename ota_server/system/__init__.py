"""The machine without surprises: files, locks, the data directory, the log of the server.

It imports `model` alone. Begin with `files`.
"""
