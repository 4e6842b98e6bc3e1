"""Tests of what operators look at and do."""
