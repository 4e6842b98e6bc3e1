"""What an operator asked for and does not get. Pure."""


class Refused(Exception):
    """What an operator asked for is not done; the message says why, and what to do."""


class Misused(Refused):
    """A command was called wrongly, in a way that its parser could not see: exit code 2."""


class BadPolicy(ValueError):
    """A file of the policy cannot be used; the message says why, for the operator."""
