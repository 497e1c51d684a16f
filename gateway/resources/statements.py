"""``POST .../query``: a SQL++ (N1QL) statement, whose rows are passed on as the query service sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers as WebHeaders
from twisted.web.iweb import IResponse

from couchbase.protocol.version import VERSION
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer, CallerCredentials
from gateway.cluster.pool import ConnectionPool
from gateway.cluster.timelimits import parse_seconds
from gateway.dialect.conditions import TIMEOUT
from gateway.dialect.errors import Refusal
from gateway.dialect.paths import BUCKET, SCOPES
from gateway.dialect.places import place_of
from gateway.http.limits import Budget
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.http.tracecontext import forwarded
from gateway.openapi.description import EVENTS, JSON, LINES, Answer, Body, Example, described
from gateway.openapi.schemas import ANY, TEXT, Schema, choice, listed, named, text, thing
from gateway.resources.base import BucketResource, bucket_name, caller_of, check_accepted
from gateway.services.answerscanner import AnswerScanner
from gateway.services.calls import Asked
from gateway.services.kinds import QUERY, Access, Policy
from gateway.services.outgoing import WholeBody
from gateway.services.statementanswer import STATEMENT, StatementAnswer
from gateway.services.statementforms import StatementForm, statement_form_for
from gateway.services.statements import MEMBERS, WORDS, Statement, read_statement
from gateway.services.upstream import Upstream, authorization_of

__all__ = ["Statements"]

CountOperation = Callable[[str, str, int], None]

LATE_SECONDS = 5.0
"""How long after a statement's own time limit the service may still report the timeout, in seconds."""

_SCHEMAS: dict[type, Schema] = {
    str: TEXT, bool: {"type": "boolean"}, int: {"type": "integer"}, float: {"type": "number"},
    list: listed(ANY), dict: {"type": "object"},
}  # fmt: skip


def _schema(name: str, types: tuple[type, ...], about: str) -> Schema:
    if name in WORDS:
        return choice(*WORDS[name], about=about)
    shown = [_SCHEMAS[one] for one in types]
    found = shown[0] if len(shown) == 1 else {"anyOf": shown}
    return {**found, "description": about}


_BODY = Body(
    {
        JSON: named(
            "Statement", thing({name: _schema(name, *row) for name, row in MEMBERS.items()}, more=True)
        )
    },
    "The statement and its parameters; further members `$name` are named parameters.",
)
_ROWS = named(
    "StatementRows",
    thing(
        {
            "requestID": text("The request's id at the query service."),
            "clientContextID": text("The id given in the request, or `X-Request-Id`."),
            "signature": ANY,
            "rows": listed(ANY),
            "status": text("`success`, or the failure after the first rows."),
            "metrics": {"type": "object"},
            "errors": listed(ANY),
            "warnings": listed(ANY),
            "profile": {"type": "object"},
        },
        "rows",
        more=True,
    ),
)
_ANSWERS = {
    200: Answer(
        "The rows. A failure after the first of them is in `errors`.",
        {JSON: _ROWS, LINES: ANY, EVENTS: TEXT},
        ("Cache-Control", "Content-Encoding", "Vary", "X-Accel-Buffering"),
    )
}
_ERRORS = (
    "InvalidStatement IndexNotFound StatementFailed ServiceForbidden ScopeNotFound CollectionNotFound "
    "NoWriteAccess CasMismatch DocumentExists RouteNotFound"
)
_EXAMPLES = (
    Example(
        "Positional parameters; the embedded node has no query service",
        501,
        None,
        {"statement": "SELECT RAW abv FROM beers WHERE name = $1", "args": ["Amber Ale"]},
    ),
)


class _Plan(NamedTuple):
    form: StatementForm
    statement: Statement
    caller: CallerCredentials | None = None


class Statements(BucketResource):
    """Runs statements."""

    # Many parameters: the parts of the gateway that it uses.
    def __init__(
        self,
        authorizer: Authorizer,
        pool: ConnectionPool,
        upstream: Upstream,
        policy: Policy,
        budget: Budget,
        row_limit: int,
        count_operation: CountOperation,
        log_bug: Callable[[Failure], None],
    ) -> None:
        super().__init__(authorizer, pool)
        self._upstream = upstream
        self._access = policy.statements
        self._budget = budget
        self._row_limit = row_limit
        self._count_operation = count_operation
        self._log_bug = log_bug

    @endpoint("post_query", "POST", "/query", on=BUCKET, operation=STATEMENT, takes=TIMEOUT)
    @described(
        "Statements", _ANSWERS, headers=("Accept-Encoding",), body=_BODY, errors=_ERRORS, examples=_EXAMPLES
    )
    def post_query(self, request: Request) -> Any:
        """Run a SQL++ (N1QL) statement, which names buckets, scopes and collections in full."""
        return self._run(request, None)

    @endpoint("post_scope_query", "POST", "/<scope>/query", on=SCOPES, operation=STATEMENT, takes=TIMEOUT)
    @described(
        "Statements", _ANSWERS, headers=("Accept-Encoding",), body=_BODY, errors=_ERRORS, examples=_EXAMPLES
    )
    def post_scope_query(self, request: Request) -> Any:
        """Run a SQL++ (N1QL) statement in the scope, in which collections are named without bucket and
        scope."""
        scope, _ = place_of(request.parameters["scope"].decode("utf-8", "replace"), "_default")
        return self._run(request, f"default:`{bucket_name(request)}`.`{scope}`")

    def _run(self, request: Request, context: str | None) -> Any:
        if self._access is Access.OFF:
            raise Refusal("RouteNotFound", "Statements are off at this gateway (--query off).", resource="")
        request.query()
        form = statement_form_for(request.header(b"Accept"))
        check_accepted(request)
        seconds = request.text_header(b"X-CB-Timeout")
        limit = None if seconds is None else parse_seconds(seconds, "X-CB-Timeout")
        request.check_size()
        statement = read_statement(
            request.body(),
            context=context,
            request_id=request.id,
            must_be_read=self._access is Access.READ_ONLY,
            seconds=limit,
        )
        return self.connected(request, self._begin, _Plan(form, statement))

    def _begin(self, connection: GatewayConnection, request: Request, plan: _Plan) -> Deferred[Response]:
        form, statement = plan.form, plan.statement
        caller = caller_of(request)
        headers = WebHeaders({b"Content-Type": [b"application/json"], b"Accept": [b"application/json"]})
        headers.setRawHeaders("User-Agent", [f"couchgateway/{VERSION}"])
        for name, value in forwarded(request).items():
            headers.setRawHeaders(name, [value])
        authorization = authorization_of(caller)
        if authorization is not None:
            headers.setRawHeaders(b"Authorization", [authorization])
        call = self._upstream.call(
            Asked(QUERY, "POST", b"/query/service", headers, statement.is_read),
            connection,
            caller,
            WholeBody(statement.body),
            None if statement.seconds is None else statement.seconds + LATE_SECONDS,
        )

        def on_end(outcome: str | None) -> None:
            if outcome is not None:
                self._count_operation(STATEMENT, outcome, 1)

        def answered(response: IResponse) -> Deferred[Response]:
            answer = StatementAnswer(
                form,
                call,
                response.code,
                AnswerScanner(self._row_limit),
                statement.is_read,
                self._budget,
                on_end,
                self._log_bug,
            )
            return answer.start_reading()

        started: Deferred[Any] = call.start()
        return started.addCallback(answered).addCallback(_counted_at_its_end, request)


def _counted_at_its_end(response: Response, request: Request) -> Response:
    request.operation = ""
    return response
