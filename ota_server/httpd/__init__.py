"""An HTTP/1.1 server that knows nothing about devices: bytes in, bytes and spans of files out.

It imports `system` and `model`. Begin with `http1`, which reads a request, and `connection`, which
answers it; `channel` sends, and `event_loop` drives thousands of channels.
"""
