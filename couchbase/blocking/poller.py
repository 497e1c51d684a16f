"""Waits for sockets: with epoll where there is one, elsewhere with a selector of the standard library."""

from __future__ import annotations

import select
import selectors
import socket
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, Callable

Handler = Callable[[int], None]
"""Called with the events of a socket: ``EVENT_READ``, ``EVENT_WRITE``, or both."""

_EPOLL = hasattr(select, "epoll")
# The kernel's numbers of both, which are part of its interface.
_IN, _OUT = 1, 4


class Poller:
    """Calls functions when their sockets are ready.

    The standard library's selectors do the same; their objects for each event and each call take as long as a
    fifth of a whole operation.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}
        # Readable until it is handled, to end a wait.
        self._waker: socket.socket | None = None
        self._poller: Any
        self.poll: Callable[[float], list[tuple[int, int]]]
        """Waits for so many seconds at most, and returns pairs of a socket's number and its events. A
        readable socket, without another event, has ``EVENT_READ``."""
        if _EPOLL:
            self._poller = select.epoll()
            self.poll = self._poller.poll
        else:
            self._poller = selectors.DefaultSelector()
            self.poll = self._select

    def register(self, sock: Any, events: int, function: Handler) -> None:
        """Watch a socket."""
        self._poller.register(sock.fileno(), _mask(events))
        self._handlers[sock.fileno()] = function

    def modify(self, sock: Any, events: int, function: Handler) -> None:
        """Watch a socket for other events."""
        self._poller.modify(sock.fileno(), _mask(events))
        self._handlers[sock.fileno()] = function

    def unregister(self, sock: Any) -> None:
        """Stop watching a socket."""
        del self._handlers[sock.fileno()]
        self._poller.unregister(sock.fileno())

    def close(self) -> None:
        """Stop watching all sockets."""
        self._handlers.clear()
        self._poller.close()
        if self._waker is not None:
            self._waker.close()

    def wait(self, seconds: float) -> None:
        """Wait for an event, no longer than so many seconds, and handle all that there are."""
        handlers = self._handlers
        # All functions first: one may close another's socket, whose number then is a new socket's.
        for function, events in [(handlers[number], events) for number, events in self.poll(seconds)]:
            if _EPOLL:
                # Errors and hang-ups are both.
                events = (EVENT_READ if events & ~_OUT else 0) | (EVENT_WRITE if events & ~_IN else 0)
            function(events)

    def wake(self) -> None:
        """End the wait that a signal handler has interrupted, once the handler is over."""
        if self._waker is None:
            self._waker, other = socket.socketpair()
            # So that its end can be read.
            other.close()
            self.register(self._waker, EVENT_READ, self._woken)

    def _woken(self, events: int) -> None:
        waker, self._waker = self._waker, None
        if waker is not None:
            self.unregister(waker)
            waker.close()

    def _select(self, seconds: float) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._poller.select(seconds)]


def _mask(events: int) -> int:
    if not _EPOLL:
        return events
    return (_IN if events & EVENT_READ else 0) | (_OUT if events & EVENT_WRITE else 0)
