"""OTA firmware server for fleets of small devices, on the standard library alone."""

__version__ = "0.1.0"
