"""One request to a service of the cluster: nodes in turn, time limits, and the answer as it arrives."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, RequestNotSent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers as WebHeaders
from twisted.web.iweb import IResponse

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, error_of
from gateway.services.kinds import Kind
from gateway.services.nodes import NodeChoice
from gateway.services.outgoing import StreamBody, WholeBody
from reactor.clock import cancel_timer
from txcouchbase.http import abort, http_error

__all__ = ["Asked", "Phase", "Receiver", "ServiceCall"]


class Asked(NamedTuple):
    """A request for a service."""

    kind: Kind
    method: str
    target: bytes
    headers: WebHeaders
    is_read: bool
    """Whether the request is read-only, so that it may be sent to another node after a connection is lost."""


class Receiver(Protocol):
    """The receiver of an answer's body."""

    def received(self, data: bytes) -> None:
        """Take the next part."""

    def ended(self, error: CouchbaseError | None) -> None:
        """Note that the body is complete, or was cut off."""


class Phase(IntEnum):
    """What a call waits for. The phases follow each other in this order."""

    ASKING = 0
    """Waits for a node's answer."""
    ANSWERED = 1
    """Waits for the owner to read the body."""
    READING = 2
    """Waits for the rest of the body."""
    OVER = 3


class ServiceCall:
    """A running request.

    :param agent: sends requests to one node.
    :param bases: URLs of the nodes to ask, in this order.
    :param timeout: how long a node may neither send nor read anything, in seconds.
    :param on_end: called once, when the call is over.
    """

    # Many parameters: everything that a call needs of the gateway.
    def __init__(
        self,
        asked: Asked,
        body: StreamBody | WholeBody | None,
        agent: Agent,
        bases: list[str],
        nodes: NodeChoice,
        clock: Any,
        timeout: float,
        on_end: Callable[[], None],
    ) -> None:
        self._asked = asked
        self._body = body
        self._agent = agent
        self._left = list(bases)
        self._nodes = nodes
        self._clock = clock
        self._timeout = timeout
        self._on_end: Callable[[], None] | None = on_end
        self.phase = Phase.ASKING
        self.base = ""
        """URL of the node that was asked last."""
        self._request: Deferred[Any] | None = None
        self._answer: Deferred[IResponse] = Deferred(lambda _: self.cancel())
        self._response: IResponse | None = None
        self._reader: _BodyReader | None = None
        self._receiver: Receiver | None = None
        self._is_paused = False
        self._progress = clock.seconds()
        self._timer = clock.callLater(timeout, self._check)
        if isinstance(body, StreamBody):
            body.on_part = self._progressed

    # ---- for the owner ---------------------------------------------------------------------------

    def start(self) -> Deferred[IResponse]:
        """Send the request; fires with the head of the answer. Cancelling it ends the call.

        It fails with CouchbaseError if no node could be reached, or if the node that got the request did not
        answer. ``ambiguous`` is set if the service may have executed the request.
        """
        self._ask(None)
        return self._answer

    def read(self, receiver: Receiver) -> None:
        """Deliver the body, from now on."""
        assert self.phase is Phase.ANSWERED and self._response is not None
        self.phase = Phase.READING
        self._receiver = receiver
        self._progressed()
        self._reader = _BodyReader(self)
        response, self._response = self._response, None
        reader = self._reader
        response.deliverBody(reader)
        if self._is_paused:
            # Twisted resumes the connection when the delivery begins.
            reader.pause()

    def pause(self) -> None:
        """Stop delivering for now."""
        self._is_paused = True
        if self._reader is not None:
            self._reader.pause()

    def resume(self) -> None:
        """Continue to deliver."""
        self._is_paused = False
        self._progressed()
        if self._reader is not None:
            self._reader.resume()

    def cancel(self) -> None:
        """End the call without a report: the connection to the service is closed, which stops its work."""
        self._end()

    # ---- asking ----------------------------------------------------------------------------------

    def _ask(self, last: Failure | None) -> None:
        if not self._left:
            assert last is not None
            self._fail(self._explained(last))
            return
        self.base = self._left.pop(0)
        self._progressed()
        asked = self._asked
        url = self.base.encode("ascii") + asked.target
        producer = self._body if self._body is not None else None
        self._request = request = self._agent.request(
            asked.method.encode("ascii"), url, asked.headers, producer
        )
        request.addCallbacks(self._answered, self._failed)

    def _answered(self, response: IResponse) -> None:
        self._request = None
        if self.phase is not Phase.ASKING:
            return
        self.phase = Phase.ANSWERED
        self._response = response
        self._nodes.answered(self.base)
        self._progressed()
        self._answer.callback(response)

    def _failed(self, failure: Failure) -> None:
        self._request = None
        if self.phase is not Phase.ASKING:
            return
        self._nodes.failed(self.base)
        may_repeat = self._body is None or self._body.can_repeat
        if may_repeat and (self._asked.is_read or _nothing_was_sent(failure)):
            self._ask(failure)
        else:
            self._left.clear()
            self._fail(self._explained(failure))

    def _explained(self, failure: Failure) -> CouchbaseError:
        assert failure.value is not None
        error = http_error(self.base, failure.value)
        error.message = f"the {self._asked.kind.title}: {error.message}"
        error.ambiguous = not self._asked.is_read and not _nothing_was_sent(failure)
        return error

    def _fail(self, error: CouchbaseError) -> None:
        answer = self._answer
        was_asking = self.phase is Phase.ASKING
        receiver = self._receiver
        self._end()
        if was_asking:
            answer.errback(error)
        elif receiver is not None:
            receiver.ended(error)

    # ---- the body --------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take a part of the body from the connection."""
        self._progressed()
        if self._receiver is not None:
            self._receiver.received(data)

    def ended(self, reason: Failure) -> None:
        """Note the end of the body."""
        receiver = self._receiver
        if self.phase is Phase.OVER or receiver is None:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self._end()
            receiver.ended(None)
            return
        self._nodes.failed(self.base)
        assert reason.value is not None
        error = http_error(self.base, reason.value)
        error.message = f"the {self._asked.kind.title}'s answer was cut off: {error.message}"
        error.ambiguous = not self._asked.is_read
        self._fail(error)

    # ---- time, and the end -----------------------------------------------------------------------

    def _progressed(self) -> None:
        self._progress = self._clock.seconds()

    def _check(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if self._is_paused or self.phase is Phase.ANSWERED or self._waits_for_client:
            # The service waits for the client during that time.
            self._progress = now
        left = self._progress + self._timeout - now
        if left > 0:
            self._timer = self._clock.callLater(left, self._check)
            return
        error = error_of(
            exceptions.ETIMEDOUT,
            f"the {self._asked.kind.title} at {self.base} sent nothing for {self._timeout:g} s",
        )
        error.ambiguous = not self._asked.is_read
        self._fail(error)

    @property
    def _waits_for_client(self) -> bool:
        return isinstance(self._body, StreamBody) and self._body.waits_for_client

    def _end(self) -> None:
        if self.phase is Phase.OVER:
            return
        self.phase = Phase.OVER
        cancel_timer(self._timer)
        self._timer = self._receiver = None
        request, self._request = self._request, None
        response, self._response = self._response, None
        reader, self._reader = self._reader, None
        if request is not None:
            request.addErrback(lambda _: None)
            request.cancel()
        if self._body is not None:
            self._body.discard()
        if response is not None:
            reader = _BodyReader(None)
            response.deliverBody(reader)
        if reader is not None:
            reader.drop()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()


class _BodyReader(TwistedProtocol):
    """Receives the body of an answer for a call."""

    def __init__(self, call: ServiceCall | None) -> None:
        self._call = call
        self.is_paused = False

    @property
    def _transport(self) -> Any:
        return self.transport

    def pause(self) -> None:
        """Stop reading from the service."""
        if not self.is_paused and self.transport is not None:
            self.is_paused = True
            self._transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if self.is_paused:
            self.is_paused = False
            self._transport.resumeProducing()

    def drop(self) -> None:
        """Stop receiving, and close the connection unless the body is complete."""
        self._call = None
        if self.transport is not None:
            abort(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self._call is not None:
            self._call.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.ended(reason)


def _nothing_was_sent(failure: Failure) -> bool:
    """Return whether a service cannot have received the request: there was no connection, or no TLS."""
    if failure.check(RequestNotSent):
        return True
    reasons = getattr(failure.value, "reasons", None)
    if reasons is None:
        return True
    return any(isinstance(one, Failure) and _is_of_handshake(one.value) for one in reasons)


def _is_of_handshake(error: BaseException | None) -> bool:
    """Return whether TLS failed before any byte could be sent over it; errors in later bytes look alike."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    return isinstance(reason, str) and ("VERSION" in reason or "HANDSHAKE" in reason)
