"""How long a connection may stay in each of its phases."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from gateway.http.closing import LINGER_IDLE_SECONDS
from gateway.http.limits import Limits
from gateway.http.phases import ConnectionPhase
from reactor.gate import socket_error, unsent_bytes

if TYPE_CHECKING:
    from gateway.http.ports import Connection

__all__ = ["Deadlines"]


class Deadlines:
    """Looks at a connection now and then, and ends what has taken too long."""

    def __init__(self, limits: Limits) -> None:
        self._stall_seconds = limits.stall_seconds
        seconds = {
            ConnectionPhase.IDLE: limits.idle_seconds,
            ConnectionPhase.HEAD: limits.header_seconds,
            ConnectionPhase.BODY: limits.body_seconds,
            # As long as it takes: its operations have time limits of their own.
            ConnectionPhase.HANDLING: inf,
            ConnectionPhase.DRAINING: LINGER_IDLE_SECONDS,
            ConnectionPhase.CLOSING: limits.stall_seconds,
            ConnectionPhase.LINGERING: LINGER_IDLE_SECONDS,
            ConnectionPhase.CLOSED: limits.stall_seconds,
        }
        # A list, because it is asked about every connection.
        self._seconds = [seconds[phase] for phase in ConnectionPhase]

    def look_after(self, channel: Connection, now: float) -> None:
        """See to one connection.

        :param now: of the clock that the channels have.
        """
        if channel.is_stalled or channel.is_closing:
            unsent = unsent_bytes(channel.transport)
            if unsent < channel.unsent:
                # It reads slowly, but it reads.
                channel.stalled_since = channel.since = now
            channel.unsent = unsent
            if not unsent and channel.phase is ConnectionPhase.CLOSING:
                channel.all_is_sent()
        if channel.is_at_end and not channel.is_closing:
            # The kernel's answer to what was sent is seen the next time.
            if socket_error(channel.transport):
                channel.abort()
            else:
                channel.probe()
        if channel.is_stalled and not channel.is_closing:
            if channel.stalled_since is None:
                channel.stalled_since = now
            elif now - channel.stalled_since >= self._stall_seconds:
                channel.abort()
                return
        if channel.since is None:
            channel.since = now
        elif now - channel.since >= self._seconds[channel.phase] and not self._may_take_longer(channel, now):
            channel.since = now
            channel.expire()
            return
        lingers = channel.phase is ConnectionPhase.DRAINING or channel.phase is ConnectionPhase.LINGERING
        if lingers and channel.linger_until is not None and now >= channel.linger_until:
            channel.expire()

    def _may_take_longer(self, channel: Connection, now: float) -> bool:
        assert channel.since is not None
        return channel.allowance > now - channel.since - self._seconds[channel.phase]
