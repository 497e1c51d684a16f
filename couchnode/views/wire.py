"""Frames between the node and its view worker: four bytes of length, big-endian, then the body.

The body of a control frame is a Python value as :mod:`marshal` writes it: both ends are the same interpreter,
and the socket between them lies in a folder that only their user can enter. A data frame is bytes of an
answer, and an empty one is their end. This module holds the blocking side, which the worker uses.
"""

from __future__ import annotations

import marshal
import select
import socket
import struct
from collections.abc import Callable
from time import monotonic
from typing import Any

_LENGTH = struct.Struct("!I")

#: Longest frame that is believed. A batch that holds the largest document fits.
MAX_FRAME_BYTES = 64 * 1024 * 1024

_JOIN_BYTES = 64 * 1024


class FrameError(Exception):
    """The peer sent what is not a frame; the connection cannot be used any more."""


class Blocked(Exception):
    """The peer took nothing for too long."""


def frame(value: Any) -> bytes:
    """Return a control frame."""
    body = marshal.dumps(value)
    return _LENGTH.pack(len(body)) + body


class Wire:
    """One end of a connection, for a thread that may wait.

    :param connection: a connected stream socket; this sets its timeout.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._buffer = bytearray()

    def receive(self) -> Any:
        """Return the value of the next control frame; ``None`` once the peer has closed.

        :raises FrameError: the peer sent something else.
        """
        body = self.receive_bytes()
        if body is None:
            return None
        try:
            return marshal.loads(body)
        except (ValueError, EOFError, TypeError) as error:
            raise FrameError(f"not a control frame: {error}") from error

    def receive_bytes(self) -> bytes | None:
        """Return the body of the next frame; ``None`` once the peer has closed between two frames.

        :raises FrameError: the frame is too long, or ends early.
        """
        head = self._take(_LENGTH.size, may_end=True)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > MAX_FRAME_BYTES:
            raise FrameError(f"a frame of {length} bytes, at most {MAX_FRAME_BYTES} are taken")
        return self._take(length)

    def send(self, value: Any, patience_seconds: float) -> None:
        """Send a control frame.

        :raises Blocked: the peer took nothing for ``patience_seconds``.
        :raises OSError: the connection is gone.
        """
        self._write(frame(value), patience_seconds, patience_seconds, _nothing)

    def send_data(
        self, body: bytes, patience_seconds: float, pause_seconds: float, on_pause: Callable[[], object]
    ) -> None:
        """Send a data frame.

        :param on_pause: called when the peer has taken nothing for ``pause_seconds``, before waiting on.
        :raises Blocked: the peer took nothing for ``patience_seconds``.
        :raises OSError: the connection is gone.
        """
        head = _LENGTH.pack(len(body))
        if len(body) <= _JOIN_BYTES:
            self._write(head + body, patience_seconds, pause_seconds, on_pause)
        else:
            self._write(head, patience_seconds, pause_seconds, on_pause)
            self._write(body, patience_seconds, pause_seconds, on_pause)

    def is_closed(self) -> bool:
        """Say whether the peer has closed, without waiting."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def shut(self) -> None:
        """End the connection for whoever waits for something from it, on both sides."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _take(self, count: int, may_end: bool = False) -> bytes | None:
        buffer = self._buffer
        while len(buffer) < count:
            try:
                received = self._socket.recv(max(count - len(buffer), 65536))
            except BlockingIOError:
                _wait(self._socket, select.POLLIN, None)
                continue
            except ConnectionError:
                received = b""
            if not received:
                if may_end and not buffer:
                    return None
                raise FrameError("the connection ended in the middle of a frame")
            buffer += received
        taken = bytes(memoryview(buffer)[:count])
        del buffer[:count]
        return taken

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
                    raise Blocked(f"nothing was taken for {patience_seconds:g} s") from None
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
