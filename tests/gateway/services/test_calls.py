"""Calls of services: time limits, the order of nodes, and what is repeated; without sockets."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import RequestNotSent, ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers

from couchbase.exceptions import CouchbaseError, NetworkError, TimeoutError
from gateway.services.calls import Asked, Phase, ServiceCall
from gateway.services.kinds import QUERY
from gateway.services.nodes import BAD_SECONDS, NodeChoice
from gateway.services.outgoing import KEPT_BYTES, StreamBody, WholeBody

NODES = ["http://a:8093", "http://b:8093"]


def _tls_error(reason: str) -> ssl.SSLError:
    """Return an error of OpenSSL."""
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def _distrust() -> ssl.SSLCertVerificationError:
    """Return the error of a certificate that is not trusted."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 18, "self-signed certificate"
    return error


class Agent:
    """Notes requests, which the test answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, Deferred[Any], Any]] = []
        self.cancelled = 0

    def request(self, method: bytes, url: bytes, headers: Headers, body: Any = None) -> Deferred[Any]:
        """Note it."""
        asked: Deferred[Any] = Deferred(self._cancel)
        self.requests.append((url, asked, body))
        return asked

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class Transport:
    """The connection of an answer."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def loseConnection(self) -> None:
        self.told.append("close")


class Response:
    """An answer, whose body the test sends."""

    code = 200

    def __init__(self) -> None:
        self.headers = Headers()
        self.transport = Transport()
        self.protocol: Any = None

    def deliverBody(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.makeConnection(self.transport)


class Receiver:
    """Notes what it receives."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.ends: list[CouchbaseError | None] = []

    def received(self, data: bytes) -> None:
        self.parts.append(data)

    def ended(self, error: CouchbaseError | None) -> None:
        self.ends.append(error)


class Stream:
    """A client's body, which the test sends."""

    def __init__(self) -> None:
        self.reader: Any = None
        self.told: list[str] = []

    def deliver_to(self, reader: Any) -> None:
        self.reader = reader

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


class Consumer:
    """A connection that a body is written to."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


class CallTests(SynchronousTestCase):
    """One call."""

    def begin(self, *, is_read: bool = False, body: Any = None, timeout: float = 10.0) -> None:
        """Start a call on two nodes."""
        self.clock = Clock()
        self.agent = Agent()
        self.ended: list[None] = []
        self.choice = NodeChoice(self.clock.seconds, 0)
        self.call = ServiceCall(
            Asked(QUERY, "POST", b"/query/service", Headers(), is_read),
            body,
            self.agent,  # type: ignore[arg-type]
            list(NODES),
            self.choice,
            self.clock,
            timeout,
            lambda: self.ended.append(None),
        )
        self.outcome: list[Any] = []
        self.answer = self.call.start()
        self.answer.addBoth(self.outcome.append)

    def fail(self, error: Exception, *reasons: Exception) -> None:  # type: ignore[override]
        """Fail the request that was sent last."""
        if reasons:
            error = type(error)([Failure(one) for one in reasons])
        self.agent.requests[-1][1].errback(Failure(error))

    def failure(self, kind: type[Exception]) -> Any:
        """Return the error with which the call has failed."""
        (failure,) = self.outcome
        self.assertIsInstance(failure, Failure)
        self.assertIsInstance(failure.value, kind)
        self.assertEqual(self.ended, [None])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return failure.value

    def answered(self) -> tuple[Response, Receiver]:
        """Answer, and begin to read."""
        response, receiver = Response(), Receiver()
        self.agent.requests[-1][1].callback(response)
        self.assertEqual(self.outcome, [response])
        self.call.read(receiver)
        return response, receiver

    def test_answer(self) -> None:
        """The body comes through, and its end ends the call."""
        self.begin()
        response, receiver = self.answered()
        response.protocol.dataReceived(b"a")
        response.protocol.connectionLost(Failure(ResponseDone()))
        self.assertEqual((receiver.parts, receiver.ends), ([b"a"], [None]))
        self.assertEqual((self.call.phase, self.ended), (Phase.OVER, [None]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer_in_time(self) -> None:
        """A node that sends nothing is given up, with the time and its name; no other is asked."""
        self.begin()
        self.clock.advance(9.9)
        self.assertEqual(self.outcome, [])
        self.clock.advance(0.2)
        error = self.failure(TimeoutError)
        self.assertIn("the query service at http://a:8093 sent nothing for 10 s", error.message)
        self.assertTrue(error.ambiguous)
        self.assertEqual((len(self.agent.requests), self.agent.cancelled), (1, 1))

    def test_a_silent_body(self) -> None:
        """A body whose parts stop coming is cut; time in which the client did not read does not count."""
        self.begin()
        response, receiver = self.answered()
        for _ in range(5):
            self.clock.advance(9)
            response.protocol.dataReceived(b"a")
        self.call.pause()
        for _ in range(5):
            self.clock.advance(9)
        self.assertEqual(receiver.ends, [])
        self.call.resume()
        self.assertEqual(response.transport.told, ["pause", "resume"])
        self.clock.advance(11)
        (error,) = receiver.ends
        self.assertIsInstance(error, TimeoutError)
        self.assertEqual(response.transport.told[-1], "close")

    def test_pause_before_the_body(self) -> None:
        """A client that is slow from the beginning stops the service, although Twisted resumes it."""
        self.begin()
        response, receiver = Response(), Receiver()
        self.agent.requests[-1][1].callback(response)
        self.call.pause()
        self.call.read(receiver)
        self.assertEqual(response.transport.told, ["pause"])

    def test_next_node(self) -> None:
        """A node that was not reached is followed by the next, whatever the request does."""
        for error, *reasons in (
            (ConnectionRefusedError(),),
            (RequestNotSent(),),
            (ResponseNeverReceived([]), _distrust()),
            (ResponseNeverReceived([]), _tls_error("WRONG_VERSION_NUMBER")),
        ):
            self.begin()
            self.fail(error, *reasons)
            self.assertEqual(
                [url for url, _, _ in self.agent.requests],
                [b"http://a:8093/query/service", b"http://b:8093/query/service"],
            )
            self.answered()

    def test_no_node(self) -> None:
        """When no node was reached, the last one's failure is the error, and nothing was done."""
        self.begin()
        self.fail(ConnectionRefusedError())
        self.fail(ConnectionRefusedError())
        error = self.failure(NetworkError)
        self.assertIn("http://b:8093", error.message)
        self.assertFalse(error.ambiguous)

    def test_lost_answers(self) -> None:
        """A request that was sent is repeated only if it is a read."""
        self.begin()
        self.fail(ResponseNeverReceived([]), ConnectionLost())
        self.assertTrue(self.failure(NetworkError).ambiguous)
        self.begin()
        self.fail(ResponseNeverReceived([]), _tls_error("BAD_RECORD_MAC"))
        self.assertTrue(self.failure(NetworkError).ambiguous)
        self.begin(is_read=True)
        self.fail(ResponseNeverReceived([]), ConnectionLost())
        self.assertEqual(len(self.agent.requests), 2)
        self.fail(ResponseFailed([]), ConnectionLost())
        self.assertFalse(self.failure(NetworkError).ambiguous)

    def test_cancel(self) -> None:
        """Cancelling closes the connection at any moment, and reports nothing."""
        self.begin()
        self.answer.cancel()
        self.assertEqual((self.agent.cancelled, self.ended), (1, [None]))
        self.begin()
        response, receiver = self.answered()
        self.call.cancel()
        response.protocol.dataReceived(b"late")
        response.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((receiver.parts, receiver.ends), ([], []))
        self.assertEqual((response.transport.told, self.ended), (["close"], [None]))
        self.begin()
        response = Response()
        self.agent.requests[-1][1].callback(response)
        self.call.cancel()
        self.assertEqual((response.transport.told, self.ended), (["close"], [None]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_small_bodies_are_sent_again(self) -> None:
        """A body up to a limit can go to the next node, whole, also if it had arrived in part only."""
        for size, again in ((KEPT_BYTES, True), (KEPT_BYTES + 1, False)):
            stream = Stream()
            body = StreamBody(stream, None)  # type: ignore[arg-type]
            self.begin(is_read=True, body=body)
            first = Consumer()
            body.startProducing(first)  # type: ignore[arg-type]
            stream.reader.body_received(b"x" * size)
            self.assertEqual(len(first.written), size)
            body.stopProducing()
            self.fail(ResponseNeverReceived([]), ConnectionLost())
            self.assertEqual(len(self.agent.requests), 2 if again else 1)
            if again:
                second = Consumer()
                sent = body.startProducing(second)  # type: ignore[arg-type]
                stream.reader.body_received(b"y")
                stream.reader.body_finished()
                self.assertEqual(second.written, b"x" * size + b"y")
                self.successResultOf(sent)
                self.call.cancel()

    def test_large_bodies_are_sent_once(self) -> None:
        """A body whose beginning is gone goes to no other node, even if the first has not seen it."""
        stream = Stream()
        body = StreamBody(stream, None)  # type: ignore[arg-type]
        self.begin(body=body)
        body.startProducing(Consumer())  # type: ignore[arg-type]
        stream.reader.body_received(b"x" * (KEPT_BYTES + 1))
        body.stopProducing()
        self.fail(ResponseNeverReceived([]), _distrust())
        self.assertFalse(self.failure(NetworkError).ambiguous)
        self.assertEqual(len(self.agent.requests), 1)

    def test_time_of_the_client(self) -> None:
        """The time for the next part of the client's body does not count against the service."""
        stream = Stream()
        body = StreamBody(stream, 10)  # type: ignore[arg-type]
        self.begin(body=body)
        body.startProducing(Consumer())  # type: ignore[arg-type]
        for _ in range(10):
            self.clock.advance(9)
        self.assertEqual(self.outcome, [])
        # Now the service takes nothing: that is its time.
        body.pauseProducing()
        self.clock.advance(11)
        self.failure(TimeoutError)

    def test_whole_bodies(self) -> None:
        """A body that is there can always be sent again."""
        body = WholeBody(b"abc")
        for _ in range(2):
            consumer = Consumer()
            self.successResultOf(body.startProducing(consumer))  # type: ignore[arg-type]
            self.assertEqual((consumer.written, body.length, body.can_repeat), (b"abc", 3, True))


class NodeChoiceTests(SynchronousTestCase):
    """The order of nodes."""

    def test_in_turn(self) -> None:
        """Each request begins with the next node."""
        choice = NodeChoice(Clock().seconds, 0)
        bases = ["a", "b", "c"]
        self.assertEqual([choice.order(bases) for _ in range(3)], [["b", "c", "a"], ["c", "a", "b"], bases])

    def test_bad_nodes(self) -> None:
        """A node that failed is last for a while, or until it answers; it is never left out."""
        clock = Clock()
        choice = NodeChoice(clock.seconds, 0)
        choice.failed("b")
        self.assertEqual({choice.order(["a", "b", "c"])[-1] for _ in range(6)}, {"b"})
        choice.answered("b")
        self.assertEqual({choice.order(["a", "b", "c"])[-1] for _ in range(6)}, {"a", "b", "c"})
        choice.failed("b")
        clock.advance(BAD_SECONDS)
        self.assertEqual({choice.order(["a", "b", "c"])[-1] for _ in range(6)}, {"a", "b", "c"})
        for name in ("a", "b"):
            choice.failed(name)
        self.assertEqual(sorted(choice.order(["a", "b"])), ["a", "b"])
