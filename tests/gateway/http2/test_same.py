"""The same requests over HTTP/1.1 and HTTP/2 get the same answers from the gateway."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import KeyExistsError, NotFoundError, NotSupportedError
from gateway.clients.origins import Doors
from gateway.http2 import HTTP2
from gateway.limits import Limits
from gateway.plugins.metrics import Metrics
from tests import tries
from tests.gateway.http2.peer import Wire
from tests.gateway.support import Answer, HalfClosing, Site, basic, passthrough, read_reply

Fields = list[tuple[bytes, bytes]]


class NoScan:
    """A scan that the cluster refuses."""

    def next_rows(self) -> Deferred[Any]:
        """Fail."""
        return fail(NotSupportedError({"message": "no scans"}))

    def close(self) -> Deferred[None]:
        """End it."""
        return succeed(None)


class Answers(dict[str, Any]):
    """Answers of the cluster to every operation."""

    def get(self, name: str, default: Any = None) -> Any:
        known = {"connect": None, "add": KeyExistsError("there"), "delete": NotFoundError("gone")}
        if name == "scan":
            return lambda *args, **kwargs: NoScan()
        if name in ("incr", "decr"):
            return Answer(5)
        return known[name] if name in known else Answer(b'{"a":{"b":[1,2,3]}}')


# What differs by protocol, or by request.
IGNORED = {"date", "x-request-id", "connection", "transfer-encoding", "content-length", ":status"}

VALUES: dict[str, list[str]] = {
    "accept": ["*/*", "application/json", "text/html", "nonsense"],
    "accept-encoding": ["gzip", "gzip;q=0", "identity;q=0", "br, gzip", ";;"],
    "authorization": [basic("user", "password")["Authorization"], "Bearer x", "Basic !", ""],
    "content-type": ["application/json", "text/plain", "application/octet-stream", "a/b; charset=x"],
    "expires": ["60", "0", "-1", "Wed, 21 Oct 2035 07:28:00 GMT", "soon"],
    "if-match": ["0x1234", '"1234"', "*", "W/x", ""],
    "if-none-match": ["*", "1234", "0000000000001234"],
    "origin": ["https://evil.example", "http://localhost", "null"],
    "sec-fetch-site": ["cross-site", "same-origin"],
    "cookie": ["a=1"],
    "te": ["trailers"],
    "traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x"],
    "x-cb-flags": ["1", "x"],
    "x-cb-durabilitylevel": ["Majority", "Minority"],
    "x-request-id": ["mine", "not valid!"],
    "x-one": ["1", "two words", "\u00e9"],
    "expect": ["100-continue", "nothing"],
}


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes, Fields, bytes | None]:
    """Method, target, headers and body of a request."""
    method = draw(
        st.sampled_from(
            ["GET", "GET", "HEAD", "PUT", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"]
        )
    )
    key = quote(draw(st.text(min_size=1, max_size=6)), safe="")
    document = f"/v1/buckets/b/documents/{key}"
    target = draw(
        st.sampled_from(
            [
                *[document] * 4,
                *(f"{document}/increment", f"{document}/lock", f"{document}/lookup", f"{document}/mutate"),
                *("/v1/buckets/b/batch", "/v1/buckets/b/documents", "/v1/callerIdentity", "/v1"),
                *(f"/v1/buckets/b/scopes/s/collections/c/documents/{key}", f"/{key}", "/health", "/%zz", "*"),
                *(f"/v1/buckets/b/documents/{key}/nothing", "/openapi.json", "//", "/a#b", "/%C3%A9"),
            ]
        )
    )
    query = draw(st.sampled_from(["", "", "", "?", "?project=a.b", "?x=1", "?%zz", "?a=b&a=c", "??"]))
    if target == "*":
        # For other methods it is malformed, and each protocol has its words for that.
        method = "OPTIONS"
    else:
        target += query
    headers: Fields = []
    for name in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=4)):
        value = draw(st.sampled_from(VALUES[name]))
        headers.append((name.encode(), value.encode("latin-1")))
    body = draw(
        st.one_of(
            st.none(),
            st.sampled_from(
                [b"{}", b'{"a":1}', b"[", b'{"delta":1}', b'{"operations":[]}', b"\xff", b"x" * 3000]
            ),
            st.just(b'{"op":"get","key":"k"}\n{"op":"nothing"}\n{"op":"set","key":"k","value":1}\n'),
        )
    )
    return method.encode(), target.encode(), headers, body


class Both:
    """A gateway, and a client of each protocol."""

    def __init__(self, *, is_open: bool) -> None:
        self.site = Site(
            Answers(),
            authorizer=None if is_open else passthrough(),
            guard=Doors(is_open=is_open),
            plugins=[Metrics()],
            limits=Limits(max_body=2000, max_headers=2000),
        )
        self.site.factory.http2 = HTTP2(self.site.factory)

    def over_1(self, method: bytes, target: bytes, headers: Fields, body: bytes | None) -> Any:
        server = HalfClosing()
        server.protocol = self.site.factory.buildProtocol(None)
        server.protocol.makeConnection(server)
        lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: localhost"]
        lines += [name + b": " + value for name, value in headers]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        server.protocol.dataReceived(b"\r\n".join([*lines, b"", b""]) + (body or b""))
        self.site.clock.advance(0)
        data = server.value().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        reply, _ = read_reply(data, method.decode())
        if server.protocol is not None:
            server._closed()
        return self.shown(reply.status, reply.headers, reply.body)

    def over_2(self, method: bytes, target: bytes, headers: Fields, body: bytes | None) -> Any:
        wire = Wire(self.site.factory, self.site.clock)
        more = headers if body is None else [*headers, (b"content-length", b"%d" % len(body))]
        number = wire.client.begin(method.decode(), "", more, ends=body is None, path=target)
        if body is not None:
            wire.client.data(number, body, ends=True)
        wire.pump()
        answer = wire.client.streams[number]
        assert answer.is_complete, (answer.error, wire.client.ended)
        found: dict[str, list[str]] = {}
        for name, value in answer.fields:
            found.setdefault(name.decode(), []).append(value.decode("latin-1"))
        wire.server._closed()
        return self.shown(answer.status, found, answer.body)

    @staticmethod
    def shown(status: int, headers: dict[str, list[str]], body: bytes) -> Any:
        kept = {name: value for name, value in headers.items() if name not in IGNORED}
        try:
            told = json.loads(body)
            if isinstance(told, dict) and "requestId" in told:
                told["requestId"] = ""
                body = json.dumps(told).encode()
        except ValueError:
            pass
        return status, kept, body


class SameTests(SynchronousTestCase):
    """Random requests."""

    def setUp(self) -> None:
        self.gateways = {is_open: Both(is_open=is_open) for is_open in (False, True)}

    @settings(max_examples=tries(300), deadline=None)
    @given(requests(), st.booleans())
    def test_answers(self, request: Any, is_open: bool) -> None:
        """Status, headers and body are the same, whether the request is valid or not, and each is counted
        once."""
        both = self.gateways[is_open]
        self.assertEqual(both.over_1(*request), both.over_2(*request))
        self.assertEqual(both.site.gateway.under_way, 0)
        self.assertEqual(both.site.gateway.budget.used, 0)
