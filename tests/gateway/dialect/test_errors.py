"""From exceptions to what HTTP says."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from couchbase import exceptions
from couchbase.protocol.constants import Status
from gateway.access.ratelimits import Buckets, Policy, RateLimits
from gateway.access.rules import RuleTable
from gateway.clients.origins import Doors
from gateway.dialect.errors import PROBLEMS, Retry, describe, public_code
from gateway.limits import Limits
from tests.gateway.access.ruled import ruled
from tests.gateway.services.test_calls import Agent, Response
from tests.gateway.support import Answer, Reply, Site, basic, error, passthrough, raw_request, read_reply
from tests.gateway.views.support import ViewSite, http_error, reply_of

DOCUMENT = "/v1/buckets/b/documents/k"
COLLECTED = "/v1/buckets/b/scopes/s/collections/c/documents/k"


def raises(rc: int, **attributes: Any) -> Any:
    """Return what makes a scripted operation fail."""
    return error(rc, **attributes)


# (code, method, path, body, headers, what the cluster says)
CASES: list[tuple[str, str, str, bytes, dict[str, str], dict[str, Any]]] = [
    ("InvalidArgument", "GET", DOCUMENT + "?x=1", b"", {}, {}),
    ("RouteNotFound", "GET", "/v2", b"", {}, {}),
    ("MethodNotAllowed", "PATCH", DOCUMENT, b"", {}, {}),
    ("InvalidAuth", "GET", DOCUMENT, b"", {}, {"connect": raises(exceptions.AUTH_ERROR)}),
    (
        "NoReadAccess",
        "GET",
        DOCUMENT,
        b"",
        {},
        {"get_with_expiry": raises(exceptions.AUTH_ERROR, status=Status.EACCESS)},
    ),
    (
        "NoWriteAccess",
        "PUT",
        DOCUMENT,
        b"",
        {},
        {"set": raises(exceptions.AUTH_ERROR, status=Status.EACCESS)},
    ),
    ("BucketNotFound", "GET", DOCUMENT, b"", {}, {"connect": raises(exceptions.BUCKET_ENOENT)}),
    ("ScopeNotFound", "GET", COLLECTED, b"", {}, {"get_with_expiry": raises(exceptions.SCOPE_ENOENT)}),
    (
        "CollectionNotFound",
        "GET",
        COLLECTED,
        b"",
        {},
        {"get_with_expiry": raises(exceptions.COLLECTION_ENOENT)},
    ),
    ("DocumentNotFound", "GET", DOCUMENT, b"", {}, {"get_with_expiry": raises(exceptions.KEY_ENOENT)}),
    (
        "DocumentExists",
        "POST",
        DOCUMENT,
        b"",
        {},
        {"add": raises(exceptions.KEY_EEXISTS, status=Status.KEY_EEXISTS)},
    ),
    (
        "CasMismatch",
        "PUT",
        DOCUMENT,
        b"",
        {"If-Match": "12"},
        {"replace": raises(exceptions.KEY_EEXISTS, status=Status.KEY_EEXISTS)},
    ),
    (
        "DocumentLocked",
        "PUT",
        DOCUMENT,
        b"",
        {},
        {"set": raises(exceptions.KEY_EEXISTS, status=Status.LOCKED)},
    ),
    (
        "DocumentNotLocked",
        "POST",
        DOCUMENT + "/unlock",
        b"",
        {"If-Match": "12"},
        {"unlock": raises(exceptions.ETMPFAIL, status=Status.NOT_LOCKED)},
    ),
    (
        "DocumentNotNumeric",
        "POST",
        DOCUMENT + "/increment",
        b"",
        {},
        {"incr": raises(exceptions.DELTA_BADVAL)},
    ),
    ("DocumentNotJson", "GET", DOCUMENT + "?project=a", b"", {}, {"get_with_expiry": Answer(b"{")}),
    (
        "DocumentTooDeep",
        "GET",
        DOCUMENT + "?project=a",
        b"",
        {},
        {"get_with_expiry": Answer(b"[" * 100000 + b"]" * 100000)},
    ),
    (
        "PathNotFound",
        "POST",
        DOCUMENT + "/mutate",
        b'{"operations":[{"operation":"Replace","path":"a","value":1}]}',
        {},
        {"mutate_in": raises(exceptions.SUBDOC_PATH_ENOENT, path="a", path_index=0)},
    ),
    (
        "PathExists",
        "POST",
        DOCUMENT + "/mutate",
        b'{"operations":[{"operation":"DictAdd","path":"a","value":1}]}',
        {},
        {"mutate_in": raises(exceptions.SUBDOC_PATH_EEXISTS, path="a", path_index=0)},
    ),
    ("PathMismatch", "GET", DOCUMENT + "?project=a.b", b"", {}, {"get_with_expiry": Answer(b'{"a":1}')}),
    (
        "ValueTooLarge",
        "POST",
        DOCUMENT + "/append",
        b"x",
        {},
        {"append": raises(exceptions.E2BIG, status=Status.E2BIG)},
    ),
    ("PreconditionFailed", "GET", DOCUMENT, b"", {"If-Match": "1"}, {"get_with_expiry": Answer(b"")}),
    (
        "DurabilityImpossible",
        "PUT",
        DOCUMENT,
        b"",
        {"X-CB-PersistTo": "4"},
        {"set": raises(exceptions.DURABILITY_ETOOMANY)},
    ),
    (
        "DurabilityAmbiguous",
        "PUT",
        DOCUMENT,
        b"",
        {"X-CB-DurabilityLevel": "Majority"},
        {"set": raises(exceptions.ETIMEDOUT)},
    ),
    (
        "DurableWriteInProgress",
        "PUT",
        DOCUMENT,
        b"",
        {},
        {"set": raises(exceptions.ETMPFAIL, status=Status.SYNC_WRITE_IN_PROGRESS)},
    ),
    ("NotSupported", "GET", DOCUMENT, b"", {}, {"get_with_expiry": raises(exceptions.NOT_SUPPORTED)}),
    ("TemporarilyUnavailable", "GET", DOCUMENT, b"", {}, {"get_with_expiry": raises(exceptions.ETMPFAIL)}),
    ("OutOfMemory", "PUT", DOCUMENT, b"", {}, {"set": raises(exceptions.ENOMEM)}),
    ("UnderlyingServiceUnavailable", "GET", DOCUMENT, b"", {}, {"connect": raises(exceptions.NETWORK_ERROR)}),
    ("DeadlineExceeded", "GET", DOCUMENT, b"", {}, {"get_with_expiry": raises(exceptions.ETIMEDOUT)}),
    ("RequestCanceled", "GET", DOCUMENT, b"", {}, {"get_with_expiry": lambda key: fail(CancelledError())}),
    ("ServerError", "GET", DOCUMENT, b"", {}, {"get_with_expiry": raises(exceptions.ERROR)}),
]


class EveryCodeTests(SynchronousTestCase):
    """Each code of the table comes out of the gateway, in one shape."""

    produced: set[str] = set()

    def check(self, code: str, reply: Reply) -> dict[str, Any]:
        """The answer has the status, type and members that every error has."""
        problem = PROBLEMS[code]
        told = reply.json()
        self.assertEqual((reply.status, told["code"]), (problem.status, public_code(problem)), told)
        self.assertEqual(reply.header("Content-Type"), "application/json")
        self.assertEqual(told["requestId"], reply.header("X-Request-Id"))
        self.assertTrue(told["message"] and told["requestId"])
        self.assertIn(told["retry"], {retry.value for retry in Retry})
        self.assertIsInstance(told["resource"], str)
        if problem.status == 503:
            self.assertEqual(reply.header("Retry-After"), "1")
        type(self).produced.add(code)
        return told  # type: ignore[no-any-return]

    def test_by_request_and_cluster(self) -> None:
        """Errors that a request or the cluster can cause."""
        for code, method, path, body, headers, answers in CASES:
            told = self.check(code, Site(answers).request(method, path, body, headers))
            given = [answer for answer in answers.values() if isinstance(answer, exceptions.CouchbaseError)]
            if given:
                self.assertEqual(told["rc"], given[0].rc)
                self.assertIsInstance(given[0], getattr(exceptions, told["exception"]))

    def test_by_views(self) -> None:
        """Errors of the view engine; the others are in test_views and test_designs."""
        for code, failure in (
            ("DesignDocumentNotFound", http_error(404, "missing", "not_found")),
            ("ViewNotFound", http_error(404, "View `v` not defined in `_design/d`.", "not_found")),
            ("ViewFailed", http_error(500, "Reducer: no number")),
        ):
            site = ViewSite()
            client = site.ask()
            site.streams[0].fail(failure)
            self.check(code, reply_of(client))
        answers = {"design_get": Answer({}), "design_create": http_error(400, "no map")}
        self.check(
            "InvalidDesignDocument", Site(answers).request("PUT", "/v1/buckets/b/designs/d", b'{"views":{}}')
        )

    def test_by_credentials(self) -> None:
        """401 has a challenge."""
        reply = Site(authorizer=passthrough()).request("GET", DOCUMENT)
        self.check("Unauthorized", reply)
        self.assertTrue((reply.header("WWW-Authenticate") or "").startswith("Basic "))
        self.check("AccessDenied", Site(authorizer=ruled(RuleTable((), {}))).request("GET", DOCUMENT))

    def test_by_pages(self) -> None:
        """403 for what a browser sends for others' pages."""
        site = Site(guard=Doors(is_open=True))
        self.check("ForbiddenOrigin", site.request("GET", DOCUMENT, headers={"Origin": "http://x.example"}))
        client = site.client()
        site.send(client, b"GET / HTTP/1.1\r\nHost: x.example\r\n\r\n")
        self.check("ForbiddenHost", read_reply(client.value())[0])

    def test_by_limits(self) -> None:
        """413 and 431, and 503 when bodies fill the room there is for them."""
        self.check("PayloadTooLarge", Site(limits=Limits(max_body=3)).request("PUT", DOCUMENT, b"long"))
        self.check("HeadersTooLarge", Site().request("GET", "/" + "x" * 20000))
        self.check(
            "HeadersTooLarge", Site().request("GET", "/", headers={f"X-{n}": "y" * 99 for n in range(999)})
        )
        buckets = Buckets(Policy("caller", 1, 1), lambda: 0.0)
        limits = RateLimits(None, buckets, lambda request: "10.0.0.1")
        site = Site(plugins=[limits])
        site.request("GET", "/")
        self.check("TooManyRequests", site.request("GET", DOCUMENT))
        self.check("Overloaded", Site(limits=Limits(max_buffered=3)).request("PUT", DOCUMENT, b"long"))

    def test_by_time(self) -> None:
        """A request that does not get complete, and one after the end."""
        site = Site()
        client = site.client()
        site.send(client, b"GET / HTTP/1.1\r\n")
        site.clock.pump([1] * 20)
        self.check("RequestTimeout", read_reply(client.value())[0])
        site.pool.close()
        self.check("ShuttingDown", site.request("GET", DOCUMENT))

    def test_by_a_bug(self) -> None:
        """An unexpected exception is a 500 that reveals only its id; the log has the details."""
        site = Site({"get_with_expiry": ZeroDivisionError("secret")})
        reply = site.request("GET", DOCUMENT)
        self.check("Internal", reply)
        self.assertNotIn(b"secret", reply.body)
        self.assertNotIn(b"Traceback", reply.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_by_services(self) -> None:
        """Errors of the query service."""
        for code, number in (
            ("ServiceForbidden", 1000),
            ("InvalidStatement", 3000),
            ("IndexNotFound", 4000),
            ("StatementFailed", 5000),
        ):
            agent = Agent()
            site = Site({"service_addresses": lambda name: ["http://a:8093"]})
            self.patch(site.gateway.upstream, "_agent", lambda policy, agent=agent: agent)
            client = site.client()
            site.send(client, raw_request("POST", "/v1/buckets/b/query", b'{"statement":"x"}'))
            response = Response()
            agent.requests[0][1].callback(response)
            answer = {"errors": [{"code": number, "msg": "what happened"}], "status": "fatal"}
            response.protocol.dataReceived(json.dumps(answer).encode())
            response.protocol.connectionLost(Failure(ResponseDone()))
            told = self.check(code, read_reply(client.value())[0])
            self.assertEqual(told["errors"], answer["errors"])

    def test_zz_all_codes_were_produced(self) -> None:
        """No code of the table is one that is never sent."""
        for name in (
            "by_request_and_cluster",
            "by_views",
            "by_credentials",
            "by_pages",
            "by_limits",
            "by_time",
            "by_a_bug",
            "by_services",
        ):
            getattr(self, f"test_{name}")()
        self.assertEqual(self.produced, set(PROBLEMS))


class ResourceTests(SynchronousTestCase):
    """The resource of an error."""

    def test_resource(self) -> None:
        """The document, the bucket, the path in the document, as the Data API writes them."""
        for code, answers, query, expected in (
            ("connect", raises(exceptions.BUCKET_ENOENT), "", "/buckets/b"),
            (
                "get_with_expiry",
                raises(exceptions.KEY_ENOENT),
                "",
                "/buckets/b/scopes/_default/collections/_default/documents/k",
            ),
            (
                "get_with_expiry",
                Answer(b"[]"),
                "?project=a.b",
                "/buckets/b/scopes/_default/collections/_default/documents/k/content/{a.b}",
            ),
        ):
            reply = Site({code: answers}).request("GET", DOCUMENT + query)
            self.assertEqual(reply.json()["resource"], expected)


class DescribeTests(SynchronousTestCase):
    """One status means different things to different operations."""

    def test_key_exists(self) -> None:
        """To an insert: it exists. With a CAS: it changed. Without: only a lock can be meant."""
        exists = error(exceptions.KEY_EEXISTS, status=Status.KEY_EEXISTS)
        self.assertEqual(describe(exists, "add").problem.code, "DocumentExists")
        self.assertEqual(describe(exists, "set", cas_given=True).problem.code, "CasMismatch")
        self.assertEqual(describe(exists, "set").problem.code, "DocumentLocked")

    def test_locks_of_old_servers(self) -> None:
        """Without extended errors a server says "temporary failure"."""
        failed = error(exceptions.ETMPFAIL, status=Status.ETMPFAIL)
        self.assertEqual(describe(failed, "lock").problem.code, "DocumentLocked")
        self.assertEqual(describe(failed, "unlock").problem.code, "DocumentNotLocked")
        self.assertEqual(describe(failed, "get").problem.code, "TemporarilyUnavailable")

    def test_ambiguous(self) -> None:
        """A write that may have happened is marked so, whatever its code."""
        lost = error(exceptions.NETWORK_ERROR, ambiguous=True)
        self.assertEqual(describe(lost, "set").retry, Retry.AMBIGUOUS)
        self.assertEqual(describe(error(exceptions.NETWORK_ERROR), "set").retry, Retry.SAFE)

    def test_every_status_is_described(self) -> None:
        """No status of the protocol, under any result code, ends as a bug of ours."""
        for rc in exceptions.RESULT_CODES:
            for status in [None, *Status]:
                fault = describe(error(rc, status=status), "set")
                self.assertFalse(fault.is_bug, (rc, status))
                self.assertTrue(hasattr(exceptions, fault.exception or ""))

    def test_no_document_content(self) -> None:
        """The driver's words about a failure may quote the document; they are not passed on."""
        fault = describe(error(exceptions.DELTA_BADVAL, message="not a number: TOP SECRET"), "incr")
        self.assertNotIn("SECRET", fault.message)


class BatchFaultTests(SynchronousTestCase):
    """Errors inside a batch have the same codes."""

    def test_same_code(self) -> None:
        """A missing document is DocumentNotFound there too, with rc and class."""
        site = Site({"get": raises(exceptions.KEY_ENOENT)})
        reply = site.request("POST", "/v1/buckets/b/batch", b'{"op":"get","key":"k"}')
        told = reply.json()
        self.assertEqual((told["status"], told["error"]["code"]), (404, "DocumentNotFound"))
        self.assertEqual((told["error"]["rc"], told["error"]["exception"]), (13, "NotFoundError"))

    def test_hang_up_is_counted_as_cancelled(self) -> None:
        """A client that leaves cancels the operation, and the Deferred chain ends without noise."""
        cancelled: list[Any] = []
        site = Site({"get_with_expiry": lambda key: Deferred(cancelled.append)})
        client = site.client()
        site.send(client, raw_request("GET", DOCUMENT, headers=basic("u", "p")))
        client.loseConnection()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(site.gateway.under_way, 0)
