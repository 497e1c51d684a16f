"""Flow control of all request bodies of a connection."""

from __future__ import annotations

from gateway.http2.core import CONNECTION_WINDOW, Core

__all__ = ["Credit"]

_MAX_KEPT = 2**18
"""Bytes that may wait for their handlers without delaying the other bodies of the connection."""


class Credit:
    """Reopens the window of a connection as bodies are read.

    Bytes that are kept for a slow handler use up the window of its own stream only, up to a limit.
    """

    __slots__ = ("_core", "_kept", "_owed")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._kept = 0
        self._owed = 0

    def receive(self, size: int) -> bool:
        """Note that bytes arrived; return whether there is a frame to send."""
        self._owed += size
        return self._pay()

    def keep(self, size: int) -> bool:
        """Note that received bytes wait for their handlers; a negative number means that they no longer wait.

        :returns: whether there is a frame to send.
        """
        self._kept += size
        return size < 0 and self._pay()

    def _pay(self) -> bool:
        due = self._owed - max(0, self._kept - _MAX_KEPT)
        if due < CONNECTION_WINDOW // 2:
            return False
        self._owed -= due
        self._core.increment_flow_control_window(due)
        return True
