"""Answers of views are well-formed for every query: over sockets, against the real engine."""

from __future__ import annotations

import gzip
import json
import re
from itertools import product
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import globalLogPublisher

from gateway.dialect.jsontools import loads_unique
from tests import PERCENT
from tests.gateway.support import Reply, read_reply
from tests.gateway.test_behaviour import GatewayTestCase

B = "/v1/buckets/default"
KEYED = "function (doc, meta) { if (doc.n !== undefined) { emit([doc.n % 3, doc.s], doc.n); } }"
DESIGN = {
    "views": {
        "rows": {"map": KEYED},
        "wide": {"map": "function (d) { if (d.n < 40) { emit(d.n, 'x'.repeat(4000) + '\\r\\n\\ud83d'); } }"},
        "none": {"map": "function (doc) {}"},
        "count": {"map": KEYED, "reduce": "_count"},
        "sum": {"map": KEYED, "reduce": "_sum"},
        "stats": {"map": KEYED, "reduce": "_stats"},
        "over": {"map": "function (doc) { emit(doc.n % 3, 1e308); }", "reduce": "_sum"},
        "squares": {"map": "function (doc) { emit(doc.n % 3, 1e200); }", "reduce": "_stats"},
        "custom": {"map": KEYED, "reduce": "(keys, values, again) => ({n: values.length, s: '\\ud83d'})"},
        "broken": {"map": KEYED, "reduce": "(keys, values, again) => { throw new Error('no\\r\\n') }"},
    }
}
REDUCING = ("count", "sum", "stats", "over", "squares", "custom", "broken")
SIZES = ("limit=0", "limit=1", "limit=3&skip=2", "", 'keys=[[0,"a"],[7]]', "startkey=[9]")
FORMS = ("application/json", "application/x-ndjson", "text/event-stream")
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)", re.IGNORECASE)
_EVENT = re.compile(rb"event: (row|error|done)\ndata: ([^\n]*)\n\n")


def queries() -> list[str]:
    """Return what is asked: each view in each size, with every switch."""
    asked = []
    for view, size, switch in product(
        ("rows", "wide", "none"), SIZES, ("", "debug=true", "include_docs=true", "descending=true&debug=true")
    ):
        if not (size.startswith("startkey") and "descending" in switch):
            asked.append(f"{view}?{size}&{switch}")
    switches = ("group=true", "group_level=1&debug=true", "", "reduce=false")
    for view, size, switch in product(REDUCING, SIZES, switches):
        if not size.startswith("keys") or switch in ("group=true", "reduce=false"):
            asked.append(f"{view}?{size}&{switch}")
    return asked


class Connection(Protocol):
    """An HTTP client with little work for each answer: there are thousands."""

    def __init__(self) -> None:
        self._arrived = b""
        self._asked: Deferred[Reply] = Deferred()

    def ask(self, path: str, form: str, coding: str) -> Deferred[Reply]:
        """Send a request; fires with its whole answer, decoded."""
        assert self.transport is not None
        self._asked = Deferred()
        head = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {form}\r\nAccept-Encoding: {coding}\r\n\r\n"
        )
        self.transport.write(head.encode())
        return self._asked

    def dataReceived(self, data: bytes) -> None:
        self._arrived += data
        head, _, body = self._arrived.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n"):
            reply, rest = read_reply(self._arrived)
            assert not rest
            self._arrived = b""
            if reply.header("Content-Encoding") == "gzip":
                reply.body = gzip.decompress(reply.body)
            self._asked.callback(reply)


class WellFormedTests(GatewayTestCase):
    """One node, and several whose rows are merged."""

    timeout = 600
    # A connection waits for the answers to the others, which takes long on a busy machine.
    options: dict[str, Any] = {"ephemeral": True, "idle-seconds": "600"}

    @inlineCallbacks
    def load(self) -> Any:
        """Store documents and the design document."""
        lines = [
            {"op": "set", "key": f"k{n:03d}", "value": {"n": n, "s": "ab"[n % 2], "t": "é\r\n\ud83d"}}
            for n in range(300)
        ]
        loaded = yield self.ask("POST", B + "/batch", "\n".join(map(json.dumps, lines)).encode())
        self.assertEqual(loaded.body.count(b'"status":200'), 300)
        made = yield self.ask("PUT", B + "/designs/d?syncwait=60", json.dumps(DESIGN).encode())
        self.assertEqual(made.status, 201, made.body)
        yield self.ask("GET", B + "/views/d/rows?stale=false&limit=1")
        # After some minutes the idle client would close its connection, which is logged.
        yield self.http.closeCachedConnections()

    def check(self, query: str, form: str, answer: Any) -> None:
        """Check one answer."""
        body = answer.body
        about = f"{query} as {form}: {body[:300]!r}"
        self.assertNotIn(b"\r", body, about)
        if answer.status != 200:
            self.assertIn(answer.status, (400, 500), about)
            self.assertIn(loads_unique(body)["code"], ("InvalidArgument", "ViewFailed"), about)
            return
        self.assertEqual(answer.header("Content-Type"), form, about)
        streams = form != "application/json"
        self.assertEqual(answer.header("X-Accel-Buffering"), "no" if streams else None)
        if not streams:
            told = loads_unique(body)
            self.assertLessEqual(told.keys(), {"total_rows", "rows", "errors", "debug_info"}, about)
            self.assertTrue(body.endswith(b"}\n") and isinstance(told["rows"], list), about)
            rows = told["rows"]
        elif form == "application/x-ndjson":
            self.assertTrue(not body or body.endswith(b"\n"), about)
            found = [loads_unique(line) for line in body.splitlines()]
            rows = [one for one in found if "error" not in one and "debug_info" not in one]
        else:
            events = _EVENT.findall(body)
            self.assertEqual(b"".join(b"event: %b\ndata: %b\n\n" % event for event in events), body, about)
            self.assertEqual(events[-1][0], b"done", about)
            rows = [loads_unique(data) for name, data in events if name == b"row"]
            self.assertEqual(loads_unique(events[-1][1])["rows"], len(rows), about)
        for row in rows:
            self.assertIn("key", row, about)
            self.assertIn("value", row, about)

    @inlineCallbacks
    def check_all(self) -> Any:
        """Ask everything in every form, and again in one of the forms: the same question has the same answer,
        byte for byte. With all examples it is asked again in every form."""
        yield self.load()
        host, _, port = self.url.removeprefix("http://").partition(":")
        times = len(FORMS) if PERCENT >= 100 else 1
        connections = [Connection() for _ in range(len(FORMS) + times)]
        for one in connections:
            yield connectProtocol(HostnameEndpoint(reactor, host, int(port)), one)
            self.addCleanup(one.transport.abortConnection)  # type: ignore[union-attr]
        noted: list[str] = []
        watch = lambda event: noted.append(str(event.get("log_format")))  # noqa: E731  # shorter than a function
        globalLogPublisher.addObserver(watch)
        self.addCleanup(globalLogPublisher.removeObserver, watch)
        for number, query in enumerate(queries()):
            again = FORMS if times > 1 else FORMS[number % 3 :][:1]
            path = B + "/views/d/" + quote(query, safe="?=&")
            # The second time compressed.
            asked = [*((form, "identity") for form in FORMS), *((form, "gzip") for form in again)]
            answers = yield gatherResults(
                [one.ask(path, *how) for one, how in zip(connections, asked, strict=True)]
            )
            for form, first in zip(FORMS, answers, strict=False):
                self.check(query, form, first)
            for form, second in zip(again, answers[3:], strict=True):
                first = answers[FORMS.index(form)]
                # debug=true and errors show which node was asked.
                if first.status == 200 and "debug" not in query and b'"from"' not in first.body:
                    self.assertEqual(first.body, second.body, f"{query} as {form}")
            if query.startswith(("over?&group", "squares?&group")):
                # With one node it is the whole answer, with several a part of it.
                self.assertIn(b"beyond the range of numbers", answers[0].body)
                self.assertNotIn(b"null", answers[0].body.partition(b'"requestId"')[0])

        self.assertEqual([text for text in noted if "factory" in text], [])

    def test_everything(self) -> Any:
        """Every view, size, switch and form; and nothing is logged about connections."""
        return self.check_all()


class MergedTests(WellFormedTests):
    """Three nodes."""

    options = {**WellFormedTests.options, "nodes": "3"}
