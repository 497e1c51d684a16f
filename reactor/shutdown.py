"""Whether a reactor has ended for good, so that no program can react any more."""

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
    """Return whether a reactor was stopped and no longer runs: no program handles Deferreds that fail now.

    A reactor that closes its connections at its end looks like a broken network. False while programs still
    clean up before the end; false for a reactor that only pauses (like trial's, between tests), that was not
    watched, or that a test drives manually.
    """
    return reactor in _stopping and not getattr(reactor, "running", True)
