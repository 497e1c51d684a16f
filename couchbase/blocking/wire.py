"""The socket of a node's connection: what is sent and received, and what the selector watches."""

from __future__ import annotations

import ssl
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, Callable

from couchbase.protocol.conversation import Conversation

RECEIVE_BYTES = 64 * 1024
"""Number of bytes to receive at once. For more, the allocator would ask the kernel for memory each time,
which costs as much as sending and receiving a small answer."""
MANY_BYTES = 256 * 1024
"""The same, after as many bytes have come as were asked for."""

WAIT = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""Exceptions of a socket that has to be tried again when it is ready."""

Rest = Callable[[], None]
"""What is left to do of an event."""


class Wire:
    """A socket that does not block.

    :param owner: the :class:`couchbase.blocking.cluster.Cluster`, which provides selector, time and TLS.
    """

    def __init__(self, owner: Any) -> None:
        self.asked_at = 0.0
        """Time of the last send."""
        self.heard_at = 0.0
        """Time of the last receive."""
        self.readable: list[tuple[int, int]] | None = None
        """What the selector returns if the socket has only become readable; ``None`` while bytes wait to be
        sent."""
        self._owner = owner
        self._sock: Any = None
        self._events = 0
        # Handles events until the handshake.
        self._step: Callable[[], None] | None = None
        # The current socket's conversation, from the handshake on.
        self._talk: Conversation | None = None
        # Bytes that the socket has not accepted yet.
        self._unsent = memoryview(b"")
        self._receive_bytes = RECEIVE_BYTES

    def received(self, data: bytes) -> None:
        """Take received bytes."""
        raise NotImplementedError

    def lose(self, error: BaseException) -> None:
        """Drop the connection."""
        raise NotImplementedError

    def _cut(self, error: OSError) -> None:
        """Handle the end of the connection by the peer."""
        raise NotImplementedError

    # ---- sending ---------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Send pending data with the next flush."""
        self._owner.dirty.append(self)

    def flush(self) -> None:
        """Write pending data to the socket; the rest follows when the socket is writable."""
        sock, talk = self._sock, self._talk
        if sock is None or talk is None:
            return
        if not self._unsent:
            out = talk.out
            if not out:
                return
            data = b"".join(out) if len(out) > 1 else out[0]
            out.clear()
            self.asked_at = self._owner.seconds()
            try:
                sent = sock.send(data)
            except OSError as error:
                self._hold(data, 0, error)
                return
            if sent < len(data):
                self._hold(data, sent)
            return
        self._watch(EVENT_READ | EVENT_WRITE)

    def _hold(self, data: bytes, sent: int, failure: OSError | None = None) -> None:
        """Keep what the socket has not taken until it is writable; lose the connection if it has failed."""
        if failure is not None and not isinstance(failure, WAIT):
            self.lose(failure)
            return
        self._unsent = memoryview(data)[sent:]
        self._watch(EVENT_READ | EVENT_WRITE)

    def _write(self) -> None:
        """Write more: the socket is writable again."""
        out = self._talk.out if self._talk is not None else []
        while self._unsent or out:
            if not self._unsent:
                self._unsent = memoryview(b"".join(out))
                out.clear()
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except WAIT:
                return
            except OSError as error:
                self.lose(error)
                return
        self._watch(EVENT_READ)

    # ---- receiving -------------------------------------------------------------------------------

    def handle(self, events: int) -> None:
        """Handle a socket that is readable, writable, or both."""
        if self._step is not None:
            self._step()
            return
        if self._sock is None:
            # Handling another socket's event has closed this socket.
            return
        if events & EVENT_READ:
            self._read()
        if events & EVENT_WRITE and self._sock is not None:
            self._write()

    def _read(self) -> None:
        sock = self._sock
        while True:
            size = self._receive_bytes
            try:
                data = sock.recv(size)
            except OSError as error:
                self._unreadable(error)
                return
            self._heard(data, size)
            # Data that TLS has already decrypted does not make the socket readable.
            if self._sock is not sock or self._owner.tls_context is None or not sock.pending():
                return

    def _heard(self, data: bytes, size: int) -> None:
        """Take what was received when so many bytes were asked for: nothing at the end of the connection."""
        if not data:
            self._cut(OSError("the node closed the connection"))
            return
        self._receive_bytes = RECEIVE_BYTES if len(data) < size else MANY_BYTES
        self.heard_at = self._owner.seconds()
        self.received(data)

    def _unreadable(self, error: OSError) -> None:
        """Handle the failure of a recv."""
        if not isinstance(error, WAIT):
            self._cut(error)

    # ---- one operation ---------------------------------------------------------------------------

    def exchange(self, call: Any, data: bytes, seconds: float) -> Rest | None:
        """Send an operation and receive its answer, if nothing else happens.

        :param call: waits for its answer in the conversation's table already.
        :param data: the request. No other bytes wait to be sent.
        :param seconds: the longest time to wait for the answer.
        :returns: ``None`` if the operation has succeeded; else a function to call before the loop continues.
        """
        sock, owner = self._sock, self._owner
        talk: Any = self._talk
        try:
            sent = sock.send(data)
        except OSError as error:
            return partial(self._refused, data, 0, error)
        if sent < len(data):
            return partial(self._refused, data, sent)
        if owner.selector.poll(seconds) != self.readable:
            # Not taken note of: the next wait finds the same, and perhaps more.
            return _nothing
        try:
            received = sock.recv(RECEIVE_BYTES)
        except OSError as error:
            return partial(self._unreadable, error)
        if owner.tls_context is not None and sock.pending():
            return partial(self._heard_more, sock, received)
        try:
            result = talk.reader.single(received, call, talk.pending)
        except Exception as error:  # noqa: BLE001  # the caller handles a transcoder's failure
            return partial(talk.undecodable, call, error)
        if result is None:
            return partial(self._heard, received, RECEIVE_BYTES)
        call.result, call.error, call.done = result, None, True
        return None

    def _heard_more(self, sock: Any, data: bytes) -> None:
        self._heard(data, RECEIVE_BYTES)
        if self._sock is sock:
            self._read()

    def _refused(self, data: bytes, sent: int, failure: OSError | None = None) -> None:
        self._hold(data, sent, failure)
        # If the connection is lost, another node is asked for the map.
        self._owner.flush()

    # ---- the socket ------------------------------------------------------------------------------

    def _drop_socket(self) -> None:
        if self._sock is not None:
            self._watch(0)
            self._sock.close()
            self._sock = None

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        selector = self._owner.selector
        if not events:
            selector.unregister(self._sock)
        elif self._events:
            selector.modify(self._sock, events, self.handle)
        else:
            selector.register(self._sock, events, self.handle)
        self._events = events
        self.readable = [(self._sock.fileno(), EVENT_READ)] if events == EVENT_READ else None


def _nothing() -> None:
    """Do nothing."""
