"""The administrator's session with Deferreds."""

import inspect

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks
from twisted.internet.protocol import Factory, Protocol

import couchbase.admin
from couchbase.administration import AdminCommands
from couchbase.exceptions import (
    ArgumentError,
    AuthError,
    BucketNotFoundError,
    CollectionNotFoundError,
    CouchbaseNetworkError,
    HTTPError,
    ScopeExistsError,
    TimeoutError,
)
from couchbase.manifest import Manifest
from couchbase.result import HttpResult
from couchbase.user_constants import FMT_UTF8
from tests.txcouchbase.test_connection import NodeTestCase
from txcouchbase.admin import Admin


class AdminTests(NodeTestCase):
    """A session with a node's cluster manager."""

    @inlineCallbacks
    def setUp(self):
        yield super().setUp()
        self.port = int(self.node.rest_urls[0].rpartition(":")[2])
        self.admin = self.session()

    def session(self, user="Administrator", password="password", port=None):
        admin = Admin(user, password, "127.0.0.1", port or self.port)
        self.addCleanup(admin.close)
        return admin

    def test_names(self):
        """It has every method and property of the blocking session that is about the cluster, with the same
        arguments."""
        found = 0
        for name, member in inspect.getmembers(AdminCommands):
            if not name.startswith("_"):
                found += 1
                for face in (Admin, couchbase.admin.Admin):
                    self.assertIs(getattr(face, name), member, name)
        self.assertGreater(found, 20)

    @inlineCallbacks
    def test_credentials(self):
        """``connect`` checks them, and so does each request."""
        self.assertIs((yield self.admin.connect()), self.admin)
        wrong = self.session(password="wrong")
        yield self.assertFailure(wrong.connect(), AuthError)
        refused = yield self.assertFailure(wrong.bucket_list(), HTTPError)
        self.assertEqual(refused.objextra.http_status, 401)
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        yield port.stopListening()
        yield self.assertFailure(self.session(port=number).connect(), CouchbaseNetworkError)

    @inlineCallbacks
    def test_buckets(self):
        """Made, listed, removed, side by side."""
        waiting = [self.admin.bucket_create(name, ram_quota=100) for name in ("one", "two")]
        self.assertTrue(all(isinstance(each, Deferred) for each in waiting))
        for made in (yield gatherResults(waiting)):
            self.assertIs(type(made), HttpResult)
            self.assertEqual(made.http_status, 202)
        listed = yield self.admin.bucket_list()
        self.assertLessEqual({"one", "two"}, {bucket["name"] for bucket in listed.value})
        refused = yield self.assertFailure(self.admin.bucket_create("one"), HTTPError)
        self.assertEqual(refused.objextra.http_status, 400)
        yield self.admin.bucket_delete("one")
        yield self.assertFailure(self.admin.bucket_delete("one"), HTTPError)

    @inlineCallbacks
    def test_scopes(self):
        """Scopes and collections come and go, with the exceptions of the blocking session."""
        admin = self.admin
        made = yield admin.scope_create("default", "s")
        self.assertIn("uid", made.value)
        yield self.assertFailure(admin.scope_create("default", "s"), ScopeExistsError)
        yield admin.collection_create("default", "c", "s", max_ttl=5)
        yield admin.collection_update("default", "c", "s", max_ttl=7)
        manifest = yield admin.scopes("default")
        self.assertIs(type(manifest), Manifest)
        self.assertEqual(manifest.collection("c", "s").max_ttl, 7)
        yield admin.collection_drop("default", "c", "s")
        yield self.assertFailure(admin.collection_drop("default", "c", "s"), CollectionNotFoundError)
        yield admin.scope_drop("default", "s")
        yield self.assertFailure(admin.scopes("none"), BucketNotFoundError)

    @inlineCallbacks
    def test_users(self):
        """Users, groups and roles."""
        admin = self.admin
        yield admin.group_upsert("devs", [("data_reader", "*")])
        yield admin.user_upsert("local", "jane", "s3cret-pw", ["ro_admin"], groups=["devs"])
        user = yield admin.user_get("local", "jane")
        self.assertEqual({role["role"] for role in user.value["roles"]}, {"data_reader", "ro_admin"})
        own = self.session("jane", "s3cret-pw")
        yield own.change_password("n3w-secret")
        yield self.assertFailure(own.connect(), AuthError)
        users, groups, roles = yield gatherResults([admin.users_get(), admin.groups_get(), admin.roles_get()])
        self.assertIn("jane", [one["id"] for one in users.value])
        self.assertEqual([one["id"] for one in groups.value], ["devs"])
        self.assertIn("data_reader", [one["role"] for one in roles.value])
        yield admin.user_remove("local", "jane")
        yield admin.group_remove("devs")
        yield self.assertFailure(admin.group_get("devs"), HTTPError)

    @inlineCallbacks
    def test_requests(self):
        """Any request, its format, and its failure."""
        found = yield self.admin.http_request("pools", response_format=FMT_UTF8)
        self.assertEqual((found.url, type(found.value)), ("pools", str))
        refused = yield self.assertFailure(self.admin.http_request("/no/such/page"), HTTPError)
        self.assertEqual(refused.objextra.http_status, 404)

    def test_arguments(self):
        """Wrong ones raise at once, as those of connections do."""
        for call, *arguments in (
            (self.admin.http_request, None),
            (self.admin.http_request, "/pools", "HEAD"),
            (self.admin.bucket_create, ""),
            (self.admin.scope_create, "default", "a b"),
            (self.admin.user_get, "local", ""),
        ):
            self.assertRaises(ArgumentError, call, *arguments)
        self.assertRaises(ArgumentError, Admin, None, "x")
        self.assertTrue(repr(self.admin).startswith("<txcouchbase.admin.Admin nodes="))

    @inlineCallbacks
    def test_no_answer(self):
        """A request ends at its timeout, or when it is cancelled."""
        port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        admin = self.session(port=port.getHost().port)
        admin.timeout = 0.01
        yield self.assertFailure(admin.bucket_list(), TimeoutError)
        admin.timeout = 60
        waiting = admin.bucket_list()
        waiting.cancel()
        yield self.assertFailure(waiting, CancelledError)
