"""Tests of what became of devices, and of the model of fleets."""
