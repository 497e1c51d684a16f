"""Executes greenlets' operations like blocking ones, but concurrently."""

from __future__ import annotations

from time import monotonic
from typing import Any

import gevent
import gevent.socket

from couchbase.blocking import http
from couchbase.blocking.calls import BlockingCall
from couchbase.blocking.driver import BlockingDriver
from couchbase.blocking.views import Views
from couchbase.blocking.work import outcome
from couchbase.exceptions import CouchbaseError, PipelineError
from couchbase.result import AsyncResult
from couchbase.views.iterator import ViewRequest
from gcouchbase.cluster import GCluster
from gcouchbase.loop import tls_context


class GViews(Views):
    """Views whose queries are sent on creation."""

    def open_view(self, view: Any, request: ViewRequest, limit: float) -> http.Stream:
        """Return the beginning of the answer to a query that was sent before."""
        opened = view._opening.get()
        if isinstance(opened, CouchbaseError):
            raise opened
        stream: http.Stream = opened
        return stream


class GDriver(BlockingDriver):
    """The driver of a :class:`gcouchbase.cluster.GCluster`, whose greenlets need no lock."""

    cluster_type = GCluster
    results_type = AsyncResult
    sockets = gevent.socket
    sleep = staticmethod(gevent.sleep)
    new_context: Any = staticmethod(tls_context)

    def submit(self, request: BlockingCall, durability: tuple[int, int] | None = None) -> Any:
        """Execute one request; with ``durability`` (persist_to, replicate_to), wait for copies.

        There is no pipeline, and no lock.
        """
        if durability is not None or self.dur_persist_to or self.dur_replicate_to:
            return super().submit(request, durability)
        started = monotonic()
        self.cluster.run_one(request, started, started + self.timeout)
        if self.timings is not None:
            self.timings.add(monotonic() - started)
        if request.error is not None:
            return outcome(request)
        return request.result

    @property
    def views(self) -> GViews:
        """The part that queries the view engine."""
        return GViews(self)

    def begin_pipeline(self) -> None:
        """Refuse: operations that greenlets start at the same time are sent together anyway."""
        raise PipelineError.pyexc("asynchronous connections have no pipelines")

    def begin_view(self, request: ViewRequest) -> Any:
        """Send a query; return the answer's beginning, or the exception to raise from the iteration."""
        views = self.views
        try:
            limit = monotonic() + self.views_timeout
            return views.open(views.targets(), request.method, request.path, request.body, limit)
        except CouchbaseError as error:
            return error
