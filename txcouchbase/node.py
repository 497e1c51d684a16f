"""One connection to one node: handshake, operations in flight, one write a reactor turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, threads
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
)
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import SSL
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import Logger
from twisted.python.failure import Failure

from couchbase import exceptions as rc
from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.answers import AnswerReader, Undecodable
from couchbase.protocol.constants import Magic, ServerOpcode
from couchbase.protocol.errormap import ServerStatus
from couchbase.protocol.frames import Frame, encode_request
from couchbase.protocol.handshake import Session
from couchbase.protocol.offers import NO_FULL_LOOKUP
from couchbase.protocol.operations import (
    GET_WITH_EXPIRY,
    PathsRefused,
    client_error,
    complete,
    downgrade,
    head,
)
from couchbase.protocol.plans import Compute, Exchange, Pause
from couchbase.protocol.statuses import Action, action_for
from couchbase.protocol.strangers import MAYBE_TLS, NOT_TLS, tls_hint
from txcouchbase.calls import Call

if TYPE_CHECKING:
    from txcouchbase.turn import Turn

_log = Logger()

LARGE_BYTES = 2**18
"""Values from this size on are sent in pieces of it."""

MAX_PENDING = 65_536
"""Operations that may wait for answers on one connection."""

_SERVER_REQUEST = int(Magic.SERVER_REQUEST)


class NodeProtocol(Protocol):
    """The client's end of a connection to the key-value service of a node.

    :param reactor: provides time.
    :param answered: called with (protocol, call, status, frame, action) for an answer that is to be
        retried, or sent elsewhere; the call has left this connection by then.
    :param pushed: called with (protocol, configuration bytes) when the server pushes a map.
    :param writable: called with (protocol, bool) when the peer stops and starts taking bytes.
    :param turn: holds what is given while answers are handed out.
    """

    def __init__(
        self,
        reactor: Any,
        answered: Callable[[NodeProtocol, Call, Frame, Action], None],
        pushed: Callable[[NodeProtocol, bytes], None],
        writable: Callable[[NodeProtocol, bool], None],
        turn: Turn,
    ) -> None:
        self._reactor = reactor
        self._answered = answered
        self._pushed = pushed
        self._writable = writable
        self._turn = turn
        self._reader = AnswerReader()
        self.out: list[bytes] = []
        """What leaves with the next :meth:`flush`."""
        self._flushing: Any = None
        self._reading = False
        self.opaque = 0
        """The number of the last request."""
        self._is_tcp = False
        # Whether the node has still to answer the first words of the handshake.
        self._greets = True
        self.has_large = False
        """Whether there is a large value in :attr:`out`."""
        # What the transport has not taken of large values, and what goes behind them.
        self._unsent: deque[memoryview] = deque()
        self._is_full = False
        # A large answer that is complete and not decoded yet.
        self._joined: bytes | None = None
        self._joining: Any = None
        self.pending: dict[int, Call] = {}
        # Requests of the driver itself: opaque -> called with each frame, true to keep listening.
        self._questions: dict[int, Callable[[Frame | None], bool]] = {}
        self.session = Session(frozenset(), None, {})
        self.lacking: frozenset[int] = frozenset()
        """What its HELLO did not grant, and what it refused since; see :mod:`couchbase.protocol.offers`."""
        self.adapt: Callable[[NodeProtocol, Call], bool] = lambda node, call: True
        """Makes an operation fit a node that lacks something; false if it is not to be sent."""
        self.demoted: Callable[[], None] = lambda: None
        """Called when it turns out that the node lacks something."""
        self.lost: Deferred[Any] = Deferred()
        self.is_lost = False
        self.name = "a node"
        """``host:port``, for messages."""
        # Why the connection ends, where that is better known than what the transport says.
        self._fault: BaseException | None = None

    # --- operations ------------------------------------------------------------------------

    def send(self, call: Call, vbucket: int) -> None:
        """Put one operation on the wire by the end of this reactor turn.

        For what takes a way of its own; nearly all operations come by way of :mod:`txcouchbase.turn`.
        """
        if self.lacking and not self.adapt(self, call):
            return
        pending = self.pending
        if len(pending) >= MAX_PENDING:
            call.fail(client_error(call, rc.CLIENT_ETMPFAIL, f"{MAX_PENDING} operations wait for this node"))
            return
        self.opaque = opaque = (self.opaque + 1) & 0xFFFFFFFF
        call.opaque = opaque
        call.pending = pending
        pending[opaque] = call
        if not self.out:
            self.schedule()
        self.out.append(head(call, vbucket, opaque))
        if call.value:
            self.out.append(call.value)
            if len(call.value) >= LARGE_BYTES:
                self.has_large = True

    def ask(self, opcode: int, listener: Callable[[Frame | None], bool], **fields: Any) -> int:
        """Send a request of the driver's own; returns its number, for :meth:`forget`.

        :param listener: called with each answer, true to wait for more, and with ``None`` if the
            connection is lost first.
        """
        if self.is_lost:
            listener(None)
            return -1
        self.opaque = opaque = (self.opaque + 1) & 0xFFFFFFFF
        self._questions[opaque] = listener
        if not self.out:
            self.schedule()
        self.out.append(encode_request(opcode, opaque=opaque, **fields))
        return opaque

    def forget(self, number: int) -> None:
        """Stop listening for answers to a request of the driver's own."""
        self._questions.pop(number, None)

    def ask_once(self, opcode: int, **fields: Any) -> Deferred[Frame | None]:
        """Send a request of the driver's own; fires with its answer, ``None`` if the node is lost."""
        answer: Deferred[Frame | None] = Deferred(lambda _: self.forget(number))

        def listener(frame: Frame | None) -> bool:
            answer.callback(frame)
            return False

        number = self.ask(opcode, listener, **fields)
        return answer

    def schedule(self) -> None:
        """See to it that what is to be sent leaves in the next turn at the latest."""
        if self._flushing is None and not self._reading:
            self._flushing = self._reactor.callLater(0, self._flush_later)

    def _flush_later(self) -> None:
        self._flushing = None
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent, in one write."""
        out = self.out
        if out and not self.is_lost:
            if self.has_large or self._unsent:
                self._flush_in_pieces()
                return
            data = b"".join(out) if len(out) > 1 else out[0]
            out.clear()
            self._write(data)

    def _flush_in_pieces(self) -> None:
        """Send large values in pieces, so that no turn of the reactor copies all of one, let alone of
        many."""
        small: list[bytes] = []
        for piece in self.out:
            if len(piece) < LARGE_BYTES:
                small.append(piece)
                continue
            if small:
                self._unsent.append(memoryview(b"".join(small)))
                small.clear()
            self._unsent.append(memoryview(piece))
        if small:
            self._unsent.append(memoryview(b"".join(small)))
        self.out.clear()
        self.has_large = False
        self._send_on()

    def _send_on(self) -> None:
        """Send what waits, as long as the transport takes it."""
        unsent = self._unsent
        while unsent and not self._is_full and not self.is_lost:
            piece = unsent.popleft()
            if len(piece) > LARGE_BYTES:
                unsent.appendleft(piece[LARGE_BYTES:])
                piece = piece[:LARGE_BYTES]
            self._write(bytes(piece))

    def _write(self, data: bytes) -> None:
        transport: Any = self.transport
        # Straight to the socket if nothing waits in the transport: otherwise the bytes would leave only
        # after another turn of the reactor and two changes of its interest in the socket. Only
        # Twisted's TCP transport has these attributes; every other one takes the common way.
        if (
            self._is_tcp
            and not transport.dataBuffer
            and not transport._tempDataBuffer
            and transport.connected
            and not transport.disconnecting
        ):
            written = transport.writeSomeData(data)
            if not isinstance(written, int):
                transport.write(data)
            elif written < len(data):
                transport.write(data[written:])
        else:
            transport.write(data)

    # --- transport -------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Bound what is buffered for a peer that does not read."""
        assert self.transport is not None
        self._is_tcp = isinstance(self.transport, TCPConnection)
        if self._is_tcp:
            self.transport.setTcpNoDelay(True)  # type: ignore[attr-defined]
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]

    def pauseProducing(self) -> None:
        """The transport's buffer is full: the peer does not read."""
        self._is_full = True
        self._writable(self, False)

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self._is_full = False
        self._send_on()
        if not self._is_full:
            self._writable(self, True)

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost tells the rest."""

    def dataReceived(self, data: bytes) -> None:
        """Complete the operations whose answers arrived, then send what they gave rise to."""
        if self._reader.need < LARGE_BYTES and self._joined is None:
            self._received(data)
        elif self._joined is not None:
            # Reading is paused, but a transport may still hand over what it has decrypted.
            self._joined += data
        else:
            self._joined = self._reader.joined(data)
            if self._joined is not None:
                # What is made of it comes in a turn of its own, as both take milliseconds.
                self.transport.pauseProducing()  # type: ignore[union-attr]
                self._joining = self._reactor.callLater(0, self._after_join)

    def _after_join(self) -> None:
        self._joining = None
        data, self._joined = self._joined, None
        assert data is not None
        self.transport.resumeProducing()  # type: ignore[union-attr]
        self._received(data)

    def _received(self, data: bytes) -> None:
        reader, turn = self._reader, self._turn
        self._reading = turn.held = True
        try:
            pairs = iter(reader.feed(data, self.pending))
            for call, result in zip(pairs, pairs, strict=True):
                if call is None:
                    self._other(result)
                else:
                    call.succeed(result)
        finally:
            turn.held = False
            turn.drain(self)
            self._reading = False
            self.flush()
        if reader.need >= LARGE_BYTES:
            # All that wait come behind it, and are given the time that it may take.
            more = turn.more_for(reader.need)
            for call in self.pending.values():
                call.deadline += more
        if reader.violation is not None:
            message = f"{self.name}: protocol violation: {reader.violation}"
            if self._fault is None:
                _log.error("{message}", message=message)
            self._fault = error_of(rc.PROTOCOL_ERROR, message)
            assert self.transport is not None
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def _answered_by(self, call: Call, frame: Frame) -> None:
        if not frame.specific:
            try:
                result = complete(call, frame, None, self.name)
            except Exception as error:  # noqa: BLE001 - a transcoder's failure is the caller's
                self._undecodable(call, error)
            else:
                call.succeed(result)
            return
        error_map = self.session.error_map
        if frame.specific in error_map:
            self._explained(call, frame, error_map[frame.specific])
            return
        action = action_for(call.operation.name, frame.specific, self.session.xerror)
        if action is Action.SURFACE:
            if downgrade(call, frame.specific):
                self._lacks_lookups()
                self.send(call, call.vbucket)
                return
            try:
                call.succeed(complete(call, frame, None, self.name))
            except CouchbaseError as error:
                call.fail(error)
            return
        if action is Action.RECONNECT:
            self._leave()
        self._answered(self, call, frame, action)

    def _explained(self, call: Call, frame: Frame, status: ServerStatus) -> None:
        """Handle a status that only the server's error map explains."""
        action = status.action(call.attempts)
        if status.reconnects:
            self._leave()
        if action is not Action.SURFACE or status.refreshes:
            self._answered(self, call, frame, action)
        if action is Action.SURFACE:
            try:
                call.succeed(complete(call, frame, status, self.name))
            except CouchbaseError as error:
                call.fail(error)

    def _leave(self) -> None:
        """Take nothing more, and close: the server says that this connection is of no use."""
        self._writable(self, False)
        assert self.transport is not None
        self.transport.loseConnection()

    def _lacks_lookups(self) -> None:
        self.lacking |= {NO_FULL_LOOKUP}
        self.demoted()

    def _undecodable(self, call: Call, error: Exception) -> None:
        if isinstance(error, PathsRefused) and call.operation is GET_WITH_EXPIRY:
            self._lacks_lookups()
            self.send(call, call.vbucket)
            return
        if isinstance(error, CouchbaseError):
            error.key = call.key if error.key is None else error.key
            error.operation = call.operation.name
        call.fail(error)

    def _other(self, found: Frame | Undecodable) -> None:
        """Handle what is no plain success."""
        if isinstance(found, Undecodable):
            self._undecodable(*found)
            return
        frame = found
        if frame.magic == _SERVER_REQUEST:
            # The server's numbers are its own.
            if frame.opcode == ServerOpcode.CLUSTERMAP_CHANGE and frame.value:
                self._pushed(self, frame.value)
            return
        call = self.pending.pop(frame.opaque, None)
        if call is not None:
            call.pending = None
            self._answered_by(call, frame)
            return
        listener = self._questions.pop(frame.opaque, None)
        if listener is not None and listener(frame):
            self._questions[frame.opaque] = listener

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what was in flight: nobody knows whether it was carried out."""
        if self._joining is not None:
            self._joining.cancel()
            self._joining = self._joined = None
        self.is_lost = True
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self.out.clear()
        fault = self._fault = self._fault or reason.value or network_error("the connection was lost")
        # First of all: what is given from the callbacks below must not be sent here.
        self.lost.callback(fault)  # the exception: a Failure would go to errbacks
        questions, self._questions = self._questions, {}
        for listener in questions.values():
            listener(None)
        calls = list(self.pending.values())
        self.pending.clear()
        for call in calls:
            call.pending = None
            message = f"the connection was lost: {cause_text(fault)}"
            call.fail(client_error(call, rc.NETWORK_ERROR, message, ambiguous=True))

    # --- handshake -------------------------------------------------------------------------

    @inlineCallbacks
    def run(self, plan: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Drive a plan that talks on this connection alone; fires with what it returns.

        :raises CouchbaseError: NetworkError, the connection was lost; or what the plan raises.
        """
        step = next(plan)
        advance: Callable[[Any], Any]
        while True:
            try:
                answer = yield self._perform(step)
            except Exception as error:  # noqa: BLE001 - thrown into the plan, which decides
                advance, value = plan.throw, error
            else:
                advance, value = plan.send, answer
            try:
                step = advance(value)
            except StopIteration as done:
                return done.value

    @inlineCallbacks
    def _perform(self, step: Any) -> Generator[Any, Any, Any]:
        if isinstance(step, Compute):
            return (yield threads.deferToThread(step.function, *step.arguments))
        if isinstance(step, Pause):
            pause: Deferred[None] = Deferred(lambda _: later.cancel())
            later = self._reactor.callLater(step.seconds, pause.callback, None)
            return (yield pause)
        if not isinstance(step, Exchange):
            raise TypeError(f"a node cannot perform {step!r}")
        waiting = [self.ask_once(opcode, **fields) for opcode, fields in step.requests]
        frames = []
        for answer in waiting:
            frame = yield answer
            if frame is None:
                fault = self._fault or network_error("the connection was lost")
                if isinstance(fault, CouchbaseError):
                    raise fault
                raise self._cut_short(fault)
            frames.append(frame)
        self._greets = False
        return frames

    def _cut_short(self, fault: BaseException) -> CouchbaseError:
        """Return the error for a connection that was lost during the handshake."""
        what, reason = f"the connection to {self.name} was lost during the handshake", cause_text(fault)
        if isinstance(fault, SSL.Error) or type(fault).__name__ == "VerificationError":
            what = f"no TLS connection to {self.name}"
        elif self._greets:
            # Without a word: the other side expected something else.
            reason += f": {NOT_TLS if ISSLTransport.providedBy(self.transport) else MAYBE_TLS}"
        return network_error(f"{what}: {reason}", fault)


def cause_text(error: BaseException) -> str:
    """Return why a connection failed, in one line for people."""
    if isinstance(error, CouchbaseError):
        return str(error.message or error)
    if isinstance(error, DNSLookupError):
        return "the host name is unknown"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (defer.TimeoutError, defer.CancelledError, TCPTimedOutError)):
        return "no answer in time"
    if isinstance(error, (ConnectionDone, ConnectionLost)):
        return "the node closed the connection"
    if isinstance(error, SSL.Error):
        reasons = [str(entry[-1]) for entry in error.args[0]] if error.args and error.args[0] else []
        text = "; ".join(reasons) or "the handshake failed"
        return text + tls_hint(text)
    if type(error).__name__ == "VerificationError":
        # Of service_identity, which Twisted brings and hides.
        return "the certificate is for another host name"
    return str(error) or type(error).__name__


def network_error(message: str, inner: BaseException | None = None) -> CouchbaseError:
    """Return the NetworkError for a connection that failed."""
    return error_of(rc.NETWORK_ERROR, message, inner_cause=inner)
