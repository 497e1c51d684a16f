"""Who may ask whom what: a connection, the request on it, its body, the application, and who made the first.

    server (factory) --- channel --- exchange --- body
           |               |            |
           +--------- application ------+

Whoever is below or beside another knows it by a protocol of this module only, and each protocol has what is
asked of it, not all that the other can do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers as WebHeaders

from gateway.http.counted import CountedRequest
from gateway.http.limits import Budget, Limits
from gateway.http.phases import ConnectionPhase, InputPhase
from gateway.http.refusal import Refusal
from gateway.http.request import Handler, HeaderTable, Request
from gateway.http.response import Headers, Response
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
    "Server",
    "Visit",
]


class Visit(Protocol):
    """What a guard found in the headers of a request."""

    def admit(self, request: Request) -> Response | None:
        """Let a request in (``None``), or return its answer.

        :raises Refusal: it is not let in.
        """

    def mark(self, response: Response) -> None:
        """Add headers to the answer."""


class Guard(Protocol):
    """Looks at the headers of every request; what it finds is remembered with them."""

    headers: Headers
    """What every answer has."""
    names: frozenset[bytes]
    """Headers that it looks at, in lower case; for a request without any of them it need not be asked."""

    def look(self, headers: HeaderTable) -> Visit | None:
        """Return what has to be decided; ``None``: nothing, let it in."""


class Application(Protocol):
    """Who answers requests: :class:`gateway.http.application.Application`, asked by all others."""

    app: Klein
    guard: Guard | None
    budget: Budget
    """Bytes of requests that are held."""
    answers: Window
    """Bytes of large answers that clients have not taken yet."""
    large_turns: OneByOne
    note_large: Callable[[Request, int], None]
    end_hooks: list[Callable[[Request, int, float], None]]
    id_prefix: bytes
    unconfirmed: frozenset[str]
    """Operations during which nobody has confirmed a request's caller, for whom no room is kept."""
    count_clients: Callable[[], int]
    seconds: Callable[[], float]
    unix_time: Callable[[], float]

    @property
    def limits(self) -> Limits:
        """What clients may make it hold, and wait for."""

    def dispatch(self, request: Request) -> bool:
        """Give a request its id and its handler; false if only Klein can tell whether there is one."""

    def barred(self, request: Request) -> Handler | None:
        """Return what answers a request in place of its handler, if the guard does not let it in."""

    def serve(self, request: Request) -> None:
        """Dispatch and handle a request that has no body."""

    def handle(self, request: Request) -> None:
        """Run the handler of a request that was dispatched."""

    def resume(self, request: Request) -> None:
        """Run the handler of a request again, or another one."""

    def refuse(self, request: Request, error: Exception) -> None:
        """Answer a request that never got as far as a handler."""

    def failed(self, error: BaseException, request: Request) -> None:
        """Answer a request whose handler has failed."""

    def answered(self, response: Response, request: Request) -> None:
        """Show an answer to the plugins, and have it written."""

    def ended(self, request: Request, status: int) -> None:
        """Count a request whose answer is complete, or was cut."""

    def no_route(self, path: bytes) -> Refusal:
        """Return how a path without a route is refused."""

    def klein_knows(self, request: Request) -> bool:
        """Return whether Klein is to answer a request that was not placed."""

    def admission_of(self, request: Request) -> Handler | None:
        """Return who has to be asked before the body of a request is read; ``None``: nobody."""


class Server(Protocol):
    """Who makes connections: :class:`gateway.http.factory.ChannelFactory`, asked by its channels."""

    application: Application
    clock: IReactorTime
    stopping: bool
    """Whether connections are closed after the answer that is under way."""
    server: bytes
    """What the ``Server`` header says."""
    ok_head: bytes
    """How an answer with status 200 begins, up to the number in ``X-Request-Id``."""
    heads: HeadReader

    def head(self, status: int) -> bytes:
        """Return how every answer with this status begins, up to the value of ``X-Request-Id``."""

    def made(self, channel: Connection) -> None:
        """A connection is up."""

    def lost(self, channel: Connection) -> None:
        """A connection is closed."""

    def lingers(self, channel: Connection) -> None:
        """A connection waits for its client to close."""


class Channel(Protocol):
    """A connection, as the exchange on it and Klein's requests see it."""

    transport: Any
    application: Application
    is_stalled: bool
    """Whether the client reads slower than we write."""
    cut_by: str
    """Whose doing it is if the connection ends before its time."""
    write: Callable[[bytes], object]
    """Sends bytes."""
    unsent_exchange: CountedRequest | None
    """Whose answer waits for the client to read on."""

    @property
    def factory(self) -> Server:
        """Who made it."""

    def linger(self) -> None:
        """The answer is out before the body is in: read on, so that the connection can be used again."""

    def done(self, exchange: ExchangePort) -> None:
        """Request and answer are complete."""

    def close(self) -> None:
        """Close once what was written is sent."""

    def abort(self) -> None:
        """Drop the connection."""


class BodyChannel(Protocol):
    """A connection, as the body that arrives on it sees it."""

    application: Application
    since: float | None
    """Since when this part of the body is waited for; ``None``: from now on."""

    def settle_reading(self) -> None:
        """Find out anew whether anything may be read."""

    def body_released(self) -> None:
        """The body, which was left where it is, is wanted now."""

    def body_ended(self) -> bool:
        """All of the body is there; false if nobody wants to know any more."""

    def close(self) -> None:
        """Close once what was written is sent."""


class ByKlein(Protocol):
    """A request of twisted.web that Klein answers, as its exchange sees it."""

    def stalled(self, stalled: bool) -> None:
        """The client has begun, or ceased, to read slowly."""

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""


class ExchangePort(CountedRequest):
    """An exchange, as its body, the producer of its answer and Klein see it."""

    keep_alive = True
    """Whether the connection may be used for another request afterwards."""
    is_1_1 = True
    """Whether the client speaks HTTP/1.1, and so knows chunked coding."""

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
        """Whether room is taken for the body."""
        raise NotImplementedError

    def reserve(self, size: int) -> bool:
        """Take room for so many bytes more of the body; false, and nothing is taken, if there is none."""
        raise NotImplementedError

    def invite_body(self) -> None:
        """Ask for a body that is wanted, if the client waits for that."""
        raise NotImplementedError

    def body_is_complete(self) -> None:
        """The body is there, or what there was of it."""
        raise NotImplementedError

    def run(self) -> None:
        """Run the handler that the application has found, or let Klein find one."""
        raise NotImplementedError

    def end(self) -> None:
        """Request and answer are complete."""
        raise NotImplementedError

    # ---- for who makes its answer's body ---------------------------------------------------------

    def finished(self) -> None:
        """All of the answer is written."""
        raise NotImplementedError

    def aborted(self) -> None:
        """A produced body cannot be completed."""
        raise NotImplementedError

    # ---- for Klein -------------------------------------------------------------------------------

    def klein_runs(self, request: ByKlein) -> None:
        """Klein answers from now on."""
        raise NotImplementedError

    def klein_answers(self, status: int, headers: WebHeaders) -> WebHeaders:
        """Klein's answer begins: return the headers to send, after the plugins have seen them."""
        raise NotImplementedError

    def klein_failed(self, error: Exception) -> None:
        """Klein has no answer: tell the failure as any other."""
        raise NotImplementedError

    def klein_finished(self) -> None:
        """Klein's answer is written."""
        raise NotImplementedError


class Connection(Protocol):
    """A connection, as who made it, who looks after its deadlines and its end see it."""

    transport: Any
    cut_by: str
    """Whose doing it is if the connection ends before its time."""
    phase: ConnectionPhase
    input: InputPhase
    since: float | None
    """When this phase was first seen; ``None`` when it has not been."""
    is_stalled: bool
    stalled_since: float | None
    unsent: int
    """What was last seen waiting for the client, in bytes."""
    linger_until: float | None
    """When what still arrives is no longer waited for."""

    @property
    def factory(self) -> Server:
        """Who made it."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""

    @property
    def allowance(self) -> float:
        """Seconds that the phase may take beyond the usual."""

    def read_on(self) -> None:
        """Read from the socket again."""

    def probe(self) -> None:
        """Send something, once, to find out whether the client is there at all."""

    def all_is_sent(self) -> None:
        """What was written before the end has arrived."""

    def refuse(self, error: Refusal) -> None:
        """Answer a request that is not there to its end, and close."""

    def close(self) -> None:
        """Close once what was written is sent."""

    def stop_lingering(self) -> None:
        """Wait no longer for the client to close its half."""

    def close_if_idle(self) -> None:
        """Close it unless a request is under way, or has just arrived."""

    def abort(self) -> None:
        """Drop the connection."""
