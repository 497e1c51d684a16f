"""What connections of HTTP/1.1 and HTTP/2 have in common: how they pause, wait for slow readers, and end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.http.linger import LINGER_SECONDS, LingeringClose
from gateway.http.opening import Opening
from gateway.http.phases import ConnectionPhase, InputPhase
from reactor.gate import unsent_bytes

if TYPE_CHECKING:
    from gateway.http.ports import Application

__all__ = ["ClientConnection"]


class ClientConnection(Opening):
    """One client's connection; see :class:`gateway.http.ports.Connection`."""

    application: Application
    input: InputPhase
    """The client's half of the connection. It and ``phase`` are set by the classes derived from this one."""
    since: float | None = None
    """When the sweep first saw this phase; ``None`` when it has not."""
    stalled_since: float | None = None
    unsent = 0
    """Bytes that were waiting for the client at the last sweep."""
    cut_by = "client"
    """Which side is responsible if the connection ends early."""
    linger_until: float | None = None
    """Deadline for dropping the bytes that still arrive; ``None`` if nothing is dropped."""
    _lingering: LingeringClose | None = None

    def _enter(self, phase: ConnectionPhase) -> None:
        self.phase = phase
        self.since = self.factory.clock.seconds()

    def let_go(self) -> None:
        """Drop what refers to this object: a lost connection must not wait until Python looks for cycles."""
        self._lingering = None
        # The one of a connection whose protocol is not known.
        vars(self).pop("dataReceived", None)

    # ---- reading ---------------------------------------------------------------------------------

    def read_on(self) -> None:
        """Read from the socket again."""
        if self.input is InputPhase.PAUSED:
            self.input = InputPhase.READING
            self.transport.resumeProducing()

    # ---- writing ---------------------------------------------------------------------------------

    def stopProducing(self) -> None:
        """The client is gone; ``connectionLost`` handles it."""

    def count_unsent(self) -> int:
        """Return how many bytes the client has not acknowledged yet."""
        return unsent_bytes(self.transport)

    # ---- the end ---------------------------------------------------------------------------------

    def writeConnectionLost(self) -> None:
        """Drop what still arrives: everything was sent, and our half is closed."""
        if self.input >= InputPhase.ENDED:
            self.transport.loseConnection()
        else:
            self._linger(ConnectionPhase.LINGERING)

    def all_is_sent(self) -> None:
        """Go on closing: everything written has been sent."""
        self._linger(ConnectionPhase.LINGERING)

    def _linger(self, phase: ConnectionPhase) -> None:
        self._enter(phase)
        assert self.since is not None
        self.linger_until = self.since + LINGER_SECONDS

    def stop_lingering(self) -> None:
        """Stop waiting for the client to close its half."""
        if self._lingering is not None:
            self._lingering.stop()

    def abort(self) -> None:
        """Drop the connection, so that the client notices that its answer is incomplete."""
        self.phase = ConnectionPhase.CLOSED
        self.transport.abortConnection()
