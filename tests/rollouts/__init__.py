"""Tests of releases in waves, with a real controller."""
