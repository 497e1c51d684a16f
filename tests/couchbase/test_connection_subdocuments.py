"""Parts of documents on a blocking connection, against a node."""

import couchbase.subdocument as SD
from couchbase import FMT_BYTES
from couchbase.exceptions import (
    ArgumentError,
    CouchbaseError,
    CouchbaseInputError,
    DocumentNotJsonError,
    KeyExistsError,
    NotFoundError,
    SubdocBadDeltaError,
    SubdocCantInsertValueError,
    SubdocEmptyPathError,
    SubdocPathExistsError,
    SubdocPathInvalidError,
    SubdocPathMismatchError,
    SubdocPathNotFoundError,
    SubdocPathTooBigError,
    SubdocXattrError,
    ValueFormatError,
)
from couchbase.protocol.pathresults import SubdocResult
from couchbase.subdocument import StoreSemantics
from tests.couchbase.support import ConnectionTestCase

BEER = {"name": "Schlenkerla", "abv": 5.1, "tags": ["smoke", "red"], "brewery": {"city": "Bamberg"}}


class LookupTests(ConnectionTestCase):
    """Reading."""

    def setUp(self):
        super().setUp()
        self.cas = self.cb.set(self.key(), BEER).cas

    def test_values(self):
        """Each kind of spec, in one request; the CAS is the document's."""
        specs = (
            SD.get("name"),
            SD.get("tags[-1]"),
            SD.exists("brewery.city"),
            SD.exists("x"),
            SD.count("tags"),
        )
        found = self.cb.lookup_in(self.key(), *specs)
        self.assertIs(type(found), SubdocResult)
        self.assertEqual(list(found), ["Schlenkerla", "red", True, False, 2])
        self.assertEqual((found.cas, found.key, found.success), (self.cas, self.key(), True))
        self.assertEqual(
            (found.exists(3), found.exists("name"), found.content_as[str](0)), (False, True, "Schlenkerla")
        )
        self.assertEqual(list(self.cb.lookup_in(self.key(), list(specs))), list(found))
        self.assertIs(SD.get_count, SD.count)

    def test_whole(self):
        """The empty path is the whole document."""
        found = self.cb.lookup_in(self.key(), SD.get(""), SD.get_full(), SD.count(""))
        self.assertEqual(list(found), [BEER, BEER, 4])

    def test_failed_paths(self):
        """Failures belong to their paths."""
        found = self.cb.lookup_in(self.key(), SD.get("x"), SD.get("name.x"), SD.get("tags["), SD.get("abv"))
        self.assertEqual((found.get(0, "none"), found[3]), ("none", 5.1))
        for which, kind in enumerate(
            (SubdocPathNotFoundError, SubdocPathMismatchError, SubdocPathInvalidError)
        ):
            with self.assertRaises(kind) as caught:
                found[which]
            self.assertEqual(caught.exception.key, self.key())
        self.assertRaises(ValueFormatError, found.content_as[str], 3)

    def test_names(self):
        """Names with dots, brackets, quotes and backticks are escaped."""
        for name in ("a.b", "a[0]", "a`b", "``", 'a"b', "a\\b", "\u00e9.\u20ac"):
            self.cb.set(self.key(), {name: {"in": 1}})
            self.assertEqual(self.cb.lookup_in(self.key(), SD.get(SD.escape(name) + ".in"))[0], 1, name)
        self.assertRaises(SubdocPathInvalidError, SD.escape, "")

    def test_missing(self):
        """A missing document is an error, or a result whose paths are."""
        self.assertRaises(NotFoundError, self.cb.lookup_in, self.missing(), SD.get("a"))
        found = self.cb.lookup_in(self.missing(), SD.get("a"), quiet=True)
        self.assertFalse(found.success)
        self.assertRaises(NotFoundError, found.exists, 0)

    def test_no_json(self):
        """A document of bytes has no paths."""
        self.cb.set(self.key(), b"\x00", format=FMT_BYTES)
        found = self.cb.lookup_in(self.key(), SD.get("a"), SD.exists("a"))
        self.assertRaises(DocumentNotJsonError, found.exists, 1)
        self.assertRaises(DocumentNotJsonError, lambda: found["a"])

    def test_multi(self):
        """Common specs, and specs by key."""
        self.cb.set(self.key("2"), {"name": "Spezial"})
        found = self.cb.lookup_in_multi([self.key(), self.key("2")], SD.get("name"), SD.exists("abv"))
        self.assertEqual(list(found[self.key()]), ["Schlenkerla", True])
        self.assertEqual(list(found[self.key("2")]), ["Spezial", False])
        self.assertTrue(found.all_ok)
        found = self.cb.lookup_in_multi(
            {self.key(): SD.get("abv"), self.key("2"): [SD.get("name"), SD.count("")]}
        )
        self.assertEqual([list(found[self.key(name)]) for name in ("key", "2")], [[5.1], ["Spezial", 1]])
        found = self.cb.lookup_in_multi([self.key(), self.missing()], SD.get("name"), quiet=True)
        self.assertEqual((found[self.key()][0], found[self.missing()].success), ("Schlenkerla", False))

    def test_wrong_arguments(self):
        """Refused before anything is sent, each by name."""
        key = self.key()
        for specs in ((), ([],), [SD.get("a")] * 17, (SD.upsert("a", 1),), ("a",), (SD.get("a"), "b")):
            self.assertRaises(ArgumentError, self.cb.lookup_in, key, *specs)
        self.assertRaises(ArgumentError, self.cb.lookup_in_multi, {key: SD.get("a")}, SD.get("b"))
        self.assertRaises(ArgumentError, self.cb.lookup_in_multi, {key: {"specs": SD.get("a"), "cas": 1}})
        self.assertRaises(ArgumentError, self.cb.lookup_in_multi, [], SD.get("b"))
        self.assertRaises(ArgumentError, SD.get, 5)
        self.assertRaises(SubdocPathTooBigError, SD.get, "x" * 1025)
        for empty in (SD.exists, lambda path: SD.get(path, xattr=True), lambda path: SD.insert(path, 1)):
            self.assertRaises(SubdocEmptyPathError, empty, "")
        self.assertEqual(len(self.cb.lookup_in(key, [SD.get("x" * 1024)] * 16)), 16)


class MutationTests(ConnectionTestCase):
    """Changing."""

    def setUp(self):
        super().setUp()
        self.cas = self.cb.set(self.key(), BEER).cas

    def body(self):
        """Return the document."""
        return self.cb.get(self.key()).value

    def test_values(self):
        """Each kind of spec; the result has the counters' numbers and the new CAS."""
        done = self.cb.mutate_in(
            self.key(),
            SD.upsert("name", "Spezial"),
            SD.insert("new", {"a": None}),
            SD.replace("tags[0]", "pale"),
            SD.array_append("tags", 1, [2]),
            SD.array_prepend("tags", "first"),
            SD.array_insert("tags[1]", "second"),
            SD.array_addunique("list", 5, create_parents=True),
            SD.counter("count", 5),
            SD.decrement("count", 2),
            SD.increment("abc.d.e", 3, create_parents=True),
            SD.remove("abv"),
        )
        self.assertEqual([done[7], done["count"], done[8], done[9], done[0]], [5, 5, 3, 3, None])
        body = self.body()
        self.assertEqual(body["tags"], ["first", "second", "pale", "red", 1, [2]])
        self.assertEqual((body["name"], body["new"], body["count"]), ("Spezial", {"a": None}, 3))
        self.assertEqual((body["abc"], body["list"], "abv" in body), ({"d": {"e": 3}}, [5], False))
        self.assertEqual(done.cas, self.cb.get(self.key()).cas)
        self.assertIsNotNone(done.mutation_token)

    def test_whole(self):
        """The empty path is the document."""
        self.cb.mutate_in(self.key(), SD.replace("", {"a": 1}))
        self.assertEqual(self.body(), {"a": 1})
        self.cb.mutate_in(self.key(), SD.upsert_full([1]), SD.array_append("", 2))
        self.assertEqual(self.body(), [1, 2])
        self.cb.mutate_in(self.key(), SD.remove(""))
        self.assertRaises(NotFoundError, self.cb.get, self.key())

    def test_all_or_nothing(self):
        """The first failure names its path, and nothing is changed."""
        for failing, kind in (
            (SD.insert("name", 1), SubdocPathExistsError),
            (SD.upsert("x.y", 1), SubdocPathNotFoundError),
            (SD.replace("nothing", 1), SubdocPathNotFoundError),
            (SD.counter("name", 1), SubdocPathMismatchError),
            (SD.array_addunique("tags", [1]), SubdocCantInsertValueError),
            (SD.array_insert("tags[-1]", 1), SubdocPathInvalidError),
        ):
            with self.assertRaises(kind) as caught:
                self.cb.mutate_in(self.key(), SD.upsert("abv", 9), failing)
            error = caught.exception
            self.assertEqual((error.path_index, error.path), (1, failing.path.decode()))
            self.assertIsInstance(error.result, SubdocResult)
            self.assertEqual((self.body(), self.cb.get(self.key()).cas), (BEER, self.cas))

    def test_store_semantics(self):
        """The required states of the document."""
        change = SD.upsert("a.b", 1)
        self.assertRaises(NotFoundError, self.cb.mutate_in, self.missing(), change)
        insert, upsert = StoreSemantics.INSERT, StoreSemantics.UPSERT
        self.assertRaises(KeyExistsError, self.cb.mutate_in, self.key(), change, store_semantics=insert)
        self.cb.mutate_in(self.key("2"), change, store_semantics=insert)
        self.cb.mutate_in(self.key("3"), change, store_semantics=upsert)
        self.cb.mutate_in(self.key("3"), SD.upsert("c", 2), store_semantics=upsert)
        self.assertEqual(self.cb.get(self.key("2")).value, {"a": {"b": 1}})
        self.assertEqual(self.cb.get(self.key("3")).value, {"a": {"b": 1}, "c": 2})

    def test_cas(self):
        """A version, if one is given."""
        done = self.cb.mutate_in(self.key(), SD.upsert("a", 1), cas=self.cas)
        self.assertRaises(KeyExistsError, self.cb.mutate_in, self.key(), SD.upsert("a", 2), cas=self.cas)
        self.cb.mutate_in(self.key(), SD.upsert("a", 3), cas=done.cas)

    def test_expiry(self):
        """Removed by default, kept or set on demand."""

        def expiry():
            return self.cb.get_with_expiry(self.key()).expiry

        far = 4000000000
        self.cb.touch(self.key(), ttl=far)
        self.cb.mutate_in(self.key(), SD.upsert("a", 1), preserve_expiry=True)
        self.assertEqual(expiry(), far)
        self.cb.mutate_in(self.key(), SD.upsert("a", 2))
        self.assertEqual(expiry(), 0)
        self.cb.mutate_in(self.key(), SD.upsert("a", 3), ttl=far)
        self.assertEqual(expiry(), far)

    def test_durability(self):
        """Levels, and copies on disk, as of other mutations."""
        self.cb.mutate_in(self.key(), SD.upsert("a", 1), durability_level=1)
        with self.assertRaises(ArgumentError):
            self.cb.mutate_in(self.key(), SD.upsert("a", 1), durability_level=4)
        with self.assertRaises(ArgumentError):
            self.cb.mutate_in(self.key(), SD.upsert("a", 1), replicate_to=3)

    def test_multi(self):
        """Common specs, and specs with options by key; a failure leaves the others."""
        self.cb.set(self.key("2"), {})
        keys = [self.key(), self.key("2")]
        done = self.cb.mutate_in_multi(keys, SD.upsert("a", 1))
        self.assertTrue(done.all_ok)
        self.assertEqual([self.cb.get(key).value["a"] for key in keys], [1, 1])
        cas = done[self.key()].cas
        done = self.cb.mutate_in_multi(
            {
                self.key(): {"specs": SD.counter("n", 2), "cas": cas, "preserve_expiry": True},
                self.key("2"): [SD.remove("a"), SD.upsert("b", 2)],
            }
        )
        self.assertEqual((done[self.key()]["n"], self.cb.get(self.key("2")).value), (2, {"b": 2}))
        with self.assertRaises(SubdocPathNotFoundError) as caught:
            self.cb.mutate_in_multi(keys, SD.remove("n"))
        results = caught.exception.all_results
        self.assertEqual((results[self.key()].success, results[self.key("2")].success), (True, False))
        self.cb.mutate_in_multi([self.key("3")], SD.upsert("a", 1), store_semantics=StoreSemantics.UPSERT)
        self.assertEqual(self.cb.get(self.key("3")).value, {"a": 1})

    def test_wrong_arguments(self):
        """Refused before anything is sent, each by name."""
        key, change = self.key(), SD.upsert("a", 1)
        for specs in ((), [change] * 17, (SD.get("a"),), ("a",)):
            self.assertRaises(ArgumentError, self.cb.mutate_in, key, *specs)
        upsert, insert = StoreSemantics.UPSERT, StoreSemantics.INSERT
        for options in (
            {"cas": 1, "store_semantics": upsert},
            {"cas": 1, "store_semantics": insert},
            {"preserve_expiry": True, "store_semantics": insert},
            {"preserve_expiry": True, "ttl": 5},
        ):
            self.assertRaises(CouchbaseInputError, self.cb.mutate_in, key, change, **options)
        for options in (
            {"store_semantics": 7},
            {"revive": True},
            {"revive": True, "access_deleted": True, "create_as_deleted": True},
            {"ttl": -1},
            {"cas": "1"},
        ):
            self.assertRaises(ArgumentError, self.cb.mutate_in, key, change, **options)
        with self.assertRaises(CouchbaseError):
            self.cb.mutate_in(key, SD.remove(""), persist_to=1)
        for delta in (0, 1.0, True, 2**63, "1"):
            self.assertRaises(SubdocBadDeltaError, SD.counter, "a", delta)
        self.assertRaises(SubdocBadDeltaError, SD.increment, "a", -1)
        self.assertRaises(SubdocBadDeltaError, SD.decrement, "a", 0)
        self.assertRaises(ArgumentError, SD.array_append, "a")
        self.assertRaises(ArgumentError, SD.array_append, "a", SD.MutationMacro.CAS, 1)
        self.assertRaises(ValueFormatError, SD.upsert, "a", object())
        self.assertRaises(ArgumentError, self.cb.mutate_in_multi, {key: {"cas": 1}})
        self.assertEqual(self.body(), BEER)


class AttributeTests(ConnectionTestCase):
    """Extended attributes, virtual ones, deleted documents."""

    def setUp(self):
        super().setUp()
        self.cas = self.cb.set(self.key(), BEER).cas

    def test_beside_the_body(self):
        """Attributes are stored beside the body; plain writes keep them."""
        done = self.cb.mutate_in(
            self.key(),
            SD.upsert("abv", 5.2),
            SD.upsert("audit.by", "ada", xattr=True, create_parents=True),
            SD.counter("audit.times", 2, xattr=True),
        )
        self.assertEqual([done[0], done[1], done[2]], [None, None, 2])
        self.cb.set(self.key(), {"abv": 6})
        found = self.cb.lookup_in(
            self.key(), SD.get("abv"), SD.get("audit", xattr=True), SD.exists("nothing", xattr=True)
        )
        self.assertEqual(list(found), [6, {"by": "ada", "times": 2}, False])
        self.assertEqual(self.body(), {"abv": 6})

    def body(self):
        """Return the document."""
        return self.cb.get(self.key()).value

    def test_binary(self):
        """Attributes of any bytes come back as bytes; a value of another kind is not taken for one."""
        value = bytes(range(256))
        self.cb.mutate_in(
            self.key(),
            SD.upsert("b.one", value, binary=True, create_parents=True),
            SD.insert("b.two", bytearray(b""), binary=True),
            SD.upsert("text", "plain", xattr=True),
        )
        self.cb.mutate_in(self.key(), SD.replace("b.two", memoryview(b"2"), binary=True))
        found = self.cb.lookup_in(
            self.key(),
            SD.get("abv"),
            SD.get("b.one", binary=True),
            SD.get("b.two", binary=True),
            SD.get("text", binary=True),
            SD.get("none", binary=True),
        )
        self.assertEqual((found[0], found[1], found[2]), (5.1, value, b"2"))
        self.assertEqual(found.content_as[bytes](1), value)
        self.assertRaises(ValueFormatError, found.__getitem__, 3)
        self.assertRaises(SubdocPathNotFoundError, found.__getitem__, 4)
        self.assertIsNone(found.get(4))
        (held,) = self.cb.lookup_in(self.key(), SD.get("b.two", xattr=True))
        self.assertEqual(held, "cb-content-base64-encoded:Mg==")
        for wrong in ("text", None, 5):
            self.assertRaises(ArgumentError, SD.upsert, "b", wrong, binary=True)
        self.assertRaises(CouchbaseInputError, SD.get, "", binary=True)

    def test_flags(self):
        """A lookup of the document's flags tells them."""
        self.cb.set(self.key(), b"raw", format=FMT_BYTES)
        found = self.cb.lookup_in(self.key(), SD.get(SD.LookupInMacro.flags(), xattr=True))
        self.assertEqual((found.flags, found[0]), (FMT_BYTES, FMT_BYTES))

    def test_failed_attribute(self):
        """The failure names the caller's spec, although attributes are sent first."""
        with self.assertRaises(SubdocPathExistsError) as caught:
            self.cb.mutate_in(
                self.key(), SD.upsert("abv", 1), SD.upsert("x", 1, xattr=True), SD.insert("abv", 2)
            )
        self.assertEqual((caught.exception.path_index, caught.exception.path), (2, "abv"))
        with self.assertRaises(SubdocPathNotFoundError) as caught:
            self.cb.mutate_in(self.key(), SD.upsert("abv", 1), SD.replace("x", 1, xattr=True))
        self.assertEqual((caught.exception.path_index, caught.exception.path), (1, "x"))
        self.assertEqual(self.body(), BEER)

    def test_virtual(self):
        """Virtual attributes: the server's information about a document."""
        self.cb.touch(self.key(), ttl=4000000000)
        found = self.cb.lookup_in(
            self.key(),
            SD.with_expiry(),
            SD.get(SD.LookupInMacro.document(), xattr=True),
            SD.get("$document.flags", xattr=True),
            SD.get("$nothing", xattr=True),
        )
        self.assertEqual((found[0], found[1]["exptime"]), (4000000000, 4000000000))
        self.assertEqual((found.flags, found[2]), (self.cb.get(self.key()).flags,) * 2)
        self.assertRaises(SubdocXattrError, lambda: found[3])
        with self.assertRaises(SubdocXattrError):
            self.cb.mutate_in(self.key(), SD.upsert("$document.flags", 1, xattr=True))

    def test_macros(self):
        """The server fills them in."""
        done = self.cb.mutate_in(
            self.key(),
            SD.upsert("m.cas", SD.MutationMacro.CAS, create_parents=True),
            SD.upsert("m.seqno", SD.MutationMacro.seq_no()),
            SD.upsert("m.crc", SD.MutationMacro.VALUE_CRC32C),
        )
        found = self.cb.lookup_in(self.key(), SD.get("m", xattr=True))[0]
        self.assertEqual(found["cas"], "0x" + done.cas.to_bytes(8, "little").hex())
        self.assertEqual(int(found["seqno"], 16), done.mutation_token.seqno)
        self.assertRegex(found["crc"], r"^0x[0-9a-f]{8}$")

    def test_body_from_attribute(self):
        """An attribute becomes the body."""
        self.cb.mutate_in(self.key(), SD.upsert("staged", {"a": 1}, xattr=True))
        self.cb.mutate_in(self.key(), SD.replace_body_with_xattr("staged"), SD.remove("staged", xattr=True))
        self.assertEqual(self.body(), {"a": 1})

    def test_deleted(self):
        """A document that is created as deleted, seen on demand only, and brought back."""
        key, staged = self.key("staged"), SD.upsert("_staged", {"a": 1}, xattr=True)
        hidden = {"access_deleted": True, "create_as_deleted": True}
        done = self.cb.mutate_in(key, staged, store_semantics=StoreSemantics.INSERT, **hidden)
        self.assertTrue(done.is_deleted)
        self.assertRaises(NotFoundError, self.cb.get, key)
        self.assertRaises(NotFoundError, self.cb.lookup_in, key, SD.get("_staged", xattr=True))
        found = self.cb.lookup_in(key, SD.get("_staged", xattr=True), SD.get("a"), access_deleted=True)
        self.assertEqual((found[0], found.is_deleted, found.cas), ({"a": 1}, True, done.cas))
        self.assertRaises(CouchbaseError, found.exists, 1)
        back = self.cb.mutate_in(
            key,
            SD.replace_body_with_xattr("_staged"),
            SD.remove("_staged", xattr=True),
            cas=done.cas,
            access_deleted=True,
            revive=True,
        )
        self.assertFalse(back.is_deleted)
        self.assertEqual(self.cb.get(key).value, {"a": 1})
        with self.assertRaises(KeyExistsError):
            self.cb.mutate_in(key, staged, access_deleted=True, revive=True)
