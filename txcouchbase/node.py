"""One connection to one node: moves bytes in and out of its conversation, with one write per reactor turn."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from twisted.internet import threads
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from couchbase.exceptions import CouchbaseError
from couchbase.protocol.conversation import LARGE_BYTES, Conversation, Home, Phase, Resume
from couchbase.protocol.plans import Compute, Pause
from couchbase.protocol.strangers import MAYBE_TLS, NOT_TLS
from reactor.clock import cancel_timer
from reactor.kinds import IReactor
from reactor.shutdown import has_ended
from reactor.writer import send_small_parts, writer_to
from txcouchbase.causes import cause_text, network_error

if TYPE_CHECKING:
    from txcouchbase.turn import Turn

__all__ = ["LARGE_BYTES", "NodeProtocol"]

_log = Logger()


class NodeProtocol(Protocol):
    """The client's end of a connection to the key-value service of a node, which carries its conversation.

    :param reactor: provides time.
    :param host: the node's host.
    :param port: the port of its key-value service.
    :param home: the owner of all conversations with the cluster.
    :param writable: called with (protocol, bool) when the peer stops or resumes reading.
    :param turn: collects operations started while answers are delivered.
    """

    def __init__(
        self,
        reactor: IReactor,
        host: str,
        port: int,
        home: Home,
        writable: Callable[[NodeProtocol, bool], None],
        turn: Turn,
    ) -> None:
        self.name = f"{host}:{port}"
        """``host:port``, for messages."""
        self.conversation = Conversation(self.name, host, self, home)
        self._reactor = reactor
        self._writable = writable
        self._turn = turn
        self._flushing: Any = None
        self._reading = False
        # The rest of large values that the transport has not accepted, and the bytes behind them.
        self._unsent: deque[memoryview] = deque()
        self._is_full = False
        # A large complete answer that is not decoded yet.
        self._joined: bytes | None = None
        self._joining: Any = None
        self._pause: Any = None
        self._write: Callable[[bytes], Any] = lambda data: None
        self.lost: Deferred[Any] = Deferred()

    # ---- sending ---------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Make sure that pending data is sent in the next turn at the latest."""
        if self._flushing is None and not self._reading:
            self._flushing = self._reactor.callLater(0, self._flush_later)

    def _flush_later(self) -> None:
        self._flushing = None
        self.flush()

    def flush(self) -> None:
        """Send pending data, in one write."""
        conversation = self.conversation
        out = conversation.out
        if out:
            if conversation.has_large or self._unsent:
                self._flush_in_pieces()
                return
            data = b"".join(out) if len(out) > 1 else out[0]
            out.clear()
            self._write(data)

    def _flush_in_pieces(self) -> None:
        """Send large values in pieces, so that no turn of the reactor copies all of one, or of many."""
        conversation = self.conversation
        small: list[bytes] = []
        for piece in conversation.out:
            if len(piece) < LARGE_BYTES:
                small.append(piece)
                continue
            if small:
                self._unsent.append(memoryview(b"".join(small)))
                small.clear()
            self._unsent.append(memoryview(piece))
        if small:
            self._unsent.append(memoryview(b"".join(small)))
        conversation.out.clear()
        conversation.has_large = False
        self._send_on()

    def _send_on(self) -> None:
        """Send waiting data while the transport accepts it."""
        unsent = self._unsent
        while unsent and not self._is_full and self.conversation.phase is not Phase.LOST:
            piece = unsent.popleft()
            if len(piece) > LARGE_BYTES:
                unsent.appendleft(piece[LARGE_BYTES:])
                piece = piece[:LARGE_BYTES]
            self._write(bytes(piece))

    # ---- transport -------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Limit the buffer for a peer that does not read."""
        transport: Any = self.transport
        send_small_parts(transport)
        self._write = writer_to(transport)
        transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """Stop sending: the transport's buffer is full, as the peer does not read."""
        self._is_full = True
        self._writable(self, False)

    def resumeProducing(self) -> None:
        """Continue to send: the transport's buffer is empty again."""
        self._is_full = False
        self._send_on()
        if not self._is_full:
            self._writable(self, True)

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost handles it."""

    def dataReceived(self, data: bytes) -> None:
        """Complete the operations whose answers arrived, then send the operations that these started."""
        conversation, turn = self.conversation, self._turn
        reader = conversation.reader
        if reader.need >= LARGE_BYTES or self._joined is not None:
            self._received_large(data)
            return
        self._reading = turn.is_delivering = True
        try:
            conversation.receive(data)
        finally:
            turn.is_delivering = False
            turn.drain(conversation)
            self._reading = False
            self.flush()
        need = reader.need
        if need >= LARGE_BYTES:
            # All waiting operations come behind it, so their timeouts are extended by its time.
            more = turn.more_for(need)
            for call in conversation.pending.values():
                call.deadline += more

    def _received_large(self, data: bytes) -> None:
        """Take a piece of a large answer."""
        if self._joined is not None:
            # Reading is paused, but a transport may still hand over what it has decrypted.
            self._joined += data
            return
        self._joined = self.conversation.reader.joined(data)
        if self._joined is not None:
            # The receiver's work comes in a turn of its own, as both take milliseconds.
            self.transport.pauseProducing()  # type: ignore[union-attr]
            self._joining = self._reactor.callLater(0, self._after_join)

    def _after_join(self) -> None:
        self._joining = None
        data, self._joined = self._joined, None
        assert data is not None
        self.transport.resumeProducing()  # type: ignore[union-attr]
        self.dataReceived(data)

    def leave(self) -> None:
        """Accept no more operations, and close: the conversation has ended."""
        transport: Any = self.transport
        fault = self.conversation.fault
        if fault is None:
            self._writable(self, False)
            transport.loseConnection()
        else:
            _log.error("{message}", message=cause_text(fault))
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail operations in flight: it is unknown whether they were executed.

        At the end of the reactor, nothing is reported: no program can react to it any more.
        """
        if has_ended(self._reactor):
            return
        if self._joining is not None:
            cancel_timer(self._joining)
            self._joining = self._joined = None
        for timer in (self._flushing, self._pause):
            cancel_timer(timer)
        self._flushing = self._pause = None
        self._write = lambda data: None
        conversation = self.conversation
        fault = conversation.fault or reason.value or network_error("the connection was lost")
        # First, so that operations started by the callbacks below are not sent here.
        self.lost.callback(fault)  # the exception: a Failure would go to errbacks
        conversation.lose(fault, cause_text(fault))

    # ---- handshake -------------------------------------------------------------------------------

    def greet(self, plan: Generator[Any, Any, Any]) -> Deferred[None]:
        """Shake hands; fires when operations can be sent.

        :raises CouchbaseError: NetworkError, the connection was lost; or what the plan raises.
        """
        done: Deferred[None] = Deferred()

        def greeted(error: BaseException | None) -> None:
            if done.called:
                return  # It was cancelled.
            if error is None:
                done.callback(None)
            elif self.conversation.phase is Phase.LOST and not isinstance(error, CouchbaseError):
                done.errback(self._cut_short(error))
            else:
                done.errback(error)

        self.conversation.greet(plan, self._perform, greeted)
        return done

    def _perform(self, step: Compute | Pause, resume: Resume) -> None:
        if isinstance(step, Pause):
            self._pause = self._reactor.callLater(step.seconds, self._after_pause, resume)
            return
        computed = threads.deferToThread(step.function, *step.arguments)
        computed.addCallbacks(resume, lambda failure: resume(None, failure.value))

    def _after_pause(self, resume: Resume) -> None:
        self._pause = None
        resume(None)

    def _cut_short(self, fault: BaseException) -> CouchbaseError:
        """Return the error for a connection that was lost during the handshake."""
        what, reason = f"the connection to {self.name} was lost during the handshake", cause_text(fault)
        if isinstance(fault, ssl.SSLError):
            what = f"no TLS connection to {self.name}"
        elif not self.conversation.is_answered:
            # It was closed without a message: the peer expected something else.
            reason += f": {NOT_TLS if ISSLTransport.providedBy(self.transport) else MAYBE_TLS}"
        return network_error(f"{what}: {reason}", fault)
