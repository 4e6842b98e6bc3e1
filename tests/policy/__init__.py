"""Tests of what operators decided, and of the decision that follows."""
