"""One event loop that drives all connections: accepts, reads, answers, sends, keeps deadlines.

A turn of the loop answers all that has arrived, brings the records of all these answers to the
journal by one write, and only then sends. Nothing in it waits: an image that is not hashed yet
parks its connection, and what a client does not take stays in the image's file.
"""

import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from ota_server.httpd.app import NotReady, QuickReply
from ota_server.httpd.channel import Link
from ota_server.httpd.connection import Connection, Outgoing
from ota_server.httpd.fast_path import QuickAnswers
from ota_server.httpd.listener import Listener
from ota_server.httpd.poller import PollPoller
from ota_server.httpd.readahead import ReadAhead
from ota_server.httpd.reply import Peer
from ota_server.httpd.sockets import RECEIVE_BYTES, ImageChanged, peer_of
from ota_server.httpd.timers import Timers

log = logging.getLogger(__name__)

# The same bits as EPOLLIN, EPOLLOUT and EPOLLERR.
_READ, _WRITE, _ERROR = select.POLLIN, select.POLLOUT, select.POLLERR
_ACCEPTED_A_TURN = 256
# What is left of pipelines waits for the next turn, so that others have theirs: a turn answers so
# many requests of one pipeline, or about so many of several, but at least one of each.
_PASSES_A_TURN = 16
_PIPELINED_A_TURN = 64
# A new socket is in blocking mode, and stays so where one check is all that it is for.
_NOW = socket.MSG_DONTWAIT
# With what is closed at once: the kernel then sends the reply and the FIN as one segment, which
# takes a quarter off the processor time of a check (benchmarks/).
_LAST = _NOW | getattr(socket, "MSG_MORE", 0)
_LOOK_SECONDS = 0.5
_LINGER_LOOK_SECONDS = 0.1
_HASHING_LOOK_SECONDS = 0.02
_EMFILE_REST_SECONDS = 0.2


class EventLoop:
    """Drives the connections of one server until that has drained."""

    def __init__(self, server: Listener, poller: "select.epoll | PollPoller") -> None:
        self._server = server
        self._app = server.app
        self._poller = poller
        self._listener = server.socket.fileno()
        self._ahead = ReadAhead()
        self._by_sendfile = not isinstance(poller, PollPoller)
        self._links: dict[int, Link] = {}
        self._quick = QuickAnswers(server.app)
        self._ready: list[Link] = []
        self._parked: list[Link] = []
        self._timers = Timers()
        self._rest_until: float | None = None
        self._withdrawals = 0
        self._now = time.monotonic()

    def run(self) -> None:
        """Serve until the server drains; return when the last connection has ended."""
        server = self._server
        wake = server.wake_receiver.fileno()
        self._poller.register(self._listener, _READ)
        self._poller.register(wake, _READ)
        while not server.is_draining:
            self._turn()
        self._poller.unregister(wake)
        self._poller.unregister(self._listener)
        self._drain()
        self._ahead.close()
        self._poller.close()

    def _turn(self) -> None:
        events = self._poller.poll(self._timeout())
        self._now = time.monotonic()
        self._app.begin_turn()
        links, handle = self._links, self._handle
        for fd, mask in events:
            link = links.get(fd)
            if link is not None:
                try:
                    handle(link, mask)
                except Exception:
                    self._fail(link)
            elif fd == self._listener:
                self._accept(_ACCEPTED_A_TURN)
        self._after_events()

    def _timeout(self) -> float:
        timeout = _LINGER_LOOK_SECONDS if self._server.has_refused else _LOOK_SECONDS
        if self._parked:
            timeout = _HASHING_LOOK_SECONDS
        if self._ready:
            timeout = 0.0
        if self._rest_until is not None:
            timeout = min(timeout, _EMFILE_REST_SECONDS)
        due = self._timers.next_due()
        return timeout if due is None else min(timeout, max(0.0, due - time.monotonic()))

    def _after_events(self) -> None:
        if self._parked:
            self._look_at_parked()
        # Before time is looked at: what has arrived in time is answered, however long the turn.
        self._answer()
        if self._withdrawals != self._app.withdrawals:
            self._withdrawals = self._app.withdrawals
            for link in [each for each in self._links.values() if each.sends_withdrawn]:
                self._timers.add(self._now, link)
        for link in self._timers.due(self._now):
            self._guard(link, self._expire, link)
        self._app.flush()
        if self._server.has_refused:
            self._server.let_refused_go()
        if self._rest_until is not None and self._now >= self._rest_until:
            self._rest_until = None
            if not self._server.is_draining:
                self._poller.modify(self._listener, _READ)

    # Input

    def _accept(self, limit: int) -> None:
        if not self._server.accept(limit, self._take):
            # At the limit of open files accept fails at once and for ever: rest, do not spin.
            self._poller.modify(self._listener, 0)
            self._rest_until = self._now + _EMFILE_REST_SECONDS

    def _take(self, sock: socket.SocketType, address: Any) -> None:
        try:
            self._take_in(sock, address)
        except Exception:
            self._drop(sock)

    def _drop(self, sock: socket.SocketType) -> None:
        """Close a connection that met a bug before it had a link."""
        log.exception("a connection failed")
        link = self._links.get(sock.fileno())
        if link is not None and link.sock is sock:
            self._close(link, was_reset=False)
        else:
            sock.close()

    def _take_in(self, sock: socket.SocketType, address: Any) -> None:
        if len(self._links) + len(self._quick.answered) >= self._server.max_connections:
            self._server.refuse(sock, "all connections are in use")
            return
        peer = peer_of(sock, address[0])
        try:
            data = sock.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            link = self._add(sock, peer)
            self._guard(link, self._watch, link)
        except OSError:
            sock.close()
        else:
            if self._server.is_draining or not self._quick.take(data, sock, peer, None):
                link = self._add(sock, peer)
                self._guard(link, self._received, link, data)

    def _add(self, sock: socket.SocketType, peer: Peer) -> Link:
        connection = Connection(self._app, peer, self._server.idle_seconds, self._now)
        link = Link(sock, connection, self._ahead, self._by_sendfile, self._server.pacing)
        self._links[link.fd] = link
        return link

    def _handle(self, link: Link, mask: int) -> None:
        if mask == _READ and link.events == _READ:
            self._receive(link)
        elif mask & _ERROR:
            self._close(link, was_reset=True)
        elif link.is_sending:
            self._send(link)
        elif link.not_ready is None:
            self._receive(link)

    def _receive(self, link: Link) -> None:
        if not link.is_fresh and link.connection.has_enough:
            return  # it has its turn to be answered first
        try:
            data = link.sock.recv(RECEIVE_BYTES, _NOW)
        except BlockingIOError:
            self._received_nothing(link)
            return
        except OSError:
            self._close(link, was_reset=True)
            return
        may_be_check = link.is_fresh and not self._server.is_draining
        if not (may_be_check and self._quick.take(data, link.sock, link.connection.peer, link)):
            self._received(link, data)

    def _received(self, link: Link, data: bytes) -> None:
        link.take(data, self._now)
        if link.linger_until is None:
            self._ready.append(link)
        else:
            self._received_nothing(link)

    def _received_nothing(self, link: Link) -> None:
        connection = link.connection
        if connection.input_ended and not connection.awaits_acknowledgement:
            self._close(link, was_reset=False)
        else:
            self._watch(link)

    # Output

    def _answer(self) -> None:
        """Answer what is ready, put that on record by one write, then send; then what is left."""
        for passes in range(_PASSES_A_TURN):
            is_much = passes * len(self._ready) > _PIPELINED_A_TURN
            if is_much or not (self._ready or self._quick.answered):
                break
            # Each once: a second answer would be sent into the middle of the first.
            ready, self._ready = dict.fromkeys(self._ready), []
            answers: list[tuple[Link, Outgoing | None]] = []
            for link in ready:
                if not link.is_closed and not link.is_sending:
                    self._guard(link, self._next_reply, link, answers)
            is_lost = self._quick.flush()
            for link, outgoing in answers:
                if outgoing is None:
                    self._guard(link, self._wait_for_more, link)
                elif is_lost and outgoing.needs_record:
                    self._close(link, was_reset=False)
                else:
                    self._guard(link, self._send, link, outgoing)
            for answered in self._quick.drain():
                try:
                    self._send_quickly(*answered)
                except Exception:
                    self._drop(answered[0])

    def _send_quickly(
        self, sock: socket.SocketType, peer: Peer, link: Link | None, quick: QuickReply
    ) -> None:
        content, keep_alive, _ = quick
        try:
            sent = sock.send(content, _NOW if keep_alive else _LAST)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent, keep_alive = len(content), False
        is_sent = sent == len(content)
        if is_sent and not keep_alive:
            sock.close() if link is None else self._close(link, was_reset=False)
            return
        if link is None:
            link = self._add(sock, peer)
        link.answered_quickly(content, sent, keep_alive, self._now)
        if not is_sent or link.events is None:
            self._guard(link, self._watch, link)

    def _next_reply(self, link: Link, answers: list[tuple[Link, Outgoing | None]]) -> None:
        now, is_draining = self._now, self._server.is_draining
        try:
            outgoing = link.connection.next_reply(now, link.may_wait(now), is_draining)
        except NotReady as not_ready:
            link.park(not_ready, now)
            self._parked.append(link)
            self._watch(link)
        else:
            link.not_ready = None
            answers.append((link, outgoing))

    def _look_at_parked(self) -> None:
        parked, self._parked = self._parked, []
        for link in parked:
            is_hashed = link.not_ready is not None and link.not_ready.done.is_set()
            is_due = is_hashed or self._now >= link.give_up_at
            (self._ready if is_due else self._parked).append(link)

    def _send(self, link: Link, outgoing: Outgoing | None = None) -> None:
        try:
            is_sent = link.begin(outgoing, self._now) if outgoing else link.send(self._now)
        except ImageChanged as problem:
            if self._server.may_say(str(problem), self._now):
                log.error("downloads ended: %s", problem)
            self._close(link, was_reset=False)
        except OSError:
            self._close(link, was_reset=True)
        else:
            if not is_sent:
                if link.events != _WRITE or link.holds_back:
                    self._watch(link)
                return
            connection = link.connection
            connection.sent_all(self._now)
            if not link.close_after:
                # Perhaps the next request has arrived with this one.
                self._ready.append(link) if connection.has_input else self._wait_for_more(link)
            elif connection.awaits_acknowledgement or connection.must_linger:
                self._linger(link)
            else:
                self._close(link, was_reset=False)

    # Waiting and ends

    def _wait_for_more(self, link: Link) -> None:
        connection = link.connection
        if not connection.is_over and not self._server.is_draining:
            link.wait_for_more()
            self._watch(link)
        elif connection.awaits_acknowledgement:
            self._linger(link)
        else:
            self._close(link, was_reset=False)

    def _watch(self, link: Link) -> None:
        """Have the poller and the timers say when there is something to do."""
        if link.holds_back:
            events = 0  # the socket has room, and there is nothing that may be sent yet
        elif link.is_sending:
            events = _WRITE
        else:
            events = 0 if link.is_deaf else _READ
        if events == 0 and link.linger_until is not None:
            # With both sides closed a poller would report that for ever: only the timer looks.
            if link.events is not None:
                self._poller.unregister(link.fd)
                link.events = None
        elif link.events is None:
            self._poller.register(link.fd, events)
            link.events = events
        elif events != link.events:
            self._poller.modify(link.fd, events)
            link.events = events
        self._timers.add(link.due(self._now), link)

    def _expire(self, link: Link) -> None:
        if link.is_closed:
            return
        try:
            has_time_left = link.has_time_left(self._now)
        except OSError:
            self._close(link, was_reset=True)
            return
        if not has_time_left:
            self._close(link, was_reset=False)
        elif link.connection.is_due and link.linger_until is None:
            self._ready.append(link)
        elif link.may_go_on(self._now):
            self._send(link)
        else:
            self._watch(link)

    def _linger(self, link: Link) -> None:
        try:
            link.linger(self._now)
        except OSError:
            self._close(link, was_reset=True)
        else:
            self._watch(link)

    def _guard(self, link: Link, do: Callable[..., None], *arguments: Any) -> None:
        try:
            do(*arguments)
        except Exception:
            self._fail(link)

    def _fail(self, link: Link) -> None:
        """End a connection that met a bug, and not the loop."""
        log.exception("the connection of %s failed", link.connection.peer.address)
        self._close(link, was_reset=False)

    def _close(self, link: Link, was_reset: bool) -> None:
        if link.is_closed:
            return
        if was_reset and link.connection.awaits_acknowledgement:
            address = link.connection.peer.address
            if self._server.may_say_left(address, self._now):
                log.info("%s left a download", address)
        del self._links[link.fd]
        self._timers.drop(link)
        if isinstance(self._poller, PollPoller) and link.events is not None:
            self._poller.unregister(link.fd)
        link.close(was_reset, self._now)  # epoll forgets it by that

    def _drain(self) -> None:
        """Answer what has arrived, then wait for downloads until the grace is over."""
        server = self._server
        self._now = time.monotonic()
        self._app.begin_turn()
        server.accept(server.request_queue_size, self._take)
        server.stop_listening()
        for link in list(self._links.values()):
            if not link.is_sending and link.linger_until is None and link.not_ready is None:
                self._guard(link, self._receive, link)
                self._ready.append(link)
        self._after_events()
        until = self._now + server.grace_seconds
        while self._links and self._now < until and not server.ends_at_once:
            self._turn()
        for link in list(self._links.values()):
            self._close(link, was_reset=False)
        self._app.flush()
