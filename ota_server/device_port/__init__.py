"""What devices ask and get: offers, downloads, who may download now, and the server itself.

It imports the rooms below it but `evaluation`. Begin with `service`, which answers a request, then
`offers` and `downloads`.
"""
