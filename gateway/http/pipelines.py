"""The share of connections in the reactor's time whose clients send many requests at once.

Requests that need no other process, such as those that are refused, are answered at once. A client that sends
a thousand of them in a packet, on each of several connections, would stop all others for seconds.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = ["SLOT_SECONDS", "TURN_SECONDS", "Pipelines"]

TURN_SECONDS = 0.01
"""How long all connections together serve requests behind the first of a packet, in one turn of the
reactor."""

SLOT_SECONDS = 0.001
"""How long one connection does, while others wait."""


class _Connection(Protocol):
    def go_on(self) -> None:
        """Serve the requests that wait."""


class Pipelines:
    """Says when connections may serve further requests, and calls those that have to wait, in turn."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._seconds = clock.seconds
        self._waiting: dict[_Connection, None] = {}
        self._turn: IDelayedCall | None = None
        self._until = 0.0

    def may_go_on(self) -> bool:
        """Return whether a connection may serve a further request in this turn."""
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._next_turn)
            self._until = self._seconds() + TURN_SECONDS
            return True
        return self._seconds() < self._until

    def wait(self, connection: _Connection) -> None:
        """Call ``go_on`` of a connection in a later turn."""
        self._waiting[connection] = None
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._next_turn)

    def leave(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._waiting.pop(connection, None)

    def _next_turn(self) -> None:
        self._turn = None
        waiting = self._waiting
        if not waiting:
            return
        self._turn = self._clock.callLater(0, self._next_turn)
        now = self._seconds()
        end = now + TURN_SECONDS
        while waiting and now < end:
            connection = next(iter(waiting))
            del waiting[connection]
            self._until = min(now + SLOT_SECONDS, end)
            try:
                connection.go_on()
            except Exception:  # noqa: BLE001  # the others wait for it
                self._log.failure("serving a connection failed")
            now = self._seconds()
        # Nobody else goes on in this turn.
        self._until = now
