"""One stream of a connection; for its exchange it is what a whole connection is in HTTP/1.1.

A stream has its own phases, its own deadlines and its own back-pressure in both directions, so the modules
above it treat it like a connection: :mod:`gateway.http.exchange`, :mod:`gateway.http.body` and
:mod:`gateway.http.deadlines`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded, StreamReset, TrailersReceived
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from gateway.http.body import IncomingBody
from gateway.http.heads import Malformed
from gateway.http.linger import LINGER_BYTES, LINGER_SECONDS
from gateway.http.phases import ConnectionPhase
from gateway.http.ports import ExchangePort
from gateway.http.refusal import Refusal, bad_request
from gateway.http.request import HeaderTable
from gateway.http2.core import FIRST_WINDOW, STREAM_WINDOW, Core
from gateway.http2.exchange import StreamExchange
from gateway.http2.heads import check_trailers
from gateway.http2.output import Fields, Outcome, Output, OutputPhase
from gateway.http2.timed import TimedStream

if TYPE_CHECKING:
    from gateway.http2.connection import HTTP2Connection
    from gateway.http2.heads import StreamHead
    from gateway.http2.server import HTTP2

__all__ = ["Stream"]

_, _, BODY, HANDLING, DRAINING, _, _, CLOSED = ConnectionPhase

NO_HEADERS: HeaderTable = {}

_MAX_QUEUED = 2**16
"""Bytes of an answer that wait for the client before its producer has to pause."""


class Stream(TimedStream):
    """A request of a client, and the answer to it.

    :param number: the stream's identifier.
    """

    phase = HANDLING
    is_stalled = False

    _exchange: StreamExchange | None = None
    _body: IncomingBody | None = None
    _is_ended_by_client = False
    _is_feeding = False
    _length: int | None = None
    """Announced length of the body in bytes."""

    def __init__(self, connection: HTTP2Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.server: HTTP2 = connection.server
        self.factory = connection.factory
        self.application = connection.application
        self.transport = connection.transport
        self._output = Output(number)
        self._received = 0
        self._unread: deque[tuple[bytes, int]] = deque()
        # Bytes of the body that were read, but not yet returned to the client's window.
        self._owed = 0
        self._window = FIRST_WINDOW
        # Bytes that were dropped after the answer.
        self._discarded = 0

    @property
    def cut_by(self) -> str:
        """Which side is responsible if the stream ends early."""
        return self.connection.cut_by

    # ---- the request -----------------------------------------------------------------------------

    def serve(self, head: StreamHead, body: bytes | None, *, is_complete: bool) -> None:
        """Serve a request.

        :param body: the bytes of the body that have arrived with its head; ``None`` if none have.
        :param is_complete: whether the body is complete.
        """
        rest = head.rest
        exchange = StreamExchange(self, head.method, head.path, head.query_string, rest.headers)
        exchange.selective = rest.selective
        if rest.visit is not None:
            exchange.visit = rest.visit
        self._exchange = exchange
        self._length = rest.length
        if is_complete:
            self._is_ended_by_client = True
            size = len(body or b"")
            if rest.length is not None and rest.length != size:
                self.refuse(_wrong_length(rest.length, size))
                return
            if body is None:
                self.application.serve(exchange)
                return
            if exchange.whole_body(body):
                return
            self._is_ended_by_client = False
        self._enter(BODY)
        self._body = exchange.body_to_come(rest.length)
        self._body.expect()
        if body is not None:
            self.received(body, 0)
            self.ended()

    def refuse_head(self, error: Malformed | Refusal, fields: Fields, *, is_complete: bool) -> None:
        """Answer a request whose head cannot be read.

        :param fields: the header fields as they were received.
        :param is_complete: whether the request is complete.
        """
        self._is_ended_by_client = is_complete
        origins = [value for name, value in fields if name == b"origin"]
        # Without this header, a browser would hide the answer from its page.
        self.refuse(error, {b"origin": origins[0]} if len(origins) == 1 else {})

    def take(self, event: Any) -> None:
        """Handle an event of h2 for this stream."""
        kind = type(event)
        if kind is DataReceived:
            self.received(event.data, event.flow_controlled_length)
        elif kind is StreamEnded:
            self.ended()
        elif kind is TrailersReceived:
            try:
                check_trailers(event.headers)
            except Malformed as error:
                self.refuse(error)
        elif kind is StreamReset:
            self.lose(Failure(ConnectionDone()))

    def received(self, data: bytes, size: int) -> None:
        """Take a part of the body.

        :param size: number of bytes that it takes from the windows, with its padding.
        """
        body = self._body
        if body is None:
            self._discard(size)
            return
        self._received += len(data)
        if self._length is not None and self._received > self._length:
            self.refuse(_wrong_length(self._length, self._received))
        elif self._unread or self._is_feeding or body.must_wait(1):
            self._unread.append((data, size))
            self.connection.keep(size)
        else:
            self._feed(body, data, size)

    def ended(self) -> None:
        """Note that the client has sent the whole request."""
        self._is_ended_by_client = True
        if self._body is not None and self._length is not None and self._received != self._length:
            self.refuse(_wrong_length(self._length, self._received))
        elif self._output.phase is OutputPhase.SENT and self._body is None:
            self._leave()
        elif not self._is_feeding:
            self._go_on()

    def _feed(self, body: IncomingBody, data: bytes, size: int) -> None:
        self._is_feeding = True
        try:
            if data:
                body.part(data)
        finally:
            self._is_feeding = False
        self._give_back(size)

    def _go_on(self) -> None:
        """Read the bytes that were kept."""
        while self._unread and self._body is not None and not self._body.must_wait(1):
            data, size = self._unread.popleft()
            self.connection.keep(-size)
            self._feed(self._body, data, size)
        if self._is_ended_by_client and not self._unread and self._body is not None:
            body = self._body
            if not body.must_wait(1):
                body.end()

    def _discard(self, size: int) -> None:
        """Drop a part of a body that is not wanted any more."""
        if self.phase is DRAINING:
            self.since = None
            self._discarded += size
            if self._discarded > max(LINGER_BYTES, self._length or 0):
                self.reset(ErrorCodes.NO_ERROR)
            else:
                self._give_back(size)

    def _give_back(self, size: int) -> None:
        """Reopen the window by the bytes that were read."""
        if not self._is_ended_by_client and self.phase is not CLOSED:
            self._owed += size
            if self._owed >= self._window // 2:
                self.connection.open_window(self.number, self._owed)
                self._owed = 0

    def widen(self) -> None:
        """Open the window of the body, which is wanted."""
        missing = STREAM_WINDOW - self._window
        if missing > 0 and not self._is_ended_by_client and self.phase is not CLOSED:
            if self._length is not None and self._length <= self._window:
                return
            self._window = STREAM_WINDOW
            self.connection.open_window(self.number, missing)

    # ---- what exchanges and bodies ask for -------------------------------------------------------

    def settle_reading(self) -> None:
        """Decide again whether to read."""
        if (
            not self._is_feeding
            and self._unread
            or not self._is_feeding
            and self._is_ended_by_client
            and self._body is not None
        ):
            self._go_on()

    def body_released(self) -> None:
        """Read the body, which had been left unread."""
        self._enter(BODY)
        self.settle_reading()

    def body_ended(self) -> bool:
        """Note that all of the body has arrived; return false if it is no longer wanted."""
        self._body = None
        if self.phase is CLOSED:
            return False
        if self.phase is BODY:
            self.phase = HANDLING
        return True

    def linger(self) -> None:
        """Read and drop the rest of the body after the answer."""
        if self.phase is CLOSED:
            return
        self._enter(DRAINING)
        assert self.since is not None
        self.linger_until = self.since + LINGER_SECONDS
        self.settle_reading()

    def done(self, exchange: ExchangePort) -> None:
        """Note that request and answer are complete, except for queued parts."""
        self._exchange = self._body = None
        self._drop_unread()
        if self._output.phase is OutputPhase.SENT and self.phase is not CLOSED:
            self._leave()

    def _enter(self, phase: ConnectionPhase) -> None:
        self.phase = phase
        self.since = self.factory.clock.seconds()

    # ---- the answer ------------------------------------------------------------------------------

    def inform(self, status: int) -> None:
        """Send an informational answer."""
        if self.phase is not CLOSED:
            self._output.inform(status)
            self.connection.wake(self)

    def begin(self, fields: Fields) -> None:
        """Send the head of the answer."""
        if self.phase is not CLOSED:
            self._output.begin(fields)
            self.connection.wake(self)

    def write(self, data: bytes) -> None:
        """Send a part of the answer's body."""
        if self.phase is CLOSED or not data:
            return
        self._output.write(data)
        self.connection.wake(self)
        if self._output.queued > _MAX_QUEUED:
            self._stall(True)

    def end(self) -> None:
        """End the answer."""
        if self.phase is not CLOSED:
            self._output.phase = OutputPhase.ENDED
            self.connection.wake(self)

    @property
    def has_queued(self) -> bool:
        """Whether something waits to be sent."""
        return self._output.has_something

    @property
    def queued_bytes(self) -> int:
        """Bytes of the answer's body that wait to be sent."""
        return self._output.queued

    def send_some(self, core: Core) -> bool:
        """Send one frame, or the head; return whether there is more."""
        output = self._output
        outcome, size = output.send(core)
        if size:
            self.connection.police.sent(size, is_last=not output.queued)
        if outcome is Outcome.COMPLETE:
            self._all_sent()
        elif outcome is Outcome.RESET:
            assert output.code is not None
            self.reset(output.code)
        elif outcome is Outcome.BLOCKED:
            self._stall(True)
        elif self.is_stalled and not output.queued:
            self._stall(False)
            return output.has_something
        return outcome is Outcome.MORE

    def _stall(self, stalled: bool) -> None:
        if self.is_stalled is stalled:
            return
        self.is_stalled = stalled
        if not stalled:
            self.stalled_since = None
        if self._exchange is not None:
            self._exchange.stalled(stalled)

    def _all_sent(self) -> None:
        sent, self.unsent_exchange = self.unsent_exchange, None
        self.is_stalled = False
        if sent is not None:
            self.connection.sent(sent)
        if self._output.code is not None:
            self.connection.reset(self.number, self._output.code)
            self._leave()
        elif self._is_ended_by_client:
            self._leave()
        elif self.phase is not DRAINING:
            # The rest of the request is not wanted, which RST_STREAM would say. But a client that gets it at
            # once may drop the answer (curl 7), and some clients read only after they have sent everything
            # (httpx). So, as in HTTP/1.1, the rest is read and dropped for a while.
            self.linger()
            self.connection.open_window(self.number, STREAM_WINDOW)

    # ---- the end ---------------------------------------------------------------------------------

    def refuse(self, error: Malformed | Refusal, headers: HeaderTable = NO_HEADERS) -> None:
        """Answer a request that cannot be read to its end.

        :param headers: the known headers of a head that cannot be read.
        """
        if self.phase is CLOSED:
            return
        refusal = error if isinstance(error, Refusal) else bad_request(str(error))
        broken, body = self._exchange, self._body
        if broken is None and self._output.is_begun:
            # The request is answered already.
            self.reset(ErrorCodes.PROTOCOL_ERROR)
            return
        if isinstance(error, Malformed):
            self.connection.police.reset(self.factory.clock.seconds())
            # A malformed request is answered, too, as in HTTP/1.1 (RFC 9113 8.1.1).
            self._output.code = ErrorCodes.PROTOCOL_ERROR
        if body is not None and body.waits:
            body.refuse(refusal)
            return
        self._exchange = self._body = None
        self._drop_unread()
        exchange = StreamExchange.in_place_of(broken, self, refusal, headers)
        if exchange is None:
            self.reset(ErrorCodes.PROTOCOL_ERROR)
            return
        self.phase = HANDLING
        self._exchange = exchange
        self.application.dispatch(exchange)
        self.application.refuse(exchange, refusal)

    def close(self) -> None:
        """End the stream after the written parts; without its end, the client sees that it is incomplete."""
        if self.phase is not CLOSED:
            exchange = self._exchange
            complete = exchange is None or exchange.is_answered
            self._output.code = ErrorCodes.NO_ERROR if complete else ErrorCodes.INTERNAL_ERROR
            self.connection.wake(self)

    def abort(self) -> None:
        """Drop the stream, so that the client notices that its answer is incomplete."""
        self.reset(ErrorCodes.CANCEL if self.is_stalled else ErrorCodes.INTERNAL_ERROR)

    def reset(self, code: ErrorCodes) -> None:
        """End the stream at once."""
        if self.phase is not CLOSED:
            self.connection.reset(self.number, code)
            self.lose(Failure(ConnectionDone()))

    def lose(self, reason: Failure) -> None:
        """Cancel everything that is done for the request: the client has left."""
        if self.phase is CLOSED:
            return
        self._leave()
        self._output.drop()
        unsent, self.unsent_exchange = self.unsent_exchange, None
        if unsent is not None:
            unsent.unsent()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lose(reason)

    def client_has_closed(self) -> None:
        """Note that the client sends nothing more, but may still read."""
        if not self._is_ended_by_client:
            self.lose(Failure(ConnectionDone()))

    def out_of_memory(self) -> bool:
        """Refuse the request, if its body takes memory; return whether it did."""
        incoming = None if self._exchange is None else self._exchange.incoming
        if incoming is None or not incoming.is_held_in_memory:
            return False
        incoming.refuse_for_memory()
        return True

    def _leave(self) -> None:
        self.phase = CLOSED
        self._drop_unread()
        self.connection.left(self)

    def _drop_unread(self) -> None:
        size = sum(size for _, size in self._unread)
        self._unread.clear()
        if size:
            self.connection.keep(-size)

    # ---- deadlines (gateway.http.ports.Timed) ----------------------------------------------------

    def count_unsent(self) -> int:
        """Return a number that decreases with each byte that is sent."""
        return -self._output.sent

    @property
    def allowance(self) -> float:
        """Extra seconds that the current phase may take."""
        return self._body.allowance if self.phase is BODY and self._body is not None else 0.0


def _wrong_length(announced: int, received: int) -> Malformed:
    return Malformed(f"the body has {received} bytes or more, and Content-Length announces {announced}")
