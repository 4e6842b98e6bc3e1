"""Tests with real client programs: each takes a real image from a real server."""
