"""Adapts gevent's event loop to the SDK's nodes and HTTP requests, without monkey-patching."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any, Protocol

from gevent import socket, ssl
from gevent.hub import get_hub

from couchbase.blocking.http import Target


class HasFileno(Protocol):
    """A socket."""

    def fileno(self) -> int:
        """Return its number."""


class Watcher(Protocol):
    """A watcher of gevent's loop, for a socket or a timer."""

    active: bool

    def start(self, callback: Callable[..., None], *args: object) -> None:
        """Begin to watch."""

    def stop(self) -> None:
        """Stop watching."""

    def close(self) -> None:
        """Release the loop's resources for it."""


class Loop(Protocol):
    """gevent's event loop."""

    def io(self, fd: int, events: int, *, ref: bool) -> Watcher:
        """Return a watcher for a socket."""

    def timer(self, after: float, *, ref: bool) -> Watcher:
        """Return a watcher for a timer."""

    def run_callback(self, function: Callable[..., None]) -> object:
        """Call a function when the greenlets that can run now have run."""


class Watchers:
    """A selector for nodes: calls functions, in the hub, when their sockets are ready.

    Neither an idle connection nor a timer keeps the loop running; waiting operations do.

    :param guard: called with a function and its argument; calls the function.
    """

    def __init__(self, guard: Callable[[Callable[[int], None], int], None]) -> None:
        self._loop: Loop = get_hub().loop
        self._guard = guard
        self._watchers: dict[int, Watcher] = {}

    def register(self, sock: HasFileno, events: int, function: Callable[[int], None]) -> None:
        """Watch a socket."""
        fd = sock.fileno()
        # The numbers of selectors, 1 for read and 2 for write, are those of libev, too.
        watcher = self._watchers[fd] = self._loop.io(fd, events, ref=False)
        watcher.start(self._ready, watcher, function, events)

    def modify(self, sock: HasFileno, events: int, function: Callable[[int], None]) -> None:
        """Watch a socket for other events."""
        self.unregister(sock)
        self.register(sock, events, function)

    def unregister(self, sock: HasFileno) -> None:
        """Stop watching a socket."""
        self._end(self._watchers.pop(sock.fileno()))

    def close(self) -> None:
        """Stop watching all sockets."""
        while self._watchers:
            self._end(self._watchers.popitem()[1])

    def _ready(self, watcher: Watcher, function: Callable[[int], None], events: int) -> None:
        # The handling of another socket's event has stopped it.
        if watcher.active:
            # Reading and writing do not block, so trying both is right in either case.
            self._guard(function, events)

    @staticmethod
    def _end(watcher: Watcher) -> None:
        watcher.stop()
        watcher.close()


class Timers:
    """Calls functions, in the hub, when their timers are due."""

    def __init__(self) -> None:
        self._loop: Loop = get_hub().loop
        self._timers: set[Watcher] = set()

    def start(self, seconds: float, function: Callable[[], None], ref: bool = False) -> Watcher:
        """Call a function once.

        :param ref: whether the loop keeps running for it.
        """
        timer = self._loop.timer(max(seconds, 0.0), ref=ref)
        self._timers.add(timer)
        timer.start(self._fire, timer, function)
        return timer

    def stop(self, timer: Watcher) -> None:
        """Do not call that function."""
        if timer in self._timers:
            self._timers.discard(timer)
            timer.stop()
            timer.close()

    def close(self) -> None:
        """Cancel all timers."""
        for timer in list(self._timers):
            self.stop(timer)

    def _fire(self, timer: Watcher, function: Callable[[], None]) -> None:
        self.stop(timer)
        function()


class _HTTPConnection(http.client.HTTPConnection):
    """A connection over gevent's sockets."""

    def __init__(self, target: Target, timeout: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout)
        self._context = target.tls_context

    def connect(self) -> None:
        """Connect, while other greenlets run."""
        sock = socket.create_connection((self.host, self.port), self.timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def http_connection(target: Target, timeout: float) -> http.client.HTTPConnection:
    """Return a connection for HTTP that lets other greenlets run while it waits."""
    return _HTTPConnection(target, timeout)


def tls_context(cadata: str | None = None) -> Any:
    """Return a TLS context for gevent's sockets.

    :param cadata: PEM of the certificates to trust; the platform's by default.
    :raises OSError: it contains something other than certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cadata is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=cadata)
    return context
