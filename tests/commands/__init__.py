"""Tests of the command line, as an operator types it."""
