"""Scans of the blocking client."""

from __future__ import annotations

from collections import deque
from typing import Any

from couchbase.exceptions import CouchbaseError
from couchbase.protocol.rangescan import Page
from couchbase.scan import Scan, ScanResult

__all__ = ["BlockingScan"]


class BlockingScan(Scan):
    """An iterator of :class:`couchbase.scan.ScanResult`; in a ``with`` statement, the scan ends with the
    statement."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._ready: deque[ScanResult] = deque()

    def __iter__(self) -> BlockingScan:
        return self

    def __next__(self) -> ScanResult:
        while not self._ready:
            page: Page | None = self._run(self.page_plan())
            if page is None:
                self.accept(None)
                raise StopIteration
            self._ready.extend(self.accept(page))
        return self._ready.popleft()

    def close(self) -> None:
        """End the scan early."""
        self._ready.clear()
        self._is_left = True
        if not self._scanner.is_over:
            try:
                self._run(self._scanner.cancel())
            except CouchbaseError:
                # The server ends the scan by itself.
                self._scanner.is_over = True

    def __enter__(self) -> BlockingScan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, plan: Any) -> Any:
        driver = self._driver
        driver.begin_alone()
        try:
            return driver.cluster.run_plan(plan, driver.cluster.seconds() + self._timeout)
        finally:
            driver.lock.release()
