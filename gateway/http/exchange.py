"""One request on a channel, and its answer, independent of the channel's protocol.

The request's body is read by :mod:`gateway.http.body`, and a produced answer body is sent by
:mod:`gateway.http.outlet`; the channel parses requests and ends the connection. The phases of the answer are
those of :class:`gateway.http.phases.AnswerPhase`. A class derived from :class:`Exchange` defines the form of
an answer on the wire: :class:`gateway.http.http1.HTTP1Exchange` for HTTP/1.1,
:class:`gateway.http2.exchange.StreamExchange` for HTTP/2.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers

from gateway.http.body import IncomingBody, StreamedBody
from gateway.http.kleinfallback import render_by_klein
from gateway.http.outlet import SLICED_BYTES, Outlet, Slices
from gateway.http.phases import AnswerPhase
from gateway.http.ports import ByKlein, Channel, ExchangePort
from gateway.http.refusal import Refusal
from gateway.http.request import HeaderTable, Request
from gateway.http.response import BodyProducer, Response

__all__ = ["NO_BODY", "SLICED_BYTES", "Exchange"]

NO_BODY = frozenset(http.NO_BODY_CODES)

OPEN, KLEIN, BEGUN, COMPLETE, LEFT, CUT = AnswerPhase


_Kind = TypeVar("_Kind", bound="Exchange")


class Exchange(ExchangePort):
    """A request on its channel, and the answer to it.

    :param channel: the channel, to which nothing is written before the answers to earlier requests are
        complete, as it has one exchange at a time.
    """

    _log = Logger()

    phase = OPEN
    """The phase of the answer."""
    incoming: IncomingBody | None = None
    """The request's body, until it is complete."""
    stream: StreamedBody | None = None
    klein_request: ByKlein | None = None
    """Klein's request, if Klein answers."""

    # Bytes reserved in the application's budgets: for the held body, and for a large answer.
    _reserved = 0
    _answer_bytes = 0
    _outlet: Outlet | None = None

    def __init__(
        self, channel: Channel, method: str, path: bytes, query_string: bytes, headers: HeaderTable
    ) -> None:
        # The base class's __init__ is not called: it sets attributes that rarely change.
        self._channel = channel
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers

    @classmethod
    def in_place_of(
        cls: type[_Kind], broken: _Kind | None, channel: Channel, refusal: Refusal, headers: HeaderTable
    ) -> _Kind | None:
        """Give up a request that cannot be read to its end, and return the exchange that refuses it.

        :param broken: the request, which is not counted if it has no answer yet; ``None`` if its head cannot
            be read either.
        :param refusal: the reason.
        :param headers: the known headers of a head that cannot be read.
        :returns: ``None`` if an answer was started already, so that no other can be sent.
        """
        if broken is None:
            exchange = cls(channel, "?", b"", b"", headers)
            if headers and channel.application.guard is not None:
                exchange.visit = channel.application.guard.look(headers)
        elif broken.has_begun:
            broken.lose(Failure(refusal))
            return None
        else:
            broken.replaced()
            exchange = cls(channel, broken.method, broken.path, broken.query_string, broken.headers)
            # Otherwise a web page could not read why it is refused.
            exchange.visit = broken.visit
            exchange.received_bytes = broken.received_bytes
            broken.lose(Failure(refusal))
        exchange.keep_alive = False
        return exchange

    @property
    def transport(self) -> Any:
        """The transport of the connection."""
        return self._channel.transport

    @property
    def is_from_unix_socket(self) -> bool:  # type: ignore[override]
        """Whether the client uses a Unix socket, which no browser can reach."""
        return isinstance(self._channel.transport.getHost(), UNIXAddress)

    @property
    def is_encrypted(self) -> bool:  # type: ignore[override]
        """Whether the client uses TLS."""
        return ISSLTransport.providedBy(self._channel.transport)

    @property
    def has_begun(self) -> bool:
        """Whether any part of the answer was written."""
        return self.phase in (BEGUN, COMPLETE, CUT)

    @property
    def is_answered(self) -> bool:
        """Whether all of the answer was written."""
        return self.phase is COMPLETE

    # ---- the body --------------------------------------------------------------------------------

    def whole_body(self, body: bytes) -> bool:
        """Serve a request whose body has arrived with its headers.

        :returns: false, without any effect, if there is no memory for it: :meth:`body_to_come` then refuses
            it.
        """
        application = self._channel.application
        limit = application.limits.max_body
        size = len(body)
        if size > limit or not application.budget.take(size):
            return False
        self._reserved = self.received_bytes = size
        application.dispatch(self)
        endpoint = self.endpoint
        if endpoint is not None and endpoint.streamed:
            self._release()
            self.stream = StreamedBody()
            self.stream.received(body)
            self.stream.finished()
        else:
            self.body_limit = limit
            self.raw_body = body
        self.run()
        if self._reserved and self.operation in application.unconfirmed:
            # The caller is not confirmed yet, and must not take memory from others; only few bytes have
            # arrived with the headers.
            self._release()
        return True

    def body_to_come(self, length: int | None) -> IncomingBody:
        """Return an object for the body, which has not arrived yet.

        :param length: length in bytes; ``None`` for a chunked body.
        """
        self.incoming = IncomingBody(self, self._channel, length)
        return self.incoming

    def body_wanted(self) -> None:
        """Read the body, which the handler needs to continue."""
        if self.incoming is not None:
            self.incoming.wanted()

    def body_is_complete(self) -> None:
        """Forget the body: it is complete, or never will be."""
        self.incoming = None

    @property
    def waits_to_be_asked(self) -> bool:
        """Whether the client sends its body only when it is asked to (RFC 9110 10.1.1)."""
        expected = self.headers.get(b"expect")
        if expected is None or not self.is_1_1:
            return False
        # A list (RFC 9110 10.1.1), which may come as several headers (5.3).
        values = [expected] if isinstance(expected, bytes) else expected
        return any(one.strip().lower() == b"100-continue" for value in values for one in value.split(b","))

    # ---- what it holds ---------------------------------------------------------------------------

    def reserve(self, size: int) -> bool:
        """Reserve memory for more bytes of the body; return false, and reserve nothing, if there is not
        enough."""
        if self.application.budget.take(size):
            self._reserved += size
            return True
        return False

    @property
    def has_reserved(self) -> bool:
        """Whether memory is reserved for the body."""
        return self._reserved > 0

    def hold_answer(self, size: int) -> None:
        """Reserve memory for a large answer until the client has received it."""
        self._answer_bytes += size
        # The extra byte ensures that _release() is called.
        self.application.budget.adjust(1)
        self._reserved += 1

    def _release(self) -> None:
        application = self.application
        application.budget.adjust(-self._reserved)
        self._reserved = 0
        if self._answer_bytes:
            size, self._answer_bytes = self._answer_bytes, 0
            application.answers.adjust(-size)

    # ---- the handler -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run the handler that the application has found, or let Klein find one."""
        if self.handler is not None:
            self.application.handle(self)
        else:
            self.run_klein()

    def run_klein(self) -> None:
        """Let Klein find the handler, if it knows of one."""
        application = self.application
        if application.klein_knows(self):
            self.handler = self._by_klein
            application.handle(self)
        else:
            application.refuse(self, application.no_route(self.path))

    def _by_klein(self, request: Request) -> Any:
        return render_by_klein(self, self._channel)

    def klein_runs(self, request: ByKlein) -> None:
        """Note that Klein answers."""
        self.klein_request = request
        self.phase = KLEIN

    def klein_answers(self, status: int, headers: Headers) -> Headers:
        """Begin Klein's answer: return the headers to send, after the plugins have seen them."""
        self.phase = BEGUN
        self._status = status
        seen = Response(
            status, [(name, value) for name, values in headers.getAllRawHeaders() for value in values]
        )
        self.application.answered(seen, self)
        changed = Headers()
        for name, value in seen.headers:
            changed.addRawHeader(name, value)
        return changed

    def klein_failed(self, error: Exception) -> None:
        """Report a failure in Klein like any other failure."""
        self.klein_request = None
        if self.phase is KLEIN:
            self.phase = OPEN
        self.application.failed(error, self)

    def klein_finished(self) -> None:
        """End Klein's answer: all of it is written."""
        self.klein_request = None
        self.finished()

    def lose(self, reason: Failure) -> None:
        """Cancel everything done for the client, which is gone."""
        has_begun = self.has_begun
        body, stream = self.incoming, self.stream
        is_read = body is None or not body.is_outstanding
        self.phase = CUT if has_begun else LEFT
        if not self._is_over:
            self.cut = self.cut or self._channel.cut_by
        if self._reserved:
            self._release()
        if stream is not None:
            stream.lose()
        if body is not None:
            body.abandon()
        if not has_begun:
            if is_read or self.under_way is not None:
                self.give_up()
            elif body is not None and body.is_begun:
                self.application.failed(CancelledError(), self)
            elif not self._is_over:
                # Nothing else refers to the producer yet.
                self.application.refuse(self, CancelledError())
        if self._outlet is not None:
            self._outlet.cancel()
        if self.klein_request is not None:
            self.klein_request.connectionLost(reason)
        if has_begun:
            self._over()

    # ---- the answer ------------------------------------------------------------------------------

    def respond(self, response: Response) -> None:
        """Write the answer."""
        self.under_way = None
        if self.klein_request is not None:
            # A producer writes the answer.
            return
        if self.phase is OPEN:
            self._respond_in_full(response)
        else:
            self._status = response.status
            if not isinstance(response.body, bytes):
                response.body.cancel()
            self._over()

    def _respond_in_full(self, response: Response) -> None:
        body = response.body
        status = self._status = response.status
        incoming = self.incoming
        leaves_much = isinstance(body, bytes) and incoming is not None and incoming.leaves_much
        if leaves_much or self._channel.factory.stopping:
            self.keep_alive = False
        head = self.make_head(response)
        self.phase = BEGUN
        sends_body = self.method != "HEAD" and status not in NO_BODY
        if isinstance(body, bytes) and len(body) >= SLICED_BYTES:
            self.application.note_large(self, len(body))
            body = Slices(body)
        if isinstance(body, bytes):
            if sends_body:
                self.sent_bytes = len(body)
            self.begin(head, body if sends_body else b"")
            self.finished()
            return
        self.begin(head)
        if not sends_body:
            body.cancel()
            self.finished()
            return
        self._outlet = self.outlet(body)
        self._outlet.start(stalled=self._channel.is_stalled)

    def make_head(self, response: Response) -> Any:
        """Return the head of an answer in the form that :meth:`begin` sends.

        :raises ValueError: a header has a line end.
        """
        raise NotImplementedError

    def begin(self, head: Any, body: bytes = b"") -> None:
        """Send a head, with the whole body or without any of it."""
        raise NotImplementedError

    def outlet(self, producer: BodyProducer) -> Outlet:
        """Return the outlet for a produced body."""
        raise NotImplementedError

    @property
    def is_unsent(self) -> bool:
        """Whether some written bytes wait for the client to read."""
        return self._channel.is_stalled

    def broken(self, error: BaseException) -> None:
        """Log that the answer cannot be written, and drop the connection."""
        self._log.failure("request {id}: writing its answer failed", Failure(error), id=self.id)
        self.cut = self.cut or "gateway"
        if self.phase not in (LEFT, CUT):
            self._channel.abort()
        self._over()

    def aborted(self) -> None:
        """Cut off the answer: its produced body cannot be completed."""
        self.cut = "gateway"
        self._over()
        self._channel.close()

    def stalled(self, stalled: bool) -> None:
        """Note that the client has begun, or stopped, to read more slowly than the answer is produced."""
        if self._outlet is not None:
            self._outlet.stalled(stalled)
        if self.klein_request is not None:
            self.klein_request.stalled(stalled)

    def finished(self) -> None:
        """End the answer: all of it is written."""
        self.phase = COMPLETE
        if self.is_unsent:
            self._channel.unsent_exchange = self
        else:
            self._over()
        if self.incoming is not None:
            self.incoming.abandon()
            if self.keep_alive:
                self._channel.linger()
                return
        self.end()

    def end(self) -> None:
        """End the exchange: request and answer are complete."""
        if self._reserved:
            self._release()
        self._channel.done(self)
