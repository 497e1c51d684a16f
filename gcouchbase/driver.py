"""Executes greenlets' operations like blocking ones, but concurrently."""

from __future__ import annotations

from time import monotonic
from typing import Any

import gevent
import gevent.socket

from couchbase.blocking import http
from couchbase.blocking.driver import BlockingDriver
from couchbase.blocking.views import Views
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
