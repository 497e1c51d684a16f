"""Keys that are fetched: when, how often, and what a bad server can do."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent

from gateway.access.keysource import (
    FETCH_SECONDS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    STALE_SECONDS,
    FetchedKeys,
    fetch_with,
)
from gateway.access.rules import Rule, RuleTable, Wildcard
from gateway.access.tokens import TokenTerms
from gateway.access.ways import ByToken
from tests.gateway.access.ruled import ruled
from tests.gateway.access.signing import AUDIENCE, ED, ISSUER, NOW, OTHER_RSA, RSA, jwk, jwks, token
from tests.gateway.support import Answer, Reply, Site, raw_request, read_reply

FIRST = jwks(jwk(RSA, "first"))
SECOND = jwks(jwk(RSA, "first"), jwk(OTHER_RSA, "second"))
ONLY_SECOND = jwks(jwk(OTHER_RSA, "second"))
D = "/v1/buckets/b/documents/k"


class Fetches:
    """The fetches that were begun."""

    def __init__(self) -> None:
        self.open: list[Deferred[bytes]] = []
        self.count = 0
        self.cancelled = 0

    def __call__(self) -> Deferred[bytes]:
        """Begin one."""
        self.count += 1

        def cancel(_: object) -> None:
            self.cancelled += 1

        fetch: Deferred[bytes] = Deferred(cancel)
        self.open.append(fetch)
        return fetch

    def answer(self, content: bytes | Exception) -> None:
        """End the oldest."""
        fetch = self.open.pop(0)
        if isinstance(content, bytes):
            fetch.callback(content)
        else:
            fetch.errback(content)


class FetchedTestCase(SynchronousTestCase):
    """Has a source of keys on a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.fetches = Fetches()
        self.keys = FetchedKeys(self.fetches, self.clock, "https://issuer.example/keys")
        self.changes = 0

        def changed() -> None:
            self.changes += 1

        self.keys.on_change = changed

    def failing(self, content: bytes | Exception) -> str:
        """End a fetch that fails; return what is logged."""
        with capturedLogs() as events:
            self.fetches.answer(content)
        (event,) = [one for one in events if one["log_level"] is LogLevel.error]
        return str(event["error"])


class FetchedTests(FetchedTestCase):
    """When keys are fetched."""

    def test_regularly(self) -> None:
        """At the start, then every five minutes; the same text changes nothing."""
        self.keys.start()
        self.assertIsNone(self.keys.current())
        self.fetches.answer(FIRST)
        self.assertEqual((len(self.keys.current() or ()), self.changes), (1, 1))
        self.clock.advance(REFRESH_SECONDS - 1)
        self.assertEqual(self.fetches.count, 1)
        self.clock.advance(1)
        self.fetches.answer(FIRST)
        self.assertEqual((self.fetches.count, self.changes), (2, 1))
        self.clock.advance(REFRESH_SECONDS)
        self.fetches.answer(ONLY_SECOND)
        current = self.keys.current()
        assert current is not None
        self.assertEqual((current.knows("first"), current.knows("second"), self.changes), (False, True, 2))
        self.keys.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures(self) -> None:
        """Keys stay valid for a day, while the fetch is repeated every ten seconds."""
        self.keys.start()
        self.fetches.answer(FIRST)
        self.clock.advance(REFRESH_SECONDS)
        for content, words in (
            (OSError("no route"), "OSError: no route"),
            (b"<html>", "not JSON"),
            (b'{"keys":[]}', "no valid key"),
        ):
            self.assertIn(words, self.failing(content))
            self.assertIsNotNone(self.keys.current())
            self.clock.advance(RETRY_SECONDS)
        tries = self.fetches.count
        while self.clock.seconds() < 1000 + STALE_SECONDS - 60:
            self.failing(OSError("no route"))
            self.clock.advance(RETRY_SECONDS)
        self.assertGreater(self.fetches.count, tries)
        self.assertIsNotNone(self.keys.current())
        self.clock.advance(60)
        self.assertIsNone(self.keys.current())
        # The others were given up.
        self.fetches.open = self.fetches.open[-1:]
        self.clock.advance(RETRY_SECONDS)
        self.fetches.open[-1].callback(FIRST)
        self.assertIsNotNone(self.keys.current())
        self.keys.stop()

    def test_slow(self) -> None:
        """A fetch is given up after five seconds."""
        self.keys.start()
        self.clock.advance(FETCH_SECONDS - 0.1)
        self.assertEqual(self.fetches.cancelled, 0)
        with capturedLogs() as events:
            self.clock.advance(0.1)
        self.assertEqual(self.fetches.cancelled, 1)
        self.assertEqual(len([one for one in events if one["log_level"] is LogLevel.error]), 1)
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual(self.fetches.count, 2)
        self.keys.stop()
        self.assertEqual(self.fetches.cancelled, 2)

    def test_unknown_keys(self) -> None:
        """They are looked for once in ten seconds, however many tokens name them, and all wait for one
        fetch."""
        self.keys.start()
        self.fetches.answer(FIRST)
        self.assertIsNone(self.keys.newer())
        self.clock.advance(RETRY_SECONDS)
        waiting = [self.keys.newer() for _ in range(100)]
        self.assertEqual(self.fetches.count, 2)
        first = waiting[0]
        assert first is not None
        first.cancel()
        self.failureResultOf(first)
        self.fetches.answer(SECOND)
        for one in waiting[1:]:
            assert one is not None
            self.successResultOf(one)
        self.assertIsNone(self.keys.newer())
        self.clock.advance(RETRY_SECONDS - 0.1)
        self.assertIsNone(self.keys.newer())
        self.clock.advance(0.1)
        late = self.keys.newer()
        assert late is not None
        self.failing(OSError())
        self.successResultOf(late)
        self.keys.stop()
        self.assertIsNone(self.keys.newer())


class WaitingTests(FetchedTestCase):
    """Requests whose token names a key that is not known yet."""

    def make(self) -> Site:
        """Return a gateway that takes tokens."""
        terms = TokenTerms(ISSUER, (AUDIENCE,))
        way = ByToken(self.keys, terms, lambda: NOW)
        rule = Rule("all", (("anyone", Wildcard("*")),), ("*",), ("*",), ("*",), None, None)
        authorizer = ruled(RuleTable((rule,), {}), [way], now=lambda: NOW)
        self.keys.on_change = authorizer.forget
        answers = {"get_with_expiry": Answer(b"1"), "get": Answer(b"1"), "set": Answer()}
        return Site(answers, authorizer=authorizer)

    def send(self, site: Site, method: str = "GET", path: str = D, body: bytes = b"", **signed: Any) -> Any:
        """Send a request with a token; return its transport."""
        transport = site.client()
        headers = {"Authorization": "Bearer " + token(**signed), "Content-Type": "application/json"}
        site.send(transport, raw_request(method, path, body, headers))
        return transport

    def reply(self, transport: Any) -> Reply | None:
        """Return the answer, if there is one."""
        return read_reply(transport.value())[0] if transport.value() else None

    def test_waiting(self) -> None:
        """They wait for the fetch, then are served; also those with bodies, and batches."""
        site = self.make()
        self.keys.start()
        waiting = [
            self.send(site, header={"kid": "first"}),
            self.send(site, "PUT", body=b"1", header={"kid": "first"}),
            self.send(site, "PUT", body=b'"' + b"x" * 70_000 + b'"', header={"kid": "first"}),
            self.send(
                site, "POST", "/v1/buckets/b/batch", b'{"op":"get","key":"k"}\n', header={"kid": "first"}
            ),
        ]
        self.assertEqual([self.reply(one) for one in waiting], [None] * 4)
        self.assertEqual(site.connections, [])
        self.fetches.answer(FIRST)
        site.clock.pump([0] * 10)
        for one in waiting:
            reply = self.reply(one)
            assert reply is not None
            self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual(site.gateway.under_way, 0)

    def test_rotation(self) -> None:
        """A token of a new key is served after one fetch; one of an invented key is refused, and makes no
        other fetch."""
        site = self.make()
        self.keys.start()
        self.fetches.answer(FIRST)
        self.clock.advance(RETRY_SECONDS)
        new = self.send(site, key=OTHER_RSA, header={"kid": "second"})
        invented = self.send(site, key=OTHER_RSA, header={"kid": "invented"})
        self.assertEqual((self.reply(new), self.fetches.count), (None, 2))
        self.fetches.answer(SECOND)
        found = [self.reply(new), self.reply(invented)]
        self.assertEqual([one and one.status for one in found], [200, 401])
        for number in range(50):
            refused = self.reply(self.send(site, key=ED, algorithm="EdDSA", header={"kid": f"x{number}"}))
            assert refused is not None
            self.assertEqual(refused.status, 401)
        self.assertEqual(self.fetches.count, 2)

    def test_withdrawn(self) -> None:
        """A key that is gone from the set signs no more, also for tokens that were verified before."""
        site = self.make()
        self.keys.start()
        self.fetches.answer(SECOND)
        served = self.reply(self.send(site, header={"kid": "first"}))
        assert served is not None
        self.assertEqual(served.status, 200)
        self.clock.advance(REFRESH_SECONDS)
        self.fetches.answer(ONLY_SECOND)
        refused = self.reply(self.send(site, header={"kid": "first"}))
        assert refused is not None
        self.assertEqual(refused.status, 401)

    def test_stale(self) -> None:
        """When no fetch has succeeded for a day, tokens that were verified before get 503, too; after the
        next fetch, even of the same keys, they are served."""
        site = self.make()
        self.keys.start()
        self.fetches.answer(FIRST)
        good = {"header": {"kid": "first"}, "exp": NOW + 10 * STALE_SECONDS}
        statuses = []
        while self.clock.seconds() < 1000 + STALE_SECONDS:
            self.clock.advance(REFRESH_SECONDS)
            while self.fetches.open:
                self.failing(OSError("no route"))
            statuses.append(self.status(site, **good))
        self.assertEqual(set(statuses[:-1]), {200})
        self.clock.advance(RETRY_SECONDS)
        self.failing(OSError("no route"))
        self.assertEqual(self.status(site, **good), 503)
        self.clock.advance(RETRY_SECONDS)
        self.fetches.answer(FIRST)
        self.assertEqual(self.status(site, **good), 200)

    def status(self, site: Site, **given: Any) -> int:
        """Send a request; return the status of its answer."""
        reply = self.reply(self.send(site, **given))
        assert reply is not None
        return reply.status

    def test_no_keys(self) -> None:
        """Without any keys the answer is 503, and not 401: the token may be good."""
        site = self.make()
        self.keys.start()
        waiting = self.send(site, header={"kid": "first"})
        self.failing(OSError("refused"))
        for one in (waiting, self.send(site, header={"kid": "first"})):
            reply = self.reply(one)
            assert reply is not None
            self.assertEqual(reply.status, 503)
            self.assertEqual(reply.json()["code"], "UnderlyingServiceUnavailable")

    def test_client_leaves(self) -> None:
        """A client that leaves while its request waits leaves nothing behind."""
        site = self.make()
        self.keys.start()
        waiting = self.send(site, header={"kid": "first"})
        waiting.loseConnection()
        self.assertEqual((site.gateway.under_way, self.keys._waiters), (0, []))
        self.fetches.answer(FIRST)
        self.assertEqual(site.connections, [])


class Bad(Protocol):
    """A server of keys that sends a given answer."""

    factory: Any
    sent = b""

    def dataReceived(self, data: bytes) -> None:
        """Answer the request."""
        self.factory.asked += 1
        self.factory.connections.append(self)
        self.transport.write(self.factory.answer)
        if self.factory.closes:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end."""
        if self.factory.lost is not None:
            lost, self.factory.lost = self.factory.lost, None
            lost.callback(None)


class ServerTests(TestCase):
    """Fetching over sockets."""

    timeout = 60

    @inlineCallbacks
    def serve(self, answer: bytes, *, closes: bool = True) -> Any:
        """Start a server; returns the fetch of its keys."""
        self.factory: Any = Factory.forProtocol(Bad)
        self.factory.answer, self.factory.closes, self.factory.asked = answer, closes, 0
        self.factory.connections = []
        self.factory.lost = None
        port = yield serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(self.factory)
        self.addCleanup(port.stopListening)
        return fetch_with(Agent(reactor), f"http://127.0.0.1:{port.getHost().port}/keys")

    @inlineCallbacks
    def check(self, answer: bytes, words: str, **options: Any) -> Any:
        """Check that a fetch fails."""
        fetch = yield self.serve(answer, **options)
        failure = yield self.assertFailure(fetch(), Exception)
        self.assertIn(words, str(failure))
        self.assertEqual(self.factory.asked, 1)

    @inlineCallbacks
    def test_good(self) -> Any:
        """With a length, and without."""
        for head in (b"Content-Length: %d\r\n" % len(FIRST), b"Connection: close\r\n"):
            fetch = yield self.serve(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (head, FIRST))
            content = yield fetch()
            self.assertEqual(content, FIRST)

    @inlineCallbacks
    def test_redirect(self) -> Any:
        """Redirects are not followed."""
        for status in (b"301 Moved", b"302 Found", b"307 Again", b"308 Moved"):
            location = b"Location: http://127.0.0.1:1/evil\r\nContent-Length: 0\r\n"
            yield self.check(b"HTTP/1.1 %b\r\n%b\r\n" % (status, location), "without a redirect")

    @inlineCallbacks
    def test_statuses(self) -> Any:
        """An error is no set of keys, whatever its body."""
        for status in (b"404 Not Found", b"500 Oops", b"203 Changed"):
            yield self.check(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\n{}" % status, "expected 200")

    @inlineCallbacks
    def test_huge(self) -> Any:
        """An endless answer is cut at the largest size, and the connection dropped."""
        fetch = yield self.serve(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 300_000, closes=False)
        lost = self.factory.lost = Deferred()
        failure = yield self.assertFailure(fetch(), Exception)
        self.assertIn("more than 262144 bytes", str(failure))
        yield lost

    @inlineCallbacks
    def test_given_up(self) -> Any:
        """A cancelled fetch drops its connection, in the head as in the body."""
        for answer in (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"):
            fetch = yield self.serve(answer, closes=False)
            lost = self.factory.lost = Deferred()
            asked = fetch()
            while not self.factory.connections:
                yield self.turn()
            yield self.turn()
            asked.cancel()
            yield self.assertFailure(asked, Exception)
            yield lost

    def turn(self) -> Deferred[None]:
        """Let the reactor turn."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0.01, turned.callback, None)  # type: ignore[attr-defined]
        return turned

    @inlineCallbacks
    def test_cut(self) -> Any:
        """An answer that ends too early is none."""
        yield self.check(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", "cut")

    @inlineCallbacks
    def test_gone(self) -> Any:
        """A server that is not there."""
        port = yield serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(Factory.forProtocol(Bad))
        url = f"http://127.0.0.1:{port.getHost().port}/keys"
        yield port.stopListening()
        yield self.assertFailure(fetch_with(Agent(reactor), url)(), Exception)
