"""Whether a reactor has ended for good, and nobody is left to be told anything."""

from __future__ import annotations

from weakref import WeakSet

__all__ = ["has_ended", "watch_end"]

_watched: WeakSet[object] = WeakSet()
_stopping: WeakSet[object] = WeakSet()


def watch_end(reactor: object) -> None:
    """Let :func:`has_ended` know when this reactor stops."""
    add_trigger = getattr(reactor, "addSystemEventTrigger", None)
    if add_trigger is not None and reactor not in _watched:
        _watched.add(reactor)
        add_trigger("before", "shutdown", _stopping.add, reactor)


def has_ended(reactor: object) -> bool:
    """Return whether a reactor was stopped and runs no more: Deferreds that fail now do so before nobody.

    A reactor that closes its connections at its end looks like a network that breaks. False while programs
    still tidy up before its end; false of a reactor that only pauses (trial's does, between tests), that was
    not watched, or that a test drives by hand.
    """
    return reactor in _stopping and not getattr(reactor, "running", True)
