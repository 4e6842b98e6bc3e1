"""The command line: arguments in, text out.

It imports all rooms. Each module with `add_commands` is a command; `common` has what they share.
"""
