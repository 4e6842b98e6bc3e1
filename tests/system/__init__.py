"""Tests of files, locks and the log of the server."""
