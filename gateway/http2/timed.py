"""The members of a stream that :mod:`gateway.http.deadlines` expects but a stream does not need."""

from __future__ import annotations

from gateway.http.counted import CountedRequest
from gateway.http.phases import InputPhase

__all__ = ["TimedStream"]


class TimedStream:
    """The part of :class:`gateway.http.ports.Timed` that the connection does for all of its streams."""

    input = InputPhase.READING
    since: float | None = None
    """When this phase was first seen; ``None`` when it has not been."""
    stalled_since: float | None = None
    unsent = 0
    unsent_exchange: CountedRequest | None = None
    """The request whose complete answer is not sent yet."""
    is_idle = False
    """Whether no request is being served: a stream is one."""
    linger_until: float | None = None
    """Deadline for dropping the bytes that still arrive."""

    def probe(self) -> None:
        """Do nothing: the connection probes the client once for all streams."""

    def all_is_sent(self) -> None:
        """Do nothing: a stream has no phase that waits for this."""

    def stop_lingering(self) -> None:
        """Do nothing: a stream has no phase that waits for this."""

    def close_if_idle(self) -> None:
        """Do nothing: a stream is never idle."""
