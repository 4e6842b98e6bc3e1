"""What operators see in a browser, by API and by metrics: HTTP in the controller's process.

It imports `operations` and all rooms below it. Begin with `app`, which answers a request, and
`routes`, which says what there is and who may have it.
"""
