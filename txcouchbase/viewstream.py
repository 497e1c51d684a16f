"""One running view query: passes rows from the answering node to the view object, at the view's pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from couchbase import exceptions
from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.views.iterator import ViewRequest
from reactor.clock import cancel_timer
from reactor.shutdown import has_ended
from txcouchbase.causes import network_error
from txcouchbase.http import VIEWS, HttpService, abort, collect, http_error

_log = Logger()

# Decoded rows from this number of bytes stay in the processor's cache until on_rows has handled them.
_PIECE_BYTES = 2**13
_MAX_REFUSAL_BYTES = 2**20
# How an answer ends that was not cut off.
_WHOLE = (ResponseDone, PotentialDataLoss)


class ViewStream:
    """One running view query: asks nodes until one answers, and passes its bytes to the view.

    :param view: an :class:`AsyncViewBase`; dropped when it is done.
    :param request: the request to send.
    :param timeout: seconds without progress.
    """

    def __init__(self, http: HttpService, view: AsyncViewBase, request: ViewRequest, timeout: float) -> None:
        self._http = http
        self._view: AsyncViewBase | None = view
        self._request = request
        self._timeout = timeout
        self._reactor = http.client.reactor
        self._seconds: Callable[[], float] = http.client.seconds
        self._progress = self._seconds()
        self._timer: Any = None
        self._nodes: list[str] = []
        self._base = ""
        self._last: BaseException | None = None
        self._asked: Deferred[Any] | None = None
        self._body: _BodyReader | None = None
        # Bytes read but not passed on yet: those of the turn in which the view was paused.
        self._pieces: deque[bytes] = deque()
        self._ended: Failure | None = None
        self._gave_last = False
        self._waiting: Deferred[Any] | None = None
        self._working = False
        self._cut = view.row_form == "rows"
        http.running.add(self)

    # ---- for the view ----------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop reading."""
        self._set_reading()

    def resume(self) -> None:
        """Read on."""
        self._progress = self._seconds()
        self._reactor.callLater(0, self._work)

    def stop(self) -> None:
        """Close the connection."""
        self._end(close=True)

    def closed(self) -> None:
        """Fail: the connection object was closed."""
        self._fail(_closed())

    # ---- asking ----------------------------------------------------------------------------------

    def begin(self, ready: Callable[[], Callable[[], Deferred[None]] | None]) -> None:
        """Ask as soon as there is a map.

        :param ready: weak reference to a function that returns a Deferred, which fires when there is a map.
        """
        if self._view is None:
            return
        when_ready = ready()
        self._progress = self._seconds()
        self._arm(self._timeout)
        if when_ready is None or self._http.client.closed:
            self._fail(_closed())
        elif self._http.client.map is not None:
            self._choose(None)
        else:
            when_ready().addCallbacks(self._choose, lambda failure: self._fail(failure.value))

    def _choose(self, _: object) -> None:
        try:
            self._nodes = self._http.addresses(VIEWS)
        except CouchbaseError as error:
            self._fail(error)
        else:
            self._ask()

    def _ask(self) -> None:
        if self._view is None:
            return
        if not self._nodes:
            self._fail(http_error(self._base, self._last or network_error("no node")))
            return
        self._base = self._nodes.pop(0)
        method, path, body = self._request
        headers = None if body is None else {"Content-Type": "application/json"}
        try:
            asked = self._http.request(method, self._base + path, body, headers, repeats=True)
        except ValueError:
            # The node's name in the map, or a header, cannot be sent.
            asked = fail()
        self._asked = asked
        asked.addCallbacks(self._answered, self._missed)

    def _missed(self, failure: Failure) -> None:
        self._asked = None
        self._last = failure.value
        self._ask()

    def _answered(self, response: Any) -> None:
        self._asked = None
        view = self._view
        self._progress = self._seconds()
        self._body = body = _BodyReader(self)
        if view is None:
            response.deliverBody(body)
            abort(body.transport)
        elif 200 <= response.code <= 299:
            view._answered(self._request.path, response.code)
            self._gave_last, self._ended = False, None
            response.deliverBody(body)
            self._set_reading()
        else:
            self._asked = collect(response, _MAX_REFUSAL_BYTES)
            self._asked.addCallbacks(self._refused, self._missed, callbackArgs=(response.code,))

    def _refused(self, body: bytes, status: int) -> None:
        view = self._view
        if view is not None:
            self._end()
            self._call(view._refused, self._request.path, status, body)

    # ---- the answer ------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take a piece of the answer."""
        self._progress = self._seconds()
        if self._view is not None:
            if self._cut and len(data) > _PIECE_BYTES:
                self._pieces.extend(data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))
            else:
                self._pieces.append(data)
            self._work()

    def ended(self, reason: Failure) -> None:
        """Take note that the answer, or its connection, ended."""
        if has_ended(self._reactor):
            return
        self._ended = reason
        self._body = None
        self._work()

    def _work(self) -> None:
        """Pass on the bytes read, as far as the view wants them now."""
        if self._working:
            return
        self._working = True
        try:
            while True:
                view = self._view
                if view is None or view._paused or self._waiting is not None:
                    break
                if self._pieces:
                    outcome = view._received(self._pieces.popleft())
                elif self._ended is None:
                    break
                elif self._begins_again(view):
                    return
                elif not self._gave_last:
                    self._gave_last = True
                    outcome = view._last_rows()
                else:
                    self._conclude(view, self._ended)
                    return
                if outcome is not None:
                    self._wait_for(outcome)
        except Exception as error:  # noqa: BLE001  # any exception of a program's callback is passed to the view
            self._fail(error)
        finally:
            self._working = False
        self._set_reading()

    def _wait_for(self, outcome: Any) -> None:
        if not isinstance(outcome, Deferred):
            if not hasattr(outcome, "__await__"):
                return
            outcome = ensureDeferred(outcome)
        self._waiting = outcome
        outcome.addCallbacks(self._waited, self._waited_in_vain)

    def _waited(self, _: object) -> None:
        self._waiting = None
        self._progress = self._seconds()
        if not self._working:
            self._work()

    def _waited_in_vain(self, failure: Failure) -> None:
        self._waiting = None
        self._fail(_value(failure))

    def _begins_again(self, view: AsyncViewBase) -> bool:
        """Ask the next node if this one's answer was cut off before its first row."""
        ended = self._ended
        if ended is None or isinstance(ended.value, _WHOLE):
            return False
        if view.rows_returned or not self._nodes:
            return False
        self._last, self._ended = ended.value, None
        self._ask()
        return True

    def _conclude(self, view: AsyncViewBase, ended: Failure) -> None:
        self._end()
        if isinstance(ended.value, _WHOLE):
            self._call(view._finished)
        else:
            error = http_error(self._base, _value(ended))
            error.message = f"the answer was cut off after {view.rows_returned} rows: {error.message}"
            self._call(view._cut, error)

    def _set_reading(self) -> None:
        """Stop reading from the socket while no rows are wanted."""
        view, body = self._view, self._body
        if view is None or body is None or body.transport is None:
            return
        wanted = not view._paused and self._waiting is None
        if wanted != body.reading:
            body.reading = wanted
            if wanted:
                body.transport.resumeProducing()  # type: ignore[attr-defined]
            else:
                body.transport.pauseProducing()  # type: ignore[attr-defined]

    # ---- the end ---------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self._timer = self._reactor.callLater(seconds, self._check_progress)

    def _check_progress(self) -> None:
        self._timer = None
        view = self._view
        if view is None:
            return
        if view._paused or self._waiting is not None:
            self._progress = self._seconds()
        left = self._progress + self._timeout - self._seconds()
        if left > 0:
            self._arm(left)
            return
        self._fail(error_of(exceptions.ETIMEDOUT, f"the view engine sent nothing for {self._timeout:g} s"))

    def _fail(self, error: BaseException) -> None:
        view = self._view
        if view is not None:
            self._end(close=True)
            self._call(view._failed, error)

    def _end(self, close: bool = False) -> None:
        """Release everything, so that neither a timer nor a socket keeps the view or its connection alive."""
        self._view = None
        self._http.running.discard(self)
        self._pieces.clear()
        self._waiting = None
        timer, self._timer = self._timer, None
        cancel_timer(timer)
        asked, self._asked = self._asked, None
        body, self._body = self._body, None
        if body is not None:
            body.stream = None
        if close:
            if asked is not None:
                asked.addErrback(lambda _: None)
                asked.cancel()
            if body is not None:
                abort(body.transport)

    @staticmethod
    def _call(callback: Callable[..., Any], *args: object) -> None:
        try:
            callback(*args)
        except Exception:  # noqa: BLE001  # a program's callback must not end the connection
            _log.failure("a callback of a view failed")


class _BodyReader(Protocol):
    """Receives the body of one answer for a stream, while the stream wants it."""

    def __init__(self, stream: ViewStream) -> None:
        self.stream: ViewStream | None = stream
        self.reading = True

    def dataReceived(self, data: bytes) -> None:
        if self.stream is not None:
            self.stream.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.stream is not None:
            self.stream.ended(reason)


def _value(failure: Failure) -> BaseException:
    value = failure.value
    assert value is not None
    return value


def _closed() -> CouchbaseError:
    return error_of(exceptions.CLIENT_ETMPFAIL, "the connection was closed")
