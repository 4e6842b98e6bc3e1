"""What drives the connections of a listener: an event loop, or a thread for each of them."""

import select

from ota_server.httpd.event_loop import EventLoop
from ota_server.httpd.listener import Listener
from ota_server.httpd.sockets import PollPoller
from ota_server.httpd.threads import ThreadDriver

# epoll where there is one; poll, slower, does the same everywhere else.
TRANSPORTS = (*(("epoll",) if hasattr(select, "epoll") else ()), "poll", "threads")


def drive(listener: Listener, transport: str) -> None:
    """Drive the connections of a listener by one of `TRANSPORTS`, until it has drained."""
    if transport == "threads":
        driver: EventLoop = ThreadDriver(listener)
    else:
        driver = EventLoop(listener, select.epoll() if transport == "epoll" else PollPoller())
    driver.run()
