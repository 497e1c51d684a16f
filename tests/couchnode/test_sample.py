"""Sample files: every document, every invalid line by its number, and nothing is overwritten."""

from __future__ import annotations

import gzip
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from couchbase.protocol.hashing import vbucket_of
from couchnode import sample
from couchnode.sample import JSON_FLAGS, SampleError, SampleReport, load_sample, read_lines
from couchnode.service import EmbeddedNode
from txcouchbase.connection import Connection

Steps = Generator[Deferred[Any], Any, Any]

GOOD = b'{"id": "a", "doc": {"n": 123456789012345678901234567890, "f": 0.1, "t": "\xc3\xa9"}}\n'


class ReadTests(SynchronousTestCase):
    """Reading a file."""

    def read(self, content: bytes, name: str = "sample.jsonl") -> list[sample.Line]:
        """Return the lines of a file with this content."""
        path = Path(self.mktemp())
        path.mkdir()
        path /= name
        path.write_bytes(content)
        return list(read_lines(path))

    def test_documents(self) -> None:
        """Key and value come out in UTF-8, as they are written; blank lines are counted but skipped."""
        first, second = self.read(GOOD + b'\n  \n{"doc": null, "id": "\xf0\x9f\x8d\xba"}')
        self.assertEqual((first.number, first.key, first.fault), (1, b"a", ""))
        self.assertEqual(first.value, b'{"n": 123456789012345678901234567890, "f": 0.1, "t": "\xc3\xa9"}')
        self.assertEqual((second.number, second.key, second.value), (4, "🍺".encode(), b"null"))

    def test_texts_that_other_parsers_refuse_or_change(self) -> None:
        """A document is stored as it is written, and what is JSON elsewhere is JSON here."""
        for text in (b"1.50", b"1e400", b"1" * 5000, b'"ab\\ud83d"', b'{"a": 1, "a": 2}', b"-0"):
            (line,) = self.read(b'{"id": "x", "doc": 0, "doc": %b }' % text)
            self.assertEqual((line.fault, line.value), ("", text))

    def test_compressed(self) -> None:
        """A name that ends in .gz is decompressed."""
        self.assertEqual(self.read(gzip.compress(GOOD), "sample.jsonl.gz"), self.read(GOOD))

    def test_bad_lines(self) -> None:
        """Each says what is wrong with it, under its number, and does not stop the rest."""
        for line, text in [
            (b"{", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[1]", 'expected {"id"'),
            (b'{"id": 1, "doc": 1}', 'expected {"id"'),
            (b'{"id": "x"}', 'expected {"id"'),
            (b'{"id": "", "doc": 1}', "this one has 0"),
            (b'{"id": "%s", "doc": 1}' % (b"x" * 251), "this one has 251"),
            (b'{"id": "\\ud800", "doc": 1}', "not valid Unicode"),
            (b"[" * 100_000, "not JSON"),
            (b'{"id": "x", "doc": NaN}', "not JSON"),
            (b'{"id": "x", "doc": -Infinity}', "not JSON"),
        ]:
            good, bad, last = self.read(GOOD + line + b"\n" + GOOD)
            self.assertEqual((good.fault, last.fault, last.number), ("", "", 3))
            self.assertEqual(bad.number, 2)
            self.assertIn(text, bad.fault)

    def test_files_that_cannot_be_read(self) -> None:
        """A missing, cut or false archive names itself."""
        missing = Path(self.mktemp())
        error = self.assertRaises(SampleError, list, read_lines(missing))
        self.assertIn(str(missing), str(error))
        for content in (gzip.compress(GOOD * 1000)[:-20], b"no archive"):
            error = self.assertRaises(SampleError, self.read, content, "sample.jsonl.gz")
            self.assertIn("sample.jsonl.gz cannot be read", str(error))

    def test_endless_line(self) -> None:
        """A line beyond any document is refused before it is in memory."""
        self.patch(sample, "_LONGEST_LINE", 1000)
        error = self.assertRaises(SampleError, self.read, GOOD + b"x" * 5000)
        self.assertIn("line 2: longer than 1000 bytes", str(error))


class LoadTests(TestCase):
    """Loading into a bucket."""

    timeout = 120

    @inlineCallbacks
    def test_loads_what_is_missing(self) -> Steps:
        """Documents are stored on their nodes as JSON; existing ones are kept; invalid lines are logged by
        number."""
        path = Path(self.mktemp())
        documents = {f"doc-{i}": {"i": i} for i in range(500)}
        lines = [json.dumps({"id": key, "doc": value}) for key, value in documents.items()]
        lines[10] = "oops"
        path.write_text("\n".join(lines))
        node = EmbeddedNode(None, nodes=3, sample=path)
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        yield node.start()
        self.addCleanup(node.stop)
        bad = [event for event in events if event.get("number") is not None]
        self.assertEqual([(event["number"], event["log_level"].name) for event in bad], [(11, "warn")])
        cluster = node.cluster
        self.assertEqual(cluster.reports.basic_stats("default")["itemCount"], 499)
        vbid = vbucket_of(b"doc-0", 1024)
        home = cluster.nodes[cluster.bucket("default").rows[vbid][0]].buckets["default"].vbuckets[vbid]
        item = home.get(b"\0doc-0")
        self.assertEqual((json.loads(item.value), item.flags), ({"i": 0}, JSON_FLAGS))
        home.store(0, b"\0doc-0", b"changed")
        report = yield load_sample(cluster, "default", path)
        self.assertEqual(report, SampleReport(stored=0, kept=499, rejected=1))
        self.assertEqual(home.get(b"\0doc-0").value, b"changed")

    @inlineCallbacks
    def test_design_documents(self) -> Steps:
        """A line whose id begins with ``_design/`` creates a design document of the first bucket; an
        existing one is kept, and an invalid one is an invalid line, which affects neither the lines after it
        nor the next files."""
        first, second = Path(self.mktemp()), Path(self.mktemp())
        design = {"views": {"all": {"map": "function (doc, meta) { emit(meta.id, doc.i); }"}}}
        wrong = {"views": {"all": {"map": "function ("}}}
        lines = [
            {"id": "_design/dev_one", "doc": design},
            {"id": "_design/wrong", "doc": wrong},
            {"id": "_design/", "doc": design},
            {"id": "_design/text", "doc": "text"},
            {"id": "a", "doc": {"i": 1}},
        ]
        first.write_text("\n".join(map(json.dumps, lines)))
        second.write_text(json.dumps({"id": "_design/two", "doc": design}))
        node = EmbeddedNode(None, buckets=[("beer", None), ("default", None)], sample=[first, str(second)])
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        yield node.start()
        self.addCleanup(node.stop)
        designs = node.cluster.bucket("beer").designs
        self.assertEqual(sorted(designs), ["dev_one", "two"])
        self.assertEqual(json.loads(designs["two"].text), design)
        self.assertEqual(node.cluster.bucket("default").designs, {})
        self.assertEqual(node.cluster.reports.basic_stats("beer")["itemCount"], 1)
        bad = {event["number"]: event["fault"] for event in events if event.get("fault")}
        self.assertEqual(sorted(bad), [2, 3, 4])
        self.assertIn("Syntax error in the map function", bad[2])
        yield node.cluster.put_design("beer", "two", b'{"views": {}}')
        report = yield load_sample(node.cluster, "beer", second)
        self.assertEqual(report, SampleReport(stored=0, kept=1, rejected=0))
        self.assertEqual(node.cluster.bucket("beer").designs["two"].text, b'{"views": {}}')

    @inlineCallbacks
    def test_the_view_of_the_guide(self) -> Steps:
        """Breweries and beers, and the design document beside them: the guide's first view has its rows."""
        examples = Path(__file__).parent.parent.parent / "examples"
        node = EmbeddedNode(
            None,
            buckets=[("beer-sample", None)],
            sample=[examples / "sample-breweries.jsonl", examples / "beer-views.jsonl"],
        )
        yield node.start()
        self.addCleanup(node.stop)
        kept = json.loads(node.cluster.bucket("beer-sample").designs["beer"].text)
        self.assertEqual(kept, json.loads((examples / "beer-design.json").read_text()))
        _, _, port = node.rest_urls[0].rpartition(":")
        client = Connection(bucket="beer-sample", host="127.0.0.1", port=int(port))
        self.addCleanup(client._close)
        rows = list((yield client.queryAll("beer", "brewery_beers", stale="false")))
        self.assertEqual(len(rows), node.cluster.reports.basic_stats("beer-sample")["itemCount"])

    @inlineCallbacks
    def test_full_bucket(self) -> Steps:
        """Documents that do not fit are rejected, not lost in silence."""
        path = Path(self.mktemp())
        path.write_text("\n".join(json.dumps({"id": f"doc-{i}", "doc": "x" * 10_000}) for i in range(300)))
        node = EmbeddedNode(None, quota_bytes=2**20)
        yield node.start()
        self.addCleanup(node.stop)
        report = yield load_sample(node.cluster, "default", path)
        self.assertEqual(report.stored + report.rejected, 300)
        self.assertGreater(report.rejected, 100)
        self.assertGreater(report.stored, 50)
