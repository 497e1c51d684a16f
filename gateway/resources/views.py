"""``GET|POST .../views/{design}/{view}``: the rows of a view, passed on as the node sends them.

The answer begins with the first rows. From then on the node, the gateway and the client run at the pace of
the slowest: a client that does not read pauses the view, and one that disconnects stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import ViewEngineError
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.errors import describe, public_code
from gateway.dialect.paths import BUCKET
from gateway.fairness.steps import StepRunner
from gateway.http.limits import Budget
from gateway.http.request import Request
from gateway.http.response import BodySink, Response
from gateway.http.routing import endpoint
from gateway.http.tracecontext import forwarded
from gateway.openapi.description import (
    EVENTS,
    JSON,
    LINES,
    Answer,
    Body,
    Example,
    Given,
    Parameter,
    described,
)
from gateway.openapi.errors import LINE_ERROR
from gateway.openapi.schemas import listed, named, nullable, text, thing, whole
from gateway.resources.base import BucketResource, check_accepted
from gateway.resources.listing import DOCUMENT_OF_ROW
from gateway.views.documents import DocumentJoiner
from gateway.views.forms import Form, form_for, one_line_each, streamed
from gateway.views.parameters import ABOUT, ALIASES, PARAMETERS, ViewParameters, read_parameters

__all__ = ["ViewAnswer", "Views", "development_name", "name_of"]

CountOperation = Callable[[str, str, int], None]

_AT_ONCE_BYTES = 64 * 1024
"""Longer bodies are read in a thread, one at a time: a body of 1 MiB may have half a million values."""

QUERY = "query"
"""The operation's name, for errors and metrics."""


class _Relay(AsyncViewBase):
    """A view that passes its rows to a :class:`ViewAnswer`."""

    row_form = "blocks"
    answer: ViewAnswer

    def on_rows(self, rowiter: Iterable[bytes]) -> Any:
        """Pass rows on."""
        return self.answer.take(rowiter)

    def on_error(self, ex: BaseException) -> None:
        """Report the failure."""
        self.answer.failed(ex)

    def on_done(self) -> None:
        """End the answer."""
        self.answer.done()


class _LineRelay(_Relay):
    row_form = "lines"


class ViewAnswer:
    """The answer to one query, produced while it is sent.

    :param begun: fires with the response when the first rows have arrived, or the view is done; fails if the
        query fails before.
    :param joiner: adds documents; ``None`` if none are wanted.
    :param on_end: called once with the outcome (``"ok"`` or an error's code), ``None`` if the failure
        became the response.
    """

    def __init__(
        self,
        form: Form,
        begun: Deferred[Response],
        joiner: DocumentJoiner | None,
        on_end: Callable[[str | None], None],
        log_bug: Callable[[Failure], None],
    ) -> None:
        self._form = form
        self._begun: Deferred[Response] | None = begun
        self._joiner = joiner
        self._on_end: Callable[[str | None], None] | None = on_end
        self._log_bug = log_bug
        self._view: Any = None
        self._sink: BodySink | None = None
        self._unsent: list[bytes] = []
        self._is_paused = False
        self._is_over = False
        self._is_cut = False
        self._has_ended = False
        self._joining: Deferred[None] | None = None
        self._drained: Deferred[None] | None = None

    @property
    def by_lines(self) -> bool:
        """Whether the rows are needed one by one."""
        return self._form.by_lines or self._joiner is not None

    def follow(self, view: _Relay) -> None:
        """Take rows from a view that was just started."""
        self._view = view
        view.answer = self

    # ---- from the view ---------------------------------------------------------------------------

    def take(self, rows: Iterable[bytes]) -> Deferred[None] | None:
        """Take rows; the view waits for a returned Deferred."""
        if self._is_over:
            return None
        taken = list(rows)
        if self.by_lines:
            taken = one_line_each(taken)
        if self._joiner is None:
            self._put(self._form.rows(taken))
            return None
        self._joining = joined = ensureDeferred(self._join(self._joiner, taken))
        return joined

    async def _join(self, joiner: DocumentJoiner, lines: list[bytes]) -> None:
        at = 0
        while at < len(lines) and not self._is_over:
            batch = lines[at : at + joiner.batch_size]
            at += len(batch)
            rows = await joiner.join(batch)
            if self._is_over:
                break
            self._put(self._form.rows(rows))
            if self._is_paused:
                self._drained = Deferred()
                await self._drained

    def done(self) -> None:
        """End the answer: all rows have arrived."""
        self._finish([], is_cut=False)

    def failed(self, error: BaseException) -> None:
        """Report a failure of the view: as an error response if nothing was sent, else as a part of the
        answer."""
        if self._is_over:
            return
        view = self._view
        if isinstance(error, ViewEngineError):
            # The node reported the errors inside a complete answer; so does this answer.
            self._finish(_errors_of_node(view), is_cut=False)
            return
        begun = self._begun
        if begun is not None:
            self._begun = None
            self._is_over = True
            self._end(None)
            begun.errback(error)
            return
        fault = describe(error, QUERY)
        if fault.is_bug:
            self._log_bug(Failure(error))
        entry = {"from": "gateway", "reason": fault.message, **fault.fields()}
        del entry["message"]
        self._finish([*_errors_of_node(view), entry], is_cut=True, outcome=public_code(fault.problem))

    def _finish(self, errors: list[Any], *, is_cut: bool, outcome: str = "ok") -> None:
        if self._is_over:
            return
        view = self._view
        if self._begun is not None:
            # The head first: the tail has only the members that the head lacks.
            self._put(b"")
            if self._is_over:
                return
        tail = self._form.tail(view.meta, errors, None if is_cut else view.rows_returned)
        self._is_cut = is_cut
        self._put(tail)
        if self._is_over:  # the client left while this was written
            return
        self._is_over = True
        self._end(outcome)
        self._close()

    def _put(self, data: bytes) -> None:
        """Send a part of the answer, as soon as the client is ready."""
        begun = self._begun
        if begun is not None:
            self._begun = None
            total = self._view.meta.get("total_rows")
            if not isinstance(total, int):
                total = None
            self._unsent = [part for part in (self._form.head(total), data) if part]
            headers = streamed(self._form)
            if total is not None:
                headers.append((b"X-CB-TotalRows", b"%d" % total))
            begun.callback(Response(200, headers, self))
        elif data:
            if self._sink is None or self._is_paused:
                self._unsent.append(data)
            else:
                self._sink.write(data)

    def _end(self, outcome: str | None) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(outcome)

    # ---- from the channel ------------------------------------------------------------------------

    def start(self, sink: BodySink) -> None:
        """Begin to write."""
        self._sink = sink
        self._write()

    def pause(self) -> None:
        """Stop taking rows from the node: the client reads slowly."""
        self._is_paused = True
        if not self._is_over:
            self._view.pause()

    def resume(self) -> None:
        """Continue: the client has caught up."""
        self._is_paused = False
        self._write()
        if self._is_paused:
            return
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)
        if not self._is_over and not self._is_paused:
            self._view.resume()

    def cancel(self) -> None:
        """Stop the query: the client is gone, or wants no body."""
        self._has_ended = True
        self._unsent.clear()
        if self._is_over:
            return
        self._is_over = True
        # A failure before the answer begins is counted elsewhere; an answer that is never started is for a
        # HEAD request.
        outcome = None if self._begun is not None else "ok" if self._sink is None else "RequestCanceled"
        self._begun = None
        self._view.stop()
        joining, self._joining = self._joining, None
        if joining is not None:
            joining.cancel()
        self._end(outcome)

    def _write(self) -> None:
        sink = self._sink
        if sink is None or self._is_paused:
            return
        unsent, self._unsent = self._unsent, []
        if unsent:
            sink.write(b"".join(unsent))
        self._close()

    def _close(self) -> None:
        """End the body, if all of it was written."""
        if not self._is_over or self._has_ended or self._unsent or self._is_paused or self._sink is None:
            return
        self._has_ended = True
        if self._is_cut:
            self._sink.abort()
        else:
            self._sink.finish()


def _errors_of_node(view: AsyncViewBase) -> list[Any]:
    """Return the errors in the received part of the node's answer."""
    if view.errors:
        return list(view.errors)
    errors = view.meta.get("errors")
    return errors if isinstance(errors, list) else []


def _counted_at_its_end(response: Response, request: Request) -> Response:
    request.operation = ""
    return response


def development_name(name: str, dev: bool) -> str:
    """Return the full name of a design document: ``dev_`` is added unless the name has this prefix."""
    return f"dev_{name}" if dev and not name.startswith("dev_") else name


def name_of(request: Request, parameter: str, dev: bool = False) -> str:
    """Return the design document's name in the path, with ``dev_`` if ``dev`` is set; also for error
    messages."""
    name = development_name(request.parameters[parameter].decode("utf-8"), dev)
    request.parameters[parameter] = name.encode("utf-8")
    return name


_ROW = named(
    "ViewRow",
    thing(
        {
            "id": text(),
            "key": {},
            "value": {},
            "doc": nullable(DOCUMENT_OF_ROW),
            "doc_error": LINE_ERROR,
        },
        "key value",
    ),
)
_ANSWERS = {
    200: Answer(
        "The rows, as the node sends them.",
        {
            JSON: thing(
                {"total_rows": whole(0), "rows": listed(_ROW), "errors": listed({}), "debug_info": {}}, "rows"
            ),
            LINES: text("One row per line."),
            EVENTS: text("One event `row` per row, and `done` at the end."),
        },
        ("X-CB-TotalRows", "Cache-Control", "Vary", "Content-Encoding", "X-Accel-Buffering"),
    )
}
_KINDS = {name: PARAMETERS[ALIASES.get(name, name)] for name in (*PARAMETERS, *ALIASES)}
_QUERY = tuple(
    Parameter(name, ABOUT.get(name) or f"The same as `{ALIASES[name]}`.", kind.query_schema)
    for name, kind in _KINDS.items()
)
_BODY = thing({name: kind.schema for name, kind in _KINDS.items()})
_ERRORS = "DesignDocumentNotFound ViewNotFound ViewFailed"
_MAP = "function (doc, meta) { if (meta.id == 'amber_ale') emit(doc.name, null); }"
_GIVEN = (
    Given("PUT", "/v1/buckets/default/documents/amber_ale", '{"name":"Amber Ale"}'),
    Given(
        "PUT",
        "/v1/buckets/default/designs/ambers?syncwait=60",
        f'{{"views":{{"by_name":{{"map":"{_MAP}"}}}}}}',
    ),
)
_ROWS = {"total_rows": 1, "rows": [{"id": "amber_ale", "key": "Amber Ale", "value": None}]}


class Views(BucketResource):
    """Queries of views."""

    def __init__(
        self,
        authorizer: Authorizer,
        pool: ConnectionPool,
        budget: Budget,
        steps: StepRunner,
        count_operation: CountOperation,
        log_bug: Callable[[Failure], None],
    ) -> None:
        super().__init__(authorizer, pool)
        self._budget = budget
        self._steps = steps
        self._count_operation = count_operation
        self._log_bug = log_bug
        self._reading = DeferredLock()

    @endpoint("get_view", "GET", "/views/<design>/<view>", on=BUCKET, operation=QUERY)
    @described(
        "Views",
        _ANSWERS,
        query=_QUERY,
        headers=("Accept-Encoding",),
        errors=_ERRORS,
        examples=(
            Example(
                "By key",
                200,
                _ROWS,
                query={"key": '"Amber Ale"', "stale": "false"},
                path={"design": "ambers"},
                given=_GIVEN,
            ),
        ),
    )
    def get_view(self, request: Request) -> Any:
        """Query a view; parameters are in the query string."""
        return self._query(request)

    @endpoint("post_view", "POST", "/views/<design>/<view>", on=BUCKET, operation=QUERY)
    @described(
        "Views",
        _ANSWERS,
        query=_QUERY,
        headers=("Accept-Encoding",),
        body=Body({JSON: _BODY}, "Parameters as JSON values.", required=False),
        errors=_ERRORS,
        examples=(
            Example(
                "By keys",
                200,
                _ROWS,
                {"keys": ["Amber Ale"], "stale": "false"},
                path={"design": "ambers"},
                given=_GIVEN,
            ),
        ),
    )
    def post_view(self, request: Request) -> Any:
        """Query a view; parameters are in the query string or the body."""
        return self._query(request)

    def _query(self, request: Request) -> Any:
        form = form_for(request.header(b"Accept"))
        check_accepted(request)
        if request.method != "POST" or len(request.body()) <= _AT_ONCE_BYTES:
            return self.connected(request, self._begin, (form, read_parameters(request)))
        read: Deferred[ViewParameters] = self._reading.run(deferToThread, read_parameters, request)
        return read.addCallback(lambda parameters: self.connected(request, self._begin, (form, parameters)))

    def _begin(
        self, connection: GatewayConnection, request: Request, plan: tuple[Form, ViewParameters]
    ) -> Deferred[Response]:
        form, parameters = plan
        begun: Deferred[Response] = Deferred(lambda _: answer.cancel())
        joiner = None
        if parameters.include_docs:
            joiner = DocumentJoiner(connection.bulk, self._budget, self._steps)

        def on_end(outcome: str | None) -> None:
            self._pool.release(connection)
            if outcome is not None:
                self._count_operation(QUERY, outcome, 1)

        answer = ViewAnswer(form, begun, joiner, on_end, self._log_bug)
        design = name_of(request, "design", parameters.dev)
        view = name_of(request, "view")
        relay = _LineRelay if answer.by_lines else _Relay
        asking = connection.with_headers(forwarded(request))
        answer.follow(asking.queryEx(relay, design, view, query=parameters.query))
        self._pool.lease(connection)
        return begun.addCallback(_counted_at_its_end, request)
