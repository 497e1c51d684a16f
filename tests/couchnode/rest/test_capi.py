"""Views of a running node over HTTP: design documents, freshness, failures, several nodes, restarts."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from couchnode.cluster.config import AdvertisedAddress
from couchnode.cluster.strictjson import read_json
from couchnode.data.storemode import StoreMode
from couchnode.views import service
from tests.couchnode.rest.test_api import Exchange, head
from tests.couchnode.views.nodes import BY_NAME, Steps, ViewCase

PLACES = {
    "p1": ["AT", "Wien"],
    "p2": ["AT", "Graz"],
    "p3": ["DE", "Köln"],
    "p4": ["DE", "Bonn"],
    "p5": ["DE", "Bonn"],
}
BY_PLACE = "function (doc, meta) { if (doc.place) { emit(doc.place, doc.n); } }"


class DesignTests(ViewCase):
    """Design documents: stored, listed, replaced, deleted."""

    @inlineCallbacks
    def test_life(self) -> Steps:
        """A stored document is returned byte for byte, with its revision in a header; then it is deleted."""
        body = b'{ "views": {"v": {"map": "function (doc) {}"}}, "note": "\xc3\xa4" }'
        path = "/default/_design/x"
        missing = yield self.ask(path)
        self.assertEqual((missing.status, missing.json), (404, {"error": "not_found", "reason": "missing"}))
        with mock.patch("couchnode.cluster.designs.read_json", wraps=read_json) as reading:
            made = yield self.ask(path, "PUT", body)
        self.assertEqual((made.status, made.body), (201, b'{"ok":true,"id":"_design/x"}\n'))
        self.assertEqual(reading.call_count, 1)
        self.assertEqual(made.headers.getRawHeaders("location"), ["/default/_design/x"])
        got = yield self.ask(path)
        self.assertEqual((got.status, got.body), (200, body))
        meta = json.loads(got.headers.getRawHeaders("x-couchbase-meta")[0])
        self.assertRegex(meta.pop("rev"), "^1-[0-9a-f]{8}$")
        self.assertEqual(meta, {"id": "_design/x", "type": "json"})
        again = yield self.ask(path, "PUT", b"{}")
        self.assertEqual(again.status, 201)
        encoded = yield self.ask("/default/_design%2Fx")
        self.assertEqual(encoded.body, b"{}")
        gone = yield self.ask(path, "DELETE")
        self.assertEqual((gone.status, gone.json), (200, {"ok": True, "id": "_design/x"}))
        self.assertEqual((yield self.ask(path, "DELETE")).status, 404)

    @inlineCallbacks
    def test_listing(self) -> Steps:
        """The cluster manager lists all design documents of one bucket."""
        path = "/pools/default/buckets/default/ddocs"
        self.assertEqual((yield self.ask(path)).json, {"rows": []})
        yield self.design("b", v=BY_NAME)
        yield self.design("dev_a", v=BY_NAME)
        rows = (yield self.ask(path)).json["rows"]
        self.assertEqual([row["doc"]["meta"]["id"] for row in rows], ["_design/b", "_design/dev_a"])
        self.assertEqual(rows[0]["doc"]["json"], {"views": {"v": {"map": BY_NAME}}})
        other = yield self.ask("/pools/default/buckets/private/ddocs")
        self.assertEqual(other.json, {"rows": []})

    @inlineCallbacks
    def test_restart(self) -> Steps:
        """Design documents and indexes outlive the process; what changed meanwhile is indexed."""
        yield self.design("d", v=BY_NAME)
        self.store("a", {"name": "a"})
        self.store("b", {"name": "b"})
        self.assertEqual((yield self.query()).ids, ["a", "b"])
        yield self.node.stop()
        yield self.start()
        self.assertEqual((yield self.query(stale="ok")).ids, ["a", "b"])
        self.delete("a")
        self.store("c", {"name": "c"})
        self.assertEqual((yield self.query()).ids, ["b", "c"])

    @inlineCallbacks
    def test_functions_that_do_not_compile(self) -> Steps:
        """They are refused with V8's message, and nothing is stored."""
        for kind, text in (("map", "function (doc) {"), ("reduce", "nonsense(")):
            view = {"map": BY_NAME, kind: text}
            answer = yield self.ask("/default/_design/x", "PUT", json.dumps({"views": {"v": view}}).encode())
            self.assertEqual(answer.status, 400)
            self.assertEqual(answer.json["error"], "invalid_design_document")
            self.assertIn(f"Syntax error in the {kind} function of the view `v': ", answer.json["reason"])
        self.assertEqual((yield self.ask("/default/_design/x")).status, 404)

    @inlineCallbacks
    def test_refusals(self) -> Steps:
        """Wrong types, methods, paths, users: each has its status and words."""
        self.assertEqual(
            (yield self.ask("/default/_design/x", "PUT", b"{", content_type="text/plain")).status, 415
        )
        self.assertEqual((yield self.ask("/default/_design/x", "PUT", b"{")).json["error"], "bad_request")
        posted = yield self.ask("/default/_design/x", "POST", b"{}")
        self.assertEqual((posted.status, posted.json["error"]), (405, "method_not_allowed"))
        deleted = yield self.ask("/default/_design/x/_view/v", "DELETE")
        self.assertEqual((deleted.status, deleted.json["reason"]), (405, "Only GET,POST allowed"))
        nowhere = yield self.ask("/nowhere/_design/x")
        self.assertEqual((nowhere.status, nowhere.body), (404, b"Requested resource not found."))
        self.assertEqual((yield self.ask("/private/_design/x", auth=None)).status, 401)
        self.assertEqual((yield self.ask("/private/_design/x", auth=("private", "no"))).status, 401)
        self.assertEqual((yield self.ask("/private/_design/x", auth=("private", "pw"))).status, 404)
        self.assertEqual((yield self.ask("/default%2Bffff/_design/x")).status, 404)
        uuid = self.cluster.bucket("default").uuid
        self.assertEqual((yield self.ask(f"/default%2B{uuid}/_design/x")).json["reason"], "missing")

    @inlineCallbacks
    def test_old_index_files_go(self) -> Steps:
        """A change of one view rebuilds this view's index and no other; a deletion leaves no file."""
        self.store("a", {"name": "a"})
        yield self.design("d", v=BY_NAME, w=BY_NAME + " ")
        yield self.query("v")
        files = Path(self.folder) / "node0" / "default.views"
        before = {path.name for path in files.glob("*.sqlite")}
        self.assertEqual(len(before), 2)
        yield self.design("d", v=BY_NAME + "  ", w=BY_NAME + " ")
        yield self.query("v")
        yield self.settled()
        after = {path.name for path in files.glob("*.sqlite")}
        self.assertEqual((len(after), len(before & after)), (2, 1))
        yield self.ask("/default/_design/d", "DELETE")
        yield self.settled()
        self.assertEqual(list(files.glob("*.sqlite*")), [])

    @inlineCallbacks
    def settled(self) -> Steps:
        """Wait for what the node does in the background."""
        views: Any = self.node._views
        while views._background:
            yield deferLater(reactor, 0.01)


class QueryTests(ViewCase):
    """Results of queries."""

    @inlineCallbacks
    def setUp(self) -> Steps:
        """Store a few places."""
        yield super().setUp()
        for key, place in PLACES.items():
            self.store(key, {"place": place, "n": int(key[1])})
        yield self.design("d", v=(BY_PLACE, "_count"), plain=BY_PLACE, sums=(BY_PLACE, "_sum"))

    @inlineCallbacks
    def test_spelling(self) -> Steps:
        """The body is spelled as the server spells it, to the line end."""
        answer = yield self.query("plain", limit=2)
        self.assertEqual(
            answer.body,
            b'{"total_rows":5,"rows":[\r\n'
            b'{"id":"p2","key":["AT","Graz"],"value":2},\r\n'
            b'{"id":"p1","key":["AT","Wien"],"value":1}\r\n]\r\n}',
        )
        self.assertEqual(answer.headers.getRawHeaders("content-type"), ["application/json"])
        reduced = yield self.query()
        self.assertEqual(reduced.body, b'{"rows":[\r\n{"key":null,"value":5}\r\n]\r\n}')
        empty = yield self.query("plain", key='"none"')
        self.assertEqual(empty.json, {"total_rows": 5, "rows": []})

    @inlineCallbacks
    def test_parameters(self) -> Steps:
        """Ranges, groups, direction, pages."""
        plain = {"reduce": "false"}
        for parameters, ids in (
            ({"startkey": '["DE"]', "endkey": '["DE",{}]'}, ["p4", "p5", "p3"]),
            ({"key": '["DE","Bonn"]'}, ["p4", "p5"]),
            ({"key": '["DE","Bonn"]', "inclusive_end": "false"}, []),
            ({"keys": '[["DE","Köln"],["AT","Graz"],7]'}, ["p3", "p2"]),
            ({"descending": "true", "limit": "2"}, ["p3", "p5"]),
            ({"skip": "3"}, ["p5", "p3"]),
            ({"start_key": '["DE","Bonn"]', "start_key_doc_id": "p5"}, ["p5", "p3"]),
            ({"limit": "0"}, []),
        ):
            answer = yield self.query(**plain, **parameters)
            self.assertEqual(answer.ids, ids, parameters)
        groups = yield self.query(group_level=1)
        self.assertEqual((groups.keys, groups.values), ([["AT"], ["DE"]], [2, 3]))
        self.assertEqual((yield self.query("sums")).values, [15])

    @inlineCallbacks
    def test_post(self) -> Steps:
        """Keys may come in the body."""
        path = "/default/_design/d/_view/plain"
        body = json.dumps({"keys": [["DE", "Bonn"], ["AT", "Wien"]]}).encode()
        answer = yield self.ask(path + "?", "POST", body)
        self.assertEqual(answer.ids, ["p4", "p5", "p1"])
        self.assertEqual(len((yield self.ask(path, "POST", b"{}")).ids), 5)
        self.assertEqual((yield self.ask(path, "POST", b"{}", content_type="text/plain")).status, 415)

    @inlineCallbacks
    def test_long_bodies(self) -> Steps:
        """A body of many keys is read in a thread; its rows and its errors are those of a short one."""
        path = "/default/_design/d/_view/plain"
        keys: list[Any] = [[number] for number in range(20_000)]
        body = json.dumps({"keys": [["DE", "Bonn"], *keys, ["AT", "Wien"]]}).encode()
        self.assertGreater(len(body), 2 * service._AT_ONCE_BYTES)
        self.assertEqual((yield self.ask(path, "POST", body)).ids, ["p4", "p5", "p1"])
        for given, asked, reason in (
            (body[:-1], path, "The body of a POST must be a JSON object, {} for none."),
            (body, path + "?limit=x", 'Invalid value for integer parameter: "x"'),
            (body[:-1], path + "?limit=x", 'Invalid value for integer parameter: "x"'),
            (body[:-1], path + "x", "View `plainx` not defined in local design document `_design/d`."),
            (b'{"keys":[%b1]}' % (b"1," * 100_000), path, "`keys` takes at most 100000 keys"),
        ):
            answer = yield self.ask(asked, "POST", given)
            self.assertEqual(answer.json["reason"], reason)

    @inlineCallbacks
    def test_errors(self) -> Steps:
        """Unknown names are 404 with the server's words, wrong parameters 400."""
        cases = (
            (
                "v",
                "x",
                {},
                404,
                "not_found",
                "Design document `_design/x` missing in database `default/master`.",
            ),
            ("x", "d", {}, 404, "not_found", "View `x` not defined in local design document `_design/d`."),
            (
                "plain",
                "d",
                {"limit": "x"},
                400,
                "query_parse_error",
                'Invalid value for integer parameter: "x"',
            ),
            (
                "plain",
                "d",
                {"startkey": "2", "endkey": "1"},
                400,
                "query_parse_error",
                "No rows can match your key range, reverse your start_key and end_key or set descending=true",
            ),
        )
        for view, design, parameters, status, error, reason in cases:
            answer = yield self.query(view, design, **parameters)  # type: ignore[arg-type]
            self.assertEqual((answer.status, answer.json), (status, {"error": error, "reason": reason}))

    @inlineCallbacks
    def test_freshness(self) -> Steps:
        """ok never updates, update_after does so afterwards, false and silence see every write."""
        self.assertEqual((yield self.query("plain", stale="ok")).json, {"total_rows": 0, "rows": []})
        self.assertEqual((yield self.query("plain", stale="update_after")).ids, [])
        views: Any = self.node._views
        while views._background:
            yield deferLater(reactor, 0.01)
        self.assertEqual(len((yield self.query("plain", stale="ok")).ids), 5)
        self.store("p6", {"place": ["AT", "Linz"], "n": 6})
        self.assertEqual(len((yield self.query("plain", stale="ok")).ids), 5)
        self.assertEqual(len((yield self.query("plain", stale="false")).ids), 6)
        self.delete("p6")
        self.assertEqual(len((yield self.query("plain")).ids), 5)

    @inlineCallbacks
    def test_no_ghosts(self) -> Steps:
        """Deleted, overwritten, expired and flushed documents leave no row."""
        self.store("p1", {"place": ["FR", "Nice"], "n": 1})
        self.store("p2", {"other": 1})
        self.delete("p3")
        self.store("p4", {"place": ["DE", "Bonn"], "n": 4}, expiry=int(self.cluster.clock.seconds()) - 1)
        self.assertEqual((yield self.query("plain")).ids, ["p5", "p1"])
        yield self.cluster.flush_bucket("default")
        self.assertEqual((yield self.query("plain", stale="ok")).json, {"total_rows": 0, "rows": []})
        self.assertEqual((yield self.query("plain")).ids, [])

    @inlineCallbacks
    def test_development(self) -> Steps:
        """A development design document sees all documents of a small bucket; of a large one those of one
        vbucket, or all with full_set."""
        yield self.design("dev_d", v=BY_PLACE)
        self.assertEqual((yield self.query(design="dev_d")).json["total_rows"], 5)
        self.patch(service, "DEVELOPMENT_MULTIPLE", 0)
        part = yield self.query(design="dev_d")
        self.assertLess(part.json["total_rows"], 5)
        for number in range(3000):
            if self.part(f"k{number}").id == 0:
                self.store(f"k{number}", {"place": [], "n": 0})
                break
        part = yield self.query(design="dev_d")
        self.assertEqual(part.ids, [f"k{number}"])
        whole = yield self.query(design="dev_d", full_set="true")
        self.assertEqual(whole.json["total_rows"], 6)

    @inlineCallbacks
    def test_a_bucket_of_its_own(self) -> Steps:
        """A design document of one bucket never sees another's documents."""
        yield self.design("d", "private", v=BY_PLACE)
        self.assertEqual((yield self.query(bucket="private")).json["total_rows"], 0)
        self.store("q", {"place": ["IT", "Bari"], "n": 1}, "private")
        self.assertEqual((yield self.query(bucket="private")).ids, ["q"])
        self.assertEqual(len((yield self.query("plain")).ids), 5)

    @inlineCallbacks
    def test_collections(self) -> Steps:
        """Views see the default collection only: documents of others come and go without a row, and with the
        default collection all rows go, also from an index that is on the disk."""
        change = partial(self.cluster.change_manifest, "default")
        yield change(lambda now: now.with_collection("_default", "c"))
        before = (yield self.query("plain")).ids
        text = b'{"place": ["XX"], "n": 9}'
        for number in range(20):
            self.part(f"k{number}").store(StoreMode.SET, b"\x08k%d" % number, text)
        self.part("p1").store(StoreMode.SET, b"\x08p1", text)
        self.assertEqual((yield self.query("plain")).ids, before)
        self.part("p1").delete(b"\x08p1")
        self.assertEqual((yield self.query("plain")).ids, before)
        self.store("p9", {"place": ["YY"], "n": 9})
        self.assertEqual(len((yield self.query("plain")).ids), len(before) + 1)
        yield change(lambda now: now.without_collection("_default", "c"))
        self.assertEqual(len((yield self.query("plain")).ids), len(before) + 1)
        yield change(lambda now: now.without_collection("_default", "_default"))
        self.assertEqual((yield self.query("plain")).ids, [])
        yield self.node.stop()
        yield self.start()
        self.assertEqual((yield self.query("plain")).ids, [])

    @inlineCallbacks
    def test_debug(self) -> Steps:
        """With debug each row shows its source."""
        answer = yield self.query("plain", debug="true", key='["AT","Wien"]')
        (row,) = answer.json["rows"]
        self.assertEqual((row["partition"], row["node"]), (self.part("p1").id, "local"))
        self.assertIn("local", answer.json["debug_info"])


class FailureTests(ViewCase):
    """Functions that misbehave, workers that die, clients that go."""

    limits = ("call_seconds=0.3", "heap_bytes=33554432", "timeouts_in_a_row=2")

    @inlineCallbacks
    def test_a_throw_costs_one_document(self) -> Steps:
        """The others have their rows."""
        self.store("a", {"name": "a"})
        self.store("b", {})
        yield self.design("d", v="function (doc, meta) { emit(1, null); emit(doc.name.length, null); }")
        self.assertEqual((yield self.query()).ids, ["a", "a"])

    @inlineCallbacks
    def test_endless_loops_and_bombs(self) -> Steps:
        """A document that never ends is left out, a function that never does is an error; the node serves."""
        for number in range(4):
            self.store(f"k{number}", {"n": number})
        loop = "function (doc, meta) { while (doc.n === 2) {} emit(doc.n, null); }"
        bomb = "function (doc, meta) { if (doc.n === 1) { new Array(3e8).fill(0); } emit(doc.n, null); }"
        yield self.design("loop", v=loop)
        yield self.design("bomb", v=bomb)
        yield self.design("never", v="function (doc, meta) { while (true) {} }")
        yield self.design("good", v="function (doc, meta) { emit(doc.n, null); }")
        answers = yield gatherResults([self.query(design=name) for name in ("loop", "bomb", "never", "good")])
        loops, bombs, never, good = answers
        self.assertEqual(loops.keys, [0, 1, 3])
        self.assertEqual(bombs.keys, [0, 2, 3])
        self.assertEqual((never.status, never.json["error"]), (500, "error"))
        self.assertEqual(good.keys, [0, 1, 2, 3])

    @inlineCallbacks
    def test_values_that_are_no_numbers(self) -> Steps:
        """Under _sum the build fails, until the data is right."""
        self.store("a", {"name": "k", "n": 1})
        self.store("b", {"name": "k", "n": "2"})
        yield self.design("d", v=(BY_NAME, "_sum"))
        wrong = yield self.query()
        self.assertEqual((wrong.status, wrong.json["error"]), (500, "error"))
        self.assertIn('Value is not a number (key "k")', wrong.json["reason"])
        self.assertEqual((yield self.query(reduce="false")).status, 500)
        self.store("b", {"name": "k", "n": 2})
        self.assertEqual((yield self.query()).values, [3])

    @inlineCallbacks
    def test_reduces_that_fail(self) -> Steps:
        """A reduce that throws, or returns too much, is an error of the query."""
        self.store("a", {"name": "a"})
        throws = "function (keys, values, rereduce) { throw new Error('no'); }"
        long = "function (keys, values, rereduce) { return 'x'.repeat(100000); }"
        yield self.design("d", throws=(BY_NAME, throws), long=(BY_NAME, long))
        for view, text in (("throws", "no"), ("long", "Reduction too large (100002 bytes)")):
            answer = yield self.query(view)
            self.assertEqual((answer.status, answer.json["error"]), (500, "error"))
            self.assertIn(text, answer.json["reason"])

    @inlineCallbacks
    def test_a_worker_that_is_killed(self) -> Steps:
        """It is restarted, and no row is lost or doubled."""
        yield self.design("d", v=BY_NAME)
        for number in range(100):
            self.store(f"k{number}", {"name": number})
        self.assertEqual(len((yield self.query()).ids), 100)
        views: Any = self.node._views
        os.kill(views._worker.pid, signal.SIGKILL)
        for number in range(100, 150):
            self.store(f"k{number}", {"name": number})
        for _ in range(100):
            answer = yield self.query()
            if answer.status == 200:
                break
        self.assertEqual(answer.keys, list(range(150)))

    @inlineCallbacks
    def test_a_client_that_hangs_up(self) -> Steps:
        """A query whose client stops reading, and then disconnects, also ends at the worker."""
        yield self.design(
            "d", v="function (doc, meta) { for (var i = 0; i < 1000; i++) { emit(i, doc.text); } }"
        )
        for number in range(30):
            self.store(f"k{number}", {"text": "x" * 900})
        self.assertEqual((yield self.query(limit=1)).json["total_rows"], 30_000)
        port = self.cluster.nodes[0].address.rest_port
        exchange = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Exchange())
        exchange.transport.write(head("GET", "/default/_design/d/_view/v", ("Administrator", "password")))
        while not exchange.data:
            yield deferLater(reactor, 0.01)
        exchange.transport.pauseProducing()
        exchange.transport.abortConnection()
        yield exchange.closed
        self.assertLess(len(exchange.data), 30_000 * 900)
        self.assertEqual((yield self.query(limit=1)).status, 200)


class SeveralNodesTests(ViewCase):
    """Three nodes, each with an index of its vbuckets."""

    nodes = 3
    replicas = 1

    @inlineCallbacks
    def setUp(self) -> Steps:
        """Store documents all over."""
        yield super().setUp()
        for number in range(300):
            self.store(f"k{number:03}", {"name": [number % 3, number], "n": number})
        yield self.design("d", v=(BY_NAME, "_stats"), plain=BY_NAME)

    @inlineCallbacks
    def test_merge(self) -> Steps:
        """Whichever node is asked, rows come in one order, reduced as one."""
        expected = sorted(range(300), key=lambda number: (number % 3, number))
        for node in range(3):
            answer = yield self.query("plain", node=node)
            self.assertEqual(answer.json["total_rows"], 300)
            self.assertEqual([key[1] for key in answer.keys], expected)
            page = yield self.query("plain", node=node, skip=100, limit=3, descending="true")
            self.assertEqual([key[1] for key in page.keys], expected[::-1][100:103])
            groups = yield self.query(node=node, group_level=1)
            self.assertEqual([value["count"] for value in groups.values], [100, 100, 100])
            self.assertEqual((yield self.query(node=node)).values[0]["sum"], sum(range(300)))

    @inlineCallbacks
    def test_moving_vbuckets(self) -> Steps:
        """While vbuckets change their nodes, no row is lost or shown twice, however stale the answer."""
        self.assertEqual(len((yield self.query("plain")).ids), 300)
        bucket = self.cluster.bucket("default")
        yield self.cluster.apply_map("default", [(row[1], row[0]) for row in bucket.rows])
        fresh = yield self.query("plain")
        self.assertEqual((fresh.json["total_rows"], len(set(fresh.ids))), (300, 300))
        yield self.cluster.apply_map(
            "default", [(row[1], row[0]) for row in self.cluster.bucket("default").rows]
        )
        stale = yield self.query("plain", stale="ok")
        self.assertEqual(len(stale.ids), len(set(stale.ids)))

    @inlineCallbacks
    def test_a_node_that_fails(self) -> Steps:
        """Its rows are missing, and the answer says whose; on_error=stop gives no rows."""
        views: Any = self.node._views
        self.assertEqual(len((yield self.query("plain")).ids), 300)
        broken = views._indexer(self.cluster.bucket("default"), self.cluster.nodes[2])
        broken.update = lambda *_: never()
        address: AdvertisedAddress = self.cluster.nodes[2].address
        answer = yield self.query("plain", connection_timeout=50)
        self.assertLess(len(answer.ids), 300)
        (error,) = answer.json["errors"]
        self.assertEqual(error["reason"], "timeout")
        self.assertIn(f":{address.views_port}/_view_merge/", error["from"])
        stopped = yield self.query("plain", connection_timeout=50, on_error="stop")
        self.assertEqual((stopped.status, stopped.json["rows"], len(stopped.json["errors"])), (200, [], 1))


async def never() -> None:
    """Take longer than any caller waits."""
    await Deferred()
