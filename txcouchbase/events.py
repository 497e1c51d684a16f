"""One-time events of a connection, as Deferreds."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from couchbase.asynchronous.events import EventQueue
from couchbase.exceptions import ObjectDestroyedError
from reactor.kinds import IReactor
from reactor.shutdown import has_ended


class TxEventQueue(EventQueue):
    """An event that Deferreds wait for; they fire with None.

    :param reactor: the global reactor by default.
    """

    def __init__(self, reactor: object = None) -> None:
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = cast(IReactor, reactor)

    def fire_async(self, event: Deferred[Any]) -> None:
        """Fire in the next turn."""
        self._reactor.callLater(0, event.callback, None)

    def call_single_success(self, event: Deferred[Any], *args: object, **kwargs: object) -> None:
        """Fire."""
        event.callback(None)

    def call_single_failure(self, event: Deferred[Any], *args: object, **kwargs: object) -> None:
        """Fail with the exception that is being handled."""
        event.errback(Failure())


class ConnectionEventQueue(TxEventQueue):
    """The end of connecting, with None or the exception; later Deferreds get it, too."""

    def __init__(self, reactor: object = None) -> None:
        super().__init__(reactor)
        self._error: BaseException | None = None

    def fire_async(self, event: Deferred[Any]) -> None:
        """Fire, or fail, in the next turn."""
        if self._error is None:
            super().fire_async(event)
        else:
            self._reactor.callLater(0, event.errback, self._error)

    def maybe_raise(self, error: BaseException | None = None, *args: Any, **kwargs: Any) -> None:
        """Raise the exception, if there is one."""
        self._error = error
        if error is not None:
            raise error

    def drop_unheard(self) -> None:
        """Forget the Deferreds that the program does not keep and that have no callbacks: a failure would
        only appear in Twisted's log of unhandled errors."""
        known = [weakref.ref(event) for event in self._waiting]
        heard = [event for event in self._waiting if event.callbacks]
        self._waiting.clear()
        # Deferreds that a program keeps are alive; it may still add callbacks.
        self._waiting.extend(event for event in (reference() for reference in known) if event is not None)
        del heard


class Closes(Protocol):
    """An object that is closed with a connection."""

    def close(self) -> object:
        """Close it."""


class ConnectionEvents:
    """The events of a connection, separate from it so that waiters do not keep it alive."""

    def __init__(self, reactor: IReactor) -> None:
        self.connect = ConnectionEventQueue(reactor)
        self.dtor = TxEventQueue(reactor)
        self._reactor = reactor

    def queue(self, name: str) -> TxEventQueue:
        """Return the queue of an event.

        :raises ValueError: another name than ``'connect'`` and ``'_dtor'``.
        """
        queues = {"connect": self.connect, "_dtor": self.dtor}
        if name not in queues:
            raise ValueError(f"unknown event {name!r}; expected 'connect' or '_dtor'")
        return queues[name]

    def destroyed(self, *services: Closes) -> None:
        """Close the parts of a destroyed connection object, and notify waiters from the reactor."""
        if has_ended(self._reactor):
            return
        # The object may be collected in any thread.
        if isInIOThread():
            for service in services:
                service.close()
            services = ()
        self._reactor.callFromThread(self._tell, services)

    def _tell(self, services: Sequence[Closes]) -> None:
        for service in services:
            service.close()
        if not self.connect.called:
            self.connect.drop_unheard()
            self.connect(ObjectDestroyedError.pyexc("the connection was destroyed before it connected"))
        self.dtor()
