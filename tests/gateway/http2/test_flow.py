"""Back-pressure of each stream, in both directions, and shares of one connection; over sockets."""

from __future__ import annotations

from functools import partial
from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from twisted.internet.defer import inlineCallbacks

from gateway.http2.core import CONNECTION_WINDOW, FIRST_WINDOW, STREAM_WINDOW
from gateway.limits import Limits
from tests.gateway.http2.app import SocketTestCase
from tests.gateway.http2.peer import Client, Received

WINDOW = FIRST_WINDOW
LARGE = 200_000


def slow() -> Client:
    """Return a client that opens no windows by itself."""
    return Client(acknowledges=False)


class AnswerTests(SocketTestCase):
    """Answers that are read slowly."""

    limits = Limits(stall_seconds=5)

    @inlineCallbacks
    def test_slow_stream(self) -> Any:
        """A client that leaves no window for one answer gets others meanwhile, and this one when it opens
        the window."""
        client = yield self.connect(slow())
        client.h2.increment_flow_control_window(2**20)
        client.flush()
        large = client.request("GET", f"/size/{LARGE}")
        yield self.until(lambda: len(client.streams[large].body) == WINDOW)
        for _ in range(3):
            small = yield self.ask("/size/100", client)
            self.assertTrue(small.is_complete)
        self.assertEqual(self.served.ended, [("/size/100", 200, "")] * 3)
        client.h2.increment_flow_control_window(LARGE, large)
        client.flush()
        yield self.until(lambda: client.streams[large].is_complete)
        self.assertEqual(len(client.streams[large].body), LARGE)

    @inlineCallbacks
    def test_connection_window(self) -> Any:
        """All answers together keep to the connection's window, and share what it becomes."""
        client = yield self.connect(slow())
        numbers = [client.request("GET", "/size/60000") for _ in range(4)]
        received = lambda: [len(client.streams[number].body) for number in numbers]  # noqa: E731  # short
        yield self.until(lambda: sum(received()) == WINDOW)
        yield self.turns()
        self.assertEqual(sum(received()), WINDOW)
        self.assertLessEqual(max(received()) - min(received()), 16384)
        client.h2.increment_flow_control_window(2**20)
        client.flush()
        yield self.until(lambda: all(client.streams[number].is_complete for number in numbers))

    @inlineCallbacks
    def test_shares(self) -> Any:
        """A small answer does not wait until large ones, requested before it, are sent."""
        order: list[int] = []
        client = yield self.connect(Client({SettingCodes.INITIAL_WINDOW_SIZE: 2**20}))
        client.h2.increment_flow_control_window(2**24)
        client.flush()
        numbers = [client.request("GET", "/size/250000") for _ in range(4)]
        numbers.append(client.request("GET", "/size/10"))

        def note() -> bool:
            order.extend(n for n in numbers if client.streams[n].is_complete and n not in order)
            return len(order) == len(numbers)

        yield self.until(note)
        self.assertEqual(order[0], numbers[-1])

    @inlineCallbacks
    def test_producers(self) -> Any:
        """A producer is paused when its client leaves no window, and resumed when all it wrote is sent; other
        producers go on."""
        client = yield self.connect(slow())
        client.h2.increment_flow_control_window(2**24)
        client.flush()
        one, two = client.request("GET", "/produce"), client.request("GET", "/produce")
        yield self.until(lambda: len(self.handlers.produced) == 2)
        first, second = self.handlers.produced
        first.write(b"x" * 1000)
        second.write(b"y" * 1000)
        yield self.until(lambda: len(client.streams[one].body) == len(client.streams[two].body) == 1000)
        self.assertEqual((first.told, second.told), ([], []))
        first.write(b"x" * WINDOW)
        yield self.until(lambda: first.told == ["pause"])
        second.write(b"y" * 1000)
        yield self.until(lambda: len(client.streams[two].body) == 2000)
        self.assertEqual(second.told, [])
        client.h2.increment_flow_control_window(WINDOW, one)
        client.flush()
        yield self.until(lambda: first.told == ["pause", "resume"])

    @inlineCallbacks
    def test_stalled_stream(self) -> Any:
        """A client that leaves no window for ``--stall-seconds`` loses that answer, which is counted as cut
        by the client, and nothing else. A byte read in time is enough."""
        client = yield self.connect(Client({SettingCodes.INITIAL_WINDOW_SIZE: 0}, acknowledges=False))
        waits = client.request("GET", "/wait")
        stalled = client.request("GET", "/size/10")
        reads = client.request("GET", "/size/10")
        yield self.until(lambda: client.streams[reads].status == 200)
        for _ in range(4):
            yield self.pass_seconds(2)
            client.h2.increment_flow_control_window(1, reads)
            client.flush()
            yield self.turns()
        yield self.until(lambda: client.streams[stalled].is_over)
        self.assertEqual(client.streams[stalled].error, ErrorCodes.CANCEL)
        self.assertEqual(self.served.ended, [("/size/10", 499, "client")])
        self.assertEqual(client.streams[reads].body, b"xxxx")
        client.h2.increment_flow_control_window(10, waits)
        client.h2.increment_flow_control_window(10, reads)
        client.flush()
        self.handlers.waiting[0].callback(self.handlers.told_nothing())
        yield self.until(lambda: client.streams[waits].is_complete and client.streams[reads].is_complete)

    @inlineCallbacks
    def test_stalled_connection(self) -> Any:
        """A client that does not read from its connection at all is dropped, with all of its requests, and
        what it sends meanwhile is not read."""
        client = yield self.connect(Client({SettingCodes.INITIAL_WINDOW_SIZE: 2**30}))
        client.h2.increment_flow_control_window(2**30)
        client.flush()
        client.transport.pauseProducing()
        client.request("GET", "/produce")
        yield self.until(lambda: bool(self.handlers.produced))
        (connection,) = [one for one in self.served.factory.channels if one.streams]
        (produced,) = self.handlers.produced
        while not connection.is_stalled:
            produced.write(b"x" * 2**20)
            yield self.turns(1)
        self.assertIn("pause", produced.told)
        for _ in range(10000):
            client.h2.ping(bytes(8))
        client.flush()
        yield self.pass_seconds(8)
        self.assertEqual(produced.told[-1], "cancel")
        self.assertEqual(self.served.ended, [("/produce", 499, "client")])
        self.assertNotIn(connection, self.served.factory.channels)


class BodyTests(SocketTestCase):
    """Bodies that are read slowly."""

    def sent(self, client: Client, number: int, total: int) -> bool:
        """Send what the windows allow of a body, and return whether all of it is sent."""
        done = self.totals.get(number, 0)
        while done < total:
            size = min(client.h2.local_flow_control_window(number), 16384, total - done)
            if size <= 0:
                break
            client.data(number, b"x" * size, ends=done + size == total)
            done += size
        self.totals[number] = done
        return done == total

    def is_complete(self, number: int) -> bool:
        """Return whether an answer is complete."""
        return self.client.streams[number].is_complete

    @inlineCallbacks
    def setUp(self) -> Any:
        self.totals: dict[int, int] = {}
        yield super().setUp()

    @inlineCallbacks
    def test_paused_body(self) -> Any:
        """A handler that pauses has its client wait, with a bounded number of bytes on their way; other
        bodies of the connection arrive, and this one when the handler resumes."""
        total = 10**6
        slow = self.client.begin("POST", "/take")
        yield self.until(lambda: bool(self.handlers.takers))
        (taker,) = self.handlers.takers
        taker.stream.pause()
        yield self.until(lambda: self.sent(self.client, slow, total) or self.totals[slow] >= STREAM_WINDOW)
        yield self.turns()
        self.sent(self.client, slow, total)
        self.assertEqual(self.totals[slow], STREAM_WINDOW)
        self.assertEqual(taker.body, b"")
        for _ in range(3):
            other = self.client.begin("PUT", "/echo", [(b"content-length", b"300000")])
            yield self.until(partial(self.sent, self.client, other, 300000))
            yield self.until(partial(self.is_complete, other))
            self.assertEqual(self.client.streams[other].status, 200)
        taker.stream.resume()
        yield self.until(lambda: self.sent(self.client, slow, total))
        yield self.until(lambda: taker.told == ["finished"])
        self.assertEqual(len(taker.body), total)

    @inlineCallbacks
    def test_many_paused_bodies(self) -> Any:
        """Bodies whose handlers pause have a bounded number of bytes in memory, all together."""
        numbers = [self.client.begin("POST", "/take") for _ in range(20)]
        yield self.until(lambda: len(self.handlers.takers) == 20)
        for taker in self.handlers.takers:
            taker.stream.pause()
        for _ in range(20):
            for number in numbers:
                self.sent(self.client, number, 10**6)
            yield self.turns(2)
        self.assertLessEqual(sum(self.totals.values()), CONNECTION_WINDOW + 2**18)
        for taker in self.handlers.takers:
            taker.stream.resume()
        for number in numbers:
            yield self.until(partial(self.sent, self.client, number, 10**6))
        yield self.until(lambda: all(taker.told == ["finished"] for taker in self.handlers.takers))

    @inlineCallbacks
    def test_unwanted_body(self) -> Any:
        """The rest of a refused body is read and dropped, so that clients that send it before they read get
        the answer; a client that stops is asked to end it 5 s later."""
        number = self.client.begin("PUT", "/nothing", [(b"content-length", b"9000000")])
        yield self.until(lambda: self.client.streams[number].is_complete)
        self.assertEqual(self.client.streams[number].status, 404)
        yield self.until(lambda: self.sent(self.client, number, 9000000) or self.totals[number] > 10**6)
        self.assertEqual(self.served.application.budget.used, 0)
        yield self.turns(20)
        yield self.pass_seconds(8)
        yield self.until(lambda: self.client.streams[number].error is not None)
        self.assertEqual(self.client.streams[number].error, ErrorCodes.NO_ERROR)
        answer: Received = yield self.ask()
        self.assertEqual(answer.status, 200)

    @inlineCallbacks
    def test_slow_bodies(self) -> Any:
        """A body that does not arrive within ``--body-seconds`` is 408; the connection goes on."""
        number = self.client.begin("PUT", "/echo", [(b"content-length", b"1000")])
        yield self.until(lambda: any(one.streams for one in self.served.factory.channels))
        for _ in range(118):
            self.client.data(number, b"x")
            yield self.pass_seconds(1)
        self.assertFalse(self.client.streams[number].is_over)
        yield self.pass_seconds(4)
        yield self.until(lambda: self.client.streams[number].is_over)
        self.assertEqual(self.client.streams[number].status, 408)
        answer: Received = yield self.ask()
        self.assertEqual(answer.status, 200)
