"""View queries of the blocking connection, and requests over HTTP in general."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any, Protocol

from couchbase import exceptions, transcoder
from couchbase.blocking import http
from couchbase.blocking.cluster import Cluster
from couchbase.blocking.threadlock import ThreadLock
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.result import HttpResult
from couchbase.user_constants import FMT_JSON
from couchbase.views.iterator import AlreadyQueriedError, ReadsDocuments, View, ViewRequest
from couchbase.views.rows import RowReader


class Service(Protocol):
    """The driver's interface to :class:`Views`."""

    bucket: str
    cluster: Cluster
    views_timeout: float
    view_turn: int
    lock: ThreadLock

    def begin_alone(self) -> None:
        """Take the connection for a request over HTTP."""


class Views:
    """Requests to nodes over HTTP, mainly view queries."""

    def __init__(self, driver: Service) -> None:
        self.driver = driver

    # ---- requests --------------------------------------------------------------------------------

    # Many parameters: the parts of one HTTP request, each a value of its own.
    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        with_headers: bool = True,
        *,
        base: http.Target | None = None,
        management: bool = False,
        timeout: float | None = None,
        raising: bool = True,
    ) -> HttpResult:
        """Send a request to a node and return the whole answer.

        :param base: the node; by default, nodes are tried in turn until one answers.
        :param management: whether to ask the cluster manager instead of the view engine.
        :param raising: whether a bad status is an error.
        """
        self.driver.begin_alone()
        try:
            limit = monotonic() + (self.driver.views_timeout if timeout is None else timeout)
            targets = [base] if base is not None else self.targets(management)
            stream = self.open(targets, method, path, body, limit)
            try:
                content = stream.rest(limit)
            finally:
                stream.close()
        finally:
            self.driver.lock.release()
        headers = stream.headers if with_headers else None
        result = HttpResult(0, stream.status, http.decode_body(content, FMT_JSON), path, headers)
        if raising:
            result._maybe_raise()
        return result

    def targets(self, management: bool = False) -> list[http.Target]:
        """Return the nodes that run a service, starting with a different one each time."""
        cluster = self.driver.cluster
        tls = cluster.tls_context is not None
        found = []
        for node in cluster.current_map().nodes:
            port = node.management_port(tls) if management else node.views_port(tls)
            if port is not None:
                found.append(cluster.target(node.host, port))
        if not found:
            what = "a cluster manager" if management else "the view engine"
            secure = " over TLS" if tls else ""
            hint = "" if management else "; on couchnode, install it with: pip install 'couchgateway[views]'"
            raise error_of(exceptions.NOT_SUPPORTED, f"no node of the cluster offers {what}{secure}{hint}")
        self.driver.view_turn += 1
        first = self.driver.view_turn % len(found)
        return found[first:] + found[:first]

    @staticmethod
    def open(
        targets: list[http.Target], method: str, path: str, body: bytes | None, limit: float
    ) -> http.Stream:
        """Return the beginning of the answer of the first node that gives one."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        error: CouchbaseError | None = None
        for target in targets:
            left = limit - monotonic()
            if error is not None and left <= 0:
                break
            try:
                return http.Stream(target, method, path, body=body, headers=headers, timeout=left)
            except CouchbaseError as failure:
                error = failure
        assert error is not None
        raise error

    def open_view(self, view: View, request: ViewRequest, limit: float) -> http.Stream:
        """Send a view's query; returns the answer's beginning."""
        return self.open(self.targets(), request.method, request.path, request.body, limit)

    # ---- iteration -------------------------------------------------------------------------------

    def iterate(self, view: View, connection: ReadsDocuments) -> Iterator[Any]:
        """Send a view's query and yield the row processor's output.

        :raises AlreadyQueriedError: the query was sent before.
        :raises HTTPError: a status outside 200..299.
        :raises ViewEngineError: errors inside of the answer, unless the query has on_error=continue.
        """
        if view._raw is not None:
            raise AlreadyQueriedError.pyexc("this view was queried before", obj=view)
        request = view.request(self.driver.bucket)
        self.driver.begin_alone()
        try:
            limit = monotonic() + self.driver.views_timeout
            stream = self.open_view(view, request, limit)
            raw = view._raw = HttpResult(0, stream.status, None, request.path, None, done=False)
            if not view.streaming or not raw.success:
                try:
                    raw._value = http.decode_body(stream.rest(limit), FMT_JSON)
                    raw._done = True
                finally:
                    stream.close()
        except BaseException:
            self.driver.lock.release()
            raise
        self.driver.lock.release()
        if raw._done:
            raw._maybe_raise()
            yield from self._whole_view(view, raw, connection)
        else:
            try:
                yield from self._streamed_view(view, raw, stream, connection)
            finally:
                stream.close()

    def _whole_view(self, view: View, raw: HttpResult, connection: ReadsDocuments) -> Iterator[Any]:
        answer = raw.value
        if not isinstance(answer, dict) or not isinstance(answer.get("rows", []), list):
            raise _malformed("the answer of the view engine is not an object with rows")
        error = view._take_errors(answer)
        if error is not None:
            raise error
        rows = answer.get("rows", [])
        view.rows_returned = len(rows)
        if rows:
            yield from view.row_processor.handle_rows(rows, connection, view.include_docs)

    def _streamed_view(
        self, view: View, raw: HttpResult, stream: http.Stream, connection: ReadsDocuments
    ) -> Iterator[Any]:
        plain = transcoder.decodes_plain_json()
        reader = RowReader("rows" if plain else "lines")
        raw._value = {"rows": []}
        while True:
            self.driver.begin_alone()
            try:
                chunk = stream.read(monotonic() + self.driver.views_timeout)
            finally:
                self.driver.lock.release()
            if not chunk:
                break
            rows = reader.feed(chunk)
            raw._value.update(reader.meta)
            if rows:
                view.rows_returned = reader.count
                if not plain:
                    rows = [transcoder.decode_json(row.decode()) for row in rows]
                yield from view.row_processor.handle_rows(rows, connection, view.include_docs)
        reader.finish()
        raw._value.update(reader.meta)
        raw._done = True
        error = view._take_errors(raw.value if reader.rows_seen else reader.meta)
        if error is not None:
            raise error


def _malformed(message: str) -> CouchbaseError:
    return error_of(exceptions.PROTOCOL_ERROR, message)
