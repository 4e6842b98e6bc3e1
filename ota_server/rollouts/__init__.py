"""A release in waves: its files, whom it reaches, what moves it, how it ends.

It imports `releases`, `evaluation` and the rooms below them. Begin with `keeper`, which
starts the controller, then `mover`, which the controller calls for each rollout.
"""
