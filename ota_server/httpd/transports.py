"""The choice of `--transport`: one event loop for all connections, or a thread for each."""

import select

from ota_server.httpd.event_loop import EventLoop
from ota_server.httpd.listener import Listener
from ota_server.httpd.sockets import PollPoller
from ota_server.httpd.threads import ThreadDriver
from ota_server.system.wished import do_without

# epoll if the system has it; poll does the same everywhere, but slower.
TRANSPORTS = (*(("epoll",) if hasattr(select, "epoll") else ()), "poll", "threads")


def drive(listener: Listener, transport: str) -> None:
    """Drive the connections of a listener with one of `TRANSPORTS` until it has drained."""
    if transport == "threads":
        ThreadDriver(listener).run()
    else:
        EventLoop(listener, _poller(transport)).run()


def _poller(transport: str) -> "select.epoll | PollPoller":
    if transport == "epoll":
        try:
            return select.epoll()
        except OSError as problem:  # a sandbox may know only the calls of older programs
            do_without("epoll", problem)
    return PollPoller()
