"""Promises of docs/sdk-1.2.md about gcouchbase's names and signatures."""

import inspect
from unittest import TestCase

import gevent

import gcouchbase
from couchbase.exceptions import INVALID_USERNAME, CouchbaseError, HTTPError
from couchbase.views.iterator import View
from gcouchbase import connection
from tests.couchbase import test_connection_connecting as connecting
from tests.couchbase import test_contract as blocking
from tests.couchbase.support import ConnectionTestCase
from tests.gcouchbase.support import InGreenlets


class NamesTests(TestCase):
    """Names and signatures."""

    def test_names(self):
        """Names of the package and its module, with the two names that only 1.2's pages had."""
        self.assertIsInstance(gcouchbase.__version__, str)
        self.assertIs(gcouchbase.GConnection, connection.GConnection)
        self.assertIs(connection.GCouchbase, connection.GConnection)
        self.assertTrue(issubclass(connection.GView, View))

    def test_signatures(self):
        """Methods take what those of the blocking connection take."""
        check = blocking.SignatureTests().check
        for name, text in {**blocking.KEY_VALUE, **blocking.MULTI, **blocking.OTHERS}.items():
            check(getattr(connection.GConnection, name), text)
        parameters = inspect.signature(connection.GConnection.query).parameters
        self.assertIs(parameters["itercls"].default, connection.GView)
        self.assertRaises(TypeError, connection.GConnection, "default")

    def test_other_user(self):
        """With ``host`` the user is the bucket's: any other user is refused before anything is sent."""
        with self.assertRaises(CouchbaseError) as caught:
            connection.GConnection(bucket="b", host="no-such-host.invalid", username="ada", password="p")
        self.assertEqual(caught.exception.rc, INVALID_USERNAME)
        self.assertIn("connection_string", str(caught.exception))


class ViewTests(InGreenlets, ConnectionTestCase):
    """Against a node."""

    def test_sent_at_once(self):
        """A query is sent before it is iterated; the iteration raises its errors."""
        view = self.cb.query("nothing", "there")
        gevent.joinall([view._opening], timeout=10)
        self.assertTrue(view._opening.ready())
        self.assertRaises(HTTPError, list, view)


class CacheTests(InGreenlets, connecting.CacheTests):
    """The file that keeps the cluster map, on connections for greenlets."""
