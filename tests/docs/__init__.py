"""Tests of the pages: their commands run as written."""
