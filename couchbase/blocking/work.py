"""A unit of work for a connection: calls to send, and a function that turns their outcomes into a result."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from couchbase import exceptions
from couchbase.blocking.calls import BlockingCall
from couchbase.exceptions import CouchbaseError
from couchbase.protocol.failures import failed_result
from couchbase.result import MultiResult


class Work(NamedTuple):
    """One operation of a connection, single or multi, ready to be executed now or in a pipeline."""

    calls: Sequence[BlockingCall]
    """Calls that are sent first, together with those of the works before and after."""
    finish: Callable[[], Any]
    """Called when they are over; returns the result of the operation, or raises."""
    alone: bool = False
    """Whether ``finish`` itself sends requests to nodes, so that later works have to wait for it."""


def outcome(call: BlockingCall) -> Any:
    """Return the result of a single operation.

    :raises CouchbaseError: it failed; with its ``result`` and ``all_results``.
    """
    error = call.error
    if error is None:
        return call.result
    if isinstance(error, CouchbaseError):
        if error.result is None:
            error.result = failed_result(call, error.rc)
        if not error.all_results:
            results = MultiResult()
            results.all_ok = 0
            results[call.key] = error.result
            error.all_results = results
    raise error


def gather(calls: Sequence[BlockingCall], kind: type[MultiResult] = MultiResult) -> MultiResult:
    """Return the results of a multi operation by key.

    :param kind: class of the returned object.

    :raises CouchbaseError: the first failure, decoding errors before all others; its ``all_results`` has
        every result, including successful ones.
    """
    results = kind()
    first: BaseException | None = None
    for call in calls:
        error = call.error
        result = call.result
        if error is not None:
            code = error.rc if isinstance(error, CouchbaseError) else exceptions.ERROR
            result = getattr(error, "result", None)
            if result is None:
                result = failed_result(call, code)
                if isinstance(error, CouchbaseError):
                    error.result = result
            if first is None or (code == 0 and getattr(first, "rc", exceptions.ERROR) != 0):
                first = error
        elif result._rc:
            results.all_ok = 0
        results[call.key] = result
    if len(results) < len(calls):
        _warn_of_duplicates(calls)
    if first is not None:
        results.all_ok = 0
        if isinstance(first, CouchbaseError):
            first.all_results = results
        raise first
    return results


def _warn_of_duplicates(calls: Sequence[BlockingCall]) -> None:
    seen = set()
    for call in calls:
        if call.key in seen:
            warnings.warn(f"Found duplicate key {call.key!r}", RuntimeWarning, stacklevel=7)
        seen.add(call.key)
