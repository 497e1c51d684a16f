"""What a stream has in common with a connection to :mod:`gateway.http.deadlines`, and needs not."""

from __future__ import annotations

from gateway.http.phases import InputPhase

__all__ = ["TimedStream"]


class TimedStream:
    """The part of :class:`gateway.http.ports.Timed` that the connection does for all of its streams."""

    input = InputPhase.READING
    is_idle = False
    """Whether no request is being served: a stream is one."""
    linger_until: float | None = None
    """Deadline for dropping the bytes that still arrive."""

    def probe(self) -> None:
        """A client that has closed its half is probed once for all streams."""

    def all_is_sent(self) -> None:
        """A stream has no phase that waits for it."""

    def stop_lingering(self) -> None:
        """A stream has no phase that waits for it."""

    def close_if_idle(self) -> None:
        """A stream never is idle."""
