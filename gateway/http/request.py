"""What handlers see of a request. Nothing here knows of a transport.

A channel makes a :class:`Request` and hands it to the dispatcher; tests make one by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred

from gateway.http.encoding import parse_query
from gateway.http.refusal import bad_request, too_large

if TYPE_CHECKING:
    from gateway.http.endpoints import Endpoint
    from gateway.http.response import Response

__all__ = [
    "BodyReader",
    "BodyStream",
    "BodyWanted",
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
the request (see ``Request.render``); raises what went wrong."""


class BodyWanted(Exception):
    """A handler has got as far as the body, which has not been read yet. It is called again, from its
    beginning, when the body is there."""


class BodyReader(Protocol):
    """Who takes a streamed body."""

    def body_received(self, data: bytes) -> None:
        """Take the next part."""

    def body_finished(self) -> None:
        """The body is complete."""

    def body_lost(self) -> None:
        """The client is gone, or its chunked coding is broken; nothing more will come."""


class BodyStream(Protocol):
    """A body that has not been read yet."""

    def deliver_to(self, reader: BodyReader) -> None:
        """Begin reading into ``reader``. Parts that arrived already are delivered at once."""

    def pause(self) -> None:
        """Stop reading from the client until :meth:`resume`."""

    def resume(self) -> None:
        """Go on reading."""


class Caller(Protocol):
    """Who sent a request, as far as the application has found out."""

    @property
    def user(self) -> str:
        """A name, which logs show."""

    @property
    def stands_for_anyone(self) -> bool:
        """Whether nobody gave that name: logs do not show it."""


class UnderWay(Protocol):
    """An operation of the driver whose outcome is told to the request, as its receiver."""

    def abandon(self) -> None:
        """Give it up: nobody waits for it any more, and nothing is told."""


_NO_PARAMETERS: dict[str, Any] = {}


class Request:
    """One request, parsed as far as every handler needs it.

    A channel derives from it and says in :meth:`respond` what becomes of the answer. What most requests leave
    as it is are attributes of the class, so that making one costs little.

    :param method: name as sent.
    :param path: as sent, without the query, still percent-encoded.
    :param query_string: as sent, without ``?``.
    :param headers: see :data:`HeaderTable`.
    :param body: the whole body of a buffered request, ``b""`` for a streamed one.
    :param body_limit: bytes the body may have; 0 for a streamed one.
    :param stream: the body of a streamed request.
    """

    is_inner = False
    """Whether this is a view of another request, which is counted and shown to the plugins instead."""

    raw_body = b""
    body_limit = 0
    body_too_large = False
    """Whether the body has more than that; it is not kept then."""
    body_is_awaited = False
    """Whether the body is read only when a handler wants it."""
    stream: BodyStream | None = None

    visit: Any = None
    """What the application's guard has found in the headers; ``None``: nothing."""
    is_from_unix_socket = False
    """Whether the client came by a socket that no browser can reach."""
    is_encrypted = False
    """Whether it came by TLS."""

    # Filled by the application:
    parameters: dict[str, bytes] = _NO_PARAMETERS
    endpoint: Endpoint | None = None
    handler: Handler | None = None
    application: Any = None
    number = 0
    started = 0.0
    given_id: bytes | None = None
    is_selective = False
    """Whether it has one of the application's ``selective_headers``."""

    # Filled by the channel, for whoever counts:
    received_bytes = 0
    """Bytes of the body that have arrived."""
    sent_bytes = 0
    """Bytes of the answer's body that were handed to the transport."""
    cut = ""
    """Who broke off request or answer: ``client``, ``gateway``, or nobody."""

    # Filled by the handler, for whoever has to explain a failure:
    caller: Caller | None = None
    operation = ""
    context: Any = None
    """What else the application has to know then; ``None``: nothing."""

    under_way: UnderWay | Deferred[Any] | None = None
    """What the handler waits for; given up if the client leaves."""

    render: Callable[[Any, Request], Response | Deferred[Response]]
    """Set by a handler that makes the request the receiver of an operation: from its result and the request
    to the answer, or to a Deferred of it."""

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
        """Answer; the application calls this once."""
        raise NotImplementedError

    def body_wanted(self) -> None:
        """The handler needs the body to go on; see :class:`BodyWanted`."""
        raise NotImplementedError

    def run_klein(self) -> None:
        """No handler was found: let Klein look for one."""
        raise NotImplementedError

    def broken(self, error: BaseException) -> None:
        """The answer cannot be written: that is a bug of whoever made it. Tell the log, and hang up."""
        raise NotImplementedError

    def hold_answer(self, size: int) -> None:
        """Keep room for a large answer until the client has taken it.

        :param size: in bytes, taken from ``application.answers``.
        """
        # A request without a channel of its own is never slow.
        self.application.answers.adjust(-size)

    # ---- the receiver of an operation (txcouchbase.direct.Receiver) ------------------------------

    def succeeded(self, result: Any) -> None:
        """Answer with what an operation gave."""
        try:
            response = self.render(result, self)
        except Exception as error:  # noqa: BLE001  # becomes the answer
            self.application.failed(error, self)
        else:
            if type(response) is Deferred:
                self.application.wait_for(response, self)
            else:
                self.application.succeeded(response, self)

    def failed(self, error: BaseException) -> None:
        """Answer with why an operation failed."""
        self.application.failed(error, self)

    def give_up(self) -> None:
        """The client is gone: nobody waits for what is under way."""
        under_way, self.under_way = self.under_way, None
        if isinstance(under_way, Deferred):
            under_way.cancel()
        elif under_way is not None:
            under_way.abandon()
            self.application.failed(CancelledError(), self)

    # ---- who it is -------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The request's id: the client's own (``X-Request-Id``), or one made here."""
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
        :raises BodyWanted: it has not been read yet; not to be caught by handlers.
        """
        if self.body_too_large:
            raise too_large(f"the request body has more than {self.body_limit} bytes")
        if self.body_is_awaited:
            raise BodyWanted
        return self.raw_body

    def check_size(self) -> None:
        """Refuse a body that is over the limit, also before it is there; raises Refusal (413)."""
        if self.body_too_large:
            self.body()
