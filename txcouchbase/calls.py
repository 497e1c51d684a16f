"""Running operations on Twisted, which receive their results.

Calls themselves are explained in :mod:`couchbase.protocol.call`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, InternalSDKError
from couchbase.protocol.call import Call
from couchbase.protocol.failures import failed_result
from couchbase.protocol.request import Request
from couchbase.result import AsyncResult, MultiResult

_log = Logger()


class DeferredCall(Call):
    """A call whose end fires a Deferred."""

    __slots__ = ("deferred",)

    deferred: Deferred[Any]

    def succeed(self, result: object) -> None:
        """Fire the Deferred."""
        if self.following is not None and self.following(self, result):
            return
        if not self.done:
            self.done = True
            if self.ended is not None:
                self.ended(self)
            self.deferred.callback(result)

    def fail(self, error: BaseException) -> None:
        """Fire the Deferred with the error, which gets its ``all_results``."""
        if not self.done:
            self._end()
            self.deferred.errback(with_results(self, error))

    def cancelled(self, deferred: Deferred[Any]) -> None:
        """Canceller of the Deferred."""
        self.abandon()


class AsyncCall(Call):
    """A call that ends in an AsyncResult, alone or as one of many."""

    __slots__ = ("async_result",)

    async_result: AsyncResult

    def succeed(self, result: Any) -> None:
        """Pass the result to the AsyncResult's callback."""
        if self.following is not None and self.following(self, result):
            return
        if self.done:
            return
        self.done = True
        if self.ended is not None:
            self.ended(self)
        answer = self.async_result
        answer._remaining = 0
        answer[self.key] = result
        if result._rc:
            answer.all_ok = 0
        try:
            callback = answer.callback
            callback(result)
        except AttributeError:
            report_unset(answer)
        except Exception:  # noqa: BLE001  # a program's callback must not end the connection
            _log.failure("a callback failed")

    def fail(self, error: BaseException) -> None:
        """Pass the error to the AsyncResult's errback."""
        if not self.done:
            self._end()
            answer = self.async_result
            answer._remaining = 0
            answer.all_ok = 0
            if isinstance(error, CouchbaseError):
                answer[self.key] = failed_result(self, error.rc)
                error.all_results = answer
            call_errback(answer, error)


class GroupCall(Call):
    """A call of a multi operation."""

    __slots__ = ("group",)

    group: Group

    def succeed(self, result: Any) -> None:
        """Add the result to the group's."""
        following = self.following
        if following is not None and following(self, result):
            return
        if self.done:
            return
        self.done = True
        if self.ended is not None:
            self.ended(self)
        # Group.add, inlined for nearly all answers.
        group = self.group
        results = group.results
        key = self.key
        left = group.remaining - 1
        if result._rc or not left or key in results:
            group.add(key, result, None)
            return
        group.remaining = left
        if group.counted:
            results._remaining = left  # type: ignore[attr-defined]
        results[key] = result

    def fail(self, error: BaseException) -> None:
        """Add a failed result to the group's."""
        if not self.done:
            self._end()
            if isinstance(error, CouchbaseError):
                result = error.result if error.result is not None else failed_result(self, error.rc)
            else:
                result = failed_result(self, exceptions.ERROR)
            self.group.add(self.key, result, error)


def member_of(request: Request) -> GroupCall:
    """Return a request as one of a multi operation's."""
    call = GroupCall(request.operation, request.key, request.key_bytes, request.quiet, request.decode_value)
    call.extras, call.value, call.framing = request.extras, request.value, request.framing
    if hasattr(request, "specs"):
        call.specs = request.specs
    call.cas, call.replica, call.keyspace = request.cas, request.replica, request.keyspace
    return call


class Group:
    """The calls of one multi operation, and their collected results.

    :param results: filled as answers arrive.
    :param finish: called once, after the last result, with the first error or ``None``.
    """

    __slots__ = ("_finish", "calls", "counted", "error", "remaining", "results")

    def __init__(
        self,
        results: MultiResult,
        count: int,
        finish: Callable[[MultiResult, BaseException | None], None],
    ) -> None:
        self.results = results
        # Whether the results also count the missing ones.
        self.counted = isinstance(results, AsyncResult)
        self.remaining = count
        self.calls: Sequence[Call] = ()
        self.error: BaseException | None = None
        self._finish = finish

    def add(self, key: object, result: Any, error: BaseException | None) -> None:
        """Take the outcome of one operation."""
        results = self.results
        if key in results:
            warnings.warn(f"Found duplicate key {key!r}", RuntimeWarning, stacklevel=2)
        results[key] = result
        if result._rc:
            results.all_ok = 0
        if error is not None and (self.error is None or _goes_before(error, self.error)):
            self.error = error
        self.remaining -= 1
        if self.counted:
            results._remaining = self.remaining  # type: ignore[attr-defined]
        if not self.remaining:
            # Calls refer to their group: a cycle, which the garbage collector would have to find each time.
            self.calls = ()
            if self.error is not None:
                results.all_ok = 0
                if isinstance(self.error, CouchbaseError):
                    self.error.all_results = results
            self._finish(results, self.error)

    def abandon(self, deferred: Deferred[Any]) -> None:
        """Canceller of the group's Deferred: cancel all operations that are not over."""
        for call in self.calls:
            if not call.done:
                call.abandon()


def _goes_before(error: BaseException, other: BaseException) -> bool:
    """Return whether an error is reported in place of an earlier one, as decoding errors are."""
    return not getattr(error, "rc", exceptions.ERROR) and bool(getattr(other, "rc", exceptions.ERROR))


def with_results(call: Call, error: BaseException) -> BaseException:
    """Give an error of a single operation the ``all_results`` that SDK 1.2 promises."""
    if isinstance(error, CouchbaseError) and not error.all_results:
        results = MultiResult()
        results.all_ok = 0
        try:
            results[call.key] = error.result if error.result is not None else failed_result(call, error.rc)
        except TypeError:
            # A custom transcoder may take keys that cannot be hashed.
            pass
        error.all_results = results
    return error


def call_errback(answer: AsyncResult, error: BaseException) -> None:
    """Pass an error to an AsyncResult's errback.

    An operation can fail inside the very call that starts it (a full queue, a closed connection);
    its errback is then called in the next turn, when the caller has set it.
    """
    if hasattr(answer, "errback"):
        _call_errback(answer, error)
    else:
        from twisted.internet import reactor

        cast(IReactorTime, reactor).callLater(0, _call_errback, answer, error)


def _call_errback(answer: AsyncResult, error: BaseException) -> None:
    try:
        answer.errback(answer, type(error), error, error.__traceback__)
    except AttributeError:
        report_unset(answer)
    except Exception:  # noqa: BLE001  # a program's errback must not end the connection
        _log.failure("an errback failed")


def report_unset(answer: AsyncResult) -> None:
    """Log that results arrived for which no callbacks were set (or that a callback is broken)."""
    if not hasattr(answer, "callback") or not hasattr(answer, "errback"):
        error = InternalSDKError.pyexc("a result arrived, and no callback was set", obj=answer)
        _log.error("{error}", error=error)
    else:
        _log.failure("a callback failed")
