"""Errors for operators: what cannot be done, or cannot be read. Pure."""


class Refused(Exception):
    """What an operator asked for is refused; the message says why, and what to do."""


class Misused(Refused):
    """A command was called in a wrong way that its parser could not detect: exit code 2."""


class BadPolicy(ValueError):
    """A policy file cannot be used; the message says why, for the operator."""
