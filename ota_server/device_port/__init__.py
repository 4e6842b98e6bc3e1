"""What devices ask and get: offers, downloads, who may download now, and the server itself.

It imports all rooms below it except `evaluation`. Begin with `service`, which answers a request,
then `offers` and `downloads`.
"""
