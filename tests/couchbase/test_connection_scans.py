"""Scans of the blocking client, against a node."""

from typing import ClassVar

import couchbase.subdocument as SD
from couchbase import FMT_BYTES
from couchbase.exceptions import ArgumentError, CollectionNotFoundError, PipelineError
from couchbase.scan import PrefixScan, RangeScan, SamplingScan, ScanResult, ScanTerm
from couchbase.transcoder import RawTranscoder
from tests.couchbase.support import ConnectionTestCase


class ScanTests(ConnectionTestCase):
    """``scan``."""

    options: ClassVar = {"replicas": 0}  # a node of its own
    bucket = "open"

    def setUp(self):
        """Store some documents."""
        super().setUp()
        self.cb.set_multi({f"k{n:03}": {"n": n} for n in range(200)}, ttl=1000)
        self.cb.set("é", "text")
        self.cb.set("z\n", b"\xff", format=FMT_BYTES)

    def keys(self, what=None, **options):
        return sorted(row.key for row in self.cb.scan(what, ids_only=True, **options))

    def test_all(self):
        """Every document once, decoded, with what belongs to it."""
        rows = {row.key: row for row in self.cb.scan()}
        self.assertEqual(len(rows), 202)
        row = rows["k007"]
        self.assertIsInstance(row, ScanResult)
        self.assertEqual((row.value, row.flags, row.success), ({"n": 7}, self.cb.get("k007").flags, True))
        self.assertEqual(row.cas, self.cb.get("k007").cas)
        self.assertGreater(row.expiry, 0)
        self.assertEqual((rows["é"].value, rows["z\n"].expiry), ("text", 0))

    def test_selections(self):
        """Prefixes, ranges with open and closed ends, samples."""
        self.assertEqual(self.keys(PrefixScan("k01")), [f"k01{n}" for n in range(10)])
        self.assertEqual(self.keys(RangeScan("k005", "k007")), ["k005", "k006", "k007"])
        inner = RangeScan(ScanTerm("k005", exclusive=True), ScanTerm(b"k007", exclusive=True))
        self.assertEqual(self.keys(inner), ["k006"])
        self.assertEqual(self.keys(RangeScan(start="k199")), ["k199", "z\n", "é"])
        self.assertEqual(self.keys(RangeScan("b", "a")), [])
        sample = self.keys(SamplingScan(7, seed=3))
        self.assertEqual((len(sample), self.keys(SamplingScan(7, seed=3))), (7, sample))

    def test_cursor(self):
        """Another scan, of another connection, goes on where one was left."""
        scan = self.cb.scan(PrefixScan("k"), ids_only=True)
        first = [next(scan).key]
        first += [row.key for row in scan._ready]
        other = self.connect()
        rest = [row.key for row in other.scan(PrefixScan("k"), ids_only=True, after=scan.cursor)]
        scan.close()
        self.assertRaises(StopIteration, next, scan)
        self.assertEqual(sorted(first + rest), [f"k{n:03}" for n in range(200)])
        scan = self.cb.scan(RangeScan("k001", "k001"))
        self.assertEqual([row.key for row in scan], ["k001"])
        self.assertIsNone(scan.cursor)

    def test_early_end(self):
        """A scan that is left frees what the server keeps for it."""
        for _ in range(400):
            with self.cb.scan(ids_only=True) as scan:
                next(scan)
        self.assertEqual(len(self.keys()), 202)

    def test_samples(self):
        """A sample of the wanted size ends the scans of all vbuckets."""
        scan = self.cb.scan(SamplingScan(1), ids_only=True)
        with scan:
            next(scan)
            self.assertTrue(scan._scanner._window)
        self.assertFalse(scan._scanner._window)
        scan = self.cb.scan(SamplingScan(2), ids_only=True)
        self.assertEqual(len(list(scan)), 2)
        self.assertFalse(scan._scanner._window)

    def test_attributes(self):
        """Extended attributes come if they are asked for."""
        self.cb.mutate_in("k001", SD.upsert("app.level", [5], xattr=True, create_parents=True))
        self.cb.mutate_in("k001", SD.upsert("_sys", "é", xattr=True))
        (row,) = self.cb.scan(PrefixScan("k001"), with_attributes=True)
        self.assertEqual((row.value, row.attributes), ({"n": 1}, {"app": {"level": [5]}, "_sys": "é"}))
        (row,) = self.cb.scan(PrefixScan("k001"))
        self.assertEqual((row.value, row.attributes), ({"n": 1}, {}))
        (row,) = self.cb.scan(PrefixScan("k002"), with_attributes=True)
        self.assertEqual(row.attributes, {})

    def test_values(self):
        """no_format leaves values as bytes, a transcoder reads keys and values."""
        (row,) = self.cb.scan(PrefixScan("k001"), no_format=True)
        self.assertEqual(row.value, b'{"n":1}')
        (row,) = self.connect(transcoder=RawTranscoder()).scan(PrefixScan("k001"))
        self.assertEqual((row.key, row.value), (b"k001", b'{"n":1}'))

    def test_arguments(self):
        """Anything but a scan, a key and a cursor is refused before anything is sent."""
        for wrong in (
            "k",
            RangeScan(5),
            PrefixScan("x" * 251),
            SamplingScan(-1),
            SamplingScan("7"),
            SamplingScan(1, 2**40),
        ):
            self.assertRaises(ArgumentError, self.cb.scan, wrong)
        for wrong in ("", "x", "AAB", "AA==", 5, "é", "A" * 1000):
            self.assertRaises(ArgumentError, self.cb.scan, after=wrong)
        with self.cb.pipeline():
            self.assertRaises(PipelineError, next, self.cb.scan())

    def test_collections(self):
        """A collection has its own documents; one that is not there says so."""
        self.assertRaises(CollectionNotFoundError, next, self.cb.collection("none").scan())
        self.assertEqual(len(list(self.cb.collection("_default").scan(ids_only=True))), 202)
