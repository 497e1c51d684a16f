"""The worker's end of a connection to the node: frames over a socket, for blocking threads.

A control frame holds a Python value (:mod:`reactor.framing`): both ends are the same interpreter, and the
socket between them lies in a folder that only their user can enter. A data frame holds bytes of an answer; an
empty one ends it. The node's end is :class:`couchnode.views.workerclient.WorkerConnection`.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

from reactor.framing import LENGTH, FrameBuffer, FramingError, frame_of, value_in

_JOIN_BYTES = 64 * 1024
_RECEIVE_BYTES = 64 * 1024


class Blocked(Exception):
    """The peer read nothing for too long."""


class Wire:
    """One end of a connection, for a blocking thread.

    :param connection: a connected stream socket; this sets its timeout.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._arrived = FrameBuffer()

    def receive(self) -> Any:
        """Return the value of the next control frame; ``None`` once the peer has closed.

        :raises FramingError: the peer sent no control frame.
        """
        body = self.receive_bytes()
        return None if body is None else value_in(body)

    def receive_bytes(self) -> bytes | None:
        """Return the body of the next frame; ``None`` once the peer has closed between two frames.

        :raises FramingError: the frame is too long, or ends early.
        """
        arrived = self._arrived
        while (body := arrived.take()) is None:
            try:
                received = self._socket.recv(max(arrived.missing, _RECEIVE_BYTES))
            except BlockingIOError:
                _wait(self._socket, select.POLLIN, None)
                continue
            except ConnectionError:
                received = b""
            if not received:
                if not len(arrived):
                    return None
                raise FramingError("the connection ended in the middle of a frame")
            arrived.feed(received)
        return body

    def send(self, value: Any, patience_seconds: float) -> None:
        """Send a control frame.

        :raises Blocked: the peer read nothing for ``patience_seconds``.
        :raises OSError: the connection is gone.
        """
        self._write(frame_of(value), patience_seconds, patience_seconds, _nothing)

    def send_data(
        self, body: bytes, patience_seconds: float, pause_seconds: float, on_pause: Callable[[], object]
    ) -> None:
        """Send a data frame.

        :param on_pause: called when the peer has read nothing for ``pause_seconds``, before waiting further.
        :raises Blocked: the peer read nothing for ``patience_seconds``.
        :raises OSError: the connection is gone.
        """
        head = LENGTH.pack(len(body))
        if len(body) <= _JOIN_BYTES:
            self._write(head + body, patience_seconds, pause_seconds, on_pause)
        else:
            self._write(head, patience_seconds, pause_seconds, on_pause)
            self._write(body, patience_seconds, pause_seconds, on_pause)

    def is_closed(self) -> bool:
        """Return whether the peer has closed, without blocking."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def shut(self) -> None:
        """Shut the connection down, which wakes blocked readers on both sides."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _write(
        self, data: bytes, patience_seconds: float, pause_seconds: float, on_pause: Callable[[], object]
    ) -> None:
        view = memoryview(data)
        blocked_since = None
        while view:
            try:
                sent = self._socket.send(view)
            except BlockingIOError:
                now = monotonic()
                if blocked_since is None:
                    blocked_since, paused = now, False
                elif not paused and now - blocked_since >= pause_seconds:
                    paused = True
                    on_pause()
                waited = now - blocked_since
                if waited >= patience_seconds:
                    raise Blocked(f"the peer read nothing for {patience_seconds:g} s") from None
                _wait(self._socket, select.POLLOUT, (patience_seconds if paused else pause_seconds) - waited)
                continue
            view = view[sent:]
            blocked_since = None


def _wait(connection: socket.socket, event: int, seconds: float | None) -> None:
    poll = select.poll()
    poll.register(connection, event)
    poll.poll(None if seconds is None else max(1, int(seconds * 1000) + 1))


def _nothing() -> None:
    pass
