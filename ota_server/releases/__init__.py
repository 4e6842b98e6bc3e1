"""Versions and their images: on disk, published, activated, withdrawn; backups.

It imports `policy` and the rooms below it. Begin with `store`, which opens the image of a
version (`device_port` asks which one a device gets), and `publish`.
"""
