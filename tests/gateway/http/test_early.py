"""No body is read before the caller is confirmed, the bucket exists, and the headers are valid."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import AuthError, BucketNotFoundError
from gateway.http.body import LEAST_BYTES_A_SECOND
from gateway.limits import Limits
from tests.gateway.support import (
    Answer,
    HalfClosing,
    Reply,
    Site,
    basic,
    passthrough,
    raw_request,
    read_reply,
)

BUCKET = "/v1/buckets/default"
DOCUMENT = f"{BUCKET}/documents/k"
LARGE = 20 * 2**20
EXPECT = {"Expect": "100-continue"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
USER = basic("user", "secret")

# Each resource that takes a body: method, path, content type, and a body that it accepts.
RESOURCES = [
    ("PUT", DOCUMENT, None, b"x" * 100),
    ("POST", DOCUMENT, None, b"x" * 100),
    ("POST", f"{DOCUMENT}/append", None, b"x" * 100),
    ("POST", f"{DOCUMENT}/prepend", None, b"x" * 100),
    ("POST", f"{DOCUMENT}/increment", "application/json", b'{"delta":1}'),
    ("POST", f"{DOCUMENT}/touch", None, b'{"expiry":"1h"}'),
    ("POST", f"{DOCUMENT}/lock", None, b'{"lockTime":5}'),
    ("POST", f"{BUCKET}/batch", "application/x-ndjson", b'{"op":"get","key":"a"}\n'),
    ("POST", f"{BUCKET}/views/d/v", "application/json", b'{"limit":1}'),
    ("PUT", f"{BUCKET}/designs/d", "application/json", b'{"views":{}}'),
]


def head(method: str, path: str, length: int | None, headers: dict[str, str]) -> bytes:
    """Return the head of a request; chunked if it has no length."""
    framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    return raw_request(method, path, headers={**framing, **headers})


class EarlyTestCase(SynchronousTestCase):
    """A site where callers prove themselves, and the test says when the cluster has confirmed them."""

    def setUp(self) -> None:
        self.opened: Deferred[Any] = Deferred()
        self.site = Site(
            {"connect": lambda: self.opened, "set": Answer(), "get_with_expiry": Answer(b"{}")},
            authorizer=passthrough(),
            # Room for one large body, and not for two.
            limits=Limits(max_buffered=LARGE * 3 // 2),
        )

    def client(self, data: bytes) -> HalfClosing:
        client = HalfClosing()
        self.site.client(client)
        self.site.send(client, data)
        return client

    def reply(self, client: HalfClosing) -> Reply:
        return read_reply(client.value())[0]

    def check_refused(self, data: bytes, status: int, code: str) -> None:
        """The answer comes for the head alone, without a 100 and with nothing held."""
        client = self.client(data)
        self.assertNotIn(CONTINUE, client.value(), data)
        reply = self.reply(client)
        self.assertEqual((reply.status, reply.json()["code"]), (status, code), data)
        self.assertEqual(self.site.gateway.budget.used, 0)
        self.assertEqual(self.site.gateway.under_way, 0)


class RefusalTests(EarlyTestCase):
    """Requests that are refused for their head alone."""

    def test_no_credentials(self) -> None:
        """401 for every resource that takes a body, for any framing, with and without Expect."""
        for method, path, kind, _ in RESOURCES:
            for length in (LARGE, None):
                for extra in ({}, EXPECT):
                    headers = extra if kind is None else {"Content-Type": kind, **extra}
                    self.check_refused(head(method, path, length, headers), 401, "Unauthorized")

    def test_wrong_password_and_unknown_bucket(self) -> None:
        """403 and 404 once the cluster has said so; until then nothing is read, reserved or asked for."""
        for error, status, code in (
            (AuthError, 403, "InvalidAuth"),
            (BucketNotFoundError, 404, "BucketNotFound"),
        ):
            for number, (method, path, kind, _) in enumerate(RESOURCES):
                self.opened = Deferred()
                headers = {**EXPECT, **basic(f"{code}{number}", "wrong")}
                if kind is not None:
                    headers["Content-Type"] = kind
                client = self.client(head(method, path, LARGE, headers))
                self.assertEqual((client.value(), self.site.gateway.budget.used), (b"", 0), path)
                self.opened.errback(error({}))
                reply = self.reply(client)
                self.assertEqual((reply.status, reply.json()["code"]), (status, code), path)
                self.assertEqual(self.site.gateway.budget.used, 0)
                self.assertEqual(self.site.gateway.under_way, 0)

    def test_headers_before_credentials(self) -> None:
        """Malformed headers are 400 before the credentials are checked."""
        for extra in ({"X-CB-Flags": "x"}, {"Authorization": "Digest x"}, {"Authorization": "Basic ???"}):
            self.check_refused(head("PUT", DOCUMENT, LARGE, {**EXPECT, **extra}), 400, "InvalidArgument")
        self.check_refused(head("PUT", f"{DOCUMENT}?x=1", LARGE, EXPECT), 400, "InvalidArgument")
        self.check_refused(head("PUT", f"{BUCKET}/documents/%zz", LARGE, EXPECT), 400, "InvalidArgument")
        self.check_refused(head("POST", f"{BUCKET}/batch?x=1", LARGE, EXPECT), 400, "InvalidArgument")

    def test_what_the_head_says_of_the_document(self) -> None:
        """With valid credentials, the key, conditions, encoding, expiry, durability and collection are
        checked before the body is requested."""
        self.opened.callback(None)
        for path, extra, status, code in (
            (f"{BUCKET}/documents/{'k' * 251}", {}, 400, "InvalidArgument"),
            (DOCUMENT, {"If-Match": "x!"}, 400, "InvalidArgument"),
            (DOCUMENT, {"Content-Encoding": "gzip"}, 400, "InvalidArgument"),
            (DOCUMENT, {"Expires": "soon"}, 400, "InvalidArgument"),
            (DOCUMENT, {"X-CB-TTL": "soon"}, 400, "InvalidArgument"),
            (DOCUMENT, {"X-CB-DurabilityLevel": "x"}, 400, "InvalidArgument"),
            (f"{BUCKET}/scopes/a%20b/collections/_default/documents/k", {}, 404, "ScopeNotFound"),
        ):
            for method in ("PUT", "POST"):
                self.check_refused(head(method, path, LARGE, {**EXPECT, **USER, **extra}), status, code)
        self.check_refused(head("PUT", DOCUMENT, LARGE + 1, {**EXPECT, **USER}), 413, "InvalidArgument")
        long = f"{BUCKET}/documents/{'k' * 251}/touch"
        self.check_refused(head("POST", long, LARGE, {**EXPECT, **USER}), 400, "InvalidArgument")
        self.assertEqual(self.site.calls, [])

    def test_too_large_is_told_to_those_who_may_know(self) -> None:
        """The size is judged behind credentials and bucket."""
        self.check_refused(head("PUT", DOCUMENT, LARGE + 1, EXPECT), 401, "Unauthorized")


class ExpectTests(EarlyTestCase):
    """``Expect: 100-continue``, in every form that it may have."""

    FORMS = (
        *(b"100-continue", b"100-Continue", b"100-continue, 100-continue"),
        b"100-continue\r\nExpect: 100-continue",
    )

    def test_asked(self) -> None:
        """A body that is wanted is requested once."""
        self.site.answers["connect"] = None
        for form in self.FORMS:
            data = raw_request("PUT", DOCUMENT, headers={"Content-Length": "3", **USER})
            client = self.client(data.replace(b"\r\n\r\n", b"\r\nExpect: " + form + b"\r\n\r\n"))
            self.assertEqual(client.value(), CONTINUE, form)

    def test_refused(self) -> None:
        """After a refusal the body may or may not follow, so the connection is closed."""
        for form in self.FORMS:
            for framing in (b"Content-Length: 3", b"Transfer-Encoding: chunked"):
                for method, path, _, _ in RESOURCES:
                    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
                    client = self.client(head + framing + b"\r\nExpect: " + form + b"\r\n\r\n")
                    reply = self.reply(client)
                    told = (reply.status, reply.header("Connection"))
                    self.assertEqual(told, (401, "close"), (form, framing, path))


class WaitingTests(EarlyTestCase):
    """While the cluster has not confirmed a caller."""

    def test_nothing_is_held(self) -> None:
        """Unconfirmed callers take no room: a confirmed caller has all of it."""
        waiting = [self.client(head("PUT", DOCUMENT, LARGE, USER) + b"x" * 1000) for _ in range(5)]
        for client in waiting:
            self.assertEqual((client.value(), client.producerState), (b"", "paused"))
            self.site.send(client, b"x" * 65536)
        self.assertEqual(self.site.gateway.budget.used, 0)
        self.site.answers["connect"] = None
        other = self.client(head("PUT", DOCUMENT, LARGE, basic("other", "secret")))
        self.assertEqual(self.site.gateway.budget.used, LARGE)
        self.site.send(other, b"x" * LARGE)
        self.assertEqual(self.reply(other).status, 200)
        self.opened.errback(AuthError({}))
        self.assertEqual({self.reply(client).status for client in waiting}, {403})

    def test_a_body_that_came_along(self) -> None:
        """A small body that has arrived with its head takes no room either."""
        client = self.client(raw_request("PUT", DOCUMENT, b"x" * 1000, USER))
        self.assertEqual((client.value(), self.site.gateway.budget.used), (b"", 0))
        self.opened.callback(None)
        self.assertEqual(self.reply(client).status, 200)
        self.assertEqual(self.site.gateway.budget.used, 0)

    def test_then_the_body_is_asked_for(self) -> None:
        """When the caller is confirmed: one 100 (Continue), the body, and the answer."""
        self.site.answers |= {"add": Answer(), "append": Answer(), "prepend": Answer(), "touch": Answer()}
        for user, (method, path, _, body) in enumerate(RESOURCES[:4] + RESOURCES[5:6]):
            for length in (len(body), None):
                self.opened = Deferred()
                headers = {**EXPECT, **basic(f"u{user}-{length}", "secret")}
                client = self.client(head(method, path, length, headers))
                self.assertEqual(client.value(), b"", path)
                self.opened.callback(None)
                self.assertEqual(client.value(), CONTINUE, path)
                sent = body if length is not None else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                client.clear()
                self.site.send(client, sent)
                self.assertIn(self.reply(client).status, (200, 204), path)
                self.assertEqual(self.site.gateway.budget.used, 0)
                self.assertTrue(client.connected)

    def test_batch(self) -> None:
        """Nothing of a batch is read before its caller is confirmed; then it is requested."""
        client = self.client(head("POST", f"{BUCKET}/batch", None, {**EXPECT, **USER}))
        self.assertEqual(client.value(), b"")
        self.opened.callback(None)
        self.assertEqual(client.value(), CONTINUE)

    def test_the_client_leaves(self) -> None:
        """Before or after the caller is confirmed: nothing is left behind or stored."""
        for confirmed in (False, True):
            client = self.client(head("PUT", DOCUMENT, LARGE, USER) + b"x" * 1000)
            if confirmed:
                self.opened.callback(None)
                self.assertEqual(self.site.gateway.budget.used, LARGE)
            client.loseConnection()
            self.assertEqual((self.site.gateway.budget.used, self.site.gateway.under_way), (0, 0))
        self.assertEqual(self.site.calls, [])

    def test_small_json_comes_first(self) -> None:
        """A small JSON body is judged before credentials, as the Data API does, and takes no room; with
        Expect, or if it is large, the caller is judged first."""
        path = f"{DOCUMENT}/touch"
        self.assertEqual(self.reply(self.client(raw_request("POST", path, b"{"))).status, 400)
        client = self.client(head("POST", path, 1, {}))
        self.assertEqual((client.value(), self.site.gateway.budget.used), (b"", 0))
        self.site.send(client, b"{")
        self.assertEqual(self.reply(client).status, 400)
        self.check_refused(head("POST", path, 1, EXPECT), 401, "Unauthorized")
        self.check_refused(head("POST", path, 10**5, {}), 401, "Unauthorized")

    def test_split_anywhere(self) -> None:
        """However head and body are cut, one operation is carried out, with the whole body."""
        self.opened.callback(None)
        data = raw_request("PUT", DOCUMENT, b"0123456789", USER) + raw_request("GET", DOCUMENT, b"", USER)
        for cut in range(1, len(data)):
            for connection in self.site.connections:
                connection.calls.clear()
            client = self.client(data[:cut])
            self.site.send(client, data[cut:])
            reply, rest = read_reply(client.value())
            self.assertEqual((reply.status, read_reply(rest)[0].status), (200, 200), cut)
            (_, (_, body), _), _ = self.site.calls
            self.assertEqual(body, b"0123456789", cut)

    def test_hooks_see_it_once(self) -> None:
        """A request whose handler runs twice is counted once."""
        self.opened.callback(None)
        client = self.client(head("PUT", DOCUMENT, 3, USER))
        self.assertEqual(self.site.gateway.under_way, 1)
        self.site.send(client, b"abc")
        self.assertEqual((self.reply(client).status, self.site.gateway.under_way), (200, 0))


class TimeTests(EarlyTestCase):
    """Timeouts of a body."""

    def upload(self, rate: int, seconds: int) -> HalfClosing:
        """Send at a rate, in bytes a second, for so long, or until there is an answer."""
        client = self.client(head("PUT", DOCUMENT, LARGE, USER))
        for _ in range(seconds):
            if client.value():
                break
            self.site.send(client, b"x" * rate)
            self.site.clock.advance(1)
        return client

    def test_a_slow_line(self) -> None:
        """A large body may take longer than --body-seconds if it comes at the least rate."""
        self.opened.callback(None)
        rate = LEAST_BYTES_A_SECOND
        client = self.upload(rate, LARGE // rate)
        self.assertEqual(self.reply(client).status, 200)

    def test_too_slow(self) -> None:
        """One that is sent more slowly ends with 408, the sooner the slower it is."""
        self.opened.callback(None)
        began = self.site.clock.seconds()
        self.assertEqual(self.reply(self.upload(10, 1000)).status, 408)
        self.assertLess(self.site.clock.seconds() - began, 125)
        self.assertEqual(self.site.gateway.budget.used, 0)
        client = self.upload(LEAST_BYTES_A_SECOND // 2, 1000)
        self.assertEqual(self.reply(client).status, 408)
