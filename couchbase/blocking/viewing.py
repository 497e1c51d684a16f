"""View queries of the blocking connection, and requests over HTTP in general."""

from __future__ import annotations

from collections.abc import Iterator
from random import randrange
from time import monotonic
from typing import Any
from urllib.parse import quote

from couchbase import exceptions as rc
from couchbase import transcoder
from couchbase.blocking import http
from couchbase.blocking.operating import Operating
from couchbase.exceptions import ArgumentError, CouchbaseError, PipelineError, error_of
from couchbase.result import HttpResult
from couchbase.user_constants import FMT_JSON
from couchbase.views.iterator import AlreadyQueriedError, View, ViewRequest
from couchbase.views.params import Query, make_dvpath
from couchbase.views.rows import RowReader


class Viewing(Operating):
    """``query`` and ``_view``."""

    _bucket: str
    _view_turn = randrange(1 << 16)

    def query(
        self, design: str, view: str, use_devmode: bool = False, itercls: Any = View, **kwargs: Any
    ) -> Any:
        """Return a view object to iterate over; nothing is sent before that.

        :param design: name of the design document.
        :param view: name of the view in it.
        :param use_devmode: put ``dev_`` before the name of the design document, unless it is there.
        :param itercls: class of the object, :class:`couchbase.views.iterator.View` or like it.
        :param kwargs: its other arguments: ``query``, or options by name; ``streaming``, ``include_docs``,
            ``row_processor``.
        :raises ArgumentError: wrong options.
        """
        return itercls(self, with_devmode(design) if use_devmode else design, view, **kwargs)

    def _view(
        self,
        ddoc: str,
        view: str,
        use_devmode: bool = False,
        params: Any = None,
        unrecognized_ok: bool = False,
        passthrough: bool = False,
    ) -> HttpResult:
        """Send one request to a view and return the answer, decoded, without a row object.

        :param params: query string, dict or Query.
        :raises HTTPError: a status outside 200..299.
        """
        if isinstance(params, dict):
            params = Query(passthrough=passthrough, unrecognized_ok=unrecognized_ok, **params)
        query = Query.from_any({} if params is None else params)
        below = make_dvpath(with_devmode(ddoc) if use_devmode else ddoc, view)
        path = f"/{quote(self._bucket, safe='')}/{below}"
        return self._http("GET", path + query.encoded, None, False)

    # --- requests --------------------------------------------------------------------------

    def _http(
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

        :param base: the node; one after the other until one answers, by default.
        :param management: ask the cluster manager instead of the view engine.
        :param raising: whether a bad status is an error.
        """
        self._begin_http()
        try:
            limit = monotonic() + (self._views_timeout if timeout is None else timeout)
            targets = [base] if base is not None else self._targets(management)
            stream = self._open(targets, method, path, body, limit)
            try:
                content = stream.rest(limit)
            finally:
                stream.close()
        finally:
            self._give()
        headers = stream.headers if with_headers else None
        result = HttpResult(0, stream.status, http.decode_body(content, FMT_JSON), path, headers)
        if raising:
            result._maybe_raise()
        return result

    def _begin_http(self) -> None:
        if self._pipeline is not None:
            raise PipelineError.pyexc("views and design documents are not for pipelines")
        self._take()

    def _targets(self, management: bool = False) -> list[http.Target]:
        """Return the nodes that run a service, another one first each time."""
        cluster = self._cluster
        tls = cluster.tls_context is not None
        found = []
        for node in cluster.current_map().nodes:
            port = node.management_port(tls) if management else node.views_port(tls)
            if port is not None:
                found.append(cluster.target(node.host, port))
        if not found:
            what = "a cluster manager" if management else "the view engine"
            raise error_of(
                rc.NOT_SUPPORTED, f"no node of the cluster offers {what}{' over TLS' if tls else ''}"
            )
        self._view_turn += 1
        first = self._view_turn % len(found)
        return found[first:] + found[:first]

    @staticmethod
    def _open(
        targets: list[http.Target], method: str, path: str, body: bytes | None, limit: float
    ) -> http.Stream:
        """Return the beginning of an answer, of the first node that gives one."""
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

    def _open_view(self, view: View, request: ViewRequest, limit: float) -> http.Stream:
        return self._open(self._targets(), request.method, request.path, request.body, limit)

    # --- iteration -------------------------------------------------------------------------

    def _iterate_view(self, view: View) -> Iterator[Any]:
        """Send a view's query and give what its row processor makes of the rows.

        :raises AlreadyQueriedError: it was sent before.
        :raises HTTPError: a status outside 200..299.
        :raises ViewEngineError: errors inside of the answer, unless the query has on_error=continue.
        """
        if view._raw is not None:
            raise AlreadyQueriedError.pyexc("this view was queried before", obj=view)
        request = view.request(self._bucket)
        self._begin_http()
        try:
            limit = monotonic() + self._views_timeout
            stream = self._open_view(view, request, limit)
            raw = view._raw = HttpResult(0, stream.status, None, request.path, None, done=False)
            if not view.streaming or not raw.success:
                try:
                    raw._value = http.decode_body(stream.rest(limit), FMT_JSON)
                    raw._done = True
                finally:
                    stream.close()
        except BaseException:
            self._give()
            raise
        self._give()
        if raw._done:
            raw._maybe_raise()
            yield from self._whole_view(view, raw)
        else:
            try:
                yield from self._streamed_view(view, raw, stream)
            finally:
                stream.close()

    def _whole_view(self, view: View, raw: HttpResult) -> Iterator[Any]:
        answer = raw.value
        if not isinstance(answer, dict) or not isinstance(answer.get("rows", []), list):
            raise _malformed("the answer of the view engine is no object with rows")
        error = view._take_errors(answer)
        if error is not None:
            raise error
        rows = answer.get("rows", [])
        view.rows_returned = len(rows)
        if rows:
            yield from view.row_processor.handle_rows(rows, self, view.include_docs)

    def _streamed_view(self, view: View, raw: HttpResult, stream: http.Stream) -> Iterator[Any]:
        plain = transcoder.decodes_plain_json()
        reader = RowReader("rows" if plain else "lines")
        raw._value = {"rows": []}
        while True:
            self._begin_http()
            try:
                chunk = stream.read(monotonic() + self._views_timeout)
            finally:
                self._give()
            if not chunk:
                break
            rows = reader.feed(chunk)
            raw._value.update(reader.meta)
            if rows:
                view.rows_returned = reader.count
                if not plain:
                    rows = [transcoder.decode_json(row.decode()) for row in rows]
                yield from view.row_processor.handle_rows(rows, self, view.include_docs)
        reader.finish()
        raw._value.update(reader.meta)
        raw._done = True
        error = view._take_errors(raw.value if reader.rows_seen else reader.meta)
        if error is not None:
            raise error


def with_devmode(design: Any) -> Any:
    """Return the name of the development form of a design document.

    :raises ArgumentError: not a text.
    """
    if not isinstance(design, str) or not design:
        raise ArgumentError.pyexc("the name of a design document is a str that is not empty", obj=design)
    return design if design.startswith("dev_") else f"dev_{design}"


def _malformed(message: str) -> CouchbaseError:
    return error_of(rc.PROTOCOL_ERROR, message)
