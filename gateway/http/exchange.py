"""One request and its answer on a channel: the body's way in, the answer's way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers

from gateway.dialect.errors import Refusal
from gateway.http.counted import CountedRequest
from gateway.http.kleinweb import render_by_klein
from gateway.http.request import BodyReader, HeaderTable, Request
from gateway.http.response import REASONS, BodyProducer, Response
from gateway.http.routing import no_route

if TYPE_CHECKING:
    from gateway.http.channel import HTTPChannel

__all__ = ["LEAST_BYTES_A_SECOND", "Exchange", "status_line"]

LEAST_BYTES_A_SECOND = 2**16
"""At which a body may arrive for as long as it takes; slower ones are bound by ``--body-seconds``."""

# A refused body up to this size is read to its end, and the connection goes on.
DRAINED_BYTES = 2**18
# A body of unknown length is read further if the answer has promised to keep the connection.
_DRAINED_UNKNOWN_BYTES = 2**21

SLICED_BYTES = 2**18
"""From this size on, bodies of requests are put together in a turn of the reactor of their own, and those of
answers are sent in pieces: copying 20 MiB takes milliseconds, and it is copied more than once on its way."""

# A body up to this size that its handler reads before it looks at the caller is read for anybody, as headers
# are.
_SMALL_BODY = 2**14

# Read ahead of a streamed body before its handler wants it.
_READ_AHEAD = 2**16

_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()}

_NO_BODY = frozenset(http.NO_BODY_CODES)


def status_line(status: int) -> bytes:
    """Return the first line of an answer."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


class _Stream:
    """The body of a streamed request."""

    def __init__(self, channel: HTTPChannel, on_wanted: Callable[[], None] | None = None) -> None:
        self._channel = channel
        self._on_wanted = on_wanted
        self._reader: BodyReader | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._is_paused = False
        self._finished = False
        self.lost = False

    @property
    def is_wanted(self) -> bool:
        """Whether a handler reads it."""
        return self._reader is not None

    def deliver_to(self, reader: BodyReader) -> None:
        self._reader = reader
        if self._on_wanted is not None:
            self._on_wanted()
        early, self._early = self._early, []
        for data in early:
            reader.body_received(data)
        if self.lost:
            reader.body_lost()
        elif self._finished:
            reader.body_finished()
        elif self._early_bytes > _READ_AHEAD and not self._is_paused:
            self._channel.resume_body()

    def pause(self) -> None:
        self._is_paused = True
        if not self._finished:
            self._channel.pause_body()

    def resume(self) -> None:
        self._is_paused = False
        if not self._finished and not self.lost:
            self._channel.resume_body()

    def received(self, data: bytes) -> None:
        if self._reader is not None:
            self._reader.body_received(data)
            return
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > _READ_AHEAD:
            self._channel.pause_body()

    def finished(self) -> None:
        self._finished = True
        if self._reader is not None:
            self._reader.body_finished()

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            if self._reader is not None:
                self._reader.body_lost()


class Exchange(CountedRequest):
    """A request as its channel sees it, and the answer to it.

    :param channel: nothing is written to it before the answers to earlier requests are complete, as a channel
        has one exchange at a time.
    """

    _log = Logger()

    keep_alive = True
    """Whether the connection may be used for another request afterwards."""
    is_1_1 = True
    """Whether the client speaks HTTP/1.1, and so knows chunked coding."""
    is_begun = False
    """Whether the handler has run before its body was there, and the plugins have seen the request."""
    has_begun = False
    """Whether anything of the answer was written."""

    _lost = False
    _answered = False
    _body_complete = True
    _dropping = False
    _is_joining = False
    _length: int | None = 0
    _reserved = 0
    _answer_bytes = 0
    _stream: _Stream | None = None
    _body: list[bytes]
    _producer: BodyProducer | None = None
    _chunked = False
    klein_request: Any = None
    """What Klein answers, if it does."""

    def __init__(
        self, channel: HTTPChannel, method: str, path: bytes, query_string: bytes, headers: HeaderTable
    ) -> None:
        # Not the base class's, which sets what stays as it is for most.
        self._channel = channel
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers

    @property
    def transport(self) -> Any:
        """The transport of its connection."""
        return self._channel.transport

    @property
    def is_from_unix_socket(self) -> bool:  # type: ignore[override]
        """Whether the client came by a socket that no browser can reach."""
        return isinstance(self._channel.transport.getHost(), UNIXAddress)

    @property
    def is_encrypted(self) -> bool:  # type: ignore[override]
        """Whether it came by TLS."""
        return ISSLTransport.providedBy(self._channel.transport)

    # -- the body

    def whole_body(self, body: bytes) -> bool:
        """Serve a request whose body has arrived with its headers.

        :returns: false, and nothing is done, if there is no room for it: :meth:`expect_body` tells the
            client.
        """
        application = self._channel.factory.application
        limit = application.limits.max_body
        size = len(body)
        if size > limit or not application.budget.take(size):
            return False
        self._reserved = self.received_bytes = size
        application.dispatch(self)
        endpoint = self.endpoint
        if endpoint is not None and endpoint.streamed:
            self._release()
            self.stream = self._stream = _Stream(self._channel)
            self._stream.received(body)
            self._stream.finished()
        else:
            self.body_limit = limit
            self.raw_body = body
        self._run()
        if self._reserved and self.operation == "open":
            # Nobody has confirmed the caller yet, who must not take room from others; and what has arrived
            # with the headers is little.
            self._release()
        return True

    def expect_body(self, length: int | None) -> None:
        """The headers are complete: find the handler, and start it if it does not need the body first.

        :param length: bytes; ``None`` for a chunked body.
        """
        channel = self._channel
        application = channel.factory.application
        limit = self.body_limit = application.limits.max_body
        self._length = length
        self._body_complete = False
        self._body = []
        found = application.dispatch(self)
        endpoint = self.endpoint
        if endpoint is not None and endpoint.streamed:
            self.body_limit = 0
            self.stream = stream = self._stream = _Stream(channel, self._stream_wanted)
            self._run()
            if endpoint.early and not stream.is_wanted and not self._answered:
                channel.hold_body()
        elif endpoint is not None and endpoint.early:
            self.body_is_awaited = True
            self.body_too_large = length is not None and length > limit
            channel.hold_body()
            application.handle(self)
            self.is_begun = True
        elif length is not None and length > limit:
            self._drop_body(too_large=True)
        elif endpoint is None and (found or not application.klein_knows(self)):
            self._drop_body(too_large=False)
        elif length is None or self._reserve(length):
            self._continue()

    def body_wanted(self) -> None:
        """The handler cannot go on without the body: read it, unless that is too early."""
        self.under_way = None
        self.is_begun = True
        application = self._channel.factory.application
        if self.caller is not None or application.admission is None:
            if self._length is not None and not self._reserve(self._length):
                return
        elif self._length is None or self._length > _SMALL_BODY or self._waits_to_be_asked:
            # The handler reads the body before it looks at the caller.
            handler, self.handler = self.handler, application.admission
            application.resume(self)
            self.handler = handler
            return
        self._continue()
        self._channel.release_body()

    def _stream_wanted(self) -> None:
        if not self._body_complete:
            self._continue()
            self._channel.release_body()

    @property
    def waits_for_body(self) -> bool:
        """Whether the handler waits for the body."""
        return self.is_begun and not (self._body_complete or self._answered or self._dropping)

    def refuse_body(self, refusal: Refusal) -> None:
        """Answer instead of the handler, which waits for the body: the rest of it will not be read."""
        self._dropping = True
        self.keep_alive = False
        self._body = []
        self._channel.factory.application.failed(refusal, self)

    @property
    def body_allowance(self) -> float:
        """Seconds that the body may take beyond the usual, for what has arrived of it."""
        return 0.0 if self._stream is not None else self.received_bytes / LEAST_BYTES_A_SECOND

    @property
    def _waits_to_be_asked(self) -> bool:
        """Whether the client sends its body only when it is asked to (RFC 9110 10.1.1)."""
        expected = self.headers.get(b"expect")
        if expected is None or not self.is_1_1:
            return False
        # A list (RFC 9110 10.1.1), which may come as several headers (5.3).
        values = [expected] if isinstance(expected, bytes) else expected
        return any(one.strip().lower() == b"100-continue" for value in values for one in value.split(b","))

    def _continue(self) -> None:
        """Ask for a body that is wanted."""
        if self._waits_to_be_asked:
            self._channel.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_part(self, data: bytes) -> None:
        """Take a part of the body."""
        self.received_bytes += len(data)
        channel = self._channel
        if self._dropping:
            if self.received_bytes > _DRAINED_UNKNOWN_BYTES and self._answered:
                channel.close()
        elif self._stream is not None:
            channel.body_progress()
            self._stream.received(data)
        elif self._length is None and self.received_bytes > channel.factory.application.limits.max_body:
            self._drop_body(too_large=True)
        elif self._length is not None or self._reserve(len(data)):
            self._body.append(data)

    def body_end(self) -> None:
        """The body is complete."""
        self._body_complete = True
        if self._answered:
            self._end()
        elif self._dropping:
            # The answer is under way, and ends the exchange.
            return
        elif self._stream is not None:
            self._stream.finished()
        else:
            body = self._body
            if self.received_bytes >= SLICED_BYTES:
                self._is_joining = True
                self._channel.factory.application.large_turns.add(self._join_body)
                return
            self.raw_body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
            self._body_is_there()

    def _join_body(self) -> None:
        self._is_joining = False
        body = self._body
        if self._lost or self._dropping:
            self._body = []
            return
        try:
            self.raw_body = body[0] if len(body) == 1 else b"".join(body)
        except MemoryError:
            del body
            self.refuse_for_memory()
            return
        self._body = []
        del body
        self._body_is_there()

    def _body_is_there(self) -> None:
        """Run the handler, again if it has asked for the body."""
        self.body_is_awaited = False
        if self.is_begun:
            self._channel.factory.application.resume(self)
        else:
            self._run()

    def _reserve(self, size: int) -> bool:
        application = self._channel.factory.application
        if application.budget.take(size):
            self._reserved += size
            return True
        self._drop_body(too_large=False, refusal=Refusal("Overloaded", resource=""))
        return False

    @property
    def _leaves_much(self) -> bool:
        """Whether so much of the body is still to come that the connection cannot be used again."""
        if self._body_complete:
            return False
        # Nobody can tell whether a client that waits to be asked will send the body nevertheless: its next
        # request must not be taken for that.
        if not self.received_bytes and self._waits_to_be_asked:
            return True
        if self._length is None:
            return self._stream is None
        return self._length - self.received_bytes > DRAINED_BYTES

    @property
    def holds_body(self) -> bool:
        """Whether it collects a body that no handler has yet."""
        return bool(self._reserved and getattr(self, "_body", None)) and not self._dropping

    def refuse_for_memory(self) -> None:
        """Let go of the body, and answer 503: there is no memory for it."""
        self._drop_body(too_large=False, refusal=Refusal("Overloaded", "The gateway has no memory left.", ""))

    def _drop_body(self, *, too_large: bool, refusal: Refusal | None = None) -> None:
        """Answer now; the body is not wanted."""
        self._dropping = True
        self._body = []
        self.body_too_large = too_large
        application = self._channel.factory.application
        if self.is_begun:
            if refusal is not None:
                application.failed(refusal, self)
            else:
                application.resume(self)
        elif refusal is not None:
            application.refuse(self, refusal)
        elif self.handler is None and application.explains_missing_routes:
            application.refuse(self, no_route(self.path))
        elif self.handler is None:
            application.refuse(self, Refusal("PayloadTooLarge", resource=""))
        else:
            application.handle(self)

    # -- the handler

    def run_klein(self) -> None:
        """Let Klein find the handler, if it knows of one."""
        application = self._channel.factory.application
        if application.klein_knows(self):
            self.handler = self._by_klein
            application.handle(self)
        else:
            application.refuse(self, no_route(self.path))

    def _by_klein(self, request: Request) -> Any:
        return render_by_klein(self, self._channel)

    def klein_answers(self, status: int, headers: Headers) -> Headers:
        """Klein's answer begins: return the headers to send, after the plugins have seen them."""
        self.has_begun = True
        self._status = status
        seen = Response(
            status, [(name, value) for name, values in headers.getAllRawHeaders() for value in values]
        )
        self._channel.factory.application.answered(seen, self)
        changed = Headers()
        for name, value in seen.headers:
            changed.addRawHeader(name, value)
        return changed

    def klein_failed(self, error: Exception) -> None:
        """Klein has no answer: tell the failure as any other."""
        self.klein_request = None
        self._channel.factory.application.failed(error, self)

    def _run(self) -> None:
        if self.handler is not None:
            self._channel.factory.application.handle(self)
        else:
            self.run_klein()

    def lose(self, reason: Failure) -> None:
        """The client is gone: cancel everything done for it."""
        self._lost = True
        if not self._is_over:
            self.cut = self.cut or self._channel.cut_by
        if self._reserved:
            self._release()
        if self._stream is not None:
            self._stream.lose()
        if not self.has_begun:
            is_read = self._body_complete and not self._is_joining
            if is_read or self._dropping or self._stream is not None or self.under_way is not None:
                self.give_up()
            elif self.is_begun:
                self._channel.factory.application.failed(CancelledError(), self)
            elif not self._is_over:
                # Nobody else knows of it yet.
                self._channel.factory.application.refuse(self, CancelledError())
        if self._producer is not None:
            producer, self._producer = self._producer, None
            producer.cancel()
        if self.klein_request is not None:
            self.klein_request.connectionLost(reason)
        if self.has_begun:
            self._over()

    def hold_answer(self, size: int) -> None:
        """Keep room for a large answer until the client has taken it."""
        self._answer_bytes += size
        # By this byte _release() is sure to be called.
        self._channel.factory.application.budget.adjust(1)
        self._reserved += 1

    def _release(self) -> None:
        application = self._channel.factory.application
        application.budget.adjust(-self._reserved)
        self._reserved = 0
        if self._answer_bytes:
            size, self._answer_bytes = self._answer_bytes, 0
            application.answers.adjust(-size)

    # -- the answer

    def respond(self, response: Response) -> None:
        """Write the answer."""
        self.under_way = None
        body = response.body
        channel = self._channel
        factory = channel.factory
        if (
            response.status == 200
            and type(body) is bytes
            and self.keep_alive
            and self.given_id is None
            and self.method != "HEAD"
            and self._body_complete
            and not self._lost
            and self.klein_request is None
            and not factory.stopping
        ):
            # Nearly every answer. Here its headers and body are put together once, without a copy between.
            size = self.sent_bytes = len(body)
            if size >= SLICED_BYTES:
                self.sent_bytes = 0
                self._respond_in_full(response)
                return
            self.has_begun = self._answered = True
            channel.write(
                b"%b%x\r\n%bContent-Length: %d\r\n\r\n%b"
                % (factory.ok_head, self.number, response.block(), size, body)
            )
            if self._reserved:
                self._release()
            if channel.is_stalled:
                self._status = 200
                channel.unsent_exchange = self
            else:
                # It is done with, so nobody looks at _is_over any more.
                application = factory.application
                seconds = application.seconds() - self.started
                for hook in application.end_hooks:
                    try:
                        hook(self, 200, seconds)
                    except Exception:  # noqa: BLE001  # a plugin's fault must not cost the answer
                        self._log.failure("a plugin's on_end failed for request {id}", id=self.id)
            channel.done(self)
            return
        if self.klein_request is not None:
            # It writes by itself.
            return
        if not self._lost:
            self._respond_in_full(response)
        else:
            self._status = response.status
            if not isinstance(body, bytes):
                body.cancel()
            self._over()

    def _respond_in_full(self, response: Response) -> None:
        channel = self._channel
        body = response.body
        status = self._status = response.status
        head = [channel.factory.head(status), self.id_bytes, b"\r\n", response.block()]
        if channel.factory.stopping or (isinstance(body, bytes) and self._leaves_much):
            self.keep_alive = False
        if status in _NO_BODY:
            # Neither header may be there (RFC 9110 8.6, RFC 9112 6.1), and nothing behind the head.
            pass
        elif isinstance(body, bytes):
            head.append(b"Content-Length: %d\r\n" % len(body))
        elif self.is_1_1:
            head.append(b"Transfer-Encoding: chunked\r\n")
            self._chunked = True
        else:
            self.keep_alive = False
        if not self.keep_alive:
            head.append(b"Connection: close\r\n")
        head.append(b"\r\n")
        self.has_begun = True
        sends_body = self.method != "HEAD" and status not in _NO_BODY
        if isinstance(body, bytes) and len(body) >= SLICED_BYTES:
            channel.factory.application.note_large(self, len(body))
            body = _Slices(body)
        if isinstance(body, bytes):
            if sends_body:
                head.append(body)
                self.sent_bytes = len(body)
            channel.write(b"".join(head))
            self._finished()
            return
        channel.write(b"".join(head))
        if not sends_body:
            body.cancel()
            self._finished()
            return
        self._producer = body
        if channel.is_stalled:
            body.pause()
        body.start(_Sink(self))

    def broken(self, error: BaseException) -> None:
        """The answer cannot be written: tell the log, and hang up."""
        self._log.failure("request {id}: writing its answer failed", Failure(error), id=self.id)
        self.cut = self.cut or "gateway"
        if not self._lost:
            self._channel.abort()
        self._over()

    def write_part(self, data: bytes) -> None:
        """Send a part of a produced body."""
        if self._producer is not None:
            self.sent_bytes += len(data)
            self._channel.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end_parts(self) -> None:
        """A produced body is complete."""
        if self._producer is None:
            return
        self._producer = None
        if self._chunked:
            self._channel.write(b"0\r\n\r\n")
        self._finished()

    def abort_parts(self) -> None:
        """A produced body cannot be completed."""
        self._producer = None
        self.cut = "gateway"
        self._over()
        self._channel.close()

    def stalled(self, stalled: bool) -> None:
        """The client has begun, or ceased, to read more slowly than the answer is made."""
        if self._producer is not None:
            if stalled:
                self._producer.pause()
            else:
                self._producer.resume()
        if self.klein_request is not None:
            self.klein_request.stalled(stalled)

    def klein_finished(self) -> None:
        """Klein's answer is written."""
        self.klein_request = None
        self._finished()

    def _finished(self) -> None:
        self._answered = True
        if self._channel.is_stalled:
            self._channel.unsent_exchange = self
        else:
            self._over()
        if self._body_complete or not self.keep_alive:
            self._end()
        else:
            self._dropping = True
            self._channel.linger()

    def _end(self) -> None:
        if self._reserved:
            self._release()
        self._channel.done(self)


class _Slices:
    """A large body that is there already: sent in pieces, so that no turn of the reactor copies all of it."""

    def __init__(self, body: bytes) -> None:
        self._left = memoryview(body)
        self._is_paused = False
        self._sink: Any = None

    def start(self, sink: Any) -> None:
        self._sink = sink
        self._go_on()

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._go_on()

    def cancel(self) -> None:
        self._left = self._left[:0]
        self._sink = None

    def _go_on(self) -> None:
        while self._sink is not None and not self._is_paused:
            piece, self._left = self._left[:SLICED_BYTES], self._left[SLICED_BYTES:]
            sink = self._sink
            sink.write(bytes(piece))
            if not self._left:
                self._sink = None
                sink.finish()


class _Sink:
    """What a body producer writes into: an exchange, without its other methods."""

    def __init__(self, exchange: Exchange) -> None:
        self.write = exchange.write_part
        self.finish = exchange.end_parts
        self.abort = exchange.abort_parts
