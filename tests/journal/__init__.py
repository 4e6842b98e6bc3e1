"""Tests of the device log and of the table that is its fold."""
