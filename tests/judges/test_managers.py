"""The gateway started from CouchbaseMock's cluster manager, whose nodes give no cluster map themselves."""

from twisted.internet.defer import inlineCallbacks

from tests.gateway.test_behaviour import JSON, GatewayTestCase
from tests.judges.mock import Mock, missing

D = "/v1/buckets/protected/documents/"


class ManagerTests(GatewayTestCase):
    """Four nodes on separate ports, without CCCP."""

    skip = missing()
    credentials = ("protected", "secret")

    def setUp(self):
        """Start the mock, and a gateway that knows its manager."""
        self.mock = Mock(4, 1, "default:,protected:secret")
        self.addCleanup(self.mock.stop)
        self.assertEqual(self.mock.control("set_cccp", enabled=False)["status"], "ok")
        self.options = {"cluster": f"http://127.0.0.1:1,127.0.0.1:{self.mock.rest_port}"}
        return GatewayTestCase.setUp(self)

    @inlineCallbacks
    def test_served(self):
        """Documents of all nodes are stored and read, and it is ready."""
        for number in range(20):
            stored = yield self.ask("PUT", f"{D}k{number}", b"%d" % number, **JSON)
            self.assertEqual(stored.status, 200, stored.body)
            read = yield self.ask("GET", f"{D}k{number}")
            self.assertEqual((read.status, read.body), (200, b"%d" % number))
        ready = yield self.ask("GET", "/ready")
        self.assertEqual(ready.status, 200, ready.body)
        refused = yield self.ask("GET", f"{D}k1", auth=("protected", "wrong"))
        self.assertEqual(refused.status, 403, refused.body)
        buckets = yield self.ask("GET", "/v1/buckets", auth=("Administrator", "password"))
        self.assertEqual((buckets.status, b'"protected"' in buckets.body), (200, True), buckets.body)
