"""Requests over HTTP to the nodes of a cluster: where they go."""

from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import NotSupportedError
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
