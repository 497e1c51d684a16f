"""Listings of collections, over sockets to a node."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Opcode
from couchbase.protocol.rangescan import Page, Position
from couchbase.protocol.scanpages import Document
from couchbase.scan import cursor_of
from couchnode.kv.commands import table
from gateway.dialect.errors import Refusal
from gateway.dialect.values import VIEW, value_member
from gateway.fairness.steps import StepRunner
from gateway.views.forms import form_for
from gateway.views.listing import ListingAnswer, document_row, key_rows, read_parameters, usual_row
from tests.gateway.test_behaviour import GatewayTestCase
from tests.gateway.views.test_behaviour import Client

B = "/v1/buckets/default"
KEYS = [f"k{n:03}" for n in range(300)]


class ListingTests(GatewayTestCase):
    """Keys, documents, ranges, pages."""

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        lines = [{"op": "set", "key": key, "value": {"n": n}} for n, key in enumerate(KEYS)]
        lines += [
            {"op": "set", "key": 'é "q"\\', "text": "text", "expires": "1h"},
            {"op": "set", "key": "z", "base64": "/wA="},
        ]
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        loaded = yield self.ask("POST", B + "/batch", body)
        assert loaded.body.count(b'"status":200') == 302, loaded.body[-300:]

    @inlineCallbacks
    def listed(self, query: str = "", path: str = "/documents", **headers: str) -> Any:
        answer = yield self.ask("GET", B + path + query, **headers)
        self.assertEqual(answer.status, 200, answer.body)
        return answer

    @inlineCallbacks
    def ids(self, query: str) -> Any:
        answer = yield self.listed(query)
        return sorted(row["id"] for row in answer.json()["rows"])

    @inlineCallbacks
    def test_forms(self) -> Any:
        """All keys once, the same in each form; also below the full path and by HEAD."""
        whole = yield self.listed()
        rows = whole.json()["rows"]
        self.assertEqual(sorted(row["id"] for row in rows), sorted([*KEYS, 'é "q"\\', "z"]))
        self.assertNotIn("cursor", whole.json())
        lines = yield self.listed(Accept="application/x-ndjson")
        self.assertEqual([json.loads(line) for line in lines.body.splitlines()], rows)
        events = yield self.listed(Accept="text/event-stream")
        data = [json.loads(part.split(b"data: ")[1]) for part in events.body.split(b"\n\n")[:-1]]
        self.assertEqual(data, [*rows, {"rows": 302}])
        full = yield self.listed(path="/scopes/_default/collections/_default/documents")
        self.assertEqual(full.body, whole.body)
        head = yield self.ask("HEAD", B + "/documents")
        self.assertEqual((head.status, head.body), (200, b""))

    @inlineCallbacks
    def test_documents(self) -> Any:
        """Each with its version, flags and expiry, JSON as stored, and anything else as base64."""
        answer = yield self.listed("?include_docs=true")
        docs = {row["id"]: row["doc"] for row in answer.json()["rows"]}
        self.assertEqual(len(docs), 302)
        stored = yield self.ask("GET", B + "/documents/k007")
        meta = {"id": "k007", "cas": stored.header("ETag"), "flags": 0x02000000}
        self.assertEqual(docs["k007"], {"meta": meta, "json": {"n": 7}})
        self.assertEqual(docs["z"]["base64"], "/wA=")
        self.assertGreater(docs['é "q"\\']["meta"]["expiry"], 0)

    @inlineCallbacks
    def test_attributes(self) -> Any:
        """Extended attributes are part of ``meta`` if they are asked for."""
        spec = {"operation": "DictSet", "path": "app", "value": {"level": 5}, "xattr": True}
        body = json.dumps({"operations": [spec]}).encode()
        done = yield self.ask("POST", B + "/documents/k007/mutate", body)
        self.assertEqual(done.status, 200, done.body)
        answer = yield self.listed("?prefix=k00&include_docs=true&include_xattrs=true")
        docs = {row["id"]: row["doc"] for row in answer.json()["rows"]}
        self.assertEqual(docs["k007"]["meta"]["xattrs"], {"app": {"level": 5}})
        self.assertEqual(docs["k007"]["json"], {"n": 7})
        self.assertNotIn("xattrs", docs["k006"]["meta"])
        answer = yield self.listed("?prefix=k007&include_docs=true")
        self.assertNotIn("xattrs", answer.json()["rows"][0]["doc"]["meta"])
        refused = yield self.ask("GET", B + "/documents?include_xattrs=true")
        self.assertEqual(refused.code(), (400, "InvalidArgument"))

    @inlineCallbacks
    def test_ranges(self) -> Any:
        """Prefix, start and end, alone and together; both ends are included."""
        for query, wanted in (
            ("?prefix=k01", KEYS[10:20]),
            ("?start=k297", [*KEYS[297:], "z", 'é "q"\\']),
            ("?end=k002", KEYS[:3]),
            ("?start=k005&end=k007", KEYS[5:8]),
            ("?prefix=k01&start=k015&end=k1", KEYS[15:20]),
            ("?prefix=k01&end=k012", KEYS[10:13]),
            ("?start=k2&end=k1", []),
            ("?prefix=k01&start=k02", []),
            ("?prefix=" + quote('é "'), ['é "q"\\']),
            ("?prefix=none", []),
            ("?limit=0", []),
        ):
            found = yield self.ids(query)
            self.assertEqual(found, wanted, query)

    @inlineCallbacks
    def test_pages(self) -> Any:
        """Pages of any size have every key once; each but the last has a cursor."""
        for size, more in ((7, ""), (100, "&include_docs=true"), (1000, "")):
            found: list[str] = []
            cursor = ""
            while True:
                answer = yield self.listed(f"?prefix=k&limit={size}{more}&cursor={cursor}")
                rows = answer.json()["rows"]
                self.assertLessEqual(len(rows), size)
                found += [row["id"] for row in rows]
                cursor = answer.json().get("cursor")
                if cursor is None:
                    break
            self.assertEqual((sorted(found), len(found)), (KEYS, 300), size)
        lines = yield self.listed("?limit=3", Accept="application/x-ndjson")
        *rows, last = [json.loads(line) for line in lines.body.splitlines()]
        self.assertEqual((len(rows), list(last)), (3, ["cursor"]))

    @inlineCallbacks
    def test_bad_requests(self) -> Any:
        """Each parameter is checked before the caller is."""
        for query, words in (
            ("?limit=-1", "limit"),
            ("?limit=x", "limit"),
            ("?limit=1e3", "limit"),
            ("?include_docs=1", "include_docs"),
            ("?cursor=x", "cursor"),
            ("?cursor=" + "A" * 999, "cursor"),
            ("?prefix=" + "x" * 251, "prefix has 251 bytes"),
            ("?skip=3", "skip"),
            ("?limit=1&limit=2", "limit"),
        ):
            answer = yield self.ask("GET", B + "/documents" + query)
            self.assertEqual(answer.code(), (400, "InvalidArgument"), query)
            self.assertIn(words, answer.json()["message"])
        answer = yield self.ask("POST", B + "/documents")
        self.assertEqual(answer.code(), (405, "MethodNotAllowed"))

    @inlineCallbacks
    def test_missing_places(self) -> Any:
        """Which of the three is missing."""
        for path, code in (
            ("/v1/buckets/none/documents", "BucketNotFound"),
            (B + "/scopes/none/collections/_default/documents", "ScopeNotFound"),
            (B + "/scopes/_default/collections/none/documents", "CollectionNotFound"),
        ):
            answer = yield self.ask("GET", path)
            self.assertEqual(answer.code(), (404, code), path)

    @inlineCallbacks
    def test_slow_reader_and_hang_up(self) -> Any:
        """A client that does not read stops the scan, and one that leaves ends it: the node keeps nothing."""
        large = "x" * 200_000
        lines = [json.dumps({"op": "set", "key": f"large{n}", "value": large}) for n in range(60)]
        yield self.ask("POST", B + "/batch", "\n".join(lines).encode())
        host, port = self.url.removeprefix("http://").split(":")
        request = b"GET %b/documents?include_docs=true HTTP/1.1\r\nHost: %b\r\n\r\n" % (
            B.encode(),
            self.url.removeprefix("http://").encode(),
        )
        client = yield connectProtocol(HostnameEndpoint(reactor, host, int(port)), Client(request))
        yield client.first
        answer = yield self.listed("?prefix=k00")
        self.assertEqual(len(answer.json()["rows"]), 10)
        client.transport.abortConnection()
        yield client.lost
        answer = yield self.listed("?include_docs=true")
        self.assertEqual(len(answer.json()["rows"]), 362)


class WithoutScansTests(GatewayTestCase):
    """A node without range scans, as Couchbase Server before 7.6."""

    @inlineCallbacks
    def test_everything(self) -> Any:
        """Keys, documents, pages and collections as with scans; nothing has attributes."""
        yield self.ask("PUT", B + "/scopes/s")
        yield self.ask("PUT", B + "/scopes/s/collections/c")
        for path in (B, B + "/scopes/s/collections/c"):
            lines = [{"op": "set", "key": key, "value": {"n": n}} for n, key in enumerate(KEYS)]
            lines.append({"op": "set", "key": "late", "text": "text", "flags": 5, "ttl": 4_000_000_000})
            body = b"\n".join(json.dumps(line).encode() for line in lines)
            yield self.ask("POST", path + "/batch", body)
            query = "/documents?include_docs=true&include_xattrs=true"
            scanned = yield self.ask("GET", path + query)
            wanted = scanned.json()["rows"]
            self.assertEqual(len(wanted), 301)
            with patch.object(table, "COMMANDS", list(table.COMMANDS)):
                table.COMMANDS[Opcode.RANGE_SCAN_CREATE] = None
                listed = yield self.ask("GET", path + query)
                self.assertEqual(listed.json()["rows"], wanted)
                found, cursor = [], ""
                while cursor is not None:
                    page = yield self.ask("GET", f"{path}/documents?prefix=k01&limit=3&cursor={cursor}")
                    found += [row["id"] for row in page.json()["rows"]]
                    cursor = page.json().get("cursor")
                self.assertEqual(sorted(found), KEYS[10:20])
                table.COMMANDS[Opcode.GET_KEYS] = None
                refused = yield self.ask("GET", path + "/documents")
                self.assertEqual(refused.code(), (501, "NotSupported"))


class AnswerTests(SynchronousTestCase):
    """One answer, with a lane, a scan and a sink of the test."""

    def answer(self, page: Page | None, **query: str) -> ListingAnswer:
        """Return an answer that has its first page, and closes the scan at its end."""
        self.outcomes: list[str | None] = []
        self.closed = 0
        self.pages = [page]
        scan = SimpleNamespace(expect=lambda rows: None, next_rows=self._next, close=self._close)
        lane: Any = SimpleNamespace(ask=lambda size, ask: ask(self))
        answer = ListingAnswer(
            form_for(None),
            read_parameters(query),
            lane,
            lambda bulk, position: scan,
            StepRunner(Clock()),
            self.outcomes.append,
            self.fail,
        )
        self.begun = answer.begin()
        self.written: list[bytes] = []
        finish, abort = partial(self.written.append, b"."), partial(self.written.append, b"!")
        self.sink: Any = SimpleNamespace(write=self.written.append, finish=finish, abort=abort)
        return answer

    def _next(self) -> Deferred[Page | None]:
        return succeed(self.pages.pop(0) if self.pages else None)

    def _close(self) -> None:
        self.closed += 1

    def test_whole_at_once(self) -> None:
        """An answer that needs no second page is written in one piece, with the bytes of one in pieces."""
        page = Page(3, [b"a", b"b", b"c"], Position(3, b"c"))
        for query in ({"limit": "2"}, {"limit": "2", "cursors": "true"}, {"limit": "0"}, {"cursors": "true"}):
            texts = []
            for paused in (False, True):
                answer = self.answer(None if "limit" not in query else page, **query)
                self.assertIs(self.successResultOf(self.begun).body, answer)
                if paused:
                    answer.pause()
                answer.start(self.sink)
                self.assertEqual(not self.written, paused)
                if paused:
                    answer.resume()
                self.assertEqual((self.outcomes, self.written.pop()), (["ok"], b"."))
                self.assertEqual(len(self.written) > 1, paused and query.get("limit") != "0")
                self.assertTrue(self.closed or query.get("limit") != "2")
                texts.append(b"".join(self.written))
            self.assertEqual(texts[0], texts[1])
            json.loads(texts[0])

    def test_nobody_reads_it(self) -> None:
        """HEAD, or a client that is gone: the scan ends, and the request counts as cancelled, once."""
        for begun in (False, True):
            answer = self.answer(Page(3, [b"a", b"b", b"c"], Position(3, b"c")), limit="10" if begun else "2")
            if begun:
                answer.pause()
                answer.start(self.sink)
            answer.cancel()
            answer.cancel()
            self.assertEqual((self.outcomes, self.written), (["RequestCanceled"], []))
            self.assertTrue(self.closed)

    def test_refused_meanwhile(self) -> None:
        """If the caller may not list any more, no further page is read; the answer ends with the reason, and
        where it ended."""
        pages = [Page(3, [key], Position(3, key)) for key in (b"a", b"b", b"c")]
        for refusal in (Refusal("AccessDenied"), None):
            answer = self.answer(pages[0], limit="10")
            self.pages += pages[1:]
            answer.refuse(Refusal("Unauthorized"))
            answer.refuse(refusal)
            answer.start(self.sink)
            end, text = self.written.pop(), b"".join(self.written)
            if refusal is None:
                self.assertEqual((end, json.loads(text)["rows"]), (b".", [{"id": key} for key in "abc"]))
                continue
            (error,) = json.loads(text)["errors"]
            self.assertEqual((end, error["code"], self.outcomes), (b"!", "AccessDenied", ["AccessDenied"]))
            self.assertEqual((len(self.pages), error["cursor"]), (2, cursor_of(Position(3, b"a"))))
            self.assertTrue(self.closed)

    def test_no_first_page(self) -> None:
        """A failure of the first page is the request's, not the scan's."""
        self.patch(self, "_next", lambda: fail(ValueError("x")))
        self.answer(None)
        self.failureResultOf(self.begun, ValueError)
        self.assertEqual((self.outcomes, self.closed), ([None], 1))

    def test_left_before_the_first_page(self) -> None:
        """A client that leaves before the first page ends the scan, too."""
        self.patch(self, "_next", Deferred)
        self.answer(None)
        self.begun.cancel()
        self.failureResultOf(self.begun, CancelledError)
        self.assertEqual((self.outcomes, self.closed), ([None], 1))

    def test_a_later_page_fails(self) -> None:
        """The answer ends with the error, and the scan ends on the servers."""
        late = Refusal("DeadlineExceeded")
        self.patch(self, "_next", lambda: succeed(self.pages.pop()) if self.pages else fail(late))
        answer = self.answer(Page(3, [b"a"], Position(3, b"a")))
        answer.start(self.sink)
        self.assertEqual((self.outcomes, self.closed, self.written[-1]), (["DeadlineExceeded"], 1, b"!"))


class RowTests(SynchronousTestCase):
    """Rows of keys."""

    @given(st.lists(st.binary(min_size=1, max_size=20), min_size=1))
    def test_any_bytes(self, keys: list[bytes]) -> None:
        """Each row is JSON on one line, and has its key."""
        rows = key_rows(keys)
        self.assertEqual(len(rows), len(keys))
        for row, key in zip(rows, keys, strict=True):
            self.assertNotIn(b"\n", row)
            members = json.loads(row)
            if "id" in members:
                self.assertEqual(members["id"].encode(), key)
            else:
                self.assertEqual(list(members), ["id_base64"])
                self.assertRaises(UnicodeDecodeError, key.decode)

    @given(
        st.sampled_from([b"k", b'"', b"\xff", "é".encode()]),
        st.sampled_from([b"1", b' {"a": 1}', b"[1,\n2]", b"{", b"", b"[1]\r", b'"\xc3\xa9"', b"1 "]),
        st.sampled_from([0x02000000, 0, 0x03000000, 5]),
        st.sampled_from([0, 1_700_000_000]),
        st.sampled_from([b"", b'{"a":1}']),
    )
    def test_usual_rows(self, key: bytes, value: bytes, flags: int, expiry: int, attributes: bytes) -> None:
        """The row that is made at once is the one that is made step by step, if there is one."""
        document = Document(key, value, flags, expiry, 7, 0, attributes)
        at_once = usual_row(document)
        if at_once is not None:
            self.assertEqual(at_once, document_row(document, value_member(VIEW, flags, value)))
        is_usual = (key, flags, expiry, attributes) == (b"k", 0x02000000, 0, b"")
        self.assertEqual(at_once is not None, is_usual and value in (b"1", b'"\xc3\xa9"'))

    def test_combined_ranges(self) -> None:
        """A prefix and an end: the smaller one counts."""
        what = read_parameters({"prefix": "b", "start": "a", "end": "z"}).what
        self.assertEqual((what.start, what.end, what.before_end), (b"b", b"c", True))
        self.assertRaises(Refusal, read_parameters, {"limit": "٣"})
