"""The interface of drivers, which execute a connection's operations, and their settings.

A connection holds a driver. Its methods check arguments and build requests, the same for every driver; the
driver decides how a request is executed: with a result, a Deferred, or a waiting greenlet. Drivers are in
:mod:`couchbase.blocking`, ``txcouchbase`` and ``gcouchbase``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, Generic, NoReturn, TypeVar

from couchbase.exceptions import NotSupportedError, ObjectThreadError, PipelineError
from couchbase.items import ItemCollection
from couchbase.protocol import durability
from couchbase.protocol.request import Request
from couchbase.timings import Timings
from couchbase.views.iterator import ReadsDocuments, View

CallT = TypeVar("CallT", bound=Request)
"""The requests that a driver takes: its own kind of calls."""


class Driver(Generic[CallT]):
    """Base of drivers: settings, and refusals of operations that a driver does not support."""

    cluster: Any
    """The driver's :class:`couchbase.protocol.dispatch.Dispatcher`."""
    scan_type: type[Any]
    """The driver's kind of :class:`couchbase.scan.Scan`."""

    def __init__(self) -> None:
        self.timeout = 2.5
        """Timeout of an operation, in seconds."""
        self.views_timeout = 75.0
        """Timeout of a request to a view, in seconds."""
        self.http_timeout = 75.0
        self.http_redirects = 3
        self.durability_timeout = durability.DEFAULT_TIMEOUT_SECONDS
        self.durability_interval = durability.MUTATION_INTERVAL_SECONDS
        self.skip_configuration_errors = False
        # The requirements of a durability context; the timeout in microseconds, 0 for the default.
        self.dur_persist_to = self.dur_replicate_to = self.dur_timeout = 0
        self.dur_testhook: Callable[[Any], Any] | None = None
        self.timings: Timings | None = None
        """Records how long operations take, if enabled."""

    @property
    def level_ms(self) -> int:
        """The cluster's timeout for a durability level in milliseconds: nine tenths of the operation's
        timeout, as with official clients."""
        return int(self.timeout * 900)

    # ---- operations ------------------------------------------------------------------------------

    def submit(self, request: CallT, durability: tuple[int, int] | None = None) -> Any:
        """Execute one request; with ``durability`` (persist_to, replicate_to), wait for copies."""
        raise NotImplementedError

    def submit_level(self, request: CallT) -> Any:
        """Execute a synchronous write (one with a durability level)."""
        return self.submit(request)

    def submit_to_replica(self, request: CallT) -> Any:
        """Execute a read whose ``replica`` is an index, or -1: replicas one after the other until one has the
        document."""
        raise NotImplementedError

    def submit_multi(self, requests: Sequence[Any], durability: tuple[int, int] | None = None) -> Any:
        """Execute many requests, of which either all have a ``replica``, or none has one."""
        raise NotImplementedError

    def submit_observe(self, documents: Sequence[Request], master_only: bool, single: bool) -> Any:
        """Ask every node that holds the documents for their state; they are in one collection."""
        raise NotImplementedError

    def submit_endure(
        self,
        documents: Sequence[Request],
        persist_to: int,
        replicate_to: int,
        timeout: float,
        interval: float,
        check_removed: bool,
        single: bool,
    ) -> Any:
        """Wait until enough nodes hold documents, which are in one collection; ``cas`` 0 is any version."""
        raise NotImplementedError

    def submit_stats(self, groups: Sequence[str]) -> Any:
        """Ask every node for statistics."""
        raise NotImplementedError

    def extend_items(
        self, method: Callable[..., Any], items: ItemCollection, options: Mapping[str, Any], before: bool
    ) -> Any:
        """Append (or prepend) to the documents of items with a multi operation, and to the items' values."""
        raise NotSupportedError.pyexc(
            "this connection does not support items; use append_multi or prepend_multi"
        )

    # ---- operations of some drivers only ---------------------------------------------------------

    def begin_pipeline(self) -> None:
        """Collect operations from now on."""
        raise PipelineError.pyexc("asynchronous connections have no pipelines")

    def end_pipeline(self) -> list[Any]:
        """Execute the collected operations; returns their results."""
        raise PipelineError.pyexc("no pipeline was started")

    def lock_by_hand(self, op: int) -> None:
        """Take (0) or release (1) the connection's lock."""
        raise ObjectThreadError.pyexc("a connection with LOCKMODE_NONE has no lock")

    def view_once(self, path: str) -> Any:
        """Send one request to a view and return the whole answer."""
        raise NotSupportedError.pyexc("this connection queries views with queryEx and queryAll")

    def iterate_view(self, view: View, connection: ReadsDocuments) -> NoReturn | Any:
        """Send a view's query and return an iterator over the row processor's output."""
        raise NotImplementedError("rows are passed to callbacks: use queryEx or queryAll")

    def close(self) -> None:
        """Close every connection to the cluster."""
        self.cluster.close()
