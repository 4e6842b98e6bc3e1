"""What operators decided in `version/`, the decision that follows for a device, and why.

It imports `journal` and the rooms below it. Begin with `situation`, then `decision` and `explain`,
which are pure; `gather` makes the situation from files.
"""
