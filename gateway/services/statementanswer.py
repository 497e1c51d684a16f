"""The answer to a statement, produced while the query service sends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from gateway.dialect.errors import Refusal, describe, public_code
from gateway.dialect.jsontools import is_json, loads
from gateway.http.limits import SMALL_BYTES, Budget
from gateway.http.response import BodySink, Response
from gateway.services.answerscanner import ROWS, AnswerScanner, BadAnswer
from gateway.services.calls import ServiceCall
from gateway.services.statementerrors import refusal_of
from gateway.services.statementforms import StatementForm
from gateway.views.forms import one_line_each, streamed

__all__ = ["STATEMENT", "StatementAnswer"]

STATEMENT = "statement"
"""The operation's name, for errors and metrics."""

_SUCCESS = (b'"success"', b'"completed"')


class StatementAnswer:
    """One answer, which begins with the first rows; if a statement fails before that, the answer is an error.

    :param call: a started call, which the service has answered.
    :param http_status: HTTP status of the service's answer.
    :param scanner: a scanner for this answer.
    :param is_read: whether the statement cannot change anything.
    :param budget: memory for a row that is not complete.
    :param on_end: called once with the outcome, ``None`` if the failure became the response.
    """

    # Many parameters: everything that an answer needs of the gateway.
    def __init__(
        self,
        form: StatementForm,
        call: ServiceCall,
        http_status: int,
        scanner: AnswerScanner,
        is_read: bool,
        budget: Budget,
        on_end: Callable[[str | None], None],
        log_bug: Callable[[Failure], None],
    ) -> None:
        self._form = form
        self._call = call
        self._http_status = http_status
        self._scanner = scanner
        self._is_read = is_read
        self._budget = budget
        self._reserved = 0
        self._on_end: Callable[[str | None], None] | None = on_end
        self._log_bug = log_bug
        self._begun: Deferred[Response] | None = Deferred(lambda _: self.cancel())
        self._sink: BodySink | None = None
        self._unsent: list[bytes] = []
        self._count = 0
        self._is_paused = False
        self._is_cut = False
        self._is_over = False

    def start_reading(self) -> Deferred[Response]:
        """Read the service's answer; fires with the response. Cancelling it ends the statement."""
        begun = self._begun
        assert begun is not None
        self._call.read(self)
        return begun

    # ---- from the service ------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Pass on the rows that a part completes."""
        if self._is_over:
            return
        try:
            rows = self._scanner.feed(data)
        except BadAnswer as error:
            self._broken(str(error))
            return
        if not self._hold(self._scanner.held):
            self._call.cancel()
            self._fail(Refusal("Overloaded", "There is no memory left for a row of this size.", ""))
            return
        if rows:
            self._count += len(rows)
            self._put(self._form.rows(one_line_each(rows) if self._form.by_lines else rows))

    def ended(self, error: CouchbaseError | None) -> None:
        """End the answer."""
        if self._is_over:
            return
        if error is not None:
            self._fail(error)
            return
        try:
            self._scanner.finish()
            members = self._members()
            errors = self._errors(members)
        except (BadAnswer, ValueError) as bad:
            self._broken(str(bad))
            return
        failed = errors or members.get("status", _SUCCESS[0]) not in _SUCCESS or self._http_status != 200
        if failed and self._begun is not None:
            self._refuse(refusal_of(errors, self._http_status, is_read=self._is_read))
            return
        outcome = "ok"
        if failed:
            outcome = public_code(refusal_of(errors, self._http_status, is_read=self._is_read).problem)
        self._finish(errors, self._count, outcome)

    def _members(self) -> dict[str, bytes]:
        members = dict(self._scanner.members)
        members.pop(ROWS, None)
        for name, text in members.items():
            if not is_json(text):
                raise BadAnswer(f"its member {name[:80]!r} is not JSON")
        return members

    @staticmethod
    def _errors(members: dict[str, bytes]) -> list[Any]:
        found = loads(members.pop("errors", b"[]"))
        return found if isinstance(found, list) else [found]

    def _hold(self, size: int) -> bool:
        """Reserve memory for a row that is not complete yet; return false if there is none."""
        wanted = size if size > SMALL_BYTES else 0
        more = wanted - self._reserved
        if more > 0:
            if not self._budget.take(more):
                return False
        elif more < 0:
            self._budget.adjust(more)
        self._reserved = wanted
        return True

    def _broken(self, why: str) -> None:
        if self._http_status != 200 and self._begun is not None:
            # The status tells more: the service, or a proxy in front of it, has sent no JSON.
            self._call.cancel()
            self._refuse(refusal_of([], self._http_status, is_read=self._is_read))
            return
        error = error_of(exceptions.NETWORK_ERROR, f"the query service at {self._call.base}: {why}")
        error.ambiguous = not self._is_read
        self._call.cancel()
        self._fail(error)

    def _fail(self, error: CouchbaseError | Refusal) -> None:
        """Report a failure: as an error if nothing was sent, else as a part of the answer."""
        if self._begun is not None:
            self._refuse(error)
            return
        fault = describe(error, STATEMENT)
        if fault.is_bug:
            self._log_bug(Failure(error))
        self._is_cut = True
        self._finish([{"from": "gateway", **fault.fields()}], None, public_code(fault.problem))

    def _refuse(self, error: Exception) -> None:
        begun, self._begun = self._begun, None
        self._is_over = True
        self._end(None)
        if begun is not None:
            begun.errback(error)

    def _finish(self, errors: list[Any], count: int | None, outcome: str) -> None:
        try:
            members = self._members()
            members.pop("errors", None)
        except BadAnswer:  # of an answer that was cut
            members = {}
        if self._begun is not None:
            self._put(b"")
        self._put(self._form.end(members, errors, count))
        if self._is_over:  # the client left while this was written
            return
        self._is_over = True
        self._end(outcome)
        self._close()

    def _end(self, outcome: str | None) -> None:
        self._hold(0)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(outcome)

    # ---- to the client ---------------------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        """Send a part of the answer, as soon as the client is ready."""
        begun = self._begun
        if begun is not None:
            self._begun = None
            known = {name: text for name, text in self._scanner.members.items() if is_json(text)}
            for name in ("errors", ROWS):
                known.pop(name, None)
            self._unsent = [part for part in (self._form.begin(known), data) if part]
            headers = streamed(self._form)
            begun.callback(Response(200, headers, self))
        elif not data:
            return
        elif self._sink is None or self._is_paused:
            self._unsent.append(data)
        else:
            self._sink.write(data)

    def start(self, sink: BodySink) -> None:
        """Begin to write."""
        self._sink = sink
        self._write()

    def pause(self) -> None:
        """Stop reading from the service: the client reads slowly."""
        self._is_paused = True
        if not self._is_over:
            self._call.pause()

    def resume(self) -> None:
        """Continue to read: the client has caught up."""
        self._is_paused = False
        self._write()
        if not self._is_paused and not self._is_over:
            self._call.resume()

    def cancel(self) -> None:
        """End the statement: the client is gone, or needs no body. The service ends statements whose
        connection is closed."""
        sink, self._sink = self._sink, None
        self._unsent.clear()
        if self._is_over:
            return
        self._is_over = True
        outcome = None if self._begun is not None else "ok" if sink is None else "RequestCanceled"
        self._begun = None
        self._call.cancel()
        self._end(outcome)

    def _write(self) -> None:
        if self._sink is None or self._is_paused:
            return
        unsent, self._unsent = self._unsent, []
        if unsent:
            self._sink.write(b"".join(unsent))
        self._close()

    def _close(self) -> None:
        """End the body, if all of it was written."""
        if not self._is_over or self._unsent or self._is_paused or self._sink is None:
            return
        sink, self._sink = self._sink, None
        if self._is_cut:
            sink.abort()
        else:
            sink.finish()
