"""Peers that are frameworks: the smallest honest program of each."""
