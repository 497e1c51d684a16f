"""Which web pages may use the gateway: ``Host``, ``Origin``, ``Sec-Fetch-Site`` and CORS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis.strategies import binary, sampled_from
from klein import Klein
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import ISSLTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from gateway.clients.cors import ALLOWED_HEADERS, EXPOSED_HEADERS
from gateway.clients.origins import Doors
from gateway.dialect.errors import Refusal
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.plugins.metrics import Metrics
from tests.gateway.support import Answer, Reply, Site, basic, passthrough, read_reply

D = "/v1/buckets/b/documents/k"
BATCH = "/v1/buckets/b/batch"
HOST = "127.0.0.1:8080"
FOREIGN = "http://evil.example"
SOURCES = Path(__file__).parents[3] / "gateway"
USER = basic("user", "password")


class KleinPlugin:
    """Has a route that only Klein understands."""

    name = "klein"
    on_request = on_response = on_operation = None

    def __init__(self) -> None:
        self.served = 0

    def attach(self, gateway: Any) -> None:
        """Need nothing."""

    def routes(self, app: Klein) -> None:
        """Declare the route."""

        @app.route("/klein/<path:rest>", methods=["GET", "POST"])
        def serve(request: Any, rest: str) -> bytes:
            self.served += 1
            return b"served"


class OriginTestCase(SynchronousTestCase):
    """Sends requests as browsers do."""

    def make(self, **doors: Any) -> Site:
        """Return a gateway; its cluster answers everything."""
        self.plugin = KleinPlugin()
        credentials = {} if doors["is_open"] else {"authorizer": passthrough()}
        answers = {name: Answer(b"1") for name in ("get", "get_with_expiry", "set", "add", "delete")}
        answers["incr"] = Answer(1)
        return Site(answers, plugins=[Metrics(), self.plugin], guard=Doors(**doors), **credentials)

    def send(self, site: Site, head: bytes, body: bytes = b"", *, unix: bool = False) -> Reply:
        """Send a request, and return the answer."""
        transport = site.client()
        if unix:
            transport.getHost = lambda: UNIXAddress(b"/run/s")  # type: ignore[method-assign]
        method = head.partition(b" ")[0].decode()
        site.send(transport, head + (b"Content-Length: %d\r\n" % len(body) if body else b"") + b"\r\n" + body)
        return read_reply(transport.value(), method)[0]

    def ask(
        self,
        site: Site,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        host: str | None = HOST,
        unix: bool = False,
        **headers: str,
    ) -> Reply:
        """Send a request; header names have underscores for hyphens."""
        lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else [])]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return self.send(site, "".join(line + "\r\n" for line in lines).encode("latin-1"), body, unix=unix)

    def check(self, reply: Reply, code: str | None, what: object) -> None:
        """Compare an answer with the code of a refusal; ``None``: it was let in."""
        if code is None:
            self.assertNotEqual(reply.status, 403, what)
        else:
            self.assertEqual((reply.status, reply.json()["code"]), (403, code), what)
            self.assertEqual(reply.json()["retry"], "never")


class OpenTests(OriginTestCase):
    """``--auth none``."""

    def test_hosts(self) -> None:
        """Addresses, names of this machine and configured names, for all requests, and before anything is
        done."""
        site = self.make(is_open=True, hosts=["Named.Example"])
        for host, welcome in (
            ("127.0.0.1:8080", True),
            ("127.0.0.1", True),
            ("[::1]:8080", True),
            ("192.168.1.7:1", True),
            ("localhost:8080", True),
            ("LOCALHOST", True),
            ("localhost.:8080", True),
            ("app.localhost:3000", True),
            ("named.example:99", True),
            ("NAMED.example", True),
            ("evil.example", False),
            ("evil.example:8080", False),
            ("evil.localhost.example", False),
            ("notlocalhost", False),
            ("x.named.example", False),
            ("127.0.0.1.evil.example", False),
            ("127.0.0.1.nip.io:8080", False),
            ("1.2.3", False),
        ):
            for _ in range(2):
                for method, path in (
                    ("GET", D), ("PUT", D), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/ready"),
                    ("GET", "/nothing/here"), ("OPTIONS", "*"), ("PATCH", D), ("GET", "/klein/a/b"),
                ):  # fmt: skip
                    reply = self.ask(site, method, path, host=host)
                    self.check(reply, None if welcome else "ForbiddenHost", (host, method, path))
        refused = self.make(is_open=True)
        for _ in range(2):
            self.check(self.ask(refused, "PUT", D, b"1", host="evil.example"), "ForbiddenHost", "")
            self.check(self.ask(refused, "POST", BATCH, b"{}", host="evil.example"), "ForbiddenHost", "")
            self.check(self.ask(refused, "POST", "/klein/x", b"a", host="evil.example"), "ForbiddenHost", "")
        self.assertEqual((refused.connections, self.plugin.served), ([], 0))
        self.check(self.ask(self.make(is_open=True, hosts=["*"]), "GET", D, host="evil.example"), None, "")

    def test_plugins_answer_nobody_who_is_refused(self) -> None:
        """A plugin that answers in place of handlers, from a cache say, does so only for those let in."""
        site = self.make(is_open=True)
        site.gateway._request_hooks.append(lambda request: Response(200, [], b"kept"))
        for headers, host, code in (
            ({}, "evil.example", "ForbiddenHost"),
            ({"Origin": FOREIGN}, HOST, "ForbiddenOrigin"),
            ({}, HOST, None),
        ):
            reply = self.ask(site, "GET", D, host=host, **headers)
            self.assertEqual((code is None, reply.body == b"kept"), (reply.status == 200, code is None))
            self.assertEqual(None if code is None else reply.json()["code"], code)
        self.assertEqual(site.gateway.under_way, 0)

    def test_host_of_a_url(self) -> None:
        """The host of an absolute URL counts, not the header; a request of HTTP/1.0 may have neither."""
        site = self.make(is_open=True)
        line = f"GET http://evil.example{D} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
        self.check(self.send(site, line), "ForbiddenHost", line)
        line = f"GET http://127.0.0.1{D} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
        self.check(self.send(site, line), None, line)
        self.check(self.send(site, b"GET /health HTTP/1.0\r\n"), None, "no Host")

    def test_refused_before_the_body(self) -> None:
        """A body is neither asked for nor waited for."""
        site = self.make(is_open=True)
        transport = site.client()
        head = b"PUT %b HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        site.send(transport, head % D.encode())
        reply, rest = read_reply(transport.value())
        self.check(reply, "ForbiddenHost", "")
        self.assertEqual(rest, b"")

    def test_unix_sockets(self) -> None:
        """A browser gets there through a proxy only, with the proxy's names: Host is not looked at, Origin
        is."""
        site = self.make(is_open=True)
        for host, origin, code in (
            ("gateway.example", None, None),
            ("gateway.example", "https://gateway.example", None),
            ("gateway.example", FOREIGN, "ForbiddenOrigin"),
        ):
            headers = {} if origin is None else {"Origin": origin}
            self.check(self.ask(site, "PUT", D, b"1", host=host, unix=True, **headers), code, origin)
            tcp = self.ask(site, "PUT", D, b"1", host=host, **headers)
            self.check(tcp, "ForbiddenHost", origin)

    def test_origins(self) -> None:
        """The gateway's own origin, as it was addressed, and the configured ones; no other."""
        site = self.make(is_open=True, hosts=["named.example"], origins=["http://localhost:3000"])
        for host, origin, welcome in (
            (HOST, "http://127.0.0.1:8080", True),
            ("localhost:8080", "http://localhost:8080", True),
            ("LocalHost:8080", "http://localhost:8080", True),
            ("[::1]:8080", "http://[::1]:8080", True),
            ("127.0.0.1", "http://127.0.0.1", True),
            ("127.0.0.1:80", "http://127.0.0.1", True),
            ("localhost", "https://localhost", True),
            ("named.example", "https://named.example", True),
            (HOST, "https://named.example:444", True),
            (HOST, "http://localhost:3000", True),
            (HOST, "http://localhost:3001", False),
            (HOST, "https://localhost:3000", False),
            (HOST, "http://127.0.0.1:8081", False),
            (HOST, "http://127.0.0.1", False),
            ("localhost:8080", "http://127.0.0.1:8080", False),
            (HOST, FOREIGN, False),
            (HOST, "http://127.0.0.1:8080.evil.example", False),
            (HOST, "http://127.0.0.1:8080@evil.example", False),
            (HOST, "null", False),
            (HOST, "", False),
            (HOST, "file://", False),
            (HOST, "chrome-extension://abcdef", False),
            (HOST, f"http://{HOST} {FOREIGN}", False),
        ):
            for method, path, body in (
                ("GET", D, b""),
                ("PUT", D, b"1"),
                ("POST", BATCH, b""),
                ("GET", "/metrics", b""),
            ):
                reply = self.ask(
                    site, method, path, body, host=host, Origin=origin, Content_Type="text/plain"
                )
                self.check(reply, None if welcome else "ForbiddenOrigin", (host, origin, method, path))
                allowed = reply.header("Access-Control-Allow-Origin")
                self.assertEqual(allowed, origin if welcome else None)
                self.assertEqual(reply.headers["vary"], ["Origin"])
        twice = f"GET {D} HTTP/1.1\r\nHost: {HOST}\r\nOrigin: http://{HOST}\r\nOrigin: {FOREIGN}\r\n".encode()
        self.check(self.send(site, twice), "ForbiddenOrigin", "twice")

    def test_fetch_metadata(self) -> None:
        """Requests that a browser sends for another site's page without an Origin, except links."""
        site = self.make(is_open=True)
        for method, origin_of_page, mode, code in (
            ("GET", "same-origin", "cors", None),
            ("GET", "none", "navigate", None),
            ("GET", "cross-site", "navigate", None),
            ("HEAD", "same-site", "navigate", None),
            ("GET", "cross-site", "no-cors", "ForbiddenOrigin"),
            ("GET", "same-site", "no-cors", "ForbiddenOrigin"),
            ("GET", "cross-site", "websocket", "ForbiddenOrigin"),
            ("POST", "cross-site", "navigate", "ForbiddenOrigin"),
            ("DELETE", "same-site", "cors", "ForbiddenOrigin"),
        ):
            reply = self.ask(site, method, D, Sec_Fetch_Site=origin_of_page, Sec_Fetch_Mode=mode)
            if method == "HEAD":
                self.assertEqual(reply.status, 200)
            else:
                self.check(reply, code, (method, origin_of_page, mode))

    def test_contradictions(self) -> None:
        """An Origin like the gateway's own does not help if the browser says that the page is another's."""
        site = self.make(is_open=True, origins=["http://localhost:3000"])
        for origin, where, code in (
            (f"http://{HOST}", "same-origin", None),
            (f"http://{HOST}", "cross-site", "ForbiddenOrigin"),
            (f"http://{HOST}", "same-site", "ForbiddenOrigin"),
            ("http://localhost:3000", "same-site", None),
        ):
            for method in ("GET", "PUT"):
                reply = self.ask(site, method, D, b"1", Origin=origin, Sec_Fetch_Site=where)
                self.check(reply, code, (origin, where))

    def test_encrypted(self) -> None:
        """For a listener with TLS, a page of plain HTTP is another's, though host and port are the same."""
        for encrypted, origin, code in (
            (True, f"http://{HOST}", "ForbiddenOrigin"),
            (True, f"https://{HOST}", None),
            (False, f"http://{HOST}", None),
            (False, f"https://{HOST}", None),
        ):
            site = self.make(is_open=True)
            transport = site.client()
            if encrypted:
                directlyProvides(transport, ISSLTransport)
            head = f"PUT {D} HTTP/1.1\r\nHost: {HOST}\r\nOrigin: {origin}\r\nContent-Length: 1\r\n\r\n1"
            site.send(transport, head.encode())
            self.check(read_reply(transport.value(), "PUT")[0], code, (encrypted, origin))

    def test_preflight(self) -> None:
        """Answered for pages that are welcome, and for no others."""
        site = self.make(is_open=True, origins=["https://app.example"])
        reply = self.ask(site, "OPTIONS", D, Origin=FOREIGN, Access_Control_Request_Method="PUT")
        self.check(reply, "ForbiddenOrigin", "")
        self.assertIsNone(reply.header("Access-Control-Allow-Origin"))
        reply = self.ask(
            site, "OPTIONS", D, Origin="https://app.example", Access_Control_Request_Method="PUT"
        )
        self.assertEqual(reply.status, 204)
        self.assertEqual(reply.headers["access-control-allow-origin"], ["https://app.example"])
        self.assertIn("PUT", reply.header("Access-Control-Allow-Methods") or "")

    def test_any_origin(self) -> None:
        """``*``, which has to be asked for."""
        site = self.make(is_open=True, origins=["*"])
        reply = self.ask(site, "PUT", D, b"1", Origin=FOREIGN)
        self.assertEqual((reply.status, reply.header("Access-Control-Allow-Origin")), (200, "*"))

    def test_another_site_around(self) -> None:
        """Requests that Klein itself dispatches are refused in the same way."""
        site = self.make(is_open=True)
        reply = self.ask(site, "POST", "/klein/a/b", b"x", Origin=FOREIGN)
        self.check(reply, "ForbiddenOrigin", "")
        self.assertEqual(self.plugin.served, 0)
        reply = self.ask(site, "POST", "/klein/a/b", b"x", Origin=f"http://{HOST}")
        self.assertEqual((reply.status, reply.header("Access-Control-Allow-Origin")), (200, f"http://{HOST}"))

    @given(
        name=sampled_from([b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode"]),
        value=binary(max_size=30),
    )
    def test_any_bytes(self, name: bytes, value: bytes) -> None:
        """Whatever the headers hold: a decision, and only a name that is known is let in."""
        doors = Doors(is_open=True)
        headers: dict[bytes, Any] = {b"host": b"127.0.0.1", name: value}
        visit = doors.look(headers)
        if visit is not None and name == b"origin":
            self.assertRaises(Refusal, visit.admit, Request("PUT", b"/", b"", headers))


class RememberedTests(SynchronousTestCase):
    """Values of Host that were seen before."""

    def test_no_long_ones(self) -> None:
        """However long the values are that clients send, each is judged, and short ones are kept."""
        doors = Doors(is_open=True, hosts=["gateway.example"])
        long = b"h" * 10_000
        for host, kept in ((long, 0), (b"gateway.example", 1), (long, 1), (b"evil.example", 2)):
            is_admitted = doors.look({b"host": host}) is None
            self.assertEqual((is_admitted, len(doors._known_hosts)), (host == b"gateway.example", kept))


class PassthroughTests(OriginTestCase):
    """``--auth passthrough``: CORS as the Data API, and what needs no preflight is refused."""

    def test_answers(self) -> None:
        """On successes, errors, streams and Klein's answers; without an Origin only ``Vary`` is sent."""
        site = self.make(is_open=False)
        for path, user, status in (
            (D, USER, 200),
            (D, {}, 401),
            ("/v1/buckets/b/nothing", USER, 404),
            ("/klein/a/b", {}, 200),
            ("/health", {}, 200),
            ("/metrics", {}, 200),
        ):
            reply = self.ask(site, "GET", path, Origin=FOREIGN, **user)
            self.assertEqual(reply.status, status)
            self.assertEqual(reply.headers["access-control-allow-origin"], ["*"])
            self.assertEqual(reply.headers["access-control-allow-credentials"], ["true"])
            self.assertIn("ETag", reply.header("Access-Control-Expose-Headers") or "")
            self.assertEqual(reply.headers["vary"], ["Origin"])
            plain = self.ask(site, "GET", path, **user)
            self.assertEqual([name for name in plain.headers if name.startswith("access-")], [])
            self.assertEqual(plain.headers["vary"], ["Origin"])
        line = b'{"op":"get","key":"k"}\n'
        batch = self.ask(site, "POST", BATCH, line, Origin=FOREIGN, Content_Type="application/json", **USER)
        self.assertEqual((batch.status, batch.header("Access-Control-Allow-Origin")), (200, "*"))

    def test_preflight(self) -> None:
        """204 for any path, without credentials; without permission it has no CORS headers."""
        site = self.make(is_open=False)
        for path in (D, "/nothing", "/v1/buckets/b/documents/a%2Fb"):
            for method, wanted, allowed in (
                ("PUT", "authorization, if-match, x-cb-flags", True),
                ("GET", "", True),
                ("DELETE", "Authorization,X-CB-DurabilityLevel", True),
                ("PATCH", "", False),
                ("PUT", "x-unknown", False),
            ):
                headers = {"Access_Control_Request_Headers": wanted} if wanted else {}
                reply = self.ask(
                    site, "OPTIONS", path, Origin=FOREIGN, Access_Control_Request_Method=method, **headers
                )
                self.assertEqual((reply.status, reply.body), (204, b""))
                names = {name for name in reply.headers if name.startswith("access-control-allow")}
                self.assertEqual(len(names), 4 if allowed else 0, (path, method, wanted))
                self.assertIn("Origin", ", ".join(reply.headers["vary"]))
        self.assertEqual(site.connections, [])

    def test_named_origins(self) -> None:
        """Exactly those; the answer names the one that asked."""
        site = self.make(is_open=False, origins=["https://app.example", "http://localhost:3000"])
        for origin, allowed in (
            ("https://app.example", True),
            ("http://localhost:3000", True),
            ("http://app.example", False),
            (FOREIGN, False),
            ("null", False),
        ):
            reply = self.ask(site, "GET", D, Origin=origin, **USER)
            self.assertEqual(reply.status, 200)
            self.assertEqual(reply.header("Access-Control-Allow-Origin"), origin if allowed else None)
            self.assertEqual(reply.headers["vary"], ["Origin"])

    def test_switched_off(self) -> None:
        """``none``: as if there were no CORS."""
        site = self.make(is_open=False, origins=["none"])
        reply = self.ask(site, "GET", D, Origin=FOREIGN, **USER)
        self.assertEqual((reply.status, reply.header("Access-Control-Allow-Origin")), (200, None))
        reply = self.ask(site, "OPTIONS", D, Origin=FOREIGN, Access_Control_Request_Method="PUT")
        self.assertEqual((reply.status, reply.header("Access-Control-Allow-Methods")), (204, None))

    def test_what_needs_no_preflight(self) -> None:
        """Forms, plain text and no type, from another origin, are refused before anything is done, also with
        credentials, which the browser may have added."""
        for headers, path, code in (
            ({"Content_Type": "text/plain"}, BATCH, "ForbiddenOrigin"),
            ({"Content_Type": "TEXT/Plain; charset=utf-8"}, BATCH, "ForbiddenOrigin"),
            ({"Content_Type": "application/x-www-form-urlencoded"}, D, "ForbiddenOrigin"),
            ({"Content_Type": "multipart/form-data; boundary=x"}, D, "ForbiddenOrigin"),
            ({}, f"{D}/increment", "ForbiddenOrigin"),
            ({"Content_Type": "text/plain"}, "/klein/a/b", "ForbiddenOrigin"),
            ({"Content_Type": "application/json"}, BATCH, None),
            ({"Content_Type": "application/x-ndjson"}, BATCH, None),
            ({"X_Requested_With": "fetch"}, f"{D}/increment", None),
            ({"X_CB_Flags": "1"}, D, None),
        ):
            for who in ({"Origin": FOREIGN}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
                site = self.make(is_open=False)
                reply = self.ask(site, "POST", path, b"{}", **headers, **who, **USER)
                self.check(reply, code, (headers, path, who))
                if code is not None:
                    self.assertEqual((site.connections, self.plugin.served), ([], 0))
            own = self.ask(
                self.make(is_open=False), "POST", path, b"{}", Origin=f"http://{HOST}", **headers, **USER
            )
            self.check(own, None, headers)
            named = self.make(is_open=False, origins=[FOREIGN])
            self.check(self.ask(named, "POST", path, b"{}", Origin=FOREIGN, **headers, **USER), None, headers)

    def test_any_host(self) -> None:
        """The cluster decides who may call; a host name proves nothing."""
        self.check(self.ask(self.make(is_open=False), "GET", D, host="gateway.example", **USER), None, "")


class HeaderTests(SynchronousTestCase):
    """The lists of headers are complete."""

    def test_requests(self) -> None:
        """Every header that a handler reads may be sent by a page."""
        read = set()
        for path in SOURCES.rglob("*.py"):
            read |= set(re.findall(r'header(?:_values)?\(b"([A-Za-z-]+)"\)', path.read_text("utf-8")))
        missing = {name.lower() for name in read} - {name.lower() for name in ALLOWED_HEADERS}
        # Headers that a page may always send, or can never send.
        self.assertEqual(missing - {"accept-language", "accept-encoding", "range", "origin", "host"}, set())

    def test_answers(self) -> None:
        """Every header of the dialect's own may be read by a page."""
        sent = set()
        for path in SOURCES.rglob("*.py"):
            text = path.read_text("utf-8")
            sent |= set(re.findall(r'(?<!header)\(b"(X-CB-[A-Za-z]+|ETag|Location|Allow|Retry-After)"', text))
        self.assertEqual(sent - set(EXPOSED_HEADERS), set())
        self.assertLessEqual({"ETag", "Location", "X-Request-Id"}, set(EXPOSED_HEADERS))

    def test_shared_answers(self) -> None:
        """Headers added to one answer are not in any other."""
        visit = Doors(is_open=False).look({b"host": b"h", b"origin": b"http://x"})
        assert visit is not None
        headers: list[tuple[bytes, bytes]] = []
        visit.mark(Response(200, headers))
        self.assertEqual(headers, [])
