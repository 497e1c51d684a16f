"""Range scans: the scanner against a model of servers that lose scans, are busy, and move vbuckets."""

import json
from base64 import b64decode, b64encode
from struct import Struct
from unittest import TestCase
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from couchbase.exceptions import (
    AuthError,
    CollectionNotFoundError,
    CouchbaseError,
    NotSupportedError,
    ProtocolError,
    TimeoutError,
)
from couchbase.protocol import keylist, rangescan
from couchbase.protocol.clustermap import ClusterMap, NodeAddress
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import Frame
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace
from couchbase.protocol.leb128 import encode_leb128
from couchbase.protocol.plans import Ask, Pause
from couchbase.protocol.rangescan import Scanner, Selection, keys_with
from couchbase.protocol.scanpages import split_attributes, unpack_documents, unpack_keys
from tests import tries

VBUCKETS = 24
HELLO, CREATE, CONTINUE, CANCEL = (
    int(each)
    for each in (Opcode.HELLO, Opcode.RANGE_SCAN_CREATE, Opcode.RANGE_SCAN_CONTINUE, Opcode.RANGE_SCAN_CANCEL)
)
_CONTINUE = Struct(">16sIII")
_ID_EXTRAS = Struct(">QI")


def answer(status, value=b"", extras=b""):
    return Frame(0x81, 0, int(status), 0, 0, 0, b"", extras, b"", value)


class Model:
    """Two nodes with one copy of each vbucket.

    :param keys: a dict of vbucket -> keys.
    :param mishaps: statuses that take the place of an answer, one after the other; -1 for no answer, 0 for no
        mishap.
    """

    def __init__(self, keys, mishaps=(), page=3):
        self.keys = {vbucket: sorted(found) for vbucket, found in keys.items()}
        self.mishaps = list(mishaps)
        self.page = page
        self.scans = {}
        self.json = set()
        self.now = 0.0
        self.refreshed = 0
        self.most_open = 0
        self.ids = {b"shop.books": 9}
        self.has_scans = self.has_lists = True
        self.gone = set()
        """Keys that are listed, and gone when they are read."""
        self.counts = []
        """Keys that were asked for at once."""
        self.items = []
        """The limits on rows, of the requests that went on with a scan."""
        self.created = []
        """For how many vbuckets at a time scans were created."""
        self.size = 0
        self.cas = 5
        self.writes = []
        """What is added to the CAS before each read."""
        rows = [[vbucket % 2, -1] for vbucket in range(VBUCKETS)]
        self.map = ClusterMap(nodes=[NodeAddress("a", 1), NodeAddress("b", 2)], rows=rows)

    def current_map(self):
        return self.map

    def refresh(self):
        self.refreshed += 1

    def hello(self, *more):
        return HELLO, {"value": list(more)}

    def run(self, plan):
        """Drive a plan."""
        value = None
        while True:
            try:
                step = plan.send(value)
            except StopIteration as done:
                return done.value
            if isinstance(step, Pause):
                self.now += step.seconds
                value = None
            else:
                assert isinstance(step, Ask)
                self.created.append(sum(opcode == CREATE for _, opcode, _ in step.questions))
                value = [self._answer(step, *question) for question in step.questions]

    def _answer(self, step, server, opcode, fields):
        if opcode == HELLO:
            self.json.add(server) if Feature.JSON in fields["value"] else self.json.discard(server)
            return answer(Status.SUCCESS)
        if opcode == Opcode.GET_COLLECTION_ID:
            number = self.ids.get(fields["value"])
            if number is None:
                return answer(Status.UNKNOWN_COLLECTION)
            return answer(Status.SUCCESS, extras=_ID_EXTRAS.pack(5, number))
        vbucket = fields["vbucket"]
        assert server == vbucket % 2
        mishap = self.mishaps.pop(0) if self.mishaps else 0
        if mishap:
            if mishap in (Status.RANGE_SCAN_CANCELLED, Status.KEY_ENOENT) and opcode != CONTINUE:
                mishap = Status.ETMPFAIL
            if opcode == CONTINUE:
                self.scans.pop(fields["extras"][:16], None)
            return None if mishap == -1 else answer(mishap)
        if opcode == CREATE and not self.has_scans:
            return answer(Status.UNKNOWN_COMMAND)
        if opcode in (Opcode.GET_KEYS, Opcode.GET, Opcode.GET_META):
            return self._of_key(vbucket, opcode, fields)
        if opcode == CREATE:
            assert server in self.json
            return self._create(vbucket, json.loads(fields["value"]))
        if opcode == CANCEL:
            return answer(Status.SUCCESS if self.scans.pop(fields["extras"], None) else Status.KEY_ENOENT)
        identifier, items, _, size = _CONTINUE.unpack(fields["extras"])
        assert (size, step.partial) == (rangescan.PAGE_BYTES, 0)
        self.items.append(items)
        found = self.scans.get(identifier)
        if found is None:
            return answer(Status.KEY_ENOENT)
        most = min(items, self.page) if items else self.page
        page, rest = found[:most], found[most:]
        self.scans[identifier] = rest
        content = b"".join(encode_leb128(len(key)) + key for key in page)
        if not rest:
            del self.scans[identifier]
        return answer(Status.RANGE_SCAN_MORE if rest else Status.RANGE_SCAN_COMPLETE, content)

    def _of_key(self, vbucket, opcode, fields):
        """Answer a request with a key; connections have collections."""
        assert not callable(fields["key"](b"\0"))
        lead = b"\0" if fields["key"].lead == b"\0" else b"\x09"
        assert fields["key"].lead == lead
        wire = fields["key"](b"\0")
        key = wire[1:]
        if opcode == Opcode.GET_KEYS:
            if not self.has_lists:
                return answer(Status.NOT_SUPPORTED)
            (count,) = Struct(">I").unpack(fields["extras"])
            assert 1 <= len(key) <= 250
            self.counts.append(count)
            found = [lead + each for each in self.keys.get(vbucket, ()) if each >= key][:count]
            return answer(Status.SUCCESS, b"".join(Struct(">H").pack(len(each)) + each for each in found))
        if key not in self.keys.get(vbucket, ()) or key in self.gone:
            return answer(Status.KEY_ENOENT)
        self.cas += self.writes.pop(0) if self.writes else 0
        if opcode == Opcode.GET:
            value = answer(Status.SUCCESS, b"v" * self.size + key, (7).to_bytes(4, "big"))
            return value._replace(cas=self.cas)
        return answer(Status.SUCCESS, extras=Struct(">IIIQ").pack(0, 7, 99, 1))._replace(cas=self.cas)

    def _create(self, vbucket, body):
        assert body["key_only"] is True
        start, end = (b64decode(body["range"][name]) for name in _ends(body["range"]))
        after, before = "excl_start" in body["range"], "excl_end" in body["range"]
        found = [
            key
            for key in self.keys.get(vbucket, ())
            if (start < key or (key == start and not after)) and (key < end or (key == end and not before))
        ]
        if not found:
            return answer(Status.KEY_ENOENT)
        identifier = len(self.scans).to_bytes(8, "big") + vbucket.to_bytes(8, "big")
        while identifier in self.scans:
            identifier = (int.from_bytes(identifier, "big") + 2**64).to_bytes(16, "big")
        self.scans[identifier] = found
        self.most_open = max(self.most_open, len(self.scans))
        return answer(Status.SUCCESS, identifier)

    def all(self, scanner, timeout=75):
        """Return all keys, with the position after each page."""
        found, positions = [], []
        while True:
            page = self.run(scanner.next_page(timeout))
            if page is None:
                return found, positions
            assert page.rows
            found += page.rows
            positions.append((len(found), page.position))


def _ends(members):
    return next(n for n in members if "start" in n), next(n for n in members if "end" in n)


BUSY = (Status.ETMPFAIL, Status.EBUSY, Status.NOT_MY_VBUCKET, Status.RANGE_SCAN_CANCELLED, Status.KEY_ENOENT)
KEYS = st.dictionaries(
    st.integers(0, VBUCKETS - 1),
    st.sets(st.binary(min_size=1, max_size=5), min_size=1, max_size=12),
    max_size=VBUCKETS,
)
MISHAPS = st.lists(st.sampled_from([0, 0, -1, *map(int, BUSY)]), max_size=60)


class ScannerTests(TestCase):
    """Everything once, in order, whatever happens on the way."""

    @settings(deadline=None)
    @given(KEYS, MISHAPS, st.integers(1, 5))
    def test_all_once(self, keys, mishaps, page):
        """All keys, each once, vbucket after vbucket; scans do not pile up."""
        model = Model(keys, mishaps, page)
        found, _ = model.all(Scanner(model, lambda: model.now, Selection(), keys_only=True))
        self.assertEqual(found, [key for vbucket in sorted(keys) for key in sorted(keys[vbucket])])
        self.assertLessEqual(model.most_open, rangescan.WINDOW)
        self.assertEqual(model.json, set())
        self.assertEqual(set(model.items) - {0}, set())

    @settings(deadline=None)
    @given(KEYS, MISHAPS, st.integers(1, 50), st.integers(1, 12))
    def test_few(self, keys, mishaps, rows, page):
        """If few rows are expected, the first ones come as they do otherwise, and at most one more of each
        vbucket."""
        model = Model(keys, mishaps, page)
        scanner = Scanner(model, lambda: model.now, Selection(), keys_only=True)
        found = []
        while len(found) < rows:
            scanner.expect(rows - len(found))
            part = model.run(scanner.next_page(75))
            if part is None:
                break
            found += part.rows
        everything = [key for vbucket in sorted(keys) for key in sorted(keys[vbucket])]
        self.assertEqual(found[:rows], everything[:rows])
        self.assertLessEqual(max(model.items, default=0), rows + 1)
        model.run(scanner.cancel())
        if not any(mishaps):
            self.assertEqual(model.scans, {})

    def test_few_vbuckets(self):
        """Only as many vbuckets are scanned as are needed: few at first, then more with every round."""
        keys = {vbucket: {b"%d-%02d" % (vbucket, n) for n in range(20)} for vbucket in range(VBUCKETS)}
        dense = Model(keys)
        scanner = Scanner(dense, lambda: 0.0, Selection(), keys_only=True)
        scanner.expect(2)
        self.assertEqual(dense.run(scanner.next_page(75)).rows, [b"0-00", b"0-01", b"0-02"])
        self.assertEqual([count for count in dense.created if count], [1])
        sparse = Model({VBUCKETS - 1: {b"k"}})
        scanner = Scanner(sparse, lambda: 0.0, Selection(), keys_only=True)
        scanner.expect(10)
        self.assertEqual(list(sparse.run(scanner.next_page(75)).rows), [b"k"])
        self.assertEqual([count for count in sparse.created if count], [1, 4, 16, 3])

    def test_as_many_vbuckets_as_needed(self):
        """After the first rows, as many more vbuckets as probably have the rest."""
        keys = {vbucket: {b"%d-%d" % (vbucket, n) for n in range(4)} for vbucket in range(VBUCKETS)}
        model = Model(keys, page=9)
        scanner = Scanner(model, lambda: 0.0, Selection(), keys_only=True)
        for left in (10, 6, 2):
            scanner.expect(left)
            self.assertEqual(len(model.run(scanner.next_page(75)).rows), 4)
        self.assertEqual([count for count in model.created if count], [1, 2])

    def test_bodies(self):
        """The JSON that creates a scan."""
        books = Keyspace("shop", "books")
        books.learn(0x1F, 5)
        for selection, options, expected in (
            (Selection(), {}, {"range": {"start": "", "end": b64encode(b"\xff" * 250).decode()}}),
            (
                Selection(b"a\xff", b"b", True, True),
                {"keys_only": True, "keyspace": books},
                {"collection": "1f", "key_only": True, "range": {"excl_start": "Yf8=", "excl_end": "Yg=="}},
            ),
            (
                Selection(samples=3, seed=4),
                {"with_attributes": True},
                {"include_xattrs": True, "sampling": {"samples": 3, "seed": 4}},
            ),
        ):
            scanner = Scanner(Model({}), lambda: 0.0, selection, **options)
            body = scanner._body(rangescan._Vbucket(0, None))
            self.assertEqual(body, json.dumps(expected).encode())
        scanner = Scanner(Model({}), lambda: 0.0, Selection(b"a"), keys_only=True)
        self.assertEqual(
            json.loads(scanner._body(rangescan._Vbucket(0, b"c")))["range"]["excl_start"], "Yw=="
        )

    @settings(deadline=None)
    @given(KEYS, st.integers(1, 5))
    def test_positions(self, keys, page):
        """A scan from any position has the rest, and nothing else."""
        model = Model(keys, page=page)
        found, positions = model.all(Scanner(model, lambda: 0.0, Selection(), keys_only=True))
        for count, position in positions:
            if position is not None:
                again = Scanner(model, lambda: 0.0, Selection(), keys_only=True, position=position)
                self.assertEqual(model.all(again)[0], found[count:])

    @settings(deadline=None)
    @given(KEYS, st.binary(max_size=3), st.binary(max_size=3), st.booleans(), st.booleans())
    def test_ranges(self, keys, start, end, after, before):
        """The bounds of a range are kept; an empty one asks nobody."""
        model = Model(keys)
        selection = Selection(start, end, after, before)
        found, _ = model.all(Scanner(model, lambda: 0.0, selection, keys_only=True))
        wanted = [
            key
            for vbucket in sorted(keys)
            for key in sorted(keys[vbucket])
            if (key > start or (key == start and not after)) and (key < end or (key == end and not before))
        ]
        self.assertEqual(found, wanted)

    @settings(deadline=None)
    @given(st.sets(st.binary(min_size=1, max_size=4)), st.binary(max_size=3))
    def test_prefixes(self, keys, prefix):
        """A prefix selects the keys that begin with it, also one of bytes 0xff."""
        model = Model({3: keys})
        found, _ = model.all(Scanner(model, lambda: 0.0, keys_with(prefix), keys_only=True))
        self.assertEqual(found, sorted(key for key in keys if key.startswith(prefix)))

    def scan(self, *mishaps, keyspace=DEFAULT_KEYSPACE, timeout=1.0):
        model = Model({0: {b"a"}}, mishaps)
        scanner = Scanner(model, lambda: model.now, Selection(), keys_only=True, keyspace=keyspace)
        return model.all(scanner, timeout)[0], model

    def test_refusals(self):
        """A status that will not change ends the scan with its exception."""
        for status, kind in (
            (Status.EACCESS, AuthError),
            (Status.EINTERNAL, CouchbaseError),
        ):
            with self.assertRaises(kind) as caught:
                self.scan(status)
            self.assertEqual(caught.exception.operation, "scan")

    def test_timeout(self):
        """A server that stays busy fails the page in time, and the map is asked for meanwhile."""
        with self.assertRaises(TimeoutError):
            self.scan(*[Status.EBUSY] * 10_000)
        with self.assertRaises(TimeoutError):
            self.scan(*[-1] * 10_000)
        model = self.scan(*[Status.NOT_MY_VBUCKET] * VBUCKETS)[1]
        self.assertGreater(model.refreshed, 0)

    def test_collections(self):
        """The id is asked for, also again, and a collection that is not there is an error."""
        books = Keyspace("shop", "books")
        self.assertEqual(self.scan(keyspace=books)[0], [b"a"])
        self.assertEqual(books.prefix, b"\x09")
        self.assertEqual(self.scan(Status.UNKNOWN_COLLECTION, keyspace=books)[0], [b"a"])
        with self.assertRaises(CollectionNotFoundError):
            self.scan(keyspace=Keyspace("shop", "none"))

    def test_cancel(self):
        """The servers are notified, and nothing follows."""
        model = Model({vbucket: {b"%d" % n for n in range(9)} for vbucket in range(VBUCKETS)})
        scanner = Scanner(model, lambda: 0.0, Selection(), keys_only=True)
        model.run(scanner.next_page(1))
        self.assertTrue(model.scans)
        model.run(scanner.cancel())
        self.assertEqual(model.scans, {})
        self.assertIsNone(model.run(scanner.next_page(1)))

    def test_cancel_during_a_page(self):
        """Scans that are created, or continued, while the scan is ended are ended as well."""
        for steps in (1, 2):
            model = Model({vbucket: {b"%d" % n for n in range(9)} for vbucket in range(VBUCKETS)})
            scanner = Scanner(model, lambda: 0.0, Selection(), keys_only=True)
            page = scanner.next_page(1)
            answers = None
            for _ in range(steps):
                step = page.send(answers)
                answers = [model._answer(step, *question) for question in step.questions]
            model.run(scanner.cancel())

            def rest(page=page, answers=answers):
                try:
                    while True:
                        answers = yield page.send(answers)
                except StopIteration as done:
                    return done.value

            outcome = model.run(rest())
            self.assertEqual((model.scans, outcome), ({}, None), steps)

    def test_given_up(self):
        """A page that ends early: what servers began for it is undone, and the next pages have all rows."""
        for pages, steps in ((0, 1), (0, 2), (1, 1)):
            model = Model({vbucket: {b"%d" % n for n in range(9)} for vbucket in range(VBUCKETS)})
            scanner = Scanner(model, lambda: 0.0, Selection(), keys_only=True)
            found, answers = [], None
            for _ in range(pages):
                found += model.run(scanner.next_page(1)).rows
            page = scanner.next_page(1)
            for _ in range(steps):
                step = page.send(answers)
                answers = [model._answer(step, *question) for question in step.questions]
            page.close()
            undone = [step.undo(step.questions[number][2], given) for number, given in enumerate(answers)]
            for opcode, fields in filter(None, undone):
                model._answer(step, fields["vbucket"] % 2, opcode, fields)
            self.assertTrue(any(undone))
            self.assertEqual(bool(model.scans), bool(pages))
            model.run(scanner.pause())
            self.assertEqual(model.scans, {})
            while (page := model.run(scanner.next_page(1))) is not None:
                found += page.rows
            self.assertEqual(len(found), 9 * VBUCKETS, (pages, steps))

    def test_another_bucket(self):
        """A bucket with another number of vbuckets is another bucket."""
        model = Model({vbucket: {b"a", b"b"} for vbucket in range(VBUCKETS)}, page=1)
        scanner = Scanner(model, lambda: 0.0, Selection(), keys_only=True)
        model.run(scanner.next_page(1))
        model.map = ClusterMap(nodes=model.map.nodes, rows=model.map.rows[:3])
        with self.assertRaises(CouchbaseError):
            model.all(scanner)

    def test_malformed_pages(self):
        """A page that ends inside an entry breaks the protocol."""

        class Malformed(Model):
            def _answer(self, step, server, opcode, fields):
                if opcode == CONTINUE:
                    return answer(Status.RANGE_SCAN_COMPLETE, b"\x05ab")
                return super()._answer(step, server, opcode, fields)

        model = Malformed({0: {b"a"}})
        with self.assertRaises(ProtocolError):
            model.all(Scanner(model, lambda: 0.0, Selection(), keys_only=True))


OF_ANY_LENGTH = st.binary(min_size=1, max_size=4) | st.sampled_from([b"k" * 250, b"k" * 249 + b"l", b"\0"])


class ListTests(TestCase):
    """Servers without range scans, which list keys."""

    def model(self, keys, *mishaps):
        model = Model(keys, mishaps)
        model.has_scans = False
        return model

    def scanner(self, model, selection=None, **more):
        return Scanner(model, lambda: model.now, selection or Selection(), **more)

    @settings(max_examples=tries(60), deadline=None)
    @given(
        st.dictionaries(st.integers(0, VBUCKETS - 1), st.sets(OF_ANY_LENGTH, max_size=9), max_size=4),
        st.none() | OF_ANY_LENGTH,
        st.none() | OF_ANY_LENGTH,
        st.booleans(),
        st.booleans(),
        st.lists(st.sampled_from([0, 0, -1, Status.ETMPFAIL, Status.NOT_MY_VBUCKET]), max_size=20),
        st.booleans(),
        st.sampled_from([DEFAULT_KEYSPACE, Keyspace("shop", "books")]),
    )
    def test_any_range(self, keys, start, end, after, before, mishaps, keys_only, keyspace):
        """The same keys in the same order as from a range scan, each once, whatever answers are missing."""
        selection = Selection(start, end, after and start is not None, before and end is not None)
        model = self.model(keys, *mishaps)
        with patch.multiple(keylist, KEYS_AT_ONCE=2, FIRST_AT_ONCE=2, MOST_AT_ONCE=3):
            found, _ = model.all(self.scanner(model, selection, keys_only=keys_only, keyspace=keyspace))
        if not keys_only:
            self.assertTrue(all((row.flags, row.expiry, row.cas) == (7, 99, 5) for row in found))
            self.assertTrue(all(row.value == row.key for row in found))
            found = [row.key for row in found]
        expected = Model(keys)
        self.assertEqual(found, expected.all(self.scanner(expected, selection, keys_only=True))[0])

    def test_changes(self):
        """A document that is gone when it is read is left out, with others after it; one that changes
        between the two questions is read again."""
        model = self.model({3: {b"%02d" % n for n in range(40)}})
        model.gone = {b"%02d" % n for n in range(30)}
        model.writes = [0, 1, 1, 0]
        found, _ = model.all(self.scanner(model))
        self.assertEqual([row.key for row in found], [b"%02d" % n for n in range(30, 40)])
        self.assertLessEqual({row.cas for row in found}, {5, 6, 7})

    def test_large_documents(self):
        """Fewer documents are read at once while they are large, more while they are small."""
        model = self.model({3: {b"%03d" % n for n in range(300)}})
        model.all(self.scanner(model))
        self.assertEqual(max(model.counts), keylist.MOST_AT_ONCE + 1)
        model.counts.clear()
        model.size = 2**20
        model.all(self.scanner(model))
        self.assertEqual(min(model.counts), 2)

    def test_refusals(self):
        """A server that has neither is refused in words, and so are samples, which lists do not have."""
        model = self.model({0: {b"a"}})
        with self.assertRaises(NotSupportedError):
            model.all(self.scanner(model, Selection(samples=3)))
        model.has_lists = False
        with self.assertRaises(NotSupportedError) as caught:
            model.all(self.scanner(model, keys_only=True))
        self.assertIn("neither range scans nor lists of keys", str(caught.exception))

    def test_malformed(self):
        """A list that is cut off, or has another collection's key, is no list."""
        for content in (b"\0", b"\0\3\0a", b"\0\2\x01a"):
            with self.assertRaises(ValueError):
                keylist.unpack_key_list(content, b"\0")
        self.assertEqual(keylist.unpack_key_list(b"\0\2\0a\0\1\0", b"\0"), [b"a", b""])


NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)


class UnpackTests(TestCase):
    """Entries of pages."""

    @given(st.dictionaries(NAMES, st.integers()), st.binary())
    def test_attributes(self, attributes, body):
        """Attributes and body are told apart; a cut in the attributes is noticed."""
        pairs = [name.encode() + b"\0%d\0" % value for name, value in attributes.items()]
        section = b"".join(len(pair).to_bytes(4, "big") + pair for pair in pairs)
        text, rest = split_attributes(len(section).to_bytes(4, "big") + section + body)
        self.assertEqual((json.loads(text), rest), (attributes, body))
        if section:
            self.assertRaises(ValueError, split_attributes, len(section).to_bytes(4, "big") + section[:-1])
            self.assertRaises(ValueError, split_attributes, (len(section) - 1).to_bytes(4, "big") + section)
        self.assertRaises(ValueError, split_attributes, b"\0\0\0")

    @given(st.lists(st.binary(min_size=1, max_size=250)))
    def test_keys(self, keys):
        """Keys of any length come back; a cut is noticed."""
        content = b"".join(encode_leb128(len(key)) + key for key in keys)
        self.assertEqual(unpack_keys(content), keys)
        if content:
            self.assertRaises(ValueError, unpack_keys, content[:-1])

    def test_lengths_of_values(self):
        """Each number of bytes of a length is read; a longer form than necessary is refused."""
        head = Struct(">IIQQB").pack(0, 0, 1, 1, 0) + b"\x01k"
        for size in (0, 1, 127, 128, 129, 16383, 16384, 16385, 2**21):
            content = head + encode_leb128(size) + b"x" * size
            (document,) = unpack_documents(content)
            self.assertEqual(len(document.value), size)
        for wrong in (b"\x80\x00", b"\x81\x00x", b"\x80\x80\x00", b"\x80", b""):
            self.assertRaises(ValueError, unpack_documents, head + wrong)

    @given(
        st.lists(
            st.tuples(
                st.binary(min_size=1, max_size=250), st.binary(max_size=300), *[st.integers(0, 2**32 - 1)] * 2
            )
        ),
        st.data(),
    )
    def test_documents(self, documents, data):
        """Documents come back with their members; a cut at any place is noticed, or ends between two."""
        packed = [
            Struct(">IIQQB").pack(flags, expiry, 1, flags * 7, 1)
            + encode_leb128(len(key))
            + key
            + encode_leb128(len(value))
            + value
            for key, value, flags, expiry in documents
        ]
        content = b"".join(packed)
        self.assertEqual([(d.key, d.value, d.flags, d.expiry) for d in unpack_documents(content)], documents)
        cut = data.draw(st.integers(0, len(content)))
        ends = {len(b"".join(packed[:count])) for count in range(len(packed) + 1)}
        if cut not in ends:
            self.assertRaises(ValueError, unpack_documents, content[:cut])
