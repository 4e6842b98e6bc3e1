"""The choice of `--transport`: one event loop for all connections, or a thread for each."""

import select

from ota_server.httpd.event_loop import EventLoop
from ota_server.httpd.listener import Listener
from ota_server.httpd.sockets import PollPoller
from ota_server.httpd.threads import ThreadDriver

# epoll if the system has it; poll does the same everywhere, but slower.
TRANSPORTS = (*(("epoll",) if hasattr(select, "epoll") else ()), "poll", "threads")


def drive(listener: Listener, transport: str) -> None:
    """Drive the connections of a listener with one of `TRANSPORTS` until it has drained."""
    if transport == "threads":
        driver: EventLoop = ThreadDriver(listener)
    else:
        driver = EventLoop(listener, select.epoll() if transport == "epoll" else PollPoller())
    driver.run()
