"""One Deferred, several who wait for it."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["own", "uncancellable"]

_T = TypeVar("_T")


def own(shared: Deferred[_T]) -> Deferred[_T]:
    """Return a Deferred of one's own that fires with what ``shared`` fires with, or fails as it does.

    Callbacks of one waiter change nothing for the others, and cancelling one's own Deferred ends only that
    wait. A failure stays with ``shared`` too, which logs it unless somebody handles it there.
    """
    # With a canceller of its own: an exception for who waits, and silence when ``shared`` fires later.
    mine: Deferred[_T] = Deferred()

    def fired(result: _T | Failure) -> _T | Failure:
        if not mine.called:
            # Each has a Failure of its own: a handled one loses its frames.
            mine.callback(Failure(result.value) if isinstance(result, Failure) else result)
        return result

    shared.addBoth(fired)
    return mine


def uncancellable(work: Deferred[_T]) -> Deferred[_T]:
    """Return a Deferred that fires as ``work`` does, and whose cancelling does not reach ``work``.

    For work that must not stop half done. ``work`` is used up: nobody else may add callbacks to it. If who
    waits has cancelled, the result, a failure too, is dropped.
    """
    mine: Deferred[_T] = Deferred()

    def fired(result: _T | Failure) -> None:
        if not mine.called:
            mine.callback(result)

    work.addBoth(fired)
    return mine
