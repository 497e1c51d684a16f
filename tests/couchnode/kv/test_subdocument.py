"""Sub-document commands on bodies, attributes and tombstones, over a session in memory."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Generator
from struct import pack, unpack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, inlineCallbacks

from couchbase.protocol.constants import (
    LOCKED_CAS,
    MAX_VALUE_BYTES,
    Datatype,
    Feature,
    Opcode,
    Status,
)
from couchbase.protocol.frames import Frame
from couchnode.data.attributes import MAX_SYSTEM_BYTES, names, section, section_bytes
from couchnode.kv.checksums import crc32c, plain_crc32c
from couchnode.kv.commands.table import dispatch
from tests import tries
from tests.couchnode.kv.subdocs import (
    ADD,
    BODY_FROM,
    COUNT,
    COUNTER,
    DELETED,
    ENOENT,
    EXISTS,
    FAILED,
    FAILED_DELETED,
    GET,
    PUSH_LAST,
    REMOVE,
    REPLACE,
    SUCCESS,
    UPSERT,
    A,
    B,
    C,
    D,
    K,
    M,
    P,
    R,
    SubdocCase,
    V,
    X,
    change,
    context_of,
    spec,
)
from tests.couchnode.nodes import Client, ServedNode

NOW = 1_800_000_000
EXPIRY, FLAGS = pack(">I", 60), pack(">I", 9)
CAS_MACRO, SEQNO_MACRO, CRC_MACRO = (
    b'"${Mutation.CAS}"',
    b'"${Mutation.seqno}"',
    b'"${Mutation.value_crc32c}"',
)
KEEP_EXPIRY = b"\x50"


class Bodies(SubdocCase):
    """Commands on the body of a document."""

    def test_single_lookups(self) -> None:
        """Value, existence and count, with the datatype of what is answered."""
        self.set(value=b'{ "a" : [1, 2.50] }')
        for opcode, path, status, value, datatype in (
            (GET, b"a[1]", SUCCESS, b"2.50", Datatype.JSON),
            (EXISTS, b"a", SUCCESS, b"", Datatype.RAW),
            (COUNT, b"a", SUCCESS, b"2", Datatype.JSON),
            (COUNT, b"", SUCCESS, b"1", Datatype.JSON),
            (EXISTS, b"b", ENOENT, b"", Datatype.RAW),
            (GET, b"a.b", Status.SUBDOC_PATH_MISMATCH, b"", Datatype.RAW),
            (GET, b"a..b", Status.SUBDOC_PATH_EINVAL, b"", Datatype.RAW),
            (GET, b".".join([b"a"] * 32), Status.SUBDOC_PATH_E2BIG, b"", Datatype.RAW),
        ):
            answer = self.single(opcode, path)
            self.assertEqual(
                (answer.specific, answer.value, answer.datatype, answer.extras),
                (status, value, datatype, b""),
            )
        self.assertEqual(self.single(GET, b"a", key=b"missing").specific, Status.KEY_ENOENT)
        for value in (b"no JSON", b"", b"5"):
            self.set(value=value)
            self.assertEqual(self.single(GET, b"a").specific, Status.SUBDOC_DOC_NOT_JSON, value)
            self.assertEqual(self.single(COUNT, b"").specific, Status.SUBDOC_DOC_NOT_JSON, value)

    def test_multi_lookup(self) -> None:
        """Each path has its own status, and the header says whether all are well."""
        stored = self.set(value=b'{"a":1}')
        self.assertEqual(
            self.lookup(spec(GET, b"a"), spec(Opcode.GET, b"")),
            (SUCCESS, [(SUCCESS, b"1"), (SUCCESS, b'{"a":1}')]),
        )
        self.assertEqual(
            self.lookup(spec(EXISTS, b"b"), spec(GET, b"a")), (FAILED, [(ENOENT, b""), (SUCCESS, b"1")])
        )
        answer = self.ask(Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=spec(EXISTS, b"b"))
        self.assertEqual((answer.cas, answer.extras, answer.datatype), (stored.cas, b"", 0))

    def test_lookup_with_cas(self) -> None:
        """A lookup with another CAS than the document's is refused."""
        stored = self.set(value=b'{"a":1}')
        self.assertEqual(self.lookup(spec(GET, b"a"), cas=stored.cas)[0], SUCCESS)
        self.assertEqual(self.lookup(spec(GET, b"a"), cas=stored.cas + 1)[0], Status.KEY_EEXISTS)

    def test_mutations_answer(self) -> None:
        """A new CAS, a token, and a value of the counter alone."""
        self.set(value=b'{"n":1}')
        answer = self.single(COUNTER, b"n", b"41", extras=bytes(4))
        self.assertEqual((answer.specific, answer.value, answer.datatype), (SUCCESS, b"42", Datatype.JSON))
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        self.assertEqual(unpack(">QQ", answer.extras), (vbucket.uuid, 2))
        self.assertEqual(self.ask(Opcode.GET, key=b"k").cas, answer.cas)
        answer = self.single(UPSERT, b"a", b"[]")
        self.assertEqual((answer.specific, answer.value, answer.datatype), (SUCCESS, b"", 0))
        answer = self.mutate(
            change(PUSH_LAST, b"a", b"5"), change(COUNTER, b"n", b"1"), change(COUNTER, b"m", b"-7")
        )
        results = pack(">BHI", 1, 0, 2) + b"43" + pack(">BHI", 2, 0, 2) + b"-7"
        self.assertEqual((answer.specific, answer.value, answer.datatype), (SUCCESS, results, 0))
        self.assertEqual(self.body(), b'{"n":43,"a":[5],"m":-7}')

    def test_all_or_nothing(self) -> None:
        """The first operation that fails is named, and nothing is applied."""
        stored = self.set(value=b'{"n":1}')
        self.fails(
            1,
            Status.SUBDOC_PATH_EEXISTS,
            change(UPSERT, b"a", b"1"),
            change(ADD, b"n", b"1"),
            change(REMOVE, b"x"),
        )
        found = self.ask(Opcode.GET, key=b"k")
        self.assertEqual((found.value, found.cas), (b'{"n":1}', stored.cas))
        self.fails(0, Status.SUBDOC_DELTA_EINVAL, change(COUNTER, b"n", b"0"))
        self.assertEqual(self.single(ADD, b"n", b"1").specific, Status.SUBDOC_PATH_EEXISTS)

    def test_document_flags(self) -> None:
        """Without a flag the document must be there; MKDOC makes it, ADD wants it not to be there."""
        upsert = change(UPSERT, b"a.b", b"1")
        self.refused(Status.KEY_ENOENT, upsert)
        self.assertEqual(self.single(UPSERT, b"a", b"1").specific, Status.KEY_ENOENT)
        self.done(upsert, flags=K, cas=7)
        self.assertEqual(self.body(), b'{"a":{"b":1}}')
        self.refused(Status.KEY_EEXISTS, upsert, flags=A)
        self.assertEqual(self.single(UPSERT, b"a", b"1", 0, bytes((A,))).specific, Status.KEY_EEXISTS)
        self.done(change(UPSERT, b"c.d", b"1"), flags=K)
        self.assertEqual(self.body(), b'{"a":{"b":1},"c":{"d":1}}')
        self.fails(0, ENOENT, change(UPSERT, b"x.y", b"1"))
        self.done(change(UPSERT, b"x.y", b"1", P))
        self.fails(0, ENOENT, change(REPLACE, b"a", b"1"), flags=A, key=b"other")

    def test_first_body(self) -> None:
        """The first operation on a path decides what a new document is."""
        for changes, body in (
            ([change(UPSERT, b"a", b"1")], b'{"a":1}'),
            ([change(PUSH_LAST, b"", b"1")], b"[1]"),
            ([change(PUSH_LAST, b"a", b"1")], b'{"a":[1]}'),
            ([change(UPSERT, b"a", b"1", X)], b"{}"),
            ([change(UPSERT, b"a", b"1", X), change(Opcode.SET, b"", b"raw")], b"raw"),
            ([change(Opcode.SET, b"", b"[]"), change(PUSH_LAST, b"", b"1")], b"[1]"),
            ([change(COUNTER, b"n", b"2")], b'{"n":2}'),
        ):
            answer = self.mutate(*changes, flags=K)
            self.assertEqual((answer.specific, self.body()), (SUCCESS, body))
            self.ask(Opcode.DELETE, key=b"k")
        # An attribute before it makes it an object, to which nothing is pushed.
        push = change(PUSH_LAST, b"", b"1")
        self.fails(1, Status.SUBDOC_PATH_MISMATCH, change(UPSERT, b"a", b"1", X), push, flags=K)

    def test_expiry_and_flags(self) -> None:
        """The expiry is the request's or none, unless it is preserved; the flags are kept unless given."""

        def state() -> tuple[int, int]:
            flags, expiry = unpack(">II", self.ask(Opcode.GET_META, key=b"k").extras[4:12])
            return flags, expiry

        upsert = change(UPSERT, b"a", b"1")
        for parts, after in (
            ({}, (7, 0)),
            ({"expiry": 90}, (7, NOW + 90)),
            ({"framing": KEEP_EXPIRY}, (7, NOW + 60)),
            ({"framing": KEEP_EXPIRY, "expiry": 90}, (7, NOW + 60)),
            ({"extras": pack(">II", 30, 5)}, (5, NOW + 30)),
            ({"extras": pack(">IIB", 30, 5, K)}, (5, NOW + 30)),
        ):
            self.set(value=b"{}", extras=pack(">II", 7, 60))
            self.done(upsert, **parts)
            self.assertEqual(state(), after, parts)
        for more, after in (
            (b"", (7, 0)), (EXPIRY, (7, NOW + 60)), (EXPIRY + bytes((K,)), (7, NOW + 60)),
            (EXPIRY + FLAGS, (9, NOW + 60)), (EXPIRY + FLAGS + bytes((K,)), (9, NOW + 60)),
            (bytes((K,)), (7, 0)),
        ):  # fmt: skip
            self.set(value=b"{}", extras=pack(">II", 7, 30))
            self.assertEqual(self.single(UPSERT, b"a", b"1", 0, more).specific, SUCCESS)
            self.assertEqual(state(), after, more)
        self.ask(Opcode.DELETE, key=b"k")
        self.done(upsert, flags=K, expiry=60, framing=KEEP_EXPIRY)
        self.assertEqual(state(), (0, NOW + 60))

    def test_whole_document(self) -> None:
        """Set and delete of the whole go with attributes, and decide what later operations see."""
        self.done(change(Opcode.SET, b"", b'{"a":1}'), flags=A)
        self.done(change(Opcode.SET, b"", b"[1]"), change(PUSH_LAST, b"", b"2"))
        self.assertEqual(self.body(), b"[1,2]")
        self.fails(1, Status.SUBDOC_DOC_NOT_JSON, change(Opcode.SET, b"", b"raw"), change(UPSERT, b"a", b"1"))
        self.done(change(Opcode.SET, b"", b"raw"))
        self.fails(0, Status.SUBDOC_DOC_NOT_JSON, change(UPSERT, b"a", b"1"))
        self.done(change(UPSERT, b"_s", b"1", X), change(UPSERT, b"u", b"1", X), change(Opcode.DELETE, b""))
        self.assertIsNone(self.body())
        self.assertEqual((self.attribute(b"_s"), self.attribute(b"u")), (1, None))
        self.refused(Status.KEY_ENOENT, change(Opcode.DELETE, b""))

    def test_cas_and_locks(self) -> None:
        """Another CAS and a lock are in the way, the lock's CAS is not; lookups ignore locks."""
        stored = self.set(value=b'{"a":1}')
        upsert = change(UPSERT, b"a", b"1")
        self.refused(Status.KEY_EEXISTS, upsert, cas=stored.cas + 1)
        locked = self.ask(Opcode.GET_LOCKED, key=b"k")
        for cas in (0, LOCKED_CAS):
            self.refused(Status.LOCKED, upsert, cas=cas)
        answer = self.ask(Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=spec(GET, b"a"))
        self.assertEqual((answer.specific, answer.cas), (SUCCESS, LOCKED_CAS))
        self.done(upsert, cas=locked.cas)
        self.done(upsert)

    def test_lock_before_xerror(self) -> None:
        """To an old client a lock is a temporary failure."""
        self.set(value=b"{}")
        self.ask(Opcode.GET_LOCKED, key=b"k")
        self.ask(Opcode.HELLO, value=b"")
        self.assertEqual(self.mutate(change(UPSERT, b"a", b"1")).specific, Status.ETMPFAIL)

    def test_durable(self) -> None:
        """A durable change waits for the disk like any other write, and stands in the way of others."""
        self.set(value=b"{}")
        answer = dispatch(
            self.session,
            self.frame(UPSERT, key=b"k", extras=b"\0\1\4", value=b"a1", framing=b"\x11\2"),
        )
        assert isinstance(answer, Deferred)
        self.assertIsNone(self.attribute(b"a"))
        self.refused(Status.SYNC_WRITE_IN_PROGRESS, change(UPSERT, b"b", b"1"))
        self.clock.advance(1)
        self.disk.finish()
        self.assertEqual(self.decode(answer)[0].specific, 0)
        self.assertEqual(self.attribute(b"a"), 1)

    def test_replica_reads(self) -> None:
        """With the flag a replica answers and the active copy does not; without it the reverse."""
        self.done(change(UPSERT, b"a", b"1", X), change(Opcode.SET, b"", b"{}"), flags=K)
        get, of_replica = spec(GET, b"a", X), R
        self.assertEqual(self.lookup(get, flags=of_replica)[0], Status.NOT_MY_VBUCKET)
        self.bucket.set_topology(["replica"] * 4)
        self.assertEqual(self.lookup(get, flags=of_replica)[1], [(SUCCESS, b"1")])
        self.assertEqual(self.lookup(get)[0], Status.NOT_MY_VBUCKET)


class Attributes(SubdocCase):
    """Attributes beside a body."""

    def test_round_trip(self) -> None:
        """An attribute is written and read by path, on documents that are JSON and others."""
        for body in (b'{"a":1}', b"raw", b"5"):
            self.set(value=body)
            self.done(
                change(UPSERT, b"x.y.z", b"[1, 2]", X | P), change(UPSERT, b"_sync", b'{"b":1,"a":2}', X)
            )
            self.assertEqual(self.body(), body)
            status, results = self.lookup(
                spec(GET, b"x", X), spec(GET, b"x.y.z[-1]", X), spec(COUNT, b"x.y.z", X),
                spec(GET, b"_sync", X), spec(EXISTS, b"nothing", X), spec(Opcode.GET, b""),
            )  # fmt: skip
            self.assertEqual(status, FAILED)
            values = [b'{"y":{"z":[1,2]}}', b"2", b"2", b'{"a":2,"b":1}', b"", body]
            self.assertEqual([value for _, value in results], values)
            self.assertEqual([one for one, _ in results], [SUCCESS] * 4 + [ENOENT, SUCCESS])

    def test_operations(self) -> None:
        """Every mutation works on attributes as on bodies, each seeing what those before it did."""
        self.set(value=b"{}")
        self.mutate(
            change(UPSERT, b"a", b'{"n":1}', X), change(PUSH_LAST, b"l", b"1,2", X | P),
            change(Opcode.SUBDOC_ARRAY_PUSH_FIRST, b"l", b"0", X),
            change(Opcode.SUBDOC_ARRAY_INSERT, b"l[1]", b'"in"', X),
            change(Opcode.SUBDOC_ARRAY_ADD_UNIQUE, b"l", b"7", X), change(REPLACE, b"a.n", b"2", X),
            change(REMOVE, b"l[0]", b"", X), change(COUNTER, b"a.m", b"5", X),
        )  # fmt: skip
        self.assertEqual(self.attribute(b"a"), {"m": 5, "n": 2})
        self.assertEqual(self.attribute(b"l"), ["in", 1, 2, 7])
        self.fails(0, Status.SUBDOC_PATH_EEXISTS, change(ADD, b"a", b"1", X))
        self.fails(1, ENOENT, change(UPSERT, b"b", b"1", X), change(REMOVE, b"c", b"", X))
        self.assertIsNone(self.attribute(b"b"))
        answer = self.single(COUNTER, b"a.m", b"1", X)
        self.assertEqual((answer.specific, answer.value), (SUCCESS, b"6"))

    def test_stored_form(self) -> None:
        """Attributes come back compact, with their keys in order and the last of equal ones."""
        self.set(value=b"{}")
        self.done(change(UPSERT, b"x", b' { "b" : 1 , "a" : {"d":1, "c":"\\u00e9"}, "b": 2 } ', X))
        _, results = self.lookup(spec(GET, b"x", X))
        self.assertEqual(results[0][1], '{"a":{"c":"é","d":1},"b":2}'.encode())
        for value in (b"1e999", rb'"\ud800"', b"[-1e999]"):
            self.assertEqual(
                self.mutate(change(UPSERT, b"y", value, X)).specific, Status.SUBDOC_VALUE_CANTINSERT, value
            )

    def test_other_commands_keep_them(self) -> None:
        """Stores, appends, counters and touches by any client keep all attributes, and answer with the body
        alone."""
        for opcode, parts in (
            (Opcode.SET, {"value": b"5", "extras": bytes(8)}),
            (Opcode.REPLACE, {"value": b"5", "extras": bytes(8)}),
            (Opcode.APPEND, {"value": b"0"}),
            (Opcode.PREPEND, {"value": b"1"}),
            (Opcode.INCREMENT, {"extras": pack(">QQI", 1, 0, 0)}),
            (Opcode.DECREMENT, {"extras": pack(">QQI", 1, 0, 0)}),
            (Opcode.TOUCH, {"extras": pack(">I", 90)}),
            (Opcode.GAT, {"extras": pack(">I", 120)}),
            (Opcode.GET_LOCKED, {}),
        ):
            self.set(value=b"5")
            self.done(change(UPSERT, b"_s", b"1", X), change(UPSERT, b"u", b'"${Mutation.CAS}"', X))
            answer = self.ask(opcode, key=b"k", **parts)
            self.assertEqual(answer.specific, SUCCESS, opcode)
            self.assertEqual(self.attribute(b"$XTOC"), ["_s", "u"], opcode)
            self.assertEqual(self.ask(Opcode.GET, key=b"k").datatype & ~Datatype.JSON, 0)
            self.assertEqual(self.ask(Opcode.GET_META, key=b"k", extras=b"\2").extras[20] & Datatype.XATTR, 4)
            self.ask(Opcode.DELETE, key=b"k", cas=answer.cas if opcode == Opcode.GET_LOCKED else 0)
            self.ask(Opcode.ADD, key=b"k", extras=bytes(8))

    def test_deletion(self) -> None:
        """A deletion leaves the system attributes in the tombstone, and no flags; a new document starts
        without any."""
        for revive in (Opcode.SET, Opcode.ADD):
            self.set(value=b"{}", extras=pack(">II", 7, 0))
            self.done(change(UPSERT, b"_s", b"1", X), change(UPSERT, b"u", b"1", X))
            self.assertEqual(self.ask(Opcode.DELETE, key=b"k").specific, SUCCESS)
            self.assertEqual(self.attribute(b"$XTOC"), ["_s"])
            meta = self.ask(Opcode.GET_META, key=b"k", extras=b"\2")
            self.assertEqual((unpack(">II", meta.extras[:8]), meta.extras[20]), ((1, 0), Datatype.XATTR))
            self.assertEqual(self.ask(revive, key=b"k", value=b"{}", extras=bytes(8)).specific, SUCCESS)
            self.assertEqual(self.attribute(b"$XTOC"), [])

    def test_expiry(self) -> None:
        """An expired document keeps what a deleted one does."""
        self.set(value=b"{}", extras=pack(">II", 0, 5))
        self.done(change(UPSERT, b"_s", b"1", X), change(UPSERT, b"u", b"1", X), framing=KEEP_EXPIRY)
        self.clock.advance(7)
        self.assertIsNone(self.body())
        self.assertEqual(self.attribute(b"$XTOC"), ["_s"])

    def test_flush(self) -> None:
        """Flushing the bucket leaves nothing of a tombstone either."""
        self.bucket.flush_enabled = True
        self.done(change(UPSERT, b"_s", b"1", X), flags=K)
        self.ask(Opcode.DELETE, key=b"k")
        self.bucket.flush_all().addErrback(lambda _: None)
        self.assertEqual(self.lookup(spec(GET, b"_s", X), flags=D)[0], Status.KEY_ENOENT)

    def test_limits(self) -> None:
        """User attributes count with the body, system attributes have their own limit."""
        self.set(value=b"{}")
        big = b'"' + b"x" * (MAX_VALUE_BYTES - 100) + b'"'
        self.refused(Status.E2BIG, change(UPSERT, b"u", b'"' + b"x" * MAX_VALUE_BYTES + b'"', X))
        self.done(change(UPSERT, b"u", big, X))
        self.refused(Status.E2BIG, change(UPSERT, b"a", b'"' + b"x" * 100 + b'"'))
        self.assertStatus(Status.E2BIG, Opcode.SET, key=b"k", value=b"x" * 100, extras=bytes(8))
        self.done(change(UPSERT, b"u", b"1", X))
        # The section's length word, the pair's, the name and two zeros, and the quotes.
        largest = MAX_SYSTEM_BYTES - 4 - 4 - 2 - 2 - 2
        self.refused(Status.E2BIG, change(UPSERT, b"_s", b'"' + b"x" * (largest + 1) + b'"', X))
        self.done(change(UPSERT, b"_s", b'"' + b"x" * largest + b'"', X))

    def test_memory(self) -> None:
        """Attributes are charged like the body, on documents and tombstones, and given back."""
        self.set(value=b"{}")
        before = self.bucket.ledger.memory_bytes
        self.done(change(UPSERT, b"_s", b'"' + b"x" * 1000 + b'"', X))
        self.assertEqual(self.bucket.ledger.memory_bytes - before, len(b'{"_s":""}') + 1000)
        self.ask(Opcode.DELETE, key=b"k")
        self.assertGreater(self.bucket.ledger.memory_bytes, 1000)
        self.set(value=b"{}")
        self.assertEqual(self.bucket.ledger.memory_bytes, before)
        self.bucket.ledger.quota_bytes = before + 500
        self.refused(
            Status.ENOMEM,
            change(UPSERT, b"u", b'"' + b"x" * 1000 + b'"', X),
            context=f"the bucket's memory quota of {before + 500} bytes is used up",
        )

    def test_binary(self) -> None:
        """A binary attribute is a string of base64 unless the client asks for its bytes."""
        self.set(value=b"{}")
        value = bytes(range(256))
        text = f'"cb-content-base64-encoded:{b64encode(value).decode()}"'
        self.done(change(UPSERT, b"bin", value, X | B), change(ADD, b"t", b"1", X))
        _, results = self.lookup(
            spec(GET, b"bin", X | B), spec(GET, b"bin", X), spec(GET, b"t", X | B), spec(GET, b"none", X | B)
        )
        self.assertEqual(
            results,
            [
                (SUCCESS, value),
                (SUCCESS, text.encode()),
                (Status.SUBDOC_FIELD_NOT_BINARY_VALUE, b""),
                (ENOENT, b""),
            ],
        )
        answer = self.single(GET, b"bin", flags=X | B)
        self.assertEqual((answer.value, answer.datatype), (value, Datatype.RAW))
        self.done(change(UPSERT, b"nested", b'{"b":%b}' % text.encode(), X))
        self.assertEqual(self.lookup(spec(GET, b"nested.b", X | B))[1], [(SUCCESS, value)])

    def test_body_from_attribute(self) -> None:
        """An attribute becomes the body, as text or as decoded bytes; it is kept until it is removed."""
        self.set(value=b'{"old":1}')
        self.done(change(UPSERT, b"txn", b'{"op":{"stgd":{"new":[1]},"str":"s"}}', X))
        self.done(change(BODY_FROM, b"txn.op.stgd", b"", X), change(REMOVE, b"txn.op.stgd", b"", X))
        self.assertEqual((self.body(), self.attribute(b"txn")), (b'{"new":[1]}', {"op": {"str": "s"}}))
        self.done(change(BODY_FROM, b"txn.op.str", b"", X))
        self.assertEqual(self.body(), b'"s"')
        self.done(change(UPSERT, b"raw", b"\xff\0", X | B), change(UPSERT, b"json", b"[1]", X | B))
        self.done(change(BODY_FROM, b"raw", b"", X | B))
        self.assertEqual((self.body(), self.ask(Opcode.GET, key=b"k").datatype), (b"\xff\0", 0))
        self.fails(
            1, Status.SUBDOC_DOC_NOT_JSON, change(BODY_FROM, b"raw", b"", X | B), change(UPSERT, b"a", b"1")
        )
        self.done(change(BODY_FROM, b"json", b"", X | B), change(PUSH_LAST, b"", b"2"))
        self.assertEqual(self.body(), b"[1,2]")
        self.fails(0, Status.SUBDOC_FIELD_NOT_BINARY_VALUE, change(BODY_FROM, b"txn", b"", X | B))
        self.fails(0, ENOENT, change(BODY_FROM, b"none", b"", X))
        answer = self.single(BODY_FROM, b"txn.op", flags=X)
        self.assertEqual((answer.specific, self.body()), (SUCCESS, b'{"str":"s"}'))

    def test_section(self) -> None:
        """The form that stands before a body: lengths, names and values."""
        text = b'{"_s":[1],"txn":{"a":1}}'
        txn = b"\0\0\0\x0ctxn\0" + b'{"a":1}\0'
        self.assertEqual(section(b'{"txn":{"a":1}}'), b"\0\0\0\x10" + txn)
        self.assertEqual(section(text), pack(">I", 16 + 11) + b"\0\0\0\x07_s\0[1]\0" + txn)
        self.assertEqual(section(text, with_system=False), b"\0\0\0\x10" + txn)
        self.assertEqual((section(b""), section(b'{"_s":1}', with_system=False)), (b"", b""))
        self.assertEqual(section_bytes(text), (16, 15))
        self.assertEqual(names(text), ["_s", "txn"])


class Virtual(SubdocCase):
    """Attributes that the node computes, and macros."""

    def document(self, doc_flags: int = 0) -> Any:
        """Return ``$document``."""
        return self.attribute(b"$document", doc_flags)

    def test_document(self) -> None:
        """Every field of ``$document``."""
        stored = self.set(value=b'{"a":1}', extras=pack(">II", 0x02000000, 60))
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        expected = {
            "CAS": f"0x{stored.cas:016x}", "vbucket_uuid": f"0x{vbucket.uuid:016x}",
            "seqno": "0x0000000000000001", "revid": "1", "exptime": NOW + 60, "flags": 0x02000000,
            "value_bytes": 7, "datatype": ["json"], "deleted": False, "last_modified": str(NOW),
            "value_crc32c": "0xcff7d56a",
        }  # fmt: skip
        self.assertEqual(self.document(), expected)
        for name, value in expected.items():
            self.assertEqual(self.attribute(b"$document." + name.encode()), value, name)
        self.assertEqual(self.lookup(spec(COUNT, b"$document", X))[1], [(SUCCESS, b"11")])
        self.assertEqual(self.lookup(spec(EXISTS, b"$document.datatype[0]", X))[1], [(SUCCESS, b"")])
        self.done(change(UPSERT, b"_s", b"1", X), change(Opcode.SET, b"", b"raw"))
        self.assertEqual(self.document()["datatype"], ["xattr"])
        self.set(value=b"")
        self.ask(Opcode.DELETE, key=b"k")
        self.set(value=b"")
        found = self.document()
        self.assertEqual((found["datatype"], found["value_crc32c"]), (["raw"], "0x00000000"))
        self.ask(Opcode.DELETE, key=b"k")
        found = self.document(D)
        self.assertEqual((found["deleted"], found["exptime"], found["value_bytes"]), (True, 0, 0))

    def test_errors(self) -> None:
        """Unknown ones, wrong members, and the hidden CAS of a lock."""
        self.set()
        self.ask(Opcode.GET_LOCKED, key=b"k")
        for path, expected in (
            (b"$nonsense.x", (Status.SUBDOC_XATTR_UNKNOWN_VATTR, b"")),
            (b"$documents", (Status.SUBDOC_XATTR_UNKNOWN_VATTR, b"")),
            (b"$document.nonsense", (ENOENT, b"")),
            (b"$document.CAS.x", (Status.SUBDOC_PATH_MISMATCH, b"")),
            (b"$document..x", (Status.SUBDOC_PATH_EINVAL, b"")),
            (b"$document.CAS", (SUCCESS, b'"0xffffffffffffffff"')),
            (b"$document.last_modified", (ENOENT, b"")),
        ):
            self.assertEqual(self.lookup(spec(GET, path, X))[1], [expected], path)

    def test_checksum(self) -> None:
        """CRC-32C, with and without the library."""
        for data, value in (
            (b"", 0),
            (b"{}", 0x297BD0AA),
            (b'{"a":1}', 0xCFF7D56A),
            (b"123456789", 0xE3069283),
        ):
            self.assertEqual((crc32c(data), plain_crc32c(data)), (value, value))

    def test_vbucket(self) -> None:
        """The clock of CAS values: whole seconds as text, real while it follows the time."""
        stored = self.set()
        for path in (b"$vbucket", b"$vbucket.HLC", b"$vbucket.HLC.now"):
            self.assertIsNotNone(self.attribute(path), path)
        # Nothing but changes moves it while the time stands still.
        self.assertEqual(self.attribute(b"$vbucket"), {"HLC": {"mode": "logical", "now": str(NOW)}})
        self.clock.advance(3.5)
        self.assertEqual(self.attribute(b"$vbucket.HLC"), {"mode": "real", "now": str(NOW + 3)})
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        vbucket.max_cas += 1000 * 10**9
        self.assertEqual(
            self.attribute(b"$vbucket.HLC"), {"mode": "logical", "now": str(stored.cas // 10**9 + 1000)}
        )
        self.assertEqual(self.lookup(spec(GET, b"$vbucket", X), key=b"missing")[0], Status.KEY_ENOENT)

    def test_table_of_contents(self) -> None:
        """The names of all attributes."""
        self.set()
        self.assertEqual(self.attribute(b"$XTOC"), [])
        self.done(change(UPSERT, b"u", b"1", X), change(UPSERT, b"_s", b"1", X))
        self.assertEqual((self.attribute(b"$XTOC"), self.attribute(b"$XTOC[0]")), (["_s", "u"], "_s"))

    def test_macros_of_the_change(self) -> None:
        """CAS with its bytes reversed, sequence number and checksum of what is stored."""
        self.set(value=b"{}")
        for value, crc in ((b'{"a":1}', "0xcff7d56a"), (b"{}", "0x297bd0aa")):
            answer = self.done(
                change(UPSERT, b"t.cas", CAS_MACRO, X | M | P),
                change(UPSERT, b"t.seqno", SEQNO_MACRO, X | M), change(UPSERT, b"t.crc", CRC_MACRO, X | M),
                change(UPSERT, b"t.list", b"[]", X),
                change(PUSH_LAST, b"t.list", CAS_MACRO, X | M), change(UPSERT, b"u", CAS_MACRO, X | M),
                change(Opcode.SET, b"", value),
            )  # fmt: skip
            cas = "0x" + answer.cas.to_bytes(8, "little").hex()
            seqno = f"0x{unpack('>QQ', answer.extras)[1]:016x}"
            self.assertEqual(self.attribute(b"t"), {"cas": cas, "seqno": seqno, "crc": crc, "list": [cas]})
            self.assertEqual(self.attribute(b"u"), cas)
        self.done(change(UPSERT, b"plain", CAS_MACRO, X), change(UPSERT, b"in", b'["${Mutation.CAS}"]', X))
        self.assertEqual(self.attribute(b"plain"), "${Mutation.CAS}")
        self.assertEqual(self.attribute(b"in"), ["${Mutation.CAS}"])
        # Macros of the change are those of the stored version, which a later one leaves alone.
        self.assertEqual(self.attribute(b"u"), cas)

    def test_macros_of_the_document(self) -> None:
        """The document's state before the change."""
        self.set(value=b'{"a":1}', extras=pack(">II", 7, 60))
        before = self.document()
        names_ = [name for name in before if name != "value_crc32c"]
        for name in names_:
            macro = b'"${$document.%b}"' % name.encode()
            self.done(change(UPSERT, b"m", macro, X | M), change(UPSERT, b"d", b'"${$document}"', X | M),
                      change(Opcode.SET, b"", b"[]"), framing=KEEP_EXPIRY)  # fmt: skip
            self.assertEqual((self.attribute(b"m"), self.attribute(b"d")), (before[name], before), name)
            self.ask(Opcode.DELETE, key=b"k")
            self.set(value=b'{"a":1}', extras=pack(">II", 7, 60))
            before = self.document()
        for bad in (b"value_crc32c", b"nonsense", b"CAS.x", b""):
            macro = b'"${$document.%b}"' % bad
            self.fails(0, Status.SUBDOC_XATTR_UNKNOWN_VATTR_MACRO, change(UPSERT, b"m", macro, X | M))
            answer = self.single(UPSERT, b"m", macro, X | M)
            self.assertEqual(answer.specific, Status.SUBDOC_XATTR_UNKNOWN_VATTR_MACRO)


class Tombstones(SubdocCase):
    """Deleted documents that have attributes."""

    def staged(self, **parts: Any) -> Any:
        """Create a document as deleted, as a transaction stages an insertion."""
        return self.mutate(
            change(ADD, b"txn", b'{"op":{"stgd":{"new":1}}}', X | P),
            change(UPSERT, b"txn.op.crc32", CRC_MACRO, X | M),
            **{"flags": A | D | C, **parts},
        )

    def test_create_as_deleted(self) -> None:
        """It exists for requests that ask for deleted documents, and for no others."""
        answer = self.staged()
        self.assertEqual((answer.specific, answer.value, len(answer.extras)), (DELETED, b"", 16))
        self.assertIsNone(self.body())
        self.assertEqual(self.lookup(spec(GET, b"txn", X))[0], Status.KEY_ENOENT)
        status, results = self.lookup(
            spec(GET, b"$document.deleted", X), spec(GET, b"txn.op.crc32", X), flags=D
        )
        self.assertEqual((status, results), (DELETED, [(SUCCESS, b"true"), (SUCCESS, b'"0x00000000"')]))
        status, results = self.lookup(spec(GET, b"txn", X), spec(Opcode.GET, b""), spec(GET, b"a"), flags=D)
        self.assertEqual(status, FAILED_DELETED)
        self.assertEqual([one for one, _ in results], [SUCCESS, ENOENT, Status.SUBDOC_DOC_NOT_JSON])
        found = self.ask(Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=spec(GET, b"txn", X), extras=bytes((D,)))
        self.assertEqual(found.cas, answer.cas)
        single = self.single(GET, b"txn.op.crc32", flags=X, extras=bytes((D,)))
        self.assertEqual((single.specific, single.value), (DELETED, b'"0x00000000"'))

    def test_conflicts(self) -> None:
        """ADD wants neither a document nor a tombstone; with the tombstone's CAS it is written over."""
        first = self.staged()
        self.assertEqual(self.staged().specific, Status.KEY_EEXISTS)
        self.assertEqual(self.staged(flags=D | C, cas=first.cas + 1).specific, Status.KEY_EEXISTS)
        again = self.mutate(change(UPSERT, b"txn", b"2", X), flags=D | C, cas=first.cas)
        self.assertEqual((again.specific, self.attribute(b"txn")), (DELETED, 2))
        self.set(value=b"{}")
        self.assertEqual(self.staged().specific, Status.KEY_EEXISTS)
        self.ask(Opcode.DELETE, key=b"k")
        self.assertEqual(self.staged().specific, Status.KEY_EEXISTS)
        self.refused(Status.KEY_ENOENT, change(UPSERT, b"txn", b"2", X), flags=D | C, key=b"unknown")

    def test_changes_stay_deleted(self) -> None:
        """Attributes of a tombstone change, with CAS and sequence number, and the last one may go."""
        self.set(value=b"{}")
        deleted = self.ask(Opcode.DELETE, key=b"k")
        for flags in (D, D | K):
            answer = self.done(
                change(UPSERT, b"_s", b"1", X), change(UPSERT, b"u", b"2", X), status=DELETED, flags=flags
            )
            self.assertGreater(answer.cas, deleted.cas)
            self.assertIsNone(self.body())
            self.assertEqual((self.attribute(b"_s"), self.attribute(b"u")), (1, 2))
        self.done(change(REMOVE, b"_s", b"", X), change(REMOVE, b"u", b"", X), status=DELETED, flags=D)
        self.assertEqual(self.lookup(spec(GET, b"$document.deleted", X), flags=D)[0], DELETED)
        self.assertEqual(self.attribute(b"$XTOC"), [])
        self.fails(0, Status.SUBDOC_DOC_NOT_JSON, change(UPSERT, b"a", b"1"), flags=D)
        self.done(change(UPSERT, b"_s", b"1", X), status=DELETED, flags=D)
        self.done(change(UPSERT, b"u", b"1", X), change(Opcode.DELETE, b""), status=DELETED, flags=D)
        self.assertEqual(self.attribute(b"$XTOC"), ["_s"])

    def test_no_body(self) -> None:
        """A tombstone gets a body only when it is revived."""
        self.staged()
        text = "A deleted document can't have a value"
        body_from = change(BODY_FROM, b"txn.op.stgd", b"", X)
        self.refused(Status.SUBDOC_DELETED_CANT_HAVE_VALUE, body_from, context=text, flags=D)
        single = self.single(BODY_FROM, b"txn.op.stgd", flags=X, extras=bytes((D,)))
        self.assertEqual((single.specific, context_of(single)), (Status.SUBDOC_DELETED_CANT_HAVE_VALUE, text))
        self.fails(
            1, Status.SUBDOC_DOC_NOT_JSON, change(UPSERT, b"x", b"1", X), change(UPSERT, b"a", b"1"),
            flags=K | C, key=b"new",
        )  # fmt: skip

    def test_revive(self) -> None:
        """A staged insertion becomes a document in one request, with its attribute gone."""
        staged = self.staged()
        answer = self.mutate(
            change(BODY_FROM, b"txn.op.stgd", b"", X), change(REMOVE, b"txn", b"", X), cas=staged.cas,
            extras=pack(">IIB", 60, 5, D | V),
        )  # fmt: skip
        self.assertEqual((answer.specific, answer.value), (SUCCESS, b""))
        found = self.ask(Opcode.GET, key=b"k")
        self.assertEqual(
            (found.value, found.extras, found.cas, found.datatype),
            (b'{"new":1}', pack(">I", 5), answer.cas, Datatype.JSON),
        )
        document = self.attribute(b"$document")
        self.assertEqual(
            (document["exptime"], document["datatype"], document["revid"]), (NOW + 60, ["json"], "2")
        )
        self.refused(Status.SUBDOC_CAN_ONLY_REVIVE_DELETED, change(UPSERT, b"x", b"1", X), flags=D | V)
        self.refused(
            Status.SUBDOC_CAN_ONLY_REVIVE_DELETED, change(UPSERT, b"x", b"1", X), flags=D | V | K, key=b"new"
        )
        self.ask(Opcode.DELETE, key=b"k")
        self.done(change(UPSERT, b"x", b"1", X), flags=D | V)
        self.assertEqual((self.body(), self.attribute(b"x")), (b"", 1))

    def test_stores_over_tombstones(self) -> None:
        """Plain stores make a document without the tombstone's attributes; its CAS opens nothing."""
        staged = self.staged()
        self.assertStatus(
            Status.KEY_ENOENT, Opcode.SET, key=b"k", value=b"{}", extras=bytes(8), cas=staged.cas
        )
        self.assertEqual(self.ask(Opcode.ADD, key=b"k", value=b"{}", extras=bytes(8)).specific, SUCCESS)
        self.assertEqual((self.body(), self.attribute(b"$XTOC")), (b"{}", []))
        self.ask(Opcode.DELETE, key=b"k")
        self.staged(flags=D, cas=0)
        self.done(change(UPSERT, b"a", b"1"), flags=A)
        self.assertEqual((self.body(), self.attribute(b"$XTOC")), (b'{"a":1}', []))

    def test_deletion_of_staged(self) -> None:
        """A tombstone is not there to be deleted; one with users' attributes is cleaned by a new life."""
        self.staged()
        self.assertStatus(Status.KEY_ENOENT, Opcode.DELETE, key=b"k")
        self.assertEqual(self.attribute(b"$XTOC"), ["txn"])
        self.set(value=b"{}")
        self.done(change(UPSERT, b"txn", b"1", X))
        self.ask(Opcode.DELETE, key=b"k")
        self.assertEqual(self.attribute(b"$XTOC"), [])

    def test_they_outlive_others(self) -> None:
        """Many later deletions do not push out a tombstone with attributes; time does."""
        self.staged()
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        vbucket.max_tombstones = 3
        for number in range(10):
            self.set(key=b"n%d" % number)
            self.ask(Opcode.DELETE, key=b"n%d" % number)
        self.clock.advance(1)
        self.disk.finish()
        self.assertIsNotNone(self.attribute(b"txn"))
        known = len(vbucket.tombstones)
        self.assertEqual(vbucket.purge_tombstones(NOW + 100), known + 1)
        self.assertEqual(self.lookup(spec(GET, b"txn", X), flags=D)[0], Status.KEY_ENOENT)

    def test_durable_insertion(self) -> None:
        """A durable creation as deleted is invisible until it is settled."""
        answer = dispatch(
            self.session,
            self.frame(
                Opcode.SUBDOC_MULTI_MUTATION,
                key=b"k",
                extras=bytes((A | D | C,)),
                value=change(ADD, b"txn", b"1", X),
                framing=b"\x11\2",
            ),
        )
        assert isinstance(answer, Deferred)
        self.assertEqual(self.lookup(spec(GET, b"txn", X), flags=D)[0], Status.KEY_ENOENT)
        self.clock.advance(1)
        self.disk.finish()
        self.assertEqual(self.decode(answer)[0].specific, DELETED)
        self.assertEqual(self.attribute(b"txn"), 1)


class Frames(ServedNode):
    """Requests and answers byte by byte, over a socket."""

    @inlineCallbacks
    def begin(self) -> Generator[Deferred[Any], Any, Client]:
        """Connect a client with the features that transactions need."""
        client = yield self.connect()
        yield client.hello(
            Feature.MUTATION_SEQNO,
            Feature.XATTR,
            Feature.XERROR,
            Feature.JSON,
            Feature.SUBDOC_CREATE_AS_DELETED,
            Feature.SUBDOC_DOCUMENT_MACRO,
        )
        return client

    @inlineCallbacks
    def ask(self, client: Client, text: str, cas: int = 0) -> Generator[Deferred[Any], Any, Frame]:
        """Send a request given in hexadecimal digits, with that CAS in its header; return the answer."""
        request = bytearray.fromhex(text)
        request[16:24] = cas.to_bytes(8, "big")
        client.transport.write(bytes(request))  # type: ignore[union-attr]
        answer = yield client.next_answer()
        return answer

    @inlineCallbacks
    def test_single(self) -> Generator[Deferred[Any], Any, None]:
        """A value by its path, and a counter with a token."""
        client = yield self.begin()
        yield client.ask(Opcode.SET, key=b"k1", value=b'{"a":{"b":5}}', extras=bytes(8), vbucket=2)
        get = "80c50002030000020000000800000000" + "00" * 8 + "000300" + "6b31" + "612e62"
        answer = yield self.ask(client, get)
        self.assertEqual((answer.specific, answer.extras, answer.datatype, answer.value), (0, b"", 1, b"5"))
        count = "80cf0002070000020000000b00000000" + "00" * 8 + "00010100000000" + "6b31" + "6e35"
        answer = yield self.ask(client, count)
        self.assertEqual((answer.specific, answer.datatype, answer.value), (0, 1, b"5"))
        vbucket = self.node.buckets["default"].vbuckets[2]
        assert vbucket is not None
        self.assertEqual(answer.extras, pack(">QQ", vbucket.uuid, 2))

    @inlineCallbacks
    def test_staged_insertion(self) -> Generator[Deferred[Any], Any, None]:
        """A transaction's insertion: staged, in the way of others, seen on request, committed."""
        client = yield self.begin()
        other = yield self.begin()
        stage = (
            "80d10002010000020000004500000000" + "00" * 8 + "0e" + "6b31"
            + "c7050003" + "00000009" + "74786e" + b'{"op":{}}'.hex()
            + "c814000c" + "0000001a" + b"txn.op.crc32".hex() + b'"${Mutation.value_crc32c}"'.hex()
        )  # fmt: skip
        staged = yield self.ask(client, stage)
        self.assertEqual((staged.specific, len(staged.extras), staged.value), (DELETED, 16, b""))
        again = yield self.ask(other, stage)
        self.assertEqual((again.specific, again.cas), (Status.KEY_EEXISTS, 0))
        look = (
            "80d00002010000020000001b00000000" + "00" * 8 + "04" + "6b31"
            + "c5040009" + b"$document".hex() + "c5040003" + "74786e" + "00000000"
        )  # fmt: skip
        seen = yield self.ask(other, look)
        self.assertEqual((seen.specific, seen.cas, seen.extras), (FAILED_DELETED, staged.cas, b""))
        (size,) = unpack(">I", seen.value[2:6])
        document, rest = json.loads(seen.value[6 : 6 + size]), seen.value[6 + size :]
        self.assertEqual((document["deleted"], document["CAS"]), (True, f"0x{staged.cas:016x}"))
        txn = b'{"op":{"crc32":"0x00000000"}}'
        self.assertEqual(rest, pack(">HI", 0, len(txn)) + txn + pack(">HI", ENOENT, 0))
        plain = yield other.ask(Opcode.GET, key=b"k1", vbucket=2)
        self.assertEqual(plain.specific, Status.KEY_ENOENT)
        commit = (
            "80d10002010000020000002100000000" + "00" * 8 + "14" + "6b31"
            + "d3040006" + "00000000" + b"txn.op".hex() + "c9040003" + "00000000" + "74786e"
        )  # fmt: skip
        commit = commit[:16] + f"{len(bytes.fromhex(commit)) - 24:08x}" + commit[24:]
        committed = yield self.ask(client, commit, staged.cas)
        self.assertEqual((committed.specific, len(committed.extras), committed.value), (0, 16, b""))
        plain = yield other.ask(Opcode.GET, key=b"k1", vbucket=2)
        self.assertEqual((plain.value, plain.cas), (b'{"crc32":"0x00000000"}', committed.cas))

    @inlineCallbacks
    def test_failure(self) -> Generator[Deferred[Any], Any, None]:
        """One entry of three bytes, without a CAS and a token."""
        client = yield self.begin()
        stage = (
            "80d10002010000020000001a00000000" + "00" * 8 + "01" + "6b31"
            + "c7040001" + "00000001" + "61" + "31" + "c7040001" + "00000001" + "61" + "32"
        )  # fmt: skip
        stage = stage[:16] + f"{len(bytes.fromhex(stage)) - 24:08x}" + stage[24:]
        answer = yield self.ask(client, stage)
        self.assertEqual(
            (answer.specific, answer.extras, answer.cas, answer.value), (FAILED, b"", 0, b"\x01\x00\xc9")
        )


# ---- any order of commands -----------------------------------------------------------------------

NAMES = ("_s", "u", "v")
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "set",
                "add",
                "delete",
                "touch",
                "append",
                "attribute",
                "remove",
                "stage",
                "revive",
                "whole",
                "buried",
            )
        ),
        st.sampled_from(NAMES),
        st.integers(0, 9),
    ),
    max_size=25,
)


class Model:
    """The expected state of a document and its attributes, in the simplest way."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.attributes: dict[str, int] = {}
        self.is_tombstone = False

    def delete(self) -> None:
        """Leave a tombstone."""
        self.body, self.is_tombstone = None, True
        self.attributes = {name: value for name, value in self.attributes.items() if name[0] == "_"}

    def create(self, body: bytes) -> None:
        """Begin a new life."""
        self.body, self.is_tombstone, self.attributes = body, False, {}


class Lives(SubdocCase):
    """Documents and attributes through any order of events."""

    def act(self, model: Model, event: str, name: str, number: int) -> None:
        """Do something to the document, and to the model what the rules say."""
        body, path, alive = b"%d" % number, name.encode(), model.body is not None
        if event == "set":
            self.set(value=body)
            if alive:
                model.body = body
            else:
                model.create(body)
        elif event == "add":
            if self.ask(Opcode.ADD, key=b"k", value=body, extras=bytes(8)).specific == SUCCESS:
                model.create(body)
            else:
                self.assertTrue(alive)
        elif event == "delete":
            if self.ask(Opcode.DELETE, key=b"k").specific == SUCCESS:
                model.delete()
        elif event == "touch":
            self.ask(Opcode.TOUCH, key=b"k", extras=pack(">I", 1000 + number))
        elif event == "append":
            if self.ask(Opcode.APPEND, key=b"k", value=body).specific == SUCCESS:
                model.body = (model.body or b"") + body
        elif event == "attribute":
            self.mutate(change(UPSERT, path, body, X))
            if alive:
                model.attributes[name] = number
        elif event == "remove":
            self.mutate(change(REMOVE, path, b"", X), flags=D)
            model.attributes.pop(name, None)
        elif event == "stage":
            answer = self.mutate(change(UPSERT, path, body, X), flags=A | D | C)
            if not alive and not model.is_tombstone:
                self.assertEqual(answer.specific, DELETED)
                model.is_tombstone, model.attributes = True, {name: number}
            else:
                self.assertEqual(answer.specific, Status.KEY_EEXISTS)
        elif event == "revive":
            answer = self.mutate(change(BODY_FROM, path, b"", X), flags=D | V)
            if model.is_tombstone and name in model.attributes:
                self.assertEqual(answer.specific, SUCCESS)
                model.body, model.is_tombstone = b"%d" % model.attributes[name], False
        elif event == "whole":
            if self.mutate(change(UPSERT, path, body, X), change(Opcode.DELETE, b"")).specific == SUCCESS:
                model.attributes[name] = number
                model.delete()
        elif self.mutate(change(UPSERT, path, body, X), flags=D).specific in (SUCCESS, DELETED):
            model.attributes[name] = number

    @settings(max_examples=tries(150), deadline=None)
    @given(EVENTS)
    def test_any_order(self, events: list[tuple[str, str, int]]) -> None:
        """After any events, body, attributes and memory are what the rules of their lives say."""
        self.setUp()
        model = Model()
        for event, name, number in events:
            self.act(model, event, name, number)
            self.assertEqual(self.body(), model.body)
            found = self.attribute(b"$XTOC")
            if model.body is None and not model.is_tombstone:
                self.assertIsNone(found)
            else:
                self.assertEqual({one: self.attribute(one.encode()) for one in found}, model.attributes)
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        held = [*vbucket.items.values(), *vbucket.tombstones.values(), *vbucket.lasting.values()]
        self.assertEqual(self.bucket.ledger.memory_bytes, sum(item.size for item in held))
        self.assertEqual(json.loads(json.dumps(model.attributes)), model.attributes)
