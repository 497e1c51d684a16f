"""Listeners for changes of a bucket: all are called in turn, even if one of them raises an exception."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

_log = Logger()


def tell(listeners: Sequence[Callable[[str], None]], bucket: str) -> None:
    """Call each listener with the name of a bucket whose configuration changed."""
    for listener in list(listeners):
        try:
            listener(bucket)
        except Exception:  # noqa: BLE001  # one broken listener must not affect the others
            _log.failure("a listener to configuration changes failed", bucket=bucket)


@inlineCallbacks
def tell_and_wait(
    listeners: Sequence[Callable[[str], Deferred[None]]], bucket: str
) -> Generator[Deferred[Any], Any, None]:
    """Call each listener with the name of a bucket that has no documents any more.

    Fires when all listeners are done; never fails.
    """
    for listener in list(listeners):
        try:
            yield listener(bucket)
        except Exception:  # noqa: BLE001  # the documents are gone, whatever happens to their indexes
            _log.failure("a listener to emptied buckets failed", bucket=bucket)
