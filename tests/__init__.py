"""Tests: run by `python -m unittest discover`."""
