"""The administrator's session."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from couchbase import FMT_BYTES, FMT_UTF8, Connection
from couchbase.admin import Admin
from couchbase.exceptions import (
    ArgumentError,
    AuthError,
    BucketNotFoundError,
    ClientTemporaryFailError,
    CouchbaseError,
    CouchbaseNetworkError,
    HTTPError,
)
from couchbase.result import HttpResult
from couchbase.users import AuthDomain
from tests.couchbase.support import ConnectionTestCase
from tests.couchbase.test_connection_connecting import closed_port


class AdminTests(ConnectionTestCase):
    """Section 15 of the reference."""

    def setUp(self):
        super().setUp()
        self.port = self.node.rest_ports[0]
        self.admin = Admin("Administrator", "password", "127.0.0.1", self.port)

    def test_credentials(self):
        """Checked by the constructor."""
        self.assertRaises(AuthError, Admin, "Administrator", "wrong", "127.0.0.1", self.port)
        self.assertRaises(AuthError, Admin, "nobody", "password", host="127.0.0.1", port=self.port)
        with self.assertRaises(CouchbaseNetworkError):
            Admin("Administrator", "password", host="127.0.0.1", port=closed_port())
        self.assertRaises(ArgumentError, Admin, None, "x")
        Admin("Administrator", "password", "127.0.0.1", self.port, whatever=1)

    def test_request(self):
        """The result, its format and its path as given."""
        result = self.admin.http_request("pools")
        self.assertIs(type(result), HttpResult)
        self.assertEqual((result.http_status, result.success, result.done), (200, True, True))
        self.assertEqual((result.url, result.key, result.headers), ("pools", "pools", None))
        self.assertIsInstance(result.value, dict)
        text = self.admin.http_request("/pools", response_format=FMT_UTF8).value
        self.assertIsInstance(text, str)
        data = self.admin.http_request("/pools", response_format=FMT_BYTES).value
        self.assertIsInstance(data, bytes)

    def test_failed_request(self):
        """HTTPError with the result."""
        with self.assertRaises(HTTPError) as caught:
            self.admin.http_request("/no/such/page")
        error = caught.exception
        self.assertEqual(error.objextra.http_status, 404)
        self.assertEqual((error.rc, error.key), (0, "/no/such/page"))
        self.assertFalse(error.objextra.success)

    def test_old_managers(self):
        """A manager that wants authType gets it; any other refusal is the caller's, after one request."""
        seen = []
        refusal = b"authType must be specified"

        class Manager(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_POST(self):
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                seen.append("authType=sasl" in form)
                refused = not seen[-1] or refusal == b"no"
                body = refusal if refused else b""
                self.send_response(400 if refused else 202)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                """Log nothing."""

        server = HTTPServer(("127.0.0.1", 0), Manager)
        self.addCleanup(server.server_close)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        admin = Admin("Administrator", "password", "127.0.0.1", server.server_address[1])
        self.assertEqual(admin.bucket_create("made").http_status, 202)
        self.assertEqual(seen, [False, True])
        refusal = b"no"
        for password, asked in (("", [False]), ("pw", [True])):
            seen.clear()
            self.assertRaises(HTTPError, admin.bucket_create, "made", bucket_password=password)
            self.assertEqual(seen, asked)

    def test_arguments(self):
        """ArgumentError."""
        for args in (
            (None,),
            (5,),
            ("/pools", "get"),
            ("/pools", "HEAD"),
            ("/pools", "POST", {}),
            ("/", "GET", 5),
        ):
            self.assertRaises(ArgumentError, self.admin.http_request, *args)
        self.assertRaises(ArgumentError, self.admin.http_request, "/pools", response_format=99)

    def test_buckets(self):
        """Made, listed, used, removed."""
        self.admin.bucket_create("made", bucket_password="sesame", replicas=0)
        try:
            self.assertIn("made", [bucket["name"] for bucket in self.admin.bucket_list().value])
            cb = self.connect(bucket="made")
            self.assertTrue(cb.set("k", 1).success)
            other = Connection(bucket="made", host="127.0.0.1", port=self.port, password="sesame")
            self.addCleanup(other._close)
            self.assertEqual(other.get("k").value, 1)
            with self.assertRaises(HTTPError):
                self.admin.bucket_create("made")
        finally:
            self.admin.bucket_delete("made")
        self.assertRaises(HTTPError, self.admin.bucket_delete, "made")
        self.assertRaises(BucketNotFoundError, self.connect, bucket="made")
        self.assertRaises(ArgumentError, self.admin.bucket_delete, "")

    def test_users(self):
        """A user is made, read, listed, changed and removed; roles are texts or tuples."""
        roles = [("data_reader", "default"), "data_writer[default:_default:_default]", ("ro_admin",)]
        self.admin.user_upsert(AuthDomain.Local, "jane", "s3cret-pw", roles, name="Jane D\xf6")
        try:
            user = self.admin.user_get("local", "jane").value
            self.assertEqual((user["id"], user["domain"], user["name"]), ("jane", "local", "Jane D\xf6"))
            self.assertEqual(
                [(role["role"], role.get("collection_name")) for role in user["roles"]],
                [("data_reader", "*"), ("data_writer", "_default"), ("ro_admin", None)],
            )
            for domain in (None, AuthDomain.Local):
                self.assertIn("jane", [one["id"] for one in self.admin.users_get(domain).value])
            self.assertEqual(self.admin.users_get(AuthDomain.External).value, [])
            own = Admin("jane", "s3cret-pw", "127.0.0.1", self.port)
            own.change_password("n3w-secret")
            self.assertRaises(AuthError, Admin, "jane", "s3cret-pw", "127.0.0.1", self.port)
            self.admin.user_upsert("local", "jane")
            self.assertEqual(self.admin.user_get("local", "jane").value["roles"], [])
        finally:
            self.admin.user_remove("local", "jane")
        for call in (self.admin.user_get, self.admin.user_remove):
            with self.assertRaises(HTTPError) as caught:
                call("local", "jane")
            self.assertEqual(caught.exception.objextra.http_status, 404)
            self.assertEqual(caught.exception.objextra.value, "Unknown user.")
        with self.assertRaises(HTTPError) as caught:
            self.admin.user_upsert("local", "jane", "s3cret-pw", ["nothing"])
        self.assertIn("roles", caught.exception.objextra.value["errors"])

    def test_groups(self):
        """A group is made, read, listed and removed; its users have its roles."""
        self.admin.group_upsert("devs", [("data_reader", "*")], description="all", ldap_group_ref="cn=x")
        try:
            group = self.admin.group_get("devs").value
            self.assertEqual((group["description"], group["ldap_group_ref"]), ("all", "cn=x"))
            self.assertEqual([one["id"] for one in self.admin.groups_get().value], ["devs"])
            self.admin.user_upsert("local", "mia", "s3cret-pw", groups=["devs"])
            (role,) = self.admin.user_get("local", "mia").value["roles"]
            self.assertEqual(role["origins"], [{"type": "group", "name": "devs"}])
            self.admin.user_remove("local", "mia")
        finally:
            self.admin.group_remove("devs")
        with self.assertRaises(HTTPError) as caught:
            self.admin.group_get("devs")
        self.assertEqual(caught.exception.objextra.value, "Unknown group.")
        self.assertIn("data_reader", [role["role"] for role in self.admin.roles_get().value])

    def test_arguments_of_users(self):
        """ArgumentError, before anything is sent."""
        admin = self.admin
        for call, args in [
            (admin.users_get, ("nowhere",)),
            (admin.user_get, ("local", "")),
            (admin.user_get, ("local", "..")),
            (admin.user_get, ("local", 5)),
            (admin.user_get, ("LOCAL", "jane")),
            (admin.user_upsert, ("local", "jane", 5)),
            (admin.user_upsert, ("local", "jane", "s3cret-pw", "admin")),
            (admin.user_upsert, ("local", "jane", "s3cret-pw", [5])),
            (admin.user_upsert, ("local", "jane", "s3cret-pw", [("a", "b", "c", "d", "e")])),
            (admin.user_upsert, ("local", "jane", "s3cret-pw", [("data_reader", None)])),
            (admin.group_upsert, (None,)),
            (admin.change_password, (None,)),
        ]:
            self.assertRaises(ArgumentError, call, *args)

    def test_no_documents(self):
        """Key-value methods raise a CouchbaseError."""
        for operation in (
            lambda: self.admin.set("k", 1),
            lambda: self.admin.get("k"),
            lambda: self.admin.append("k", "x"),
            lambda: self.admin.delete("k"),
            lambda: self.admin.unlock("k", 1),
            lambda: self.admin.get_multi(["k"]),
            lambda: self.admin.observe("k"),
            lambda: self.admin.endure("k"),
            lambda: self.admin.stats(),
        ):
            self.assertRaises(ClientTemporaryFailError, operation)

    def test_members(self):
        """Those of connections."""
        self.assertEqual(self.admin.server_nodes, [f"127.0.0.1:{self.port}"])
        self.admin.timeout = 5
        self.assertEqual(self.admin.timeout, 5.0)
        self.assertRaises(ValueError, setattr, self.admin, "timeout", 0)
        self.assertRaises(TypeError, setattr, self.admin, "timeout", "x")
        self.assertTrue(repr(self.admin).startswith("<couchbase.admin.Admin nodes="))


class Script(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self):
        """Redirect, or serve nonsense."""
        count = int(self.path.rsplit("/", 1)[-1]) if self.path.startswith("/again/") else 0
        if self.path == "/text":
            self.reply(200, b"no JSON")
        elif self.path == "/garbage":
            self.wfile.write(b"\x80\x81garbage\r\n\r\n")
        elif self.path == "/empty" or not count:
            self.reply(200, b"")
        else:
            self.reply(302, b"", ("Location", f"/again/{count - 1}"))

    def reply(self, status, body, *headers):
        """Send one answer."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Say nothing."""


class ScriptedTests(ConnectionTestCase):
    """Answers that the embedded node does not give."""

    def setUp(self):
        server = HTTPServer(("127.0.0.1", 0), Script)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.admin = Admin("a", "b", "127.0.0.1", server.server_address[1])

    def test_redirects(self):
        """Three redirects are followed and the URL stays; a fourth is too many."""
        self.assertEqual(self.admin.http_request("/again/3").url, "/again/3")
        with self.assertRaises(CouchbaseError) as caught:
            self.admin.http_request("/again/4")
        self.assertEqual(caught.exception.rc, 0x29)

    def test_bodies(self):
        """A text that is not JSON, an empty body, and an answer that is not HTTP."""
        self.assertEqual(self.admin.http_request("/text").value, "no JSON")
        self.assertEqual(self.admin.http_request("/empty", response_format=FMT_BYTES).value, b"")
        with self.assertRaises(CouchbaseNetworkError):
            self.admin.http_request("/garbage")
