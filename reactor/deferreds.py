"""One Deferred with several waiters."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["own", "uncancellable"]

_T = TypeVar("_T")


def own(shared: Deferred[_T]) -> Deferred[_T]:
    """Return a separate Deferred that fires or fails like ``shared``.

    Callbacks of one waiter change nothing for the others, and cancelling the separate Deferred ends only that
    wait. A failure stays with ``shared`` too, which logs it unless it is handled there.
    """
    # The canceller raises an exception for the waiter, and ignores ``shared`` if it fires later.
    mine: Deferred[_T] = Deferred()

    def fired(result: _T | Failure) -> _T | Failure:
        if not mine.called:
            # Each has a Failure of its own: a handled one loses its frames.
            mine.callback(Failure(result.value) if isinstance(result, Failure) else result)
        return result

    shared.addBoth(fired)
    return mine


def uncancellable(work: Deferred[_T]) -> Deferred[_T]:
    """Return a Deferred that fires like ``work``, but does not cancel ``work`` when it is cancelled.

    For work that must not stop half done. ``work`` is consumed: do not add callbacks to it. If the waiter has
    cancelled, the result or failure is dropped.
    """
    mine: Deferred[_T] = Deferred()

    def fired(result: _T | Failure) -> None:
        if not mine.called:
            mine.callback(result)

    work.addBoth(fired)
    return mine
