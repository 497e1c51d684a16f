"""Long work, in pieces or outside the reactor's thread."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from couchnode.data.item import Item

LARGE_BYTES = 64 * 2**10
"""Work on a document and a request that together have this size is done in a thread: a megabyte takes 100 ms
or more."""

MAX_THREADS = 2
"""Threads that work at once. The reactor's thread waits some milliseconds for each of them in turn."""

_T = TypeVar("_T")
_U = TypeVar("_U")


class InTurn(Deferred[_T]):
    """An answer that must be complete before later requests are handled: the commands of one connection take
    effect in order."""


def work_aside(clock: IReactorTime, size: int, work: Callable[[], _T]) -> _T | InTurn[_T]:
    """Do some work now, or in a thread if it concerns many bytes and ``clock`` is a reactor with threads.

    :param work: must not change anything that others see.
    """
    if size < LARGE_BYTES or not IReactorThreads.providedBy(clock):
        return work()
    done: InTurn[_T] = InTurn()
    _limit(clock).run(deferToThreadPool, clock, clock.getThreadPool(), work).chainDeferred(done)
    return done


def with_datatype(clock: IReactorTime, item: Item | None, answer: Callable[[], _T]) -> _T | InTurn[_T]:
    """Call ``answer`` now, or as soon as the datatype of a long value is known.

    :param item: the document whose datatype is needed; ``None`` if there is none.
    """
    if item is None or not item.is_unchecked:
        return answer()
    unchecked = item
    return then(work_aside(clock, len(item.value), lambda: unchecked.datatype), lambda _: answer())


def work_in_turns(clock: IReactorTime, work: Generator[None, None, _T]) -> _T | InTurn[_T]:
    """Do some work up to its first ``yield`` now, and each further piece in a later turn of the reactor.

    :raises Exception: the work failed in its first piece; later failures fail the Deferred.
    """
    done: InTurn[_T] = InTurn()

    def go_on() -> None:
        try:
            next(work)
        except StopIteration as end:
            done.callback(end.value)
        except Exception:  # noqa: BLE001  # passed on
            done.errback(Failure())
        else:
            clock.callLater(0, go_on)

    try:
        next(work)
    except StopIteration as end:
        return end.value
    clock.callLater(0, go_on)
    return done


@lru_cache(maxsize=1)
def _limit(clock: IReactorThreads) -> DeferredSemaphore:
    return DeferredSemaphore(MAX_THREADS)


def then(result: _T | InTurn[_T], following: Callable[[_T], _U]) -> _U | InTurn[_U]:
    """Call ``following`` with a result, now or as soon as the result is available."""
    if isinstance(result, InTurn):
        result.addCallback(following)
        return result  # type: ignore[return-value]
    return following(result)
