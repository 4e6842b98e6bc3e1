"""What became of devices under a release, from the journal alone.

Pure, so that the model of fleets can drive it. It imports `policy` and the rooms below it. Begin
with `feedback`, which folds records; then `device_case`, `counting` and `waves`.
"""
