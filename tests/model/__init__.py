"""Tests of the words that all rooms use."""
