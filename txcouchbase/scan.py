"""Scans of the Twisted client."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from couchbase.scan import Scan, ScanResult

__all__ = ["DeferredScan"]


class DeferredScan(Scan):
    """A scan whose pages are Deferreds; in a coroutine also an asynchronous iterator of results."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._ready: deque[ScanResult] = deque()

    def next_page(self) -> Deferred[list[ScanResult]]:
        """Get the next results; fires with an empty list after the last. One call at a time.

        If it is cancelled, the servers end what they have begun; another call goes on after the last result.
        """
        return self.next_rows().addCallback(self.accept)

    def next_rows(self) -> Deferred[Any]:
        """Get the next page unconverted: keys as bytes, or :class:`couchbase.protocol.scanpages.Document`."""
        return self._run(self.page_plan()).addErrback(self._given_up)

    def _given_up(self, failure: Failure) -> Failure:
        if failure.check(CancelledError) and not self._is_left:
            self._run(self._scanner.pause()).addErrback(lambda _: None)
        return failure

    def close(self) -> Deferred[None]:
        """End the scan early; fires when the servers have ended it, too."""
        self._ready.clear()
        self._is_left = True
        if self._scanner.is_over:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        return self._run(self._scanner.cancel()).addErrback(lambda _: None)

    def __aiter__(self) -> DeferredScan:
        return self

    async def __anext__(self) -> ScanResult:
        if not self._ready:
            self._ready.extend(await self.next_page())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def _run(self, plan: Any) -> Deferred[Any]:
        driver = self._driver
        running: Deferred[Any]
        if driver.cluster.map is not None:
            running = driver.cluster.run(plan)
        else:
            running = driver.ready().addCallback(lambda _: driver.cluster.run(plan))
        return running
