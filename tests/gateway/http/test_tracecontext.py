"""W3C Trace Context, level 1: what is continued, what is ignored, and what is passed on."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.request import Request
from gateway.http.tracecontext import TraceContext, continue_trace, forwarded, trace_of
from tests.gateway.test_behaviour import GatewayTestCase
from txcouchbase.webclient import WebClient

try:
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    get_current_span = None  # type: ignore[assignment]

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{PARENT}-01"


def request_with(*headers: tuple[str, Any]) -> Request:
    """Return a request with these headers."""
    return Request("GET", b"/", b"", {name.encode(): value for name, value in headers})


def read(parent: Any, *states: bytes) -> TraceContext:
    """Return the context of a request."""
    headers: list[tuple[str, Any]] = [("traceparent", parent)]
    if states:
        headers.append(("tracestate", states[0] if len(states) == 1 else list(states)))
    return continue_trace(request_with(*headers))


class ParentTests(SynchronousTestCase):
    """``traceparent``."""

    def test_continued(self) -> None:
        """Trace, parent and the sampled flag are the caller's; unknown flags are not passed on (3.2.2.5)."""
        for flags, known in (("00", 0), ("01", 1), ("02", 0), ("03", 1), ("ff", 1), ("fe", 0)):
            trace = read(f"00-{TRACE}-{PARENT}-{flags}".encode())
            self.assertEqual(trace, TraceContext(TRACE, PARENT, known))
            self.assertEqual(trace.headers(), {"traceparent": f"00-{TRACE}-{PARENT}-{known:02x}"})

    def test_later_versions(self) -> None:
        """The known fields of a later version are read, and version 00 is passed on (3.2.4)."""
        for version in ("01", "cc", "fe"):
            for rest in ("", "-", "-what-the-future-will-be-like"):
                trace = read(f"{version}-{TRACE}-{PARENT}-01{rest}".encode())
                self.assertEqual(trace.headers(), {"traceparent": GIVEN}, (version, rest))

    def test_invalid(self) -> None:
        """Anything else begins a new trace, which takes nothing from it; nor is ``tracestate`` kept (3.3)."""
        for wrong in (
            "", "0", GIVEN[:-1], GIVEN + "1", GIVEN + "-", GIVEN + "-00", " " + GIVEN, GIVEN + " ",
            f"ff-{TRACE}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01-x", f"0-{TRACE}-{PARENT}-01",
            f"000-{TRACE}-{PARENT}-01", f"0x-{TRACE}-{PARENT}-01", f".0-{TRACE}-{PARENT}-01",
            f"01-{TRACE}-{PARENT}-01.", f"01-{TRACE}-{PARENT}-010",
            f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"cc-{'0' * 32}-{PARENT}-01",
            f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT.upper()}-01", f"00-{TRACE}-{PARENT}-0A",
            f"00-{TRACE[:-1]}-{PARENT}-01", f"00-{TRACE}0-{PARENT}-01", f"00-{TRACE[:-1]}.-{PARENT}-01",
            f"00-{TRACE}-{PARENT[:-1]}-01", f"00-{TRACE}-{PARENT}0-01", f"00-{TRACE}-{PARENT[:-1]}g-01",
            f"00-{TRACE}-{PARENT}-1", f"00-{TRACE}-{PARENT}-x1", f"00_{TRACE}_{PARENT}_01",
            f"00-{TRACE}-{PARENT}", f"00-{TRACE}", GIVEN.replace("-", "\N{EN DASH}"), GIVEN + "\n",
        ):  # fmt: skip
            trace = read(wrong.encode(), b"foo=1")
            self.assertTrue(trace.is_new, wrong)
            self.assertNotIn(TRACE, trace.headers()["traceparent"])
            self.assertNotIn("tracestate", trace.headers())

    def test_several(self) -> None:
        """Two headers contradict each other even if they are equal."""
        self.assertTrue(read([GIVEN.encode(), GIVEN.encode()], b"foo=1").is_new)

    def test_new(self) -> None:
        """A new trace is valid, differs from others, is not sampled, and stays the request's."""
        request = request_with()
        trace = trace_of(request)
        self.assertTrue(trace.is_new)
        again = read(trace.headers()["traceparent"].encode())
        self.assertEqual(again, trace._replace(is_new=False))
        self.assertEqual(again.flags, 0)
        self.assertIs(trace_of(request), trace)
        self.assertNotEqual(trace_of(request_with()).trace_id, trace.trace_id)
        self.assertEqual(forwarded(request), trace.headers())

    def test_inner(self) -> None:
        """A request that stands for another one is in its trace."""
        outer, inner = request_with(), request_with()
        inner.outer = outer
        self.assertIs(trace_of(inner), trace_of(outer))

    @given(st.binary(max_size=70))
    @example(GIVEN.encode())
    def test_any_bytes(self, value: bytes) -> None:
        """Every value leads to a context that every reader accepts."""
        headers = read(value, value).headers()
        self.assertRegex(headers["traceparent"], r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]\Z")


class StateTests(SynchronousTestCase):
    """``tracestate``."""

    def test_kept(self) -> None:
        """Members keep their order; several headers are one list; empty members and blanks mean nothing."""
        for values, kept in (
            ((b"foo=1",), "foo=1"),
            ((b"foo=1,bar=2",), "foo=1,bar=2"),
            ((b"foo=1", b"bar=2"), "foo=1,bar=2"),
            ((b"foo=1,", b"", b",bar=2"), "foo=1,bar=2"),
            ((b"foo=1 \t , \t bar=2, \t baz=3",), "foo=1,bar=2,baz=3"),
            ((b"foo=1,foo=2",), "foo=1,foo=2"),
            ((b"foo=a b:c;d/e@f",), "foo=a b:c;d/e@f"),
            ((b"",), ""),
            ((b" ",), ""),
            ((b"z" * 256 + b"=1",), "z" * 256 + "=1"),
            ((b"t" * 241 + b"@" + b"v" * 14 + b"=1",), "t" * 241 + "@" + "v" * 14 + "=1"),
            ((b"0t@v=1",), "0t@v=1"),
            ((b"a_-*/0=1",), "a_-*/0=1"),
            ((b"foo=" + b"v" * 256,), "foo=" + "v" * 256),
            ((b",".join(b"m%d=1" % number for number in range(32)),),
             ",".join(f"m{number}=1" for number in range(32))),
        ):  # fmt: skip
            trace = read(GIVEN.encode(), *values)
            self.assertEqual((trace.state, trace.is_new), (kept, False), values)
            self.assertEqual(trace.headers().get("tracestate", ""), kept)

    def test_invalid(self) -> None:
        """One invalid member makes all of it invalid, and the trace is continued without it."""
        for wrong in (
            b"foo", b"=1", b"foo=", b"foo=1,bar", b"foo=1,=2", b"foo =1", b"FOO=1", b"foo.bar=1", b"0foo=1",
            b"foo@=1,bar=2", b"@foo=1", b"foo@@bar=1", b"foo@bar@baz=1", b"foo@0bar=1", b"foo=bar=baz",
            b"foo=,bar=3", b"z" * 257 + b"=1", b"t" * 242 + b"@v=1", b"t@" + b"v" * 15 + b"=1",
            b"foo=" + b"v" * 257, b"foo=\x7f", b"foo=\x19", b"foo=\xe9", b"foo=1\x0b", b"foo=1;bar=2, \x0b",
            b",".join(b"m%d=1" % number for number in range(33)),
        ):  # fmt: skip
            trace = read(GIVEN.encode(), wrong)
            self.assertEqual((trace.trace_id, trace.state), (TRACE, ""), wrong)
            self.assertEqual(trace.headers(), {"traceparent": GIVEN})

    def test_alone(self) -> None:
        """Without ``traceparent`` it means nothing."""
        self.assertEqual(continue_trace(request_with(("tracestate", b"foo=1"))).state, "")


class ServiceTests(GatewayTestCase):
    """Requests to the cluster's services, over sockets."""

    @inlineCallbacks
    def test_forwarded(self) -> Any:
        """They carry the trace of the request that they are made for, and only that."""
        sent: list[Mapping[str, str]] = []
        request = WebClient.request

        def record(client: WebClient, method: str, url: str, headers: Mapping[str, str], *others: Any) -> Any:
            sent.append(headers)
            return request(client, method, url, headers, *others)

        self.patch(WebClient, "request", record)
        view = b'{"views": {"v": {"map": "function (doc, meta) { emit(meta.id); }"}}}'
        for number, (method, path, body) in enumerate((
            ("PUT", "/v1/buckets/default/designs/d", view),
            ("GET", "/v1/buckets/default/designs/d", b""),
            ("GET", "/v1/buckets/default/designs", b""),
            ("GET", "/v1/buckets/default/views/d/v?stale=false", b""),
            ("PUT", "/v1/buckets/default/scopes/s", b""),
            ("GET", "/v1/buckets/default/scopes", b""),
            ("GET", "/v1/buckets", b""),
        )):  # fmt: skip
            sent.clear()
            trace = f"{number + 1:032x}"
            headers = {"traceparent": f"00-{trace}-{PARENT}-01", "tracestate": "a=1,b=2"}
            if body:
                headers["Content_Type"] = "application/json"
            answer = yield self.ask(method, path, body, **headers)
            self.assertIn(answer.status, (200, 201, 501), (path, answer.body))
            self.assertNotEqual(sent, [], path)
            for one in sent:
                self.assertEqual(one["traceparent"], f"00-{trace}-{PARENT}-01", path)
                self.assertEqual(one["tracestate"], "a=1,b=2", path)
        sent.clear()
        yield self.ask("GET", "/v1/buckets/default/designs")
        self.assertRegex(sent[0]["traceparent"], r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-00\Z")
        self.assertNotIn("tracestate", sent[0])


@unittest.skipIf(get_current_span is None, "OpenTelemetry is not installed")
class OpenTelemetryTests(SynchronousTestCase):
    """OpenTelemetry's own reader of the same headers."""

    PIECES = st.one_of(
        st.sampled_from(["00", "01", "ff", "cc", TRACE, PARENT, "0" * 32, "0" * 16, "-", "0", "f", "A", " "]),
        st.text("0123456789abcdef-", max_size=3),
    )

    @given(st.lists(PIECES, max_size=9).map("".join) | st.just(GIVEN))
    @example(GIVEN)
    @example(GIVEN.replace("00-", "01-") + "-x")
    def test_same_answer(self, value: str) -> None:
        """Both continue the same trace, or begin another one."""
        context = TraceContextTextMapPropagator().extract({"traceparent": value})
        theirs = get_current_span(context).get_span_context()
        ours = read(value.encode())
        self.assertEqual(not ours.is_new, theirs.is_valid)
        if theirs.is_valid:
            self.assertEqual(ours.trace_id, f"{theirs.trace_id:032x}")
            self.assertEqual(ours.parent_id, f"{theirs.span_id:016x}")
            self.assertEqual(ours.flags, theirs.trace_flags & 1)
