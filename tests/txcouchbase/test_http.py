"""Requests over HTTP to the nodes of a cluster: where they go, and how often."""

from types import SimpleNamespace

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import NetworkError, NotSupportedError
from tests.txcouchbase.capi import CapiTestCase, turns, whole
from txcouchbase.http import MANAGEMENT, VIEWS, HttpService


def _node(host, views):
    return SimpleNamespace(host=host, management_port=lambda tls: 8091, views_port=lambda tls: views)


class AddressTests(SynchronousTestCase):
    """Base URLs of services."""

    def setUp(self):
        self.map = SimpleNamespace(nodes=[_node("a", 8092), _node("::1", 8092), _node("c", None)])
        self.service = HttpService(
            SimpleNamespace(tls=False, tls_policy=None, reactor=None, current_map=lambda: self.map)
        )

    def test_turns(self):
        """Each query of a view starts with another node; the cluster's managers keep their order."""
        found = [self.service.addresses(VIEWS) for _ in range(2)]
        self.assertEqual(found[0], found[1][::-1])
        self.assertEqual(sorted(found[0]), ["http://[::1]:8092", "http://a:8092"])
        managers = ["http://a:8091", "http://[::1]:8091", "http://c:8091"]
        self.assertEqual(self.service.addresses(MANAGEMENT), managers)
        self.service.addresses(MANAGEMENT).clear()
        self.assertEqual(self.service.addresses(MANAGEMENT), managers)

    def test_new_map(self):
        """A new map counts at once, for requests with more headers, too; so does one without the service."""
        other = self.service.with_headers({"a": "b"})
        self.assertEqual(len(other.addresses(VIEWS)), 2)
        self.map = SimpleNamespace(nodes=[_node("d", 1)])
        self.assertEqual(other.addresses(VIEWS), ["http://d:1"])
        self.assertEqual(self.service.addresses(VIEWS), ["http://d:1"])
        self.map = SimpleNamespace(nodes=[_node("d", None)])
        for _ in range(2):
            self.assertRaises(NotSupportedError, other.addresses, VIEWS)


class ManagerTests(CapiTestCase):
    """Requests to the managers of two nodes."""

    engines = 2

    def asked(self):
        """Return how many requests each node got."""
        return [len(capi.requests) for capi in self.capis]

    @inlineCallbacks
    def test_unanswered(self):
        """A request that a node may have executed is sent nowhere else, unless it may be repeated."""
        yield self.connection.connect()
        for method, answer, asked in (
            ("POST", None, [1, 0]),
            ("PATCH", [b"HTTP/1.1 2", None], [1, 0]),
            ("PUT", None, [2, 1]),
            ("DELETE", None, [2, 1]),
            ("GET", [b"HTTP/1.1 2", None], [1, 1]),
        ):
            for capi in self.capis:
                capi.requests.clear()
                capi.answers.clear()
            self.capis[0].answers += [answer] * 2
            self.capis[1].answers.append(whole({"ok": 1}))
            waiting = self.connection.management_request(method, "/x", b"y")
            if sum(asked) == 1:
                yield self.assertFailure(waiting, NetworkError)
            else:
                self.assertEqual((yield waiting)[2], b'{"ok": 1}')
            self.assertEqual(self.asked(), asked, method)

    @inlineCallbacks
    def test_unreachable(self):
        """A node without a connection has not executed anything: the next one is asked."""
        yield self.connection.connect()
        yield self.capis[0].stop()
        self.capis[1].answers.append(whole({}, 201))
        status, _, _ = yield self.connection.management_request("POST", "/x", b"y")
        self.assertEqual((status, self.asked()), (201, [0, 1]))

    @inlineCallbacks
    def test_idle(self):
        """A request that must not be sent twice does not take an idle connection, which may be closed now."""
        yield self.connection.connect()
        self.capi.answers += [whole({})] * 3
        for method, accepted in (("GET", 1), ("POST", 2), ("GET", 2)):
            yield self.connection.management_request(method, "/x")
            self.assertEqual(self.capi.accepted, accepted)

    @inlineCallbacks
    def test_answered_after_close(self):
        """A connection that is in use when the service is closed is not kept after its answer."""
        yield self.connection.connect()
        asking = []
        self.capi.script = lambda conversation, method, path: asking.append(conversation)
        waiting = self.connection.management_request("GET", "/x")
        while not asking:
            yield turns()
        yield self.connection._http.close()
        lost = self.capi.connection_lost()
        asking[0].transport.write(whole({}))
        yield waiting
        yield lost

    @inlineCallbacks
    def test_head(self):
        """The answer to HEAD has no body."""
        yield self.connection.connect()
        self.capi.answers.append(b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 7\r\n\r\n")
        status, headers, body = yield self.connection.management_request("HEAD", "/x")
        self.assertEqual((status, headers, body), (200, {"x": "y", "content-length": "7"}, b""))


class RefusedTests(CapiTestCase):
    """A node that refuses connections."""

    @inlineCallbacks
    def test_soon(self):
        """The next one is asked soon, not after Twisted's 0.3 seconds."""
        yield self.connection.connect()
        self.capi.answers.append(whole({}))
        service = self.connection._http
        bad, good = "http://127.0.0.1:1", service.addresses(MANAGEMENT)[0]
        service.addresses = lambda _: [bad, good]
        delays = []
        later = reactor.callLater

        def noted(seconds, *arguments, **keywords):
            delays.append(seconds)
            return later(seconds, *arguments, **keywords)

        self.patch(reactor, "callLater", noted)
        yield self.connection.management_request("GET", "/x")
        self.assertEqual([seconds for seconds in delays if 0.05 < seconds < 1], [])
