"""Drives channels: after each event it reads, answers, sends, waits, or closes.

A turn answers all requests that have arrived, records these answers with one write, and only then
sends them. It never waits: if an answer is not ready, its channel is parked, and what a client does
not take yet stays in the image's file.

The event loop (`event_loop.py`) drives all channels of a listener, a thread (`threads.py`) one.
"""

import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from ota_server.httpd.app import NotReady, QuickReply
from ota_server.httpd.channel import ASKED, CLOSED, FRESH, HELD, LINGERING, PARKED, Channel
from ota_server.httpd.listener import Listener
from ota_server.httpd.readahead import ReadAhead
from ota_server.httpd.reply import Outgoing, Peer
from ota_server.httpd.sockets import LAST, NOW, RECEIVE_BYTES, ImageChanged, PollPoller, peer_of
from ota_server.httpd.turn_counts import TurnCounts
from ota_server.httpd.watching import ERROR, READ, WRITE, Watching

log = logging.getLogger(__name__)

# Pipelines must not keep others waiting: a turn answers so many requests of one pipeline, or about
# so many of all together, but at least one of each. The rest waits for the next turn.
_PASSES_A_TURN = 16
_PIPELINED_A_TURN = 64

# A connection that was accepted in this turn has no channel yet: most close after this reply.
Answered = tuple[socket.SocketType, Peer, Channel | None, QuickReply]


class Driver:
    """Drives the channels of the connections that it is given, as a `ChannelDriver`."""

    def __init__(
        self, listener: Listener, poller: "select.epoll | PollPoller", ahead: ReadAhead | None
    ) -> None:
        self._listener = listener
        self._app = listener.app
        self._begin_turn = listener.app.begin_turn
        self._poller = poller
        self._ahead = ahead
        self._by_sendfile = not isinstance(poller, PollPoller)
        self.turns = TurnCounts()
        self.channels: dict[int, Channel] = {}
        self._ready: list[Channel] = []
        self._quick: list[Answered] = []
        self._watching = Watching(poller)
        self._failures = self._app.failures
        self._withdrawals = self._app.withdrawals
        self._now = time.monotonic()

    def turn(self) -> None:
        """Wait for events, and handle them."""
        # After a SIGSTOP epoll returns [] if the time is over, also if something has arrived.
        events = self._poller.poll(self._timeout()) or self._poller.poll(0.0)
        self._now = time.monotonic()
        self._begin_turn()
        channels, handle = self.channels, self._handle
        for fd, mask in events:
            channel = channels.get(fd)
            if channel is not None:
                try:
                    handle(channel, mask)
                except Exception:
                    self._fail(channel.sock)
            else:
                self._handle_other(fd)
        self._after_events()

    def _handle_other(self, fd: int) -> None:
        """Handle an event of something else."""

    def _timeout(self) -> float:
        """Return how many seconds to wait for events."""
        return 0.0 if self._ready else self._watching.timeout()

    def _after_events(self) -> None:
        if self._watching.parked:
            self._ready += self._watching.unparked(self._now)
        # Before deadlines are checked, so that what arrived in time is answered, however long this
        # turn takes.
        self._answer()
        if self._withdrawals != self._app.withdrawals:
            self._withdrawals = self._app.withdrawals
            for channel in [each for each in self.channels.values() if each.sends_withdrawn]:
                self._watching.wake(channel, self._now)
        for channel in self._watching.due(self._now):
            self._guard(channel, self._expire, channel)
        self._app.flush()

    # Input

    def take_in(self, sock: socket.SocketType, address: Any) -> None:
        """Take an accepted connection, and what it has already sent."""
        peer = peer_of(sock, address[0])
        try:
            data = sock.recv(RECEIVE_BYTES, NOW)
        except BlockingIOError:
            channel = self._add(sock, peer)
            self._guard(channel, self._watch, channel)
        except OSError:
            sock.close()
        else:
            if not self._answer_quickly(data, sock, peer, None):
                channel = self._add(sock, peer)
                self._guard(channel, self._received, channel, data)

    def _add(self, sock: socket.SocketType, peer: Peer) -> Channel:
        connection = self._listener.connection_of(peer, self._now)
        channel = Channel(sock, connection, self._ahead, self._by_sendfile, self._listener.pacing)
        self.channels[channel.fd] = channel
        return channel

    def _handle(self, channel: Channel, mask: int) -> None:
        if mask == READ and channel.events == READ:
            self._receive(channel)
        elif mask & ERROR:
            self._close(channel, was_reset=True)
        elif channel.is_sending:
            self._send(channel)
        elif channel.state is not PARKED:
            self._receive(channel)

    def _receive(self, channel: Channel) -> None:
        is_fresh = channel.state is FRESH
        if not is_fresh and channel.connection.has_enough:
            return  # first answer what it has sent
        try:
            data = channel.sock.recv(RECEIVE_BYTES, NOW)
        except BlockingIOError:
            self._received_nothing(channel)
            return
        except OSError:
            self._close(channel, was_reset=True)
            return
        peer = channel.connection.peer
        if not (is_fresh and self._answer_quickly(data, channel.sock, peer, channel)):
            self._received(channel, data)

    def _received(self, channel: Channel, data: bytes) -> None:
        channel.take(data, self._now)
        if channel.state is LINGERING:
            self._received_nothing(channel)
        else:
            self._ready.append(channel)

    def _received_nothing(self, channel: Channel) -> None:
        connection = channel.connection
        if connection.input_ended and not connection.awaits_acknowledgement:
            self._close(channel, was_reset=False)
        else:
            self._watch(channel)

    def _answer_quickly(
        self, data: bytes, sock: socket.SocketType, peer: Peer, channel: Channel | None
    ) -> bool:
        """Answer all that a connection has sent, if the application has a quick answer."""
        if self._listener.is_draining:
            return False
        quick = self._app.answer_quickly(data, peer)
        if quick is None and (proxies := self._listener.proxies) is not None:
            quick = self._app.answer_quickly(*proxies.unwrap(data, peer))
        if quick is None:
            return False
        self._quick.append((sock, peer, channel, quick))
        return True

    # Output

    def _answer(self) -> None:
        """Answer what has arrived, record that with one write, send it; repeat for pipelines."""
        for passes in range(_PASSES_A_TURN):
            is_much = passes * len(self._ready) > _PIPELINED_A_TURN
            if is_much or not (self._ready or self._quick):
                break
            # Each channel once: a second answer would get into the middle of the first.
            ready, self._ready = dict.fromkeys(self._ready), []
            answers: list[tuple[Channel, Outgoing | None]] = []
            for channel in ready:
                if channel.state is not CLOSED and not channel.is_sending:
                    self._guard(channel, self._next_reply, channel, answers)
            self._app.flush()
            # These answers were made as if they could be recorded. If not, some must not be sent.
            failures, self._failures = self._failures, self._app.failures
            is_lost = failures != self._failures
            quick, self._quick = self._quick, []
            count = replies = 0 if is_lost else len(quick)
            for channel, outgoing in answers:
                if outgoing is None:
                    self._guard(channel, self._wait_for_more, channel)
                elif is_lost and outgoing.needs_record:
                    self._close(channel, was_reset=False)
                else:
                    replies += 1
                    self._guard(channel, self._send, channel, outgoing)
            for answered in quick:
                try:
                    self._send_quickly(answered, is_lost)
                except Exception:
                    self._fail(answered[0])
            self.turns.note(replies, count, time.monotonic() - self._now)

    def _send_quickly(self, answered: Answered, is_lost: bool) -> None:
        sock, peer, channel, (content, keep_alive, needs_record) = answered
        if is_lost and needs_record:
            content, keep_alive = b"", False
        try:
            sent = sock.send(content, NOW if keep_alive else LAST)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent, keep_alive = len(content), False
        is_sent = sent == len(content)
        if is_sent and not keep_alive:
            sock.close() if channel is None else self._close(channel, was_reset=False)
            return
        if channel is None:
            channel = self._add(sock, peer)
        channel.answered_quickly(content, sent, keep_alive, self._now)
        if not is_sent or channel.events is None:
            self._guard(channel, self._watch, channel)

    def _next_reply(self, channel: Channel, answers: list[tuple[Channel, Outgoing | None]]) -> None:
        now, is_draining = self._now, self._listener.is_draining
        try:
            outgoing = channel.connection.next_reply(now, channel.may_wait(now), is_draining)
        except NotReady as not_ready:
            channel.park(not_ready, now)
            self._watching.parked.append(channel)
            self._watch(channel)
        else:
            if channel.state is PARKED:
                channel.unpark()
            answers.append((channel, outgoing))

    def _send(self, channel: Channel, outgoing: Outgoing | None = None) -> None:
        try:
            is_sent = channel.begin(outgoing, self._now) if outgoing else channel.send(self._now)
        except ImageChanged as problem:
            if self._listener.may_log(str(problem), self._now):
                log.error("downloads ended: %s", problem)
            self._close(channel, was_reset=False)
        except OSError:
            self._close(channel, was_reset=True)
        else:
            if is_sent:
                self._sent(channel)
            elif channel.events != WRITE or channel.state is HELD:
                self._watch(channel)

    def _sent(self, channel: Channel) -> None:
        """Continue after a whole reply."""
        connection = channel.connection
        connection.sent_all(self._now)
        if channel.close_after:
            if connection.awaits_acknowledgement or connection.must_linger:
                self._linger(channel)
            else:
                self._close(channel, was_reset=False)
        elif connection.has_input:
            self._ready.append(channel)  # the next request may have arrived with this one
        else:
            self._wait_for_more(channel)

    # Waiting and ends

    def _wait_for_more(self, channel: Channel) -> None:
        connection = channel.connection
        if not connection.is_over and not self._listener.is_draining:
            channel.wait_for_more()
            self._watch(channel)
        elif connection.awaits_acknowledgement:
            self._linger(channel)
        else:
            self._close(channel, was_reset=False)

    def _watch(self, channel: Channel) -> None:
        self._watching.watch(channel, self._now)

    def _expire(self, channel: Channel) -> None:
        if channel.state is CLOSED:
            return
        try:
            has_time_left = channel.has_time_left(self._now)
            is_due = channel.connection.is_due and channel.state is not LINGERING
            data = b"" if has_time_left and not is_due else channel.unread()
        except OSError:
            self._close(channel, was_reset=True)
            return
        if data:
            self._received(channel, data)
        elif not has_time_left:
            self._close(channel, was_reset=False)
        elif is_due:
            self._ready.append(channel)
        elif channel.may_go_on(self._now):
            self._send(channel)
        else:
            self._watch(channel)

    def _linger(self, channel: Channel) -> None:
        try:
            channel.linger(self._now)
        except OSError:
            self._close(channel, was_reset=True)
        else:
            self._watch(channel)

    def _guard(self, channel: Channel, do: Callable[..., None], *arguments: Any) -> None:
        try:
            do(*arguments)
        except Exception:
            self._fail(channel.sock)

    def _fail(self, sock: socket.SocketType) -> None:
        """Close a connection after a bug; the others continue."""
        channel = self.channels.get(sock.fileno())
        peer = None if channel is None else channel.connection.peer
        log.exception("the connection of %s failed", "a client" if peer is None else peer.address)
        sock.close() if channel is None else self._close(channel, was_reset=False)

    def _close(self, channel: Channel, was_reset: bool) -> None:
        if channel.state is CLOSED:
            return
        if was_reset and channel.connection.awaits_acknowledgement:
            self._listener.note_left(channel.connection.peer.address, self._now)
        del self.channels[channel.fd]
        self._watching.forget(channel)
        channel.close(was_reset, self._now)

    def end(self) -> None:
        """Answer what has arrived, then wait for downloads during the grace period."""
        listener = self._listener
        for channel in list(self.channels.values()):
            if channel.state is FRESH or channel.state is ASKED:
                self._guard(channel, self._receive, channel)
                self._ready.append(channel)
        self._after_events()
        until = self._now + listener.grace_seconds
        while self.channels and self._now < until and not listener.ends_at_once:
            self.turn()
        for channel in list(self.channels.values()):
            self._close(channel, was_reset=False)
        self._app.flush()
