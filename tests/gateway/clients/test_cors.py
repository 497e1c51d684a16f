"""CORS: what pages of other origins may send, and read."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis.strategies import sampled_from, sets
from twisted.trial.unittest import SynchronousTestCase

from gateway.clients.cors import METHODS, CorsRules
from gateway.clients.origins import Doors
from tests.gateway.clients.test_origins import BATCH, FOREIGN, HOST, USER, D, OriginTestCase
from tests.gateway.support import Reply, Site, read_reply

APP = "https://app.example"


class CorsTestCase(OriginTestCase):
    """Asks as a page of another origin does."""

    def preflight(self, site: Site, path: str, method: str, origin: str = FOREIGN, **headers: str) -> Reply:
        """Ask whether a method may be sent."""
        return self.ask(site, "OPTIONS", path, Origin=origin, Access_Control_Request_Method=method, **headers)

    def cors(self, reply: Reply) -> dict[str, str]:
        """Return the headers of CORS, without their common prefix."""
        return {
            name.removeprefix("access-control-"): ", ".join(values)
            for name, values in reply.headers.items()
            if name.startswith("access-control-")
        }


class PreflightTests(CorsTestCase):
    """Preflights name what a resource takes."""

    def test_methods_of_the_route(self) -> None:
        """Exactly those of the resource, in every notation of its path; all where no route is known."""
        site = self.make(is_open=False)
        for path, methods in (
            (D, "GET, HEAD, POST, PUT, DELETE"),
            (BATCH, "POST"),
            (f"{D}/increment", "POST"),
            (f"{D}/observe", "GET, HEAD"),
            ("/v1/buckets/b/documents", "GET, HEAD"),
            ("/v1/buckets/b/designs/d", "GET, HEAD, PUT, DELETE"),
            ("/v1/buckets/b/views/d/v", "GET, HEAD, POST"),
            ("/v1/buckets", "GET, HEAD"),
            ("/health", "GET, HEAD"),
            ("/v1/buckets/b/documents/a%2Fb/increment", "POST"),
            ("/klein/a/b", "GET, HEAD, POST, PUT, DELETE"),
            ("/nothing", "GET, HEAD, POST, PUT, DELETE"),
        ):
            served = methods.split(", ")
            for method in (*METHODS, "PATCH", "TRACE", "OPTIONS", "put", "", "*"):
                found = self.cors(self.preflight(site, path, method))
                if method in served:
                    self.assertEqual(found["allow-methods"], methods, (path, method))
                else:
                    self.assertEqual(found, {}, (path, method))

    def test_options(self) -> None:
        """Methods, headers, age and credentials are those configured."""
        rules = CorsRules(methods=["GET"], headers=["X-App", "if-match"], max_age=0, credentials=False)
        site = self.make(is_open=False, origins=[APP], rules=rules)
        for method, wanted, allowed in (
            ("GET", "x-app, If-Match", True),
            ("GET", "", True),
            ("GET", "x-app,", True),
            ("GET", "authorization", False),
            ("GET", "x-app if-match", False),
            ("HEAD", "", False),
            ("PUT", "", False),
        ):
            reply = self.preflight(site, D, method, APP, Access_Control_Request_Headers=wanted)
            expected = {
                "allow-origin": APP,
                "allow-methods": "GET",
                "allow-headers": "X-App, if-match",
                "max-age": "0",
            }
            self.assertEqual(self.cors(reply), expected if allowed else {}, (method, wanted))
        self.assertEqual(self.cors(self.preflight(site, D, "GET", FOREIGN)), {})

    def test_private_networks(self) -> None:
        """A page from outside may reach a gateway inside only if its origin, or any, is configured."""
        asks = {"Access_Control_Request_Private_Network": "true"}
        for doors, origin, allowed in (
            ({"is_open": False}, FOREIGN, False),
            ({"is_open": False, "origins": [APP]}, APP, True),
            ({"is_open": False, "origins": [APP]}, FOREIGN, False),
            ({"is_open": False, "origins": ["*"]}, FOREIGN, True),
            ({"is_open": False, "origins": ["none"]}, FOREIGN, False),
            ({"is_open": True, "origins": [APP]}, APP, True),
        ):
            site = self.make(**doors)
            found = self.cors(self.preflight(site, D, "GET", origin, **asks))
            self.assertEqual(found.get("allow-private-network"), "true" if allowed else None, (doors, origin))
            unasked = self.cors(self.preflight(site, D, "GET", origin))
            self.assertNotIn("allow-private-network", unasked)

    @given(sets(sampled_from(METHODS)), sampled_from(METHODS), sets(sampled_from(METHODS)))
    def test_never_more(self, configured: set[str], method: str, served: set[str]) -> None:
        """No method is allowed that the resource lacks, or that is not configured."""
        rules = CorsRules(methods=configured)
        answer = rules.preflight(method.encode(), b"", sorted(served), private_network=False)
        allowed = served & (configured or set(METHODS))
        if method not in allowed:
            self.assertIsNone(answer)
        else:
            assert answer is not None
            self.assertEqual(set(dict(answer)[b"Access-Control-Allow-Methods"].decode().split(", ")), allowed)


class AnswerTests(CorsTestCase):
    """Answers that a page may read, whoever writes them."""

    def test_methods_that_pages_may_not_send(self) -> None:
        """A method that needs no preflight is refused, too, before anything is done; the gateway's own pages
        and programs may send everything."""
        site = self.make(is_open=False, origins=[APP], rules=CorsRules(methods=["GET"]))
        for origin in (APP, FOREIGN):
            refused = self.ask(site, "POST", BATCH, b"{}", Origin=origin, X_Requested_With="x", **USER)
            self.check(refused, "ForbiddenOrigin", origin)
            self.assertIn("--cors-method", refused.json()["message"])
        self.assertEqual(site.connections, [])
        own = self.ask(site, "PUT", D, b"1", Origin=f"http://{HOST}", **USER)
        self.assertEqual(own.status, 200)
        self.assertEqual(self.ask(site, "PUT", D, b"1", **USER).status, 200)
        self.assertEqual(self.ask(site, "GET", D, Origin=APP, **USER).status, 200)

    def test_errors_of_the_connection(self) -> None:
        """A page can read why it is refused, also where no handler has seen its request."""
        site = self.make(is_open=False, origins=[APP])
        name = f"Host: {HOST}\r\nOrigin: {APP}\r\n"
        large = "X-Large: " + "x" * 40_000 + "\r\n"
        many = "".join(f"X-{number}: 1\r\n" for number in range(600))
        user = "".join(f"{key}: {value}\r\n" for key, value in USER.items())
        for status, request in (
            (401, f"GET {D} HTTP/1.1\r\n{name}\r\n"),
            (404, f"GET /nothing HTTP/1.1\r\n{name}\r\n"),
            (405, f"PATCH {D} HTTP/1.1\r\n{name}\r\n"),
            (400, f"GET {D}?unknown=1 HTTP/1.1\r\n{name}{user}\r\n"),
            (413, f"PUT {D} HTTP/1.1\r\n{name}{user}Content-Length: 99999999999\r\n\r\n"),
            (400, f"PUT {D} HTTP/1.1\r\n{name}{user}Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
            (431, f"GET {D} HTTP/1.1\r\n{name}{large}\r\n"),
            (431, f"GET {D} HTTP/1.1\r\n{name}{many}\r\n"),
        ):
            transport = site.client()
            site.send(transport, request.encode())
            reply = read_reply(transport.value())[0]
            self.assertEqual(reply.status, status, request[:60])
            found = self.cors(reply)
            self.assertEqual((found.get("allow-origin"), reply.headers["vary"]), (APP, ["Origin"]), status)
            self.assertIn("Retry-After", found["expose-headers"])

    def test_large_heads_of_others(self) -> None:
        """An origin that may not call, or two of them, is not told anything."""
        for names in (f"Origin: {FOREIGN}\r\n", f"Origin: {APP}\r\nOrigin: {APP}\r\n", ""):
            site = self.make(is_open=True, origins=[APP])
            transport = site.client()
            head = f"GET {D} HTTP/1.1\r\nHost: {HOST}\r\n{names}X-Large: {'x' * 40_000}\r\n\r\n"
            site.send(transport, head.encode())
            reply = read_reply(transport.value())[0]
            self.assertEqual((reply.status, self.cors(reply)), (431, {}), names)

    def test_exposed(self) -> None:
        """Configured headers may be read in addition, each named once."""
        site = self.make(is_open=False, rules=CorsRules(exposed=["X-Served-By", "etag"], credentials=False))
        found = self.cors(self.ask(site, "GET", D, Origin=FOREIGN, **USER))
        self.assertEqual(found["allow-origin"], "*")
        self.assertNotIn("allow-credentials", found)
        names = found["expose-headers"].lower().split(", ")
        self.assertIn("x-served-by", names)
        self.assertEqual(names.count("etag"), 1)


class CostTests(SynchronousTestCase):
    """Clients that are no browsers pay nothing."""

    def test_no_visit(self) -> None:
        """Without ``Origin`` there is nothing to decide, whatever is configured."""
        doors = Doors(is_open=False, origins=[APP], rules=CorsRules(methods=["GET"]))
        headers: dict[bytes, Any] = {b"host": b"h", b"accept": b"*/*", b"authorization": b"Basic eA=="}
        self.assertTrue(doors.names.isdisjoint(headers))
        self.assertIsNone(doors.look(headers))
