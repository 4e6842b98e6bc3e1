"""Tests of versions and their images."""
