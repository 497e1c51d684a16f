"""Large operations: how many of them run, in which order, and what remains when clients disconnect."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.pathresults import PathResult, SubdocResult
from gateway.cluster.bulk import LARGE_BYTES, LargeKeys
from gateway.cluster.connection import GatewayConnection
from gateway.fairness.steps import StepRunner
from gateway.http.limits import SMALL_BYTES, Budget
from gateway.limits import Limits
from tests.gateway.batches.test_fastpath import FastPathCase
from tests.gateway.support import Answer, Site, raw_request, read_reply
from tests.gateway.test_behaviour import JSON, D, GatewayTestCase
from tests.txcouchbase.memory import MemoryTestCase

DOCUMENT = "/v1/buckets/b/documents/k"
MIB = 2**20


class LargeKeysTests(SynchronousTestCase):
    """The memory of large documents."""

    def test_bounded(self) -> None:
        """The most recent ones are known, those that became small are not."""
        known = LargeKeys(2)
        for key in (b"a", b"b", b"a", b"c"):
            known.note((b"bucket", key), LARGE_BYTES)
        self.assertEqual([key for _, key in known.sizes], [b"a", b"c"])
        known.note((b"bucket", b"a"), LARGE_BYTES - 1)
        self.assertEqual([key for _, key in known.sizes], [b"c"])


class BudgetTests(SynchronousTestCase):
    """Room for bodies."""

    def test_small_ones_find_room(self) -> None:
        """However many large bodies there are, there is room for small ones; all are bounded."""
        budget = Budget(8 * MIB)
        while budget.take(MIB):
            pass
        self.assertEqual(budget.used, 7 * MIB)
        self.assertTrue(budget.take(SMALL_BYTES))
        while budget.take(SMALL_BYTES):
            pass
        self.assertEqual(budget.used, 8 * MIB)


def _some_steps() -> Generator[None, None, None]:
    yield
    yield


class StepTests(SynchronousTestCase):
    """Work in steps that is cancelled."""

    def test_cancelled(self) -> None:
        """It ends, and says that it was cancelled: no failure of the gateway's own, which would be logged."""
        clock = Clock()
        done: Deferred[None] = StepRunner(clock).run(_some_steps())
        done.cancel()
        self.failureResultOf(done, CancelledError)
        clock.advance(0)
        self.assertEqual(clock.getDelayedCalls(), [])


class RequestTests(SynchronousTestCase):
    """Large documents of single requests."""

    def site(self) -> tuple[Site, list[Deferred[Any]]]:
        waiting: list[Deferred[Any]] = []

        def ask(*args: Any, **kwargs: Any) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        return Site({"set": ask, "get_with_expiry": ask}), waiting

    def put(self, site: Site, size: int) -> Any:
        client = site.client()
        site.send(client, raw_request("PUT", DOCUMENT, b"x" * size))
        site.clock.pump([0] * 4)
        return client

    def lane(self, site: Site) -> Any:
        lane = site.connections[0].bulk
        assert lane is not None
        return lane

    def test_writes_wait_for_room(self) -> None:
        """So much is sent as the window takes; the others wait, and each is carried out in its turn."""
        site, waiting = self.site()
        clients = [self.put(site, 12 * MIB) for _ in range(5)]
        self.assertEqual(len(waiting), 3)
        for number in range(5):
            waiting[number].callback(Answer(cas=1))
            site.clock.pump([0] * 4)
        self.assertEqual([read_reply(client.value())[0].status for client in clients], [200] * 5)
        self.assertEqual((self.lane(site).window.used, len(self.lane(site).window)), (0, 0))
        self.assertEqual(site.gateway.budget.used, 0)

    def test_no_room_in_time(self) -> None:
        """A write that found no room in its time was not sent, and the answer says why, and that it may be
        sent again. Its time grows with its size."""
        site, waiting = self.site()
        for _ in range(3):
            self.put(site, 12 * MIB)
        client = self.put(site, 12 * MIB)
        site.clock.advance(2.5 + 12 - 0.1)
        self.assertEqual(client.value(), b"")
        site.clock.advance(0.2)
        reply = read_reply(client.value())[0]
        self.assertEqual(
            (reply.status, reply.json()["code"], reply.json()["retry"]), (503, "Overloaded", "safe")
        )
        self.assertEqual(len(waiting), 3)

    def test_small_ones_do_not_wait(self) -> None:
        """However many large ones there are, a small one is sent at once."""
        site, waiting = self.site()
        for _ in range(5):
            self.put(site, 12 * MIB)
        self.put(site, 100)
        self.assertEqual(len(waiting), 4)

    def test_known_documents_wait(self) -> None:
        """A document that was large when last seen is read within the window; after it has become small it is
        not."""
        site, waiting = self.site()

        def get() -> Any:
            client = site.client()
            site.send(client, raw_request("GET", DOCUMENT))
            return client

        get()
        waiting.pop().callback(Answer(b"x" * 20 * MIB))
        window = self.lane(site).window
        clients = [get() for _ in range(4)]
        self.assertEqual((len(waiting), window.used, len(window)), (2, 40 * MIB, 2))
        clients[3].protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((len(waiting), len(window)), (2, 1))
        for number in range(3):
            waiting[number].callback(Answer(b"x" * 20 * MIB))
        self.assertEqual((len(waiting), window.used, len(window)), (3, 0, 0))
        get()
        self.assertEqual(window.used, 20 * MIB)
        waiting[3].callback(Answer(b"small"))
        get()
        self.assertEqual((len(waiting), window.used), (5, 0))

    def test_lookups_wait(self) -> None:
        """Paths of a document that was large when last seen are read within the window; a large answer to a
        lookup shows that it is."""
        site, waiting = self.site()
        site.answers["lookup_in"] = site.answers["get_with_expiry"]
        get = b'{"operations":[{"operation":"Get","path":"a"}]}'

        def lookup() -> Any:
            client = site.client()
            headers = {"Content-Type": "application/json"}
            site.send(client, raw_request("POST", DOCUMENT + "/lookup", get, headers))
            return client

        def found(size: int) -> SubdocResult:
            return SubdocResult(0, 1, [PathResult(b"a", False, 0, 0, b'"%b"' % (b"x" * size))])

        first = lookup()
        waiting.pop().callback(found(12 * MIB))
        self.assertEqual(read_reply(first.value())[0].status, 200)
        window = self.lane(site).window
        clients = [lookup() for _ in range(4)]
        self.assertEqual((len(waiting), len(window)), (3, 1))
        for number in range(4):
            waiting[number].callback(found(12 * MIB))
        self.assertEqual([read_reply(client.value())[0].status for client in clients], [200] * 4)
        self.assertEqual((window.used, len(window), site.gateway.answers.used), (0, 0, 0))

    def test_known_whatever_was_asked(self) -> None:
        """A document is known to be large after any read of it: with an id of the client's own, as proxies
        add one, on a connection that ends, by HEAD, in parts, or if the client has it already."""
        value = b'{"a":1,"b":"%b"}' % (b"x" * MIB)
        for method, target, headers in (
            ("GET", DOCUMENT, {"X-Request-Id": "one"}),
            ("GET", DOCUMENT, {"Connection": "close"}),
            ("HEAD", DOCUMENT, {}),
            ("GET", DOCUMENT + "?project=a", {}),
            ("GET", DOCUMENT, {"If-None-Match": "7"}),
        ):
            site, waiting = self.site()
            site.send(site.client(), raw_request(method, target, headers=headers))
            waiting[0].callback(Answer(value, cas=7))
            site.send(site.client(), raw_request("GET", DOCUMENT))
            asked = method, target, headers
            self.assertEqual((asked, self.lane(site).window.used), (asked, len(value)))

    def test_unread_answers_are_bounded(self) -> None:
        """Copies of a document known to be large that clients do not read are limited by the room for
        bodies; further reads wait, and nothing remains when all clients have disconnected."""
        waiting: list[Deferred[Any]] = []

        def ask(*args: Any, **kwargs: Any) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        site = Site({"get_with_expiry": ask}, limits=Limits(max_buffered=3 * MIB))
        clients = [site.client() for _ in range(10)]
        answers = site.gateway.answers
        for number, client in enumerate(clients):
            client.protocol.pauseProducing()
            write = client.write
            client.write = lambda data, write=write, client=client: (  # type: ignore[method-assign]
                write(data),
                client.protocol.pauseProducing(),
            )
            site.send(client, b"")
            client.protocol.resumeProducing()
            site.send(client, raw_request("GET", DOCUMENT))
            if not number:
                waiting[0].callback(Answer(b"x" * MIB))
        for number in range(1, 4):
            waiting[number].callback(Answer(b"x" * MIB))
        site.clock.pump([0] * 4)
        self.assertEqual((len(waiting), answers.used, len(answers)), (4, 3 * MIB, 6))
        clients[1].protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((len(waiting), answers.used, len(answers)), (5, 3 * MIB, 5))
        for client in clients:
            if client is not clients[1]:
                client.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((answers.used, len(answers), site.gateway.budget.used), (0, 0, 0))

    def test_sent_in_pieces(self) -> None:
        """A large body arrives complete, whatever the client's pauses, and no piece is larger than the
        limit."""
        body = bytes(range(256)) * (LARGE_BYTES // 64)
        site = Site({"get_with_expiry": Answer(body)})
        client = site.client()
        sizes = []
        write = client.write

        def noted(data: bytes) -> None:
            sizes.append(len(data))
            write(data)
            if len(sizes) % 3 == 0:
                client.protocol.pauseProducing()

        client.write = noted  # type: ignore[method-assign]
        site.send(client, raw_request("GET", DOCUMENT))
        for _ in range(4):
            client.protocol.resumeProducing()
        reply, rest = read_reply(client.value())
        self.assertEqual((reply.status, reply.body == body, rest), (200, True, b""))
        self.assertEqual(reply.header("Content-Length"), str(len(body)))
        self.assertLessEqual(max(sizes), LARGE_BYTES)
        site.send(client, raw_request("GET", DOCUMENT))
        self.assertTrue(client.connected)

    def test_left_while_it_is_sent(self) -> None:
        """A client that disconnects during a large answer leaves nothing running."""
        site = Site({"get_with_expiry": Answer(b"x" * MIB)})
        client = site.client()
        write = client.write

        def stall(data: bytes) -> None:
            write(data)
            client.protocol.pauseProducing()

        client.write = stall  # type: ignore[method-assign]
        site.send(client, raw_request("GET", DOCUMENT))
        self.assertLess(len(client.value()), MIB)
        client.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((site.gateway.under_way, site.gateway.budget.used), (0, 0))

    def test_left_before_its_body_is_put_together(self) -> None:
        """Such a request is not carried out, and is counted as over."""
        site, waiting = self.site()
        client = site.client()
        client.protocol.dataReceived(raw_request("PUT", DOCUMENT, b"x" * MIB)[:-1])
        client.protocol.dataReceived(b"x")
        client.protocol.connectionLost(Failure(ConnectionDone()))
        site.clock.pump([0] * 4)
        self.assertEqual((waiting, site.gateway.under_way, site.gateway.budget.used), ([], 0, 0))


class BatchTests(FastPathCase):
    """A batch of documents of unknown size."""

    def read(self, count: int) -> None:
        self.batch.body_received(b'{"op":"get","key":"k"}\n' * count)

    def end(self, size: int) -> None:
        self.connection.calls.pop(0).succeed(Answer(b'"%b"' % (b"x" * (size - 2))))

    def test_few_at_first(self) -> None:
        """A few are asked for; small answers open the window, large ones keep it narrow."""
        self.read(1000)
        self.assertEqual(len(self.connection.calls), 4)
        self.end(100)
        self.clock.advance(0)
        self.assertEqual(len(self.connection.calls), 1000 - 1)

    def test_large_ones(self) -> None:
        """Documents of 8 MiB that are running or held unread stay within the batch's limit."""
        self.read(1000)
        self.end(8 * MIB)
        self.clock.advance(0)
        asked = len(self.connection.calls)
        self.assertLessEqual(asked, 4)
        self.batch.pause()
        while self.connection.calls:
            self.end(8 * MIB)
            self.clock.advance(0)
        self.batch.resume()
        self.clock.advance(0)
        self.assertLessEqual(len(self.connection.calls), 2)

    def test_taken_back(self) -> None:
        """If many are running and turn out to be large, the last ones are cancelled and requested again;
        each is answered once and in order."""
        self.read(200)
        self.end(100)
        self.clock.advance(0)
        calls = self.connection.calls
        self.assertEqual(len(calls), 199)
        self.end(8 * MIB)
        self.assertLessEqual(len([call for call in calls if not call.done]), 2)
        indexes = []
        while True:
            told = self.answers()
            self.stream.data.clear()
            indexes += [one["index"] for one in told]
            calls[:] = [call for call in calls if not call.done]
            if not calls:
                break
            self.end(100)
        self.assertEqual(indexes, list(range(200)))

    def test_large_answers_in_pieces(self) -> None:
        """A large answer is complete and at its position whatever the client's pauses, in pieces within the
        limit; the end of the batch does not cut it short."""
        for form in (b"application/x-ndjson", b"application/json"):
            self.setUp()
            self.batch._writer.form = form
            self.read(3)
            self.batch.body_finished()
            sizes: list[int] = []
            write = self.stream.write

            def one_piece(data: bytes, write: Any = write, sizes: list[int] = sizes) -> None:
                sizes.append(len(data))
                write(data)
                self.batch.pause()

            self.stream.write = one_piece  # type: ignore[method-assign]
            for size in (10, 5 * LARGE_BYTES, 10):
                self.end(size)
            for _ in range(40):
                self.batch.resume()
                self.clock.advance(0)
            text = b"".join(self.stream.data)
            told = (
                json.loads(text)
                if text.startswith(b"[")
                else [json.loads(line) for line in text.splitlines()]
            )
            self.assertEqual([len(one["value"]) + 2 for one in told], [10, 5 * LARGE_BYTES, 10])
            self.assertLessEqual(max(sizes), LARGE_BYTES)
            self.assertEqual((self.stream.finished, self.window.used), (True, 0))

    def test_order_stays(self) -> None:
        """An operation that was started before a write is not requested again after it."""
        self.read(1)
        self.end(100)
        self.clock.advance(0)
        self.read(50)
        self.batch.body_received(b'{"op":"set","key":"k","value":1}\n')
        self.end(8 * MIB)
        self.assertEqual(len([call for call in self.connection.calls if not call.done]), 50)

    def test_the_window_is_shared(self) -> None:
        """With a full window nothing starts; freed bytes let the batch continue."""
        self.window.adjust(2**30)
        self.read(10)
        self.assertEqual(self.connection.calls, [])
        self.window.adjust(-(2**30))
        self.assertEqual(len(self.connection.calls), 4)
        self.batch.cancel()
        self.assertEqual(len(self.window), 0)

    def test_cancelled(self) -> None:
        """A batch whose client has gone waits in no line, and frees what it took."""
        self.window.adjust(2**30)
        self.read(10)
        self.batch.cancel()
        self.window.adjust(-(2**30))
        self.assertEqual((self.connection.calls, self.window.used, len(self.window)), ([], 0, 0))


class LaneTests(MemoryTestCase):
    """The connection for large operations."""

    def test_made_when_needed(self) -> None:
        """The second connection is created at its first use, is another one, gives large values more time,
        and is closed with the first."""
        connection = self.connect(GatewayConnection)
        lane = connection.bulk
        bulk = lane.connection
        self.assertIsNot(bulk, connection)
        self.assertIs(lane.connection, bulk)
        self.assertIsNone(bulk.bulk)
        connection._close()
        self.assertTrue(bulk.closed)


class Unread(Protocol):
    """A client that sends and does not read."""

    def connectionMade(self) -> None:
        """Do not read."""
        self.transport.pauseProducing()  # type: ignore[union-attr]


class RealTests(GatewayTestCase):
    """With sockets and a real node."""

    @inlineCallbacks
    def send(self, data: bytes) -> Any:
        """Connect, send, and read nothing; fires with the transport."""
        port = int(self.url.rsplit(":", 1)[1])
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        protocol = yield connectProtocol(endpoint, Unread())
        protocol.transport.write(data)
        return protocol.transport

    def reads(self) -> int:
        """Return how many documents the node was asked for."""
        gets: int = self.service._embedded.node.cluster.nodes[0].buckets["default"].gets
        return gets

    @inlineCallbacks
    def lane(self) -> Any:
        """Return the way of large operations."""
        connection = yield self.service.pool.connection("default", self.service._account.credentials)
        return connection.bulk

    @inlineCallbacks
    def test_reads_that_nobody_takes(self) -> Any:
        """If a client sends a thousand reads of 4 MiB and does not read the answers, few reach the node,
        whether it stays connected or disconnects; others are served meanwhile, and at the end nothing
        runs."""
        yield self.ask("PUT", D + "large", b'"%b"' % (b"x" * 4 * MIB), **JSON)
        yield self.ask("PUT", D + "small", b"1", **JSON)
        before = self.reads()
        body = b'{"op":"get","key":"large"}\n' * 1000
        client = yield self.send(raw_request("POST", "/v1/buckets/default/batch", body))
        for _ in range(50):
            answer = yield self.ask("GET", D + "small")
            self.assertEqual(answer.status, 200)
        self.assertLess(self.reads() - before - 50, 30)
        client.abortConnection()
        lane = yield self.lane()
        while lane.window.used or self.service.gateway.under_way:
            yield self.pause(0.01)
        self.assertLess(self.reads() - before - 50, 60)
        self.assertEqual((len(lane.window), self.service.gateway.budget.used), (0, 0))

    @inlineCallbacks
    def test_large_bodies_at_once(self) -> Any:
        """Eight documents of 8 MiB at once are stored and come back as they were, through pieces of both
        ends."""
        bodies = [bytes([number]) * 8 * MIB + b"end" for number in range(8)]
        stored = yield gatherResults(
            [self.ask("PUT", f"{D}large-{number}", body) for number, body in enumerate(bodies)]
        )
        self.assertEqual([answer.status for answer in stored], [200] * 8)
        for number, body in enumerate(bodies):
            read = yield self.ask("GET", f"{D}large-{number}")
            self.assertTrue(read.body == body, number)
        lane = yield self.lane()
        self.assertEqual((lane.window.used, len(lane.window)), (0, 0))
