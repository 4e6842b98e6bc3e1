"""Tests of whole processes, real clients, the benchmarks and the shape of the package."""
