"""The interfaces between a connection, the request on it, its body, the application, and the server.

    server (factory) --- channel --- exchange --- body
           |               |            |
           +--------- application ------+

Each object knows its neighbours only by the protocols of this module, and each protocol has only the members
that are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers as WebHeaders

from gateway.http.counted import CountedRequest
from gateway.http.limits import Budget, Limits
from gateway.http.phases import ConnectionPhase, InputPhase
from gateway.http.pipelines import Pipelines
from gateway.http.refusal import Refusal
from gateway.http.request import Handler, HeaderTable, Request
from gateway.http.response import Headers, Response
from gateway.http.unread import UnreadAnswers
from reactor.turns import OneByOne
from reactor.window import Window

if TYPE_CHECKING:
    from gateway.http.heads import HeadReader

__all__ = [
    "Application",
    "BodyChannel",
    "ByKlein",
    "Channel",
    "Connection",
    "ExchangePort",
    "Guard",
    "Select",
    "Selective",
    "Server",
    "TakesOver",
    "Timed",
    "Visit",
]


class Visit(Protocol):
    """A guard's result for the headers of a request."""

    def admit(self, request: Request) -> Response | None:
        """Admit a request (``None``), or return its answer.

        :raises Refusal: it is not admitted.
        """

    def mark(self, response: Response) -> None:
        """Add headers to the answer."""


class Guard(Protocol):
    """Checks the headers of every request; its result is cached with them."""

    headers: Headers
    """Headers of every answer."""
    names: frozenset[bytes]
    """Headers that the guard checks, in lower case; requests without any of them need no check."""

    def look(self, headers: HeaderTable) -> Visit | None:
        """Return a visit that decides later; ``None`` to admit the request."""


class Selective(Protocol):
    """The headers of a request that must not be ignored."""

    taken_by: Any
    """The endpoint of the last request with them, if it takes them all; ``None`` before the first."""

    @property
    def names(self) -> frozenset[bytes]:
        """Their names, in lower case."""


Select = Callable[..., "Selective | None"]
"""See :meth:`Application.select`."""


class Application(Protocol):
    """Answers requests: the interface of :class:`gateway.http.application.Application` to all others."""

    app: Klein
    guard: Guard | None
    budget: Budget
    """Memory of the requests that are held."""
    answers: Window
    """Memory of large answers that clients have not received yet."""
    unread_answers: UnreadAnswers
    """Bytes of other answers that wait for slow clients."""
    large_turns: OneByOne
    note_large: Callable[[Request, int], None]
    end_hooks: list[Callable[[Request, int, float], None]]
    id_prefix: bytes
    unconfirmed: frozenset[str]
    """Operations that run before the caller is confirmed; no memory is reserved for them."""
    count_clients: Callable[[], int]
    seconds: Callable[[], float]
    unix_time: Callable[[], float]

    @property
    def limits(self) -> Limits:
        """The limits on clients."""

    def select(self, headers: HeaderTable, varying: Iterable[bytes] = ()) -> Selective | None:
        """Return the headers that must not be ignored; ``None`` if there are none of them."""

    def dispatch(self, request: Request) -> bool:
        """Give a request its id and its handler; return false if only Klein knows whether there is one."""

    def barred(self, request: Request) -> Handler | None:
        """Return a handler that refuses the request, if the guard does not admit the request."""

    def serve(self, request: Request) -> None:
        """Dispatch and handle a request that has no body."""

    def handle(self, request: Request) -> None:
        """Run the handler of a request that was dispatched."""

    def resume(self, request: Request) -> None:
        """Run a handler of a request: the same one again, or another one."""

    def refuse(self, request: Request, error: Exception) -> None:
        """Answer a request that failed before a handler was found."""

    def failed(self, error: BaseException, request: Request) -> None:
        """Answer a request whose handler has failed."""

    def answered(self, response: Response, request: Request) -> None:
        """Pass an answer to the plugins, then to the request, which writes it."""

    def ended(self, request: Request, status: int) -> None:
        """Count a request whose answer is complete, or was cut."""

    def no_route(self, path: bytes) -> Refusal:
        """Return the refusal of a path without a route."""

    def klein_knows(self, request: Request) -> bool:
        """Return whether Klein should answer a request for which no route was found."""

    def admission_of(self, request: Request) -> Handler | None:
        """Return the handler to run before the body of a request is read, if any."""


class Server(Protocol):
    """Creates connections: the interface of :class:`gateway.http.factory.ChannelFactory` to its channels."""

    application: Application
    clock: IReactorTime
    stopping: bool
    """Whether connections are closed after the current answer."""
    server: bytes
    """Value of the ``Server`` header."""
    beginnings: dict[int, bytes]
    """Status -> beginning of its answers, up to the number in ``X-Request-Id``. It has every status."""
    heads: HeadReader
    pipelines: Pipelines
    http2: TakesOver | None
    """Takes over connections whose clients speak HTTP/2; ``None`` if none may."""

    def head(self, status: int) -> bytes:
        """Return the beginning of every answer with this status, up to the value of ``X-Request-Id``."""

    def made(self, channel: Connection) -> None:
        """Add a new connection."""

    def replaced(self, channel: Connection, successor: Connection) -> None:
        """Note that another object has taken over a connection."""

    def lost(self, channel: Connection) -> None:
        """Remove a closed connection."""

    def lingers(self, channel: Connection) -> None:
        """Note a connection that waits for its client to close."""


class TakesOver(Protocol):
    """Serves connections whose clients turn out to speak another protocol."""

    def __call__(self, channel: Connection, data: bytes) -> None:
        """Serve a connection from now on.

        :param channel: the channel that has served the connection so far; nothing was written.
        :param data: all bytes that have arrived.
        """


class Channel(Protocol):
    """A connection: the interface to its exchange and to Klein's requests."""

    transport: Any
    application: Application
    unsent_exchange: CountedRequest | None
    """The request whose complete answer waits for a slow reader."""

    @property
    def is_stalled(self) -> bool:
        """Whether the client reads slower than we write."""

    @property
    def cut_by(self) -> str:
        """Which side is responsible if the connection ends early."""

    def write(self, data: bytes, /) -> object:
        """Send bytes."""

    @property
    def factory(self) -> Server:
        """The server that made the channel."""

    def linger(self) -> None:
        """Read and drop the rest of the body after the answer, so that the connection can be reused."""

    def done(self, exchange: ExchangePort) -> None:
        """Note that request and answer are complete."""

    def close(self) -> None:
        """Close when everything written is sent."""

    def abort(self) -> None:
        """Drop the connection at once."""


class BodyChannel(Protocol):
    """A connection: the interface to the body that arrives on it."""

    application: Application
    since: float | None
    """Time at which the wait for this part of the body began; ``None`` means now."""

    def settle_reading(self) -> None:
        """Decide again whether to read from the socket."""

    def body_released(self) -> None:
        """Read the body, which had been left unread."""

    def body_ended(self) -> bool:
        """Note that all of the body has arrived; return false if it is no longer wanted."""

    def close(self) -> None:
        """Close when everything written is sent."""


class ByKlein(Protocol):
    """A request of twisted.web that Klein answers: the interface to its exchange."""

    def stalled(self, stalled: bool) -> None:
        """Note that the client has begun, or ceased, to read slowly."""

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""


class ExchangePort(CountedRequest):
    """An exchange: the interface to its body, the producer of its answer, and Klein."""

    keep_alive = True
    """Whether the connection may be reused for another request."""
    is_1_1 = True
    """Whether the client understands informational answers and bodies of unknown length, unlike HTTP/1.0."""
    http_version = b"1.1"
    web_channel: Callable[[ExchangePort, Channel], Any]
    """Makes the channel of a request of twisted.web, if Klein answers."""

    # ---- for its body ----------------------------------------------------------------------------

    @property
    def is_answered(self) -> bool:
        """Whether all of the answer was written."""
        raise NotImplementedError

    @property
    def waits_to_be_asked(self) -> bool:
        """Whether the client sends its body only when it is asked to (RFC 9110 10.1.1)."""
        raise NotImplementedError

    @property
    def has_reserved(self) -> bool:
        """Whether memory is reserved for the body."""
        raise NotImplementedError

    def reserve(self, size: int) -> bool:
        """Reserve memory for more bytes of the body; return false, and reserve nothing, if there is not
        enough."""
        raise NotImplementedError

    def invite_body(self) -> None:
        """Ask for a body that is wanted, if the client waits to be asked."""
        raise NotImplementedError

    def body_is_complete(self) -> None:
        """Forget the body: it is complete, or never will be."""
        raise NotImplementedError

    def run(self) -> None:
        """Run the handler that the application has found, or let Klein find one."""
        raise NotImplementedError

    def end(self) -> None:
        """Note that request and answer are complete."""
        raise NotImplementedError

    # ---- for the producer of its answer's body ---------------------------------------------------

    def finished(self) -> None:
        """End the answer: all of it is written."""
        raise NotImplementedError

    def aborted(self) -> None:
        """Cut off the answer: its produced body cannot be completed."""
        raise NotImplementedError

    # ---- for Klein -------------------------------------------------------------------------------

    def klein_runs(self, request: ByKlein) -> None:
        """Note that Klein answers."""
        raise NotImplementedError

    def klein_answers(self, status: int, headers: WebHeaders) -> WebHeaders:
        """Begin Klein's answer: return the headers to send, after the plugins have seen them."""
        raise NotImplementedError

    def klein_failed(self, error: Exception) -> None:
        """Report a failure in Klein like any other failure."""
        raise NotImplementedError

    def klein_finished(self) -> None:
        """End Klein's answer: all of it is written."""
        raise NotImplementedError


class Timed(Protocol):
    """A connection, or one of its streams: the interface to its deadlines."""

    transport: Any
    phase: ConnectionPhase
    input: InputPhase
    since: float | None
    """Time at which this phase was first seen; ``None`` if it has not been seen yet."""
    stalled_since: float | None
    unsent: int
    """The result of :meth:`count_unsent` at the last sweep."""
    linger_until: float | None
    """Deadline for dropping the bytes that still arrive."""

    @property
    def is_stalled(self) -> bool:
        """Whether the client reads slower than we write."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is being served."""

    @property
    def allowance(self) -> float:
        """Extra seconds that the current phase may take."""

    def count_unsent(self) -> int:
        """Return a number that decreases when the client reads; 0 if the client has received everything."""

    def probe(self) -> None:
        """Send something, once, to find out whether the client still exists."""

    def all_is_sent(self) -> None:
        """Go on closing: everything written has been sent."""

    def refuse(self, error: Refusal) -> None:
        """Answer an incomplete request, and close."""

    def close(self) -> None:
        """Close when everything written is sent."""

    def stop_lingering(self) -> None:
        """Stop waiting for the client to close its half."""

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being served, or has just arrived."""

    def abort(self) -> None:
        """Drop the connection or stream at once."""


class Connection(Timed, Protocol):
    """A connection: the interface to its factory, its deadlines and its end."""

    cut_by: str
    """Which side is responsible if the connection ends early."""

    @property
    def factory(self) -> Server:
        """The server that made the channel."""

    def note_unread(self) -> None:
        """Count the bytes that wait for the client in ``application.unread_answers``."""

    def timed(self) -> Sequence[Timed]:
        """Return the objects that have deadlines: the connection itself, and its streams if it has any.
        Called once a second."""

    def leave(self) -> None:
        """Make the client send its next request elsewhere, because the server is about to stop."""

    def read_on(self) -> None:
        """Read from the socket again."""
