"""The command line: arguments in, text out.

It imports all rooms. Each module with `add_commands` holds one command, or a few that belong
together. Begin with `common`, which has what they share.
"""
