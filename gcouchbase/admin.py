"""Administration of a cluster for gevent: other greenlets run while a request waits."""

from __future__ import annotations

import couchbase.admin
from couchbase.blocking import http
from gcouchbase.cluster import http_connection

__all__ = ["Admin"]


class Admin(couchbase.admin.Admin):
    """A :class:`couchbase.admin.Admin` whose calls block only their greenlet."""

    def _new_target(self) -> http.Target:
        return super()._new_target()._replace(connector=http_connection)
