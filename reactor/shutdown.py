"""The end of a reactor: that it ends only once, and whether it has ended for good."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger

__all__ = ["has_ended", "stop_once", "watch_end"]

_log = Logger()

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


def stop_once(reactor: IReactorCore) -> None:
    """Make a second signal that stops a reactor harmless: it is logged, and the stop goes on.

    Twisted logs a traceback for it.
    """
    stopped: Any = reactor
    stop, is_stopping = stopped.stop, False

    def stop_or_note() -> None:
        nonlocal is_stopping
        if is_stopping:
            _log.info("the process is stopping already; it waits for running requests, and for the disk")
            return
        stop()
        is_stopping = True

    stopped.stop = stop_or_note
