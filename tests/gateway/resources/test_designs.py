"""Design documents over HTTP: calls of the driver, statuses, and every kind of invalid request."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.result import HttpResult
from tests.gateway.support import Reply, Site, basic, error, passthrough
from tests.gateway.views.support import http_error

DESIGNS = "/v1/buckets/b/designs"
DESIGN = DESIGNS + "/beer"
BODY = b'{"views": {"v": {"map": "function (doc, meta) { emit(1.0) }"}}}'
MISSING = http_error(404, "missing", "not_found")
OK = HttpResult(0, 201, {"ok": True}, "/b/_design/beer", {})


def stored(value: Any, meta: str = '{"id":"_design/beer","rev":"5-2785ea87","type":"json"}') -> HttpResult:
    """Return what design_get gives."""
    return HttpResult(0, 200, value, "/b/_design/beer", {"X-Couchbase-Meta": meta})


class ReadTests(SynchronousTestCase):
    """One, and all."""

    def test_get(self) -> None:
        """The JSON, with the revision in a header."""
        site = Site({"design_get": stored({"views": {"v": {"map": "é"}}, "n": 2**70})})
        reply = site.request("GET", DESIGN)
        self.assertEqual(reply.json(), {"views": {"v": {"map": "é"}}, "n": 2**70})
        self.assertEqual(
            (reply.status, reply.header("Content-Type"), reply.header("X-CB-Revision")),
            (200, "application/json", "5-2785ea87"),
        )
        self.assertEqual(site.calls, [("design_get", ("beer",), {"use_devmode": False})])

    def test_dev(self) -> None:
        """The development form is meant; a name that says so already is left alone."""
        for path, name in (
            (DESIGN + "?dev=true", "dev_beer"),
            (DESIGNS + "/dev_beer?dev=True", "dev_beer"),
            (DESIGNS + "/dev_beer", "dev_beer"),
            (DESIGN + "?dev=false", "beer"),
            (DESIGNS + "/a%2Fb%25", "a/b%"),
        ):
            site = Site({"design_get": stored({})})
            site.request("GET", path)
            self.assertEqual(site.calls[0][1], (name,), path)

    def test_missing(self) -> None:
        """404 names the document that was looked for."""
        reply = Site({"design_get": MISSING}).request("GET", DESIGN + "?dev=true")
        told = reply.json()
        self.assertEqual((reply.status, told["code"]), (404, "DesignDocumentNotFound"))
        self.assertEqual(told["resource"], "/buckets/b/designs/dev_beer")
        self.assertEqual(told["exception"], "HTTPError")

    def test_odd_answers(self) -> None:
        """Without a revision there is no header; an answer that is not a document is the cluster's fault."""
        for meta in ("", "{}", "[]", "{", '{"rev":7}', '{"rev":"a\\r\\nb"}'):
            reply = Site({"design_get": stored({}, meta)}).request("GET", DESIGN)
            self.assertEqual((reply.status, reply.header("X-CB-Revision")), (200, None), meta)
        reply = Site({"design_get": stored("<html>")}).request("GET", DESIGN)
        self.assertEqual(reply.json()["code"], "ServerError")

    def test_list(self) -> None:
        """Sorted by name."""
        listed = HttpResult(0, 200, {"dev_a": {"views": {}}, "b": {}}, "/", {})
        reply = Site({"design_list": listed}).request("GET", DESIGNS)
        self.assertEqual(
            reply.json(),
            {"designs": [{"name": "b", "design": {}}, {"name": "dev_a", "design": {"views": {}}}]},
        )


class WriteTests(SynchronousTestCase):
    """Store, publish, remove."""

    def test_put(self) -> None:
        """201 for a new one, 200 for another; the document goes to the node as it was sent."""
        for there, status in ((MISSING, 201), (stored({}), 200)):
            site = Site({"design_get": there, "design_create": OK})
            reply = site.request("PUT", DESIGN + "?dev=true", BODY)
            self.assertEqual((reply.status, reply.json()), (status, {"name": "dev_beer"}))
            self.assertEqual(reply.header("Location"), "/v1/buckets/b/designs/dev_beer")
            self.assertEqual(
                site.calls[1],
                ("design_create", ("dev_beer", BODY.decode()), {"use_devmode": False, "syncwait": 0.0}),
            )

    def test_location_is_encoded(self) -> None:
        """It can be asked for."""
        site = Site({"design_get": MISSING, "design_create": OK})
        reply = site.request("PUT", DESIGNS + "/a%2F%C3%A9", BODY)
        self.assertEqual(reply.header("Location"), "/v1/buckets/b/designs/a%2F%C3%A9")

    def test_put_refused_by_the_node(self) -> None:
        """Its reason is the message."""
        reason = "The `map' field for the view `v' is missing."
        site = Site({"design_get": MISSING, "design_create": http_error(400, reason)})
        reply = site.request("PUT", DESIGN, BODY)
        told = reply.json()
        self.assertEqual((reply.status, told["code"]), (400, "InvalidDesignDocument"))
        self.assertEqual((told["message"], told["resource"]), (reason, "/buckets/b/designs/beer"))

    def test_delete(self) -> None:
        """204, with nothing in it."""
        site = Site({"design_delete": HttpResult(0, 200, {"ok": True}, "/", {})})
        reply = site.request("DELETE", DESIGN + "?syncwait=2.5")
        self.assertEqual((reply.status, reply.body), (204, b""))
        self.assertEqual(site.calls[0], ("design_delete", ("beer",), {"use_devmode": False, "syncwait": 2.5}))
        reply = Site({"design_delete": MISSING}).request("DELETE", DESIGN)
        self.assertEqual(reply.json()["code"], "DesignDocumentNotFound")

    def test_publish(self) -> None:
        """To the name without ``dev_``, whichever is given."""
        for name in ("beer", "dev_beer"):
            for there, status in ((MISSING, 201), (stored({}), 200)):
                site = Site({"design_get": there, "design_publish": OK})
                reply = site.request("POST", f"{DESIGNS}/{name}/publish?syncwait=30")
                self.assertEqual((reply.status, reply.json()), (status, {"name": "beer"}))
                self.assertEqual(site.calls[1], ("design_publish", ("beer",), {"syncwait": 30.0}))

    def test_publish_what_is_missing(self) -> None:
        """The missing document is the development document."""
        site = Site({"design_get": MISSING, "design_publish": MISSING})
        told = site.request("POST", DESIGN + "/publish").json()
        self.assertEqual(
            (told["code"], told["resource"]), ("DesignDocumentNotFound", "/buckets/b/designs/dev_beer")
        )
        self.assertEqual(site.request("POST", DESIGNS + "/dev_/publish").status, 400)

    def test_change_that_does_not_show_in_time(self) -> None:
        """The caller learns that it was made."""
        late = error(exceptions.ETIMEDOUT, message="the change of design document 'beer' was made, but ...")
        for method, path, answers in (
            ("PUT", DESIGN, {"design_get": MISSING, "design_create": late}),
            ("DELETE", DESIGN, {"design_delete": late}),
            ("POST", DESIGN + "/publish", {"design_get": MISSING, "design_publish": late}),
        ):
            told = Site(answers).request(method, path, BODY if method == "PUT" else b"").json()
            self.assertEqual((told["code"], told["retry"]), ("DeadlineExceeded", "ambiguous"))
            self.assertIn("was made", told["message"])

    def test_lost_connections(self) -> None:
        """A change may have happened; a look has not changed anything."""
        lost = error(exceptions.NETWORK_ERROR)
        told = Site({"design_delete": lost}).request("DELETE", DESIGN).json()
        self.assertEqual((told["code"], told["retry"]), ("UnderlyingServiceUnavailable", "ambiguous"))
        told = Site({"design_get": lost}).request("GET", DESIGN).json()
        self.assertEqual(told["retry"], "safe")
        told = Site({"design_get": lost}).request("PUT", DESIGN, BODY).json()
        self.assertEqual(told["code"], "UnderlyingServiceUnavailable")

    def test_other_failures(self) -> None:
        """By status, as the cluster means it."""
        for status, expected in (
            (401, (403, "InvalidAuth")),
            (403, (403, "NoWriteAccess")),
            (413, (413, "InvalidArgument")),
            (503, (503, "TemporarilyUnavailable")),
            (500, (500, "ServerError")),
        ):
            site = Site({"design_get": stored({}), "design_create": http_error(status)})
            reply = site.request("PUT", DESIGN, BODY)
            self.assertEqual((reply.status, reply.json()["code"]), expected)
        told = Site({"design_get": http_error(403)}).request("GET", DESIGN).json()
        self.assertEqual(told["code"], "NoReadAccess")
        told = Site({"design_get": http_error(403)}).request("PUT", DESIGN, BODY).json()
        self.assertEqual(told["code"], "NoWriteAccess")


class RefusedTests(SynchronousTestCase):
    """Requests that never reach the cluster."""

    def refused(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Send it, and see that it got no further."""
        site = Site()
        reply = site.request(method, path, body)
        self.assertEqual(site.connections, [])
        self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"))
        return reply

    def test_bodies(self) -> None:
        """PUT takes a JSON object; publishing takes none."""
        for body, words in (
            (b"", "no body"),
            (b"{", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[]", "not an object"),
            (b'"x"', "not an object"),
        ):
            message = self.refused("PUT", DESIGN, body).json()["message"]
            self.assertIn(words, message)
            self.assertIn('{"views"', message)
        self.refused("POST", DESIGN + "/publish", b"{}")

    def test_syncwait(self) -> None:
        """Seconds from 0 to 300."""
        for value in ("", "-1", "x", "301", "1e2", "nan", "5s", "9999"):
            for method, path in (("PUT", DESIGN), ("DELETE", DESIGN), ("POST", DESIGN + "/publish")):
                body = BODY if method == "PUT" else b""
                message = self.refused(method, f"{path}?syncwait={value}", body).json()["message"]
                self.assertTrue(message.startswith("syncwait: "), message)
                self.assertIn("0 to 300", message)

    def test_dev(self) -> None:
        """A boolean."""
        for value in ("", "1", "yes"):
            for method in ("GET", "PUT", "DELETE"):
                message = self.refused(
                    method, f"{DESIGN}?dev={value}", BODY if method == "PUT" else b""
                ).json()
                self.assertTrue(message["message"].startswith("dev: "), message)

    def test_unknown_parameters(self) -> None:
        """Each takes its own only."""
        for method, path in (
            ("GET", DESIGNS + "?dev=true"),
            ("GET", DESIGN + "?syncwait=1"),
            ("PUT", DESIGN + "?rev=1"),
            ("DELETE", DESIGN + "?rev=1"),
            ("POST", DESIGN + "/publish?dev=true"),
        ):
            self.assertIn("unknown query parameter", self.refused(method, path).json()["message"])

    def test_methods_and_credentials(self) -> None:
        """405 with those there are; 401 as everywhere."""
        for path, allow in (
            (DESIGNS, "GET, HEAD, OPTIONS"),
            (DESIGN, "DELETE, GET, HEAD, OPTIONS, PUT"),
            (DESIGN + "/publish", "OPTIONS, POST"),
        ):
            self.assertEqual(Site().request("PATCH", path).header("Allow"), allow)
            site = Site(authorizer=passthrough())
            method = "POST" if path.endswith("publish") else "GET"
            self.assertEqual(site.request(method, path).json()["code"], "Unauthorized")
        site = Site({"design_get": stored({})}, authorizer=passthrough())
        site.request("GET", DESIGN, headers=basic("ann", "secret"))
        self.assertEqual(site.connections[0].opened_with, ("b", "ann", "secret"))
