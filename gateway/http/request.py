"""Requests for handlers, independent of any transport.

A channel makes a :class:`Request` and hands it to the dispatcher; tests make one by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred

from gateway.http.encoding import parse_query
from gateway.http.refusal import FixedRefusal, Refusal, bad_request, too_large
from gateway.http.response import RenderedResponse

if TYPE_CHECKING:
    from gateway.http.endpoints import Endpoint
    from gateway.http.response import Headers, Response
    from gateway.http.tracecontext import TraceContext

__all__ = [
    "BodyReader",
    "BodyStream",
    "BodyWanted",
    "NOT_READ",
    "NotYet",
    "Caller",
    "Handler",
    "HeaderTable",
    "Request",
    "UnderWay",
]

HeaderTable = Mapping[bytes, "bytes | list[bytes]"]
"""Header values by lower-case name: bytes, or a list if the header is given more than once."""

Handler = Callable[["Request"], Any]
"""Takes a request and returns a ``Response``, a Deferred of one, or an operation that reports its outcome to
the request (see ``Request.render``); raises an exception for a failure, or returns a refusal."""


class BodyWanted(Exception):
    """A handler needs the body, which has not been read yet. When the body has arrived, the handler is called
    again from its beginning."""


class NotYet(Exception):
    """A handler cannot identify the caller yet. It is called again, from its beginning, when it can.

    :param until: fires when the handler may be called again; fails with the failure to be answered. It is
        cancelled if the client leaves.
    """

    def __init__(self, until: Deferred[Any]) -> None:
        super().__init__()
        self.until = until


class BodyReader(Protocol):
    """The receiver of a streamed body."""

    def body_received(self, data: bytes) -> None:
        """Take the next part."""

    def body_finished(self) -> None:
        """Note that the body is complete."""

    def body_lost(self) -> None:
        """The client is gone, or its chunked coding is broken; nothing more will arrive."""


class BodyStream(Protocol):
    """A body that has not been read yet."""

    def deliver_to(self, reader: BodyReader) -> None:
        """Begin to deliver the body to ``reader``. Parts that have arrived already are delivered at once."""

    def pause(self) -> None:
        """Stop reading from the client until :meth:`resume`."""

    def resume(self) -> None:
        """Continue to read."""


class Caller(Protocol):
    """The sender of a request, as far as known to the application."""

    @property
    def user(self) -> str:
        """The user's name, for logs."""

    @property
    def name(self) -> str:
        """The caller's name in logs; equals ``user`` unless that is an account which callers share."""

    @property
    def stands_for_anyone(self) -> bool:
        """Whether the name was not given by the caller, so that logs do not show it."""


class UnderWay(Protocol):
    """A running operation of the driver, which reports its outcome to the request."""

    def abandon(self) -> None:
        """Cancel the operation, without reporting an outcome."""


_NO_PARAMETERS: dict[str, Any] = {}

NOT_READ: Any = object()
"""Stands for the result of a function that was not called yet."""


class Request:
    """One request, parsed as far as every handler needs it.

    A channel derives from it and sends the answer in :meth:`respond`. Attributes that rarely change are those
    of the class, so that creating a request is cheap.

    :param method: name as sent.
    :param path: as sent, without the query, still percent-encoded.
    :param query_string: as sent, without ``?``.
    :param headers: see :data:`HeaderTable`.
    :param body: the whole body of a buffered request, ``b""`` for a streamed one.
    :param body_limit: limit on the body in bytes; 0 for a streamed one.
    :param stream: the body of a streamed request.
    """

    is_inner = False
    """Whether this request represents another one, which is counted and shown to the plugins instead."""

    raw_body = b""
    body_limit = 0
    body_too_large = False
    """Whether the body exceeds the limit, and was not kept."""
    body_is_awaited = False
    """Whether the body is read only when a handler asks for it."""
    stream: BodyStream | None = None

    visit: Any = None
    """Result of the application's guard for the headers, if any."""
    is_from_unix_socket = False
    """Whether the client uses a Unix socket, which no browser can reach."""
    is_encrypted = False
    """Whether the client uses TLS."""

    trace: TraceContext | None = None
    """The trace that the request belongs to, once :func:`gateway.http.tracecontext.trace_of` was called."""
    record: Any = None
    """Tracing's notes about the request while its span is recorded."""
    outer: Request | None = None
    """The request of our own channel that this one represents, if ``is_inner``."""

    # Filled by the application:
    parameters: dict[str, bytes] = _NO_PARAMETERS
    endpoint: Endpoint | None = None
    handler: Handler | None = None
    application: Any = None
    number = 0
    started = 0.0
    given_id: bytes | None = None
    selective: Any = NOT_READ
    """What :meth:`gateway.http.application.Application.select` returned for the headers: ``None`` if none of
    them is selective. Requests with the same head share it. :data:`NOT_READ` until it is called."""

    # Filled by the channel, for plugins that count:
    received_bytes = 0
    """Bytes of the body that have arrived."""
    sent_bytes = 0
    """Bytes of the answer's body that were handed to the transport."""
    cut = ""
    """The side that cut off the request or answer: ``client`` or ``gateway``; ``""`` if both are complete."""

    failure_code = ""
    """The code of the error in the answer."""

    # Filled by the handler, for the explanation of a failure:
    caller: Caller | None = None
    limit_headers: Headers = ()
    """Headers about rate limits, for the answer."""
    spending: tuple[Callable[[int], object], ...] = ()
    """Called with the number of operations that were executed for the request, in addition to the request
    itself."""
    operation = ""
    failed_part: str | None = None
    """The part of the resource that failed, in the application's notation; ``None`` for the whole."""
    context: Any = None
    """Further details for the application, if any."""

    under_way: UnderWay | Deferred[Any] | None = None
    """The operation that the handler waits for; cancelled if the client leaves."""

    render: Callable[[Any, Request], Response | Deferred[Response] | Refusal]
    """Set by a handler that makes the request the receiver of an operation: converts the result and the
    request into the answer, a Deferred of it, or a refusal."""

    def __init__(
        self,
        method: str,
        path: bytes,
        query_string: bytes,
        headers: HeaderTable,
        body: bytes = b"",
        *,
        body_limit: int = 0,
        stream: BodyStream | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers
        self.raw_body = body
        self.body_limit = body_limit
        self.stream = stream

    # ---- the answer ------------------------------------------------------------------------------

    def respond(self, response: Response) -> None:
        """Send the answer; the application calls this once."""
        raise NotImplementedError

    def body_wanted(self) -> None:
        """Read the body, which the handler needs to continue; see :class:`BodyWanted`."""
        raise NotImplementedError

    def run_klein(self) -> None:
        """Let Klein look for a handler, as the dispatcher found none."""
        raise NotImplementedError

    def broken(self, error: BaseException) -> None:
        """Log that the answer cannot be written, which is a bug of its author, and drop the connection."""
        raise NotImplementedError

    def hold_answer(self, size: int) -> None:
        """Reserve memory for a large answer until the client has received it.

        :param size: in bytes, taken from ``application.answers``.
        """
        # A request without a channel of its own is never slow.
        self.application.answers.adjust(-size)

    # ---- the receiver of an operation ------------------------------------------------------------

    def succeeded(self, result: object) -> None:
        """Answer with the result of an operation."""
        try:
            response = self.render(result, self)
        except Exception as error:  # noqa: BLE001  # becomes the answer
            self.application.failed(error, self)
        else:
            if type(response) is RenderedResponse:
                self.application.succeeded(response, self)
            elif type(response) is FixedRefusal:
                self.application.refused(response, self)
            elif type(response) is Deferred:
                self.application.wait_for(response, self)
            elif isinstance(response, Refusal):
                self.application.failed(response, self)
            else:
                self.application.succeeded(response, self)

    def failed(self, error: BaseException) -> None:
        """Answer with the failure of an operation."""
        self.application.failed(error, self)

    def give_up(self) -> None:
        """Cancel the running operation: the client is gone."""
        under_way, self.under_way = self.under_way, None
        if isinstance(under_way, Deferred):
            under_way.cancel()
        elif under_way is not None:
            under_way.abandon()
            self.application.failed(CancelledError(), self)

    # ---- who it is -------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The request's id: the client's own (``X-Request-Id``), or a generated one."""
        return self.id_bytes.decode("ascii")

    @property
    def id_bytes(self) -> bytes:
        """The id as it is sent."""
        return self.given_id or b"%b-%x" % (self.application.id_prefix, self.number)

    # ---- headers ---------------------------------------------------------------------------------

    def header_values(self, name: bytes) -> Sequence[bytes]:
        """Return every value of a header, by its name in any case."""
        found = self.headers.get(name.lower())
        if found is None:
            return ()
        return found if isinstance(found, list) else [found]

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header, ``None`` if it is absent.

        :raises Refusal: 400 if it is given more than once: the values might contradict.
        """
        value = self.headers.get(name.lower())
        if isinstance(value, list):
            raise bad_request(f"{name.decode('ascii')}: the header is given {len(value)} times")
        return value

    def text_header(self, name: bytes) -> str | None:
        """Return the value of a header that may hold ASCII only."""
        value = self.header(name)
        if value is None:
            return None
        try:
            return value.decode("ascii")
        except UnicodeDecodeError:
            raise bad_request(f"{name.decode('ascii')}: the value must be ASCII") from None

    # ---- query and body --------------------------------------------------------------------------

    def query(self, allowed: frozenset[str] = frozenset()) -> dict[str, str]:
        """Return the query's parameters; see :func:`parse_query`."""
        if not self.query_string:
            return _NO_PARAMETERS
        return parse_query(self.query_string, allowed)

    def body(self) -> bytes:
        """Return the whole body.

        :raises Refusal: 413 if it is over the limit.
        :raises BodyWanted: it has not been read yet; handlers must not catch it.
        """
        if self.body_too_large:
            raise too_large(f"the request body has more than {self.body_limit} bytes")
        if self.body_is_awaited:
            raise BodyWanted
        return self.raw_body

    def check_size(self) -> None:
        """Refuse a body over the limit, even before it arrives; raises Refusal (413)."""
        if self.body_too_large:
            self.body()
