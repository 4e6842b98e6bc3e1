"""The journal, `log/devices.jsonl`, and the table of devices that is made from it.

It imports `httpd`, `system` and `model`. Begin with `record`, the form of a line, then `writer`,
which writes the file, and `device_table`, which holds the newest line of each device.
"""
