"""The words that all rooms use: versions, devices, manifests, times, addresses.

Pure: values in, values out. It imports no other room. Begin with `version`, then `device`.
"""
