"""Range scans: their results, their order and pieces, and their ends."""

from __future__ import annotations

import json
from base64 import b64encode
from struct import pack, unpack_from
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import Frame
from couchbase.protocol.leb128 import decode_leb128
from couchnode.data import rangescan
from couchnode.data.item import Ledger, StatusError
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.manifest import Manifest
from couchnode.data.rangescan import LIFETIME_SECONDS, MAX_SCANS, RangeScan, Selection
from couchnode.data.storemode import StoreMode
from couchnode.data.vbucket import VBucket
from couchnode.kv.commands.rangescans import SnapshotRequirements, read_scan_request
from couchnode.kv.commands.table import dispatch
from tests.couchnode.kv.test_commands import CommandCase, Steps
from tests.couchnode.nodes import Client, ServedNode

KEYS = [b"a", b"b", b"ba", b"c", b"\xff"]
ANY = {"range": {"start": "", "end": "9I+/vw=="}}


def encoded(key: bytes) -> str:
    """Return a key as the body of a request has it."""
    return b64encode(key).decode()


def keys_in(value: bytes) -> list[bytes]:
    """Return the keys of an answer that has only keys."""
    keys, at = [], 0
    while at < len(value):
        size, at = decode_leb128(value, at)
        keys.append(value[at : at + size])
        at += size
    return keys


def documents_in(value: bytes) -> list[tuple[Any, ...]]:
    """Return (flags, expiry, seqno, cas, datatype, key, value) of each document in an answer."""
    found, at = [], 0
    while at < len(value):
        meta = unpack_from(">IIQQB", value, at)
        at += 25
        parts = []
        for _ in range(2):
            size, at = decode_leb128(value, at)
            parts.append(value[at : at + size])
            at += size
        found.append((*meta, *parts))
    return found


class BodyTests(SynchronousTestCase):
    """The JSON body of a scan's creation."""

    def read(self, **members: Any) -> Any:
        """Read a body with these members."""
        return read_scan_request(json.dumps(members).encode())

    def test_what_clients_send(self) -> None:
        """The bodies of the official clients, with their own ideas of the first and the last key."""
        for end in (b"\xf4\x8f\xfb\xfb", b"\xf4\x8f\xbf\xbf"):
            found = self.read(key_only=True, range={"start": "", "end": encoded(end)})
            self.assertEqual((found.keys_only, found.start, found.end), (True, b"", end + b"\0"))
        found = self.read(collection="8", range={"start": encoded(b"p"), "excl_end": encoded(b"p\xf4")})
        self.assertEqual((found.collection, found.start, found.end), (8, b"p", b"p\xf4"))
        found = self.read(range={"excl_start": encoded(b"p"), "end": encoded(b"q")})
        self.assertEqual((found.start, found.end), (b"p\0", b"q\0"))
        found = self.read(
            sampling={"samples": 10, "seed": 2**64 - 1},
            snapshot_requirements={"vb_uuid": "123", "seqno": 5, "timeout_ms": 75000, "seqno_exists": True},
        )
        self.assertEqual((found.samples, found.seed), (10, 2**64 - 1))
        self.assertEqual(found.requirements, SnapshotRequirements(123, 5, True))
        # Neither a range nor a sample: everything; unknown members are ignored.
        found = self.read(collection="cafe", name="mine", colour="red")
        self.assertEqual((found.collection, found.start, found.end, found.samples), (0xCAFE, b"", None, None))

    def test_malformed(self) -> None:
        """Each member that is wrong is named."""
        whole = {"start": "", "end": ""}
        for members, text in (
            ({"key_only": 1}, "key_only is true or false"),
            ({"key_only": True, "include_xattrs": True}, "exclude each other"),
            ({"name": "x" * 51}, "name is a string"),
            ({"collection": 8}, "collection is a number"),
            ({"collection": "-1"}, "collection is a number"),
            ({"collection": "1_0"}, "collection is a number"),
            ({"collection": "100000000"}, "collection is a number"),
            ({"collection": "xyz"}, "xyz"),
            ({"range": [], "collection": "0"}, "range is a JSON object"),
            ({"range": whole, "sampling": {"samples": 1}}, "exclude each other"),
            ({"range": {"start": ""}}, "either end or excl_end"),
            ({"range": {**whole, "excl_end": ""}}, "either end or excl_end"),
            ({"range": {"start": "*", "end": ""}}, "start is a key in base64"),
            ({"range": {"start": "YQ", "end": ""}}, "start is a key in base64"),
            ({"range": {"start": None, "end": ""}}, "start is a key in base64"),
            ({"range": {"start": encoded(b"k" * 251), "end": ""}}, "at most 250 bytes"),
            ({"sampling": {}}, "samples is an integer"),
            ({"sampling": {"samples": -1}}, "samples is an integer"),
            ({"sampling": {"samples": True}}, "samples is an integer"),
            ({"sampling": {"samples": 1, "seed": 2**64}}, "seed is an integer"),
            ({"snapshot_requirements": {"vb_uuid": 1, "seqno": 1}}, "vb_uuid is a decimal number"),
            ({"snapshot_requirements": {"vb_uuid": "1"}}, "seqno is an integer"),
            ({"snapshot_requirements": {"vb_uuid": "1", "seqno": 1, "timeout_ms": -1}}, "timeout_ms"),
        ):
            error = self.assertRaises(StatusError, self.read, **members)
            self.assertEqual(error.status, Status.EINVAL, members)
            self.assertIn(text, error.context)
        for body in (b"", b"[]", b"{", b"\xff", b"[" * 5000, b'{"name":"' + b"x" * 20000 + b'"}'):
            self.assertEqual(self.assertRaises(StatusError, read_scan_request, body).status, Status.EINVAL)

    @given(st.binary(max_size=80))
    def test_any_bytes(self, body: bytes) -> None:
        """Any other body is refused as malformed."""
        try:
            read_scan_request(body)
        except StatusError as error:
            self.assertEqual(error.status, Status.EINVAL)


class ScanTests(SynchronousTestCase):
    """Scans of one vbucket."""

    def scan(self, keys: list[bytes], selection: Selection, *, keys_only: bool = True) -> RangeScan:
        """Return a scan of a vbucket with these keys."""
        vbucket = VBucket(3, Ledger(2**26), Clock().seconds)
        for key in keys:
            vbucket.store(StoreMode.SET, DEFAULT_PREFIX + key, b"v")
        scan = RangeScan(vbucket, selection, 1, keys_only=keys_only)
        list(scan.collect())
        return scan

    def pages(self, scan: RangeScan, items: int, size: int) -> list[list[bytes]]:
        """Return the keys of all pages."""
        pages = []
        while True:
            page = scan.page(items, size)
            pages.append(keys_in(b"".join(page.pieces)))
            if page.is_last:
                return pages

    @given(
        st.sets(st.binary(min_size=1, max_size=6), max_size=60),
        st.binary(max_size=4),
        st.binary(max_size=4),
        st.integers(0, 7),
        st.integers(0, 20),
        st.integers(1, 10),
    )
    def test_range(
        self, keys: set[bytes], start: bytes, end: bytes, items: int, size: int, piece: int
    ) -> None:
        """Whatever the limits, and however the snapshot is taken, the pages are the sorted keys of the range,
        none is empty but an only one, and each keeps its limits."""
        with patch.object(rangescan, "_PIECE", piece):
            pages = self.pages(
                self.scan(list(keys), Selection(DEFAULT_PREFIX + start, DEFAULT_PREFIX + end)), items, size
            )
        self.assertEqual(sum(pages, []), sorted(key for key in keys if start <= key < end))
        if len(pages) > 1:
            self.assertNotIn([], pages)
        for page in pages:
            if items:
                self.assertLessEqual(len(page), items)
            if size:
                # Only the last key of a page goes over the limit.
                self.assertLess(sum(len(key) + 1 for key in page[:-1]), size)

    def test_snapshot(self) -> None:
        """Writes after the creation do not show, even between its steps."""
        vbucket = VBucket(3, Ledger(2**26), Clock().seconds)
        for key in KEYS:
            vbucket.store(StoreMode.SET, DEFAULT_PREFIX + key, b"old")
        scan = RangeScan(vbucket, Selection(b"\0", b"\1"), 1, keys_only=False)
        with patch.object(rangescan, "_PIECE", 2):
            steps = scan.collect()
            next(steps)
            for key in KEYS:
                vbucket.store(StoreMode.SET, DEFAULT_PREFIX + key, b"new")
            vbucket.delete(b"\0c")
            vbucket.store(StoreMode.SET, b"\0d", b"new")
            list(steps)
        found = documents_in(b"".join(scan.page(0, 0).pieces))
        self.assertEqual([one[5:] for one in found], [(key, b"old") for key in KEYS])

    def test_expired_documents(self) -> None:
        """A document that expires during the scan is left out."""
        clock = Clock()
        vbucket = VBucket(3, Ledger(2**26), clock.seconds)
        vbucket.store(StoreMode.SET, b"\0a", b"", expiry=10)
        vbucket.store(StoreMode.SET, b"\0b", b"")
        scan = RangeScan(vbucket, Selection(b"\0", b"\1"), 1, keys_only=True)
        list(scan.collect())
        clock.advance(12)
        self.assertEqual(self.pages(scan, 0, 0), [[b"b"]])

    def test_samples(self) -> None:
        """About as many as asked for, the same ones for the same seed; all of them if there are no more."""
        keys = [b"k%d" % number for number in range(2000)]
        samples = [
            self.pages(self.scan(keys, Selection(b"\0", b"\1", 200, seed)), 0, 0)[0] for seed in (1, 1, 2)
        ]
        self.assertEqual(samples[0], samples[1])
        self.assertNotEqual(samples[0], samples[2])
        for sample in samples:
            self.assertTrue(120 < len(sample) < 280, len(sample))
        everything = self.pages(self.scan(keys, Selection(b"\0", b"\1", 2000)), 0, 0)[0]
        self.assertEqual(everything, sorted(keys))

    def test_pages_are_bounded(self) -> None:
        """Without limits a page still ends, and its pieces have about eight KiB."""
        scan = self.scan([b"%0100d" % number for number in range(12_000)], Selection(b"\0", b"\1"))
        page = scan.page(0, 0)
        self.assertFalse(page.is_last)
        self.assertLess(sum(map(len, page.pieces)), rangescan.MAX_PAGE_BYTES + 200)
        for piece in page.pieces[:-1]:
            self.assertTrue(rangescan.FRAME_BYTES <= len(piece) < rangescan.FRAME_BYTES + 200)


class ScanCommands(CommandCase):
    """The three commands."""

    features = (Feature.XERROR, Feature.JSON, Feature.XATTR)

    def setUp(self) -> None:
        """Store some documents."""
        super().setUp()
        for key in KEYS:
            self.set(key, b'{"k":1}')
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        self.vbucket = vbucket

    def create(self, **members: Any) -> Frame:
        """Create a scan."""
        return self.ask(Opcode.RANGE_SCAN_CREATE, value=json.dumps(members or ANY).encode(), datatype=1)

    def resume(self, identifier: bytes, items: int = 0, size: int = 0, **parts: Any) -> list[Frame]:
        """Continue a scan."""
        extras = identifier + pack(">III", items, 0, size)
        return self.all(Opcode.RANGE_SCAN_CONTINUE, extras=extras, **parts)

    def test_keys(self) -> None:
        """Keys come in order; MORE until the end, then COMPLETE, and the scan is gone."""
        scan = self.create(key_only=True, range={"start": "", "excl_end": encoded(b"\xff")}).value
        self.assertEqual(len(scan), 16)
        (first,) = self.resume(scan, items=3)
        self.assertEqual((first.specific, first.extras), (Status.RANGE_SCAN_MORE, bytes(4)))
        self.assertEqual(keys_in(first.value), KEYS[:3])
        (last,) = self.resume(scan)
        self.assertEqual((last.specific, keys_in(last.value)), (Status.RANGE_SCAN_COMPLETE, KEYS[3:4]))
        self.assertEqual(self.resume(scan)[0].specific, Status.KEY_ENOENT)
        self.assertEqual(len(self.bucket.scans), 0)

    def test_documents(self) -> None:
        """A document comes with flags, expiry, sequence number, CAS and datatype."""
        self.set(b"a", b"raw", extras=pack(">II", 7, 1000))
        wanted = self.vbucket.items[b"\0a"]
        scan = self.create(range={"start": encoded(b"a"), "end": encoded(b"b")}).value
        (answer,) = self.resume(scan)
        self.assertEqual((answer.specific, answer.extras), (Status.RANGE_SCAN_COMPLETE, b"\0\0\0\1"))
        first, second = documents_in(answer.value)
        self.assertEqual(first, (7, wanted.expiry, wanted.seqno, wanted.cas, 0, b"a", b"raw"))
        self.assertEqual(second[4:], (1, b"b", b'{"k":1}'))

    def test_attributes(self) -> None:
        """With include_xattrs a document's attributes come before its body, and the datatype says so."""
        change = {"key": b"a", "value": b"x1", "extras": b"\0\1\4"}
        self.assertStatus(Status.SUCCESS, Opcode.SUBDOC_DICT_UPSERT, **change)
        pair = b"x\x001\0"
        blob = pack(">II", len(pair) + 4, len(pair)) + pair
        for included, value, datatype in ((True, blob + b'{"k":1}', 5), (False, b'{"k":1}', 1)):
            scan = self.create(**ANY, include_xattrs=included).value
            first, second, *_ = documents_in(self.resume(scan)[0].value)
            self.assertEqual((first[4], first[6]), (datatype, value))
            self.assertEqual((second[4], second[6]), (1, b'{"k":1}'))

    def test_several_answers(self) -> None:
        """A long page comes in several answers with the opaque of the request; the last has the status."""
        for number in range(30):
            self.set(b"l%d" % number, bytes(2000))
        answers = self.resume(self.create(range={"start": encoded(b"l"), "end": encoded(b"m")}).value)
        self.assertGreater(len(answers), 3)
        self.assertEqual({one.opaque for one in answers}, {77})
        self.assertEqual({one.specific for one in answers[:-1]}, {0})
        self.assertEqual(answers[-1].specific, Status.RANGE_SCAN_COMPLETE)
        self.assertEqual(len(documents_in(b"".join(one.value for one in answers))), 30)

    def test_nothing_to_scan(self) -> None:
        """A range without documents has no scan; nor has a sample of none."""
        for members in (
            {"range": {"start": encoded(b"d"), "end": encoded(b"e")}},
            {"range": {"start": encoded(b"c"), "end": encoded(b"a")}},
            {"sampling": {"samples": 0}},
        ):
            self.assertEqual(self.create(**members).specific, Status.KEY_ENOENT)
        self.assertEqual(self.create(collection="9").specific, Status.UNKNOWN_COLLECTION)
        self.assertEqual(len(self.bucket.scans), 0)

    def test_collections(self) -> None:
        """A scan has the documents of its collection only, by their own keys; it ends with the collection."""
        self.ask(Opcode.HELLO, value=b"\0\7\0\x0b\0\x12")
        manifest = Manifest().with_collection("_default", "a").with_collection("_default", "b")
        self.bucket.set_manifest(manifest)
        for key in (b"\x08one", b"\x08two", b"\x08\xff\xff", b"\x09other"):
            self.set(key)
        everything = {"key_only": True, "range": {"start": "", "end": encoded(b"\xff" * 10)}}
        for members in (everything, {"key_only": True}):
            scan = self.create(collection="8", **members).value
            found = keys_in(self.resume(scan)[0].value)
            self.assertEqual(found, [b"one", b"two", b"\xff\xff"])
        scan = self.create(collection="8", **everything).value
        self.resume(scan, items=1)
        self.bucket.set_manifest(manifest.without_collection("_default", "a"))
        self.assertEqual(self.resume(scan)[0].specific, Status.UNKNOWN_COLLECTION)
        self.assertEqual(self.resume(scan)[0].specific, Status.KEY_ENOENT)
        self.assertEqual(self.create(collection="8").specific, Status.UNKNOWN_COLLECTION)

    def test_requirements(self) -> None:
        """The history has to be the newest one, the sequence number given, and there if that is asked."""
        uuid, high = str(self.vbucket.uuid), self.vbucket.high_seqno
        for wanted, status in (
            ({"vb_uuid": uuid, "seqno": high}, Status.SUCCESS),
            ({"vb_uuid": uuid, "seqno": high, "seqno_exists": True, "timeout_ms": 75000}, Status.SUCCESS),
            ({"vb_uuid": uuid, "seqno": high + 1, "timeout_ms": 75000}, Status.ETMPFAIL),
            ({"vb_uuid": "1", "seqno": high}, Status.VBUUID_NOT_EQUAL),
        ):
            self.assertEqual(self.create(**ANY, snapshot_requirements=wanted).specific, status, wanted)
        replaced = self.vbucket.items[b"\0a"].seqno
        self.set(b"a")
        wanted = {"vb_uuid": uuid, "seqno": replaced, "seqno_exists": True}
        self.assertEqual(self.create(**ANY, snapshot_requirements=wanted).specific, Status.NOT_STORED)

    def test_forms(self) -> None:
        """Bodies that are not marked as JSON, and attributes without XATTR, are refused."""
        body = json.dumps(ANY).encode()
        self.assertStatus(Status.EINVAL, Opcode.RANGE_SCAN_CREATE, value=body)
        self.assertStatus(Status.EINVAL, Opcode.RANGE_SCAN_CREATE, value=body, datatype=1, key=b"k")
        self.assertStatus(Status.EINVAL, Opcode.RANGE_SCAN_CONTINUE, extras=bytes(27))
        self.assertStatus(Status.EINVAL, Opcode.RANGE_SCAN_CANCEL, extras=bytes(15))
        self.assertEqual(self.create(**ANY, include_xattrs=False).specific, Status.SUCCESS)
        self.ask(Opcode.HELLO, value=b"\0\7\0\x0b")
        self.assertEqual(self.create(**ANY, include_xattrs=False).specific, Status.NOT_SUPPORTED)
        self.ask(Opcode.HELLO, value=b"\0\7")
        self.assertEqual(self.create().specific, Status.EINVAL)

    def test_cancel(self) -> None:
        """A cancelled scan is gone; an unknown one, or one of another vbucket, is not found."""
        scan = self.create().value
        self.assertStatus(Status.KEY_ENOENT, Opcode.RANGE_SCAN_CANCEL, extras=bytes(16))
        self.assertStatus(Status.KEY_ENOENT, Opcode.RANGE_SCAN_CANCEL, extras=scan, vbucket=1)
        self.assertEqual(self.resume(scan, vbucket=1)[0].specific, Status.KEY_ENOENT)
        self.assertStatus(Status.SUCCESS, Opcode.RANGE_SCAN_CANCEL, extras=scan)
        self.assertEqual(self.resume(scan)[0].specific, Status.KEY_ENOENT)

    def test_limits(self) -> None:
        """So many scans at a time; each goes when it is over, cancelled or too old."""
        scans = [self.create().value for _ in range(MAX_SCANS)]
        self.assertEqual(len(set(scans)), MAX_SCANS)
        self.assertEqual(self.create().specific, Status.EBUSY)
        self.resume(scans[0])
        self.assertEqual(self.create().specific, Status.SUCCESS)
        self.clock.advance(LIFETIME_SECONDS)
        self.assertEqual(len(self.bucket.scans), 0)
        self.assertEqual(self.resume(scans[1])[0].specific, Status.KEY_ENOENT)
        self.assertEqual(self.create().specific, Status.SUCCESS)

    def test_flush_cancels(self) -> None:
        """A scan of documents that were flushed is cancelled."""
        scan = self.create().value
        self.bucket.flush_enabled = True
        flushed = self.bucket.flush_all()
        flushed.addErrback(lambda _: None)
        self.assertEqual(self.resume(scan)[0].specific, Status.RANGE_SCAN_CANCELLED)
        self.assertEqual(len(self.bucket.scans), 0)

    def test_moved_vbucket(self) -> None:
        """A vbucket that is no longer active here answers so, to all three commands."""
        scan = self.create().value
        self.bucket.set_topology(["replica"] * len(self.bucket.vbuckets))  # type: ignore[list-item]
        self.assertEqual(self.resume(scan)[0].specific, Status.NOT_MY_VBUCKET)
        self.assertEqual(self.create().specific, Status.NOT_MY_VBUCKET)
        self.assertEqual(self.ask(Opcode.RANGE_SCAN_CANCEL, extras=scan).specific, Status.NOT_MY_VBUCKET)

    def test_a_large_vbucket_takes_several_turns(self) -> None:
        """The snapshot of many documents is taken in pieces, one a turn of the reactor."""
        with patch.object(rangescan, "_PIECE", 2):
            body = json.dumps({**ANY, "key_only": True}).encode()
            answer = dispatch(self.session, self.frame(Opcode.RANGE_SCAN_CREATE, value=body, datatype=1))
            assert isinstance(answer, Deferred)
            self.assertNoResult(answer)
            for _ in range(len(KEYS)):
                self.clock.advance(0)
        (frame,) = self.decode(answer)
        self.assertEqual(keys_in(self.resume(frame.value)[0].value), KEYS[:-1])


def listed_in(value: bytes) -> list[bytes]:
    """Return the keys of an answer to GET_KEYS."""
    keys, at = [], 0
    while at < len(value):
        (size,) = unpack_from(">H", value, at)
        keys.append(value[at + 2 : at + 2 + size])
        at += 2 + size
    return keys


class ListCommand(CommandCase):
    """GET_KEYS."""

    def setUp(self) -> None:
        super().setUp()
        for key in KEYS:
            self.set(key, b"1")

    def listed(self, key: bytes, count: int | None = None) -> list[bytes]:
        """Return keys from that one on."""
        extras = b"" if count is None else pack(">I", count)
        return listed_in(self.ask(Opcode.GET_KEYS, key=key, extras=extras).value)

    def test_keys(self) -> None:
        """Keys come in order from the given one on, which need not exist, as many as wanted."""
        for key, count, wanted in (
            (b"\0", None, KEYS),
            (b"b", None, KEYS[1:]),
            (b"aa", 2, KEYS[1:3]),
            (b"\0", 2**32 - 1, KEYS),
            (b"a", 1, KEYS[:1]),
            (b"a", 0, []),
            (b"\xff\0", None, []),
        ):
            self.assertEqual(self.listed(key, count), wanted, (key, count))

    def test_default_count(self) -> None:
        """Without a number there are a thousand; documents that have expired do not count."""
        for number in range(1010):
            self.set(b"n%04d" % number, b"1", extras=pack(">II", 0, 10 if number < 5 else 0))
        self.clock.advance(12)
        found = self.listed(b"n")
        self.assertEqual(found, [b"n%04d" % number for number in range(5, 1005)])

    def test_collections(self) -> None:
        """With collections the prefix of the key says which, and the keys have it."""
        frame = self.ask(Opcode.HELLO, value=pack(">H", Feature.COLLECTIONS))
        self.assertEqual(frame.specific, 0)
        self.assertEqual(self.listed(b"\0c"), [b"\0c", b"\0\xff"])
        unknown = self.ask(Opcode.GET_KEYS, key=b"\x09a")
        self.assertEqual(unknown.specific, Status.UNKNOWN_COLLECTION)

    def test_errors(self) -> None:
        """A key is required, the number has four bytes, and the vbucket is active here."""
        self.assertStatus(Status.EINVAL, Opcode.GET_KEYS)
        self.assertStatus(Status.EINVAL, Opcode.GET_KEYS, key=b"a", extras=b"\0\0")
        self.assertStatus(Status.NOT_MY_VBUCKET, Opcode.GET_KEYS, key=b"a", vbucket=999)

    def test_many_documents(self) -> None:
        """A large vbucket is looked at in steps; the answer is the same."""
        with patch.object(rangescan, "_PIECE", 1):
            answer = dispatch(self.session, self.frame(Opcode.GET_KEYS, key=b"\0"))
            assert isinstance(answer, Deferred)
            self.assertNoResult(answer)
            for _ in range(len(KEYS)):
                self.clock.advance(0)
        (frame,) = self.decode(answer)
        self.assertEqual(listed_in(frame.value), KEYS)


class Served(ServedNode):
    """Over a socket."""

    @inlineCallbacks
    def test_all_vbuckets(self) -> Steps:
        """A client that scans every vbucket, by another connection for each page, gets each key once."""
        clients: list[Client] = []
        for _ in range(2):
            client = yield self.connect()
            clients.append(client)
            yield client.hello(Feature.XERROR, Feature.JSON)
        keys = [b"key-%d" % number for number in range(400)]
        for number, key in enumerate(keys):
            clients[0].send(Opcode.SETQ, key=key, value=b"v", extras=bytes(8), vbucket=number % 10)
        found: list[bytes] = []
        for vbucket in range(16):
            body = json.dumps({**ANY, "key_only": True}).encode()
            made = yield clients[0].ask(Opcode.RANGE_SCAN_CREATE, value=body, datatype=1, vbucket=vbucket)
            self.assertEqual(made.specific, 0 if vbucket < 10 else Status.KEY_ENOENT)
            status = Status.RANGE_SCAN_MORE if vbucket < 10 else Status.RANGE_SCAN_COMPLETE
            while status == Status.RANGE_SCAN_MORE:
                extras = made.value + pack(">III", 7, 1000, 0)
                page = yield clients[1].ask(Opcode.RANGE_SCAN_CONTINUE, extras=extras, vbucket=vbucket)
                found += keys_in(page.value)
                status = Status(page.specific)
            self.assertEqual(status, Status.RANGE_SCAN_COMPLETE)
        self.assertEqual(sorted(found), sorted(keys))
