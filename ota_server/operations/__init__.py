"""What operators look at and do, whether by command, page or API.

Here stands what more than one of these needs: which devices there are and how they are, changes of
many devices at once, how a rollout begins. It imports `device_port` and all rooms below it. Begin
with `device_index`, the table of devices that pages, API and commands ask.
"""
