"""Whether a reactor has ended for good, and nobody is left to be told anything."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

__all__ = ["has_ended", "watch_end"]

_began: WeakSet[Any] = WeakSet()


def watch_end(reactor: Any) -> None:
    """Let :func:`has_ended` know this reactor; from now on, or from its start on."""
    when_running = getattr(reactor, "callWhenRunning", None)
    if when_running is not None and reactor not in _began:
        when_running(_began.add, reactor)


def has_ended(reactor: Any) -> bool:
    """Tell whether a reactor ran and has stopped: Deferreds that fail now do so before nobody.

    A reactor that closes its connections at its end looks like a network that breaks. False of a reactor that
    was not watched, that a test drives by hand, or whose loop somebody else runs.
    """
    return not getattr(reactor, "running", True) and reactor in _began
