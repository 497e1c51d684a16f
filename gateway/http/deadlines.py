"""Timeouts of a connection's phases."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from gateway.http.limits import Limits
from gateway.http.linger import LINGER_IDLE_SECONDS
from gateway.http.phases import ConnectionPhase, InputPhase
from gateway.http.refusal import Refusal
from reactor.gate import socket_error

if TYPE_CHECKING:
    from gateway.http.ports import Timed

__all__ = ["Deadlines"]


class Deadlines:
    """Checks a connection periodically, and ends a phase that has taken too long."""

    def __init__(self, limits: Limits) -> None:
        self._stall_seconds = limits.stall_seconds
        seconds = {
            ConnectionPhase.IDLE: limits.idle_seconds,
            ConnectionPhase.HEAD: limits.header_seconds,
            ConnectionPhase.BODY: limits.body_seconds,
            # No limit for the handler: its operations have their own timeouts.
            ConnectionPhase.HANDLING: inf,
            ConnectionPhase.DRAINING: LINGER_IDLE_SECONDS,
            ConnectionPhase.CLOSING: limits.stall_seconds,
            ConnectionPhase.LINGERING: LINGER_IDLE_SECONDS,
            ConnectionPhase.CLOSED: limits.stall_seconds,
        }
        # A list for speed: it is read for every connection.
        self._seconds = [seconds[phase] for phase in ConnectionPhase]

    def look_after(self, channel: Timed, now: float) -> None:
        """Check one connection.

        :param now: the time of the channels' clock.
        """
        is_closing = channel.phase >= ConnectionPhase.CLOSING
        if channel.is_stalled or is_closing:
            unsent = channel.count_unsent()
            if unsent < channel.unsent:
                # The client reads slowly, but it reads.
                channel.stalled_since = channel.since = now
            channel.unsent = unsent
            if not unsent and channel.phase is ConnectionPhase.CLOSING:
                channel.all_is_sent()
        if channel.input >= InputPhase.ENDED and not is_closing:
            # The peer's reaction shows at the next sweep.
            if socket_error(channel.transport):
                channel.abort()
                return
            channel.probe()
        if channel.is_stalled and not is_closing:
            if channel.stalled_since is None:
                channel.stalled_since = now
            elif now - channel.stalled_since >= self._stall_seconds:
                channel.abort()
                return
        if channel.since is None:
            channel.since = now
        elif now - channel.since >= self._seconds[channel.phase] and not self._may_take_longer(channel, now):
            channel.since = now
            _expire(channel)
            return
        lingers = channel.phase is ConnectionPhase.DRAINING or channel.phase is ConnectionPhase.LINGERING
        if lingers and channel.linger_until is not None and now >= channel.linger_until:
            _expire(channel)

    def _may_take_longer(self, channel: Timed, now: float) -> bool:
        assert channel.since is not None
        return channel.allowance > now - channel.since - self._seconds[channel.phase]


def _expire(channel: Timed) -> None:
    """End a phase that has taken too long."""
    match channel.phase:
        case ConnectionPhase.IDLE:
            channel.close_if_idle()
        case ConnectionPhase.HEAD if channel.is_idle:
            # Nothing of a first request has arrived.
            channel.close_if_idle()
        case ConnectionPhase.HEAD | ConnectionPhase.BODY:
            channel.refuse(Refusal("RequestTimeout", resource=""))
        case ConnectionPhase.LINGERING:
            channel.stop_lingering()
        case ConnectionPhase.CLOSING | ConnectionPhase.CLOSED:
            channel.abort()
        case _:
            channel.close()
