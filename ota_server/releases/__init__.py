"""Versions and their images: on disk, published, activated, withdrawn.

It imports `policy` and the rooms below it. Begin with `store`, which finds the image that a device
gets, and `publish`.
"""
