"""Paths on the fast path: the same answers as on the general path, and their cost."""

from __future__ import annotations

import json
import sys
from struct import pack
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import encode_request
from couchnode.kv import fastpath, quickpaths
from couchnode.kv.quickpaths import MOST_LOOKUP_BYTES, lookups_of
from tests import tries, work
from tests.couchnode.kv.test_fastpath import FEATURES, KEEP_EXPIRY, Pair, mutation, store_extras
from tests.couchnode.kv.test_server import InMemoryCase

GET, EXISTS, COUNT, WHOLE = Opcode.SUBDOC_GET, Opcode.SUBDOC_EXISTS, Opcode.SUBDOC_GET_COUNT, Opcode.GET
UPSERT, COUNTER, DELETE = Opcode.SUBDOC_DICT_UPSERT, Opcode.SUBDOC_COUNTER, Opcode.SUBDOC_DELETE
ADD = Opcode.SUBDOC_DICT_ADD
PATHS = (
    b"a",
    b"b",
    b"c",
    b"a.b",
    b"c[0]",
    b"c[-1]",
    b"n",
    b"none",
    b"none.x",
    b"[0]",
    b"",
    b"a..b",
    b"$document",
)
DOCUMENTS = (
    b'{"n":1,"a":{"b":2},"c":[1,"x",{"y":3}]}',
    b'{ "b" : "a" , "c" : [ ] , "\\u0061" : 5, "n": 7 }',
    b"[1,[2,3]]",
    b"[" * 40 + b"]" * 40,
    b"7",
    b"not JSON",
    b'{"long":"%b","n":1}' % (b"x" * 200),
)
# Expiries, and flags of the document: created if missing, must not exist, and none.
EXTRAS = (b"", b"", b"", b"\1", b"\1", bytes(4), b"\0\0\0\2", b"\0\0\0\2\1", b"\0", b"\2", bytes(8), b"\0\0")
FEW_BYTES = 300
"""Size from which a document is large, in these tests."""


def lookup(opcode: int, flags: int, path: bytes) -> bytes:
    """Return one operation of a lookup."""
    return pack(">BBH", opcode, flags, len(path)) + path


def some(one: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return a few operations of a command, seldom too many, and seldom cut."""
    usual = st.lists(one, min_size=1, max_size=4).map(b"".join)
    return st.one_of(
        usual, usual, usual, st.lists(one, max_size=18).map(b"".join), usual.map(lambda data: data[:-1])
    )


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Commands on paths of one document, and stores of it."""
    flags = st.sampled_from((0, 0, 0, 0, 0, 1, 4))
    lookups = st.builds(
        lookup, st.sampled_from((GET, GET, GET, EXISTS, COUNT, WHOLE, UPSERT)), flags, st.sampled_from(PATHS)
    )
    mutations = st.builds(
        mutation,
        st.sampled_from((*range(UPSERT - 1, COUNTER + 1), UPSERT, UPSERT, COUNTER, DELETE, GET)),
        flags,
        st.sampled_from(PATHS),
        st.sampled_from((b"1", b"1", b"-7", b'{"b":[2]}', b"", b"5,6", b"[", b"x" * 100)),
    )
    commands = st.one_of(
        st.fixed_dictionaries({"opcode": st.just(Opcode.SUBDOC_MULTI_LOOKUP), "value": some(lookups)}),
        st.fixed_dictionaries(
            {
                "opcode": st.just(Opcode.SUBDOC_MULTI_MUTATION),
                "value": some(mutations),
                "framing": st.sampled_from((b"", b"", KEEP_EXPIRY)),
                "extras": st.sampled_from(EXTRAS),
            }
        ),
    )
    stores = st.builds(
        lambda value, expiry: {"opcode": Opcode.SET, "value": value, "extras": store_extras(expiry)},
        st.sampled_from(DOCUMENTS),
        st.sampled_from((0, 0, 2)),
    )
    attributes = st.just({"opcode": Opcode.SUBDOC_MULTI_MUTATION, "value": mutation(UPSERT, 4, b"x", b"1")})
    return st.one_of(commands, commands, commands, commands, stores, attributes)


class SameAnswers(InMemoryCase):
    """Operations on paths are answered in the same way on both paths."""

    @settings(max_examples=tries(500), deadline=None)
    @given(
        st.sets(st.sampled_from(FEATURES)).map(frozenset),
        st.sampled_from(DOCUMENTS),
        st.lists(
            st.tuples(st.lists(requests(), min_size=1, max_size=6), st.sampled_from((0, 0, 3))), max_size=4
        ),
    )
    def test_byte_for_byte(
        self, features: frozenset[Feature], first: bytes, turns: list[tuple[list[dict[str, Any]], int]]
    ) -> None:
        """The answers and the documents are the same byte for byte, for any operations on any documents."""
        pair = Pair(features)
        key = b"\0a" if Feature.COLLECTIONS in features else b"a"
        stored = {"opcode": Opcode.SET, "value": first, "extras": store_extras(0)}
        with (
            patch.object(quickpaths, "LARGE_BYTES", FEW_BYTES),
            patch.object(quickpaths, "MOST_LOOKUP_BYTES", 64),
        ):
            for asked, seconds in [([stored], 0), *turns]:
                self.assertEqual(*pair.outcomes([{**request, "key": key} for request in asked]))
                pair.advance(seconds)
        pair.end()


class LookupTests(InMemoryCase):
    """The operations of a lookup, as bytes."""

    def test_usual(self) -> None:
        """Any number of paths of the body."""
        value = lookup(GET, 0, b"a") + lookup(EXISTS, 0, b"b") + lookup(COUNT, 0, b"c")
        self.assertEqual(lookups_of(value), ((GET, b"a"), (EXISTS, b"b"), (COUNT, b"c")))

    def test_unusual(self) -> None:
        """Attributes, the whole document, mutations, and what is refused."""
        for value in (
            b"",
            lookup(GET, 4, b"a"),
            lookup(GET, 0, b""),
            lookup(WHOLE, 0, b""),
            lookup(UPSERT, 0, b"a"),
            lookup(GET, 0, b"a")[:-1],
            lookup(GET, 0, b"a") + b"\0",
            lookup(GET, 0, b"a") * 17,
        ):
            self.assertIs(lookups_of(value), None, value)


class CostTests(InMemoryCase):
    """What operations on paths cost, in calls and, on CPython 3.11, in bytecode instructions; a set of this
    document has 22 and 542."""

    def test_costs(self) -> None:
        """A path costs less than a store, and a mutation of three paths less than four stores."""
        self.connection.session.set_features(frozenset(FEATURES))
        text = b"x" * 900
        value = b'{"n":1,"m":2,"k":3,"tags":["a","b"],"a":{"b":1,"c":[1,2]},"text":"%b","z":7}' % text
        self.connection.dataReceived(
            encode_request(Opcode.SET, key=b"\0k", extras=store_extras(0), value=value)
        )
        for name, (most_calls, most, number, mutates) in {
            "lookup of one path": (33, 560, 1, False),
            "lookup of three paths": (72, 1150, 3, False),
            "mutation of one path": (64, 1140, 1, True),
            "mutation of three paths": (126, 2050, 3, True),
        }.items():
            specs = [
                mutation(UPSERT, 0, path, b"4") if mutates else lookup(GET, 0, path)
                for path in (b"n", b"m", b"k")
            ]
            opcode = Opcode.SUBDOC_MULTI_MUTATION if mutates else Opcode.SUBDOC_MULTI_LOOKUP
            request = encode_request(opcode, key=b"\0k", value=b"".join(specs[:number]))
            for unit, limit in ((work.calls, most_calls), (work.instructions, most)):
                if unit is work.instructions and sys.version_info[:2] != (3, 11):
                    continue
                self.connection.dataReceived(request * 3)
                few, many = (
                    unit(lambda n=n, r=request: self.connection.dataReceived(r * n)) for n in (10, 60)
                )
                self.answers()
                self.assertLessEqual((many - few) / 50, limit, f"{unit.__name__} of {name}")
                self.assertGreater((many - few) / 50, limit * 0.8, f"{unit.__name__} of {name}")

    def test_refused_mutations(self) -> None:
        """A mutation whose CAS is outdated, of a locked document, or whose last operation fails is refused on
        the fast path, with the answer of the general one; it leaves the others to that, and so every mutation
        that fails in a document which may be gone, or locked, or replaced."""
        self.connection.session.set_features(frozenset(FEATURES))
        vbucket = self.bucket.vbuckets[0]
        stored = vbucket.store(0, b"\0k", b'{"n":1}')
        vbucket.store(0, b"\0e", b'{"n":1}', 0, 100)
        vbucket.store(0, b"\0l", b'{"n":1}')
        locked = vbucket.lock(b"\0l")
        good, bad = mutation(UPSERT, 0, b"m", b"2"), mutation(ADD, 0, b"n", b"2")
        failed = pack(">BH", 1, Status.SUBDOC_PATH_EEXISTS)
        failure, eexists = Status.SUBDOC_MULTI_PATH_FAILURE, Status.KEY_EEXISTS
        for key, value, cas, status, answered, quick in (
            (b"\0k", good, 1, eexists, b"", True),
            (b"\0k", good + bad, 0, failure, failed, True),
            (b"\0k", good + bad, 1, eexists, b"", False),
            (b"\0k", good + bad, stored.cas, failure, failed, False),
            (b"\0k", good + bad + good, 0, failure, failed, False),
            (b"\0k", good + bad + b"x", 0, Status.EINVAL, None, False),
            (b"\0e", good + bad, 0, failure, failed, False),
            (b"\0l", good, 0, Status.LOCKED, b"", True),
            (b"\0l", good, 1, Status.LOCKED, b"", True),
            (b"\0l", good + bad, 0, Status.LOCKED, b"", False),
            (b"\0l", good + bad, locked.cas, failure, failed, False),
        ):
            data = encode_request(Opcode.SUBDOC_MULTI_MUTATION, key=key, value=value, cas=cas)
            session, seqno = self.connection.session, vbucket.high_seqno
            at, _ = fastpath.quick_answers(session, self.bucket, data, 0, [], 2**20)
            self.assertEqual(at == len(data), quick, (key, value, cas))
            self.connection.dataReceived(data)
            answer = self.answers()[0]
            self.assertEqual((answer.specific, answer.cas, vbucket.high_seqno), (status, 0, seqno))
            if answered is not None:
                self.assertEqual(answer.value, answered)

    def test_refused_while_a_write_is_pending(self) -> None:
        """While the document has a synchronous write under way, that is the reason."""
        self.connection.session.set_features(frozenset(FEATURES))
        vbucket = self.bucket.vbuckets[0]
        vbucket.store(0, b"\0k", b'{"n":1}')
        vbucket.store(0, b"\0k", b'{"n":2}', durable=True)
        for value in (mutation(UPSERT, 0, b"m", b"2"), mutation(ADD, 0, b"n", b"2")):
            data = encode_request(Opcode.SUBDOC_MULTI_MUTATION, key=b"\0k", value=value)
            self.connection.dataReceived(data)
            self.assertEqual(self.answers()[0].specific, Status.SYNC_WRITE_IN_PROGRESS)

    def test_costs_of_refusals(self) -> None:
        """Alone, refused mutations took 3,830 and 4,340 instructions on the general path."""
        self.connection.session.set_features(frozenset(FEATURES))
        self.bucket.vbuckets[0].store(0, b"\0k", b'{"n":1,"text":"%b"}' % (b"x" * 100))
        for most, parts in (
            (1125, {"value": mutation(UPSERT, 0, b"n", b"1"), "cas": 1}),
            (1040, {"value": mutation(ADD, 0, b"n", b"1")}),
        ):
            request = encode_request(Opcode.SUBDOC_MULTI_MUTATION, key=b"\0k", **parts)
            self.connection.dataReceived(request)
            used = work.instructions(lambda r=request: self.connection.dataReceived(r))
            self.answers()
            if sys.version_info[:2] in work.INSTRUCTIONS_OF:
                self.assertLessEqual(used, most)

    def test_both_take_the_fast_path(self) -> None:
        """Also those of whose paths some are missing, those whose answer has numbers, and with an expiry
        those that would create the document."""
        self.connection.session.set_features(frozenset(FEATURES))
        value = json.dumps({"n": 1, "tags": ["a"]}).encode()
        self.connection.dataReceived(
            encode_request(Opcode.SET, key=b"\0k", extras=store_extras(0), value=value)
        )
        self.answers()
        for opcode, asked, *extras in (
            (Opcode.SUBDOC_MULTI_LOOKUP, lookup(GET, 0, b"n") + lookup(EXISTS, 0, b"none")),
            (
                Opcode.SUBDOC_MULTI_MUTATION,
                mutation(COUNTER, 0, b"n", b"1") + mutation(DELETE, 0, b"tags[0]", b""),
            ),
            (Opcode.SUBDOC_MULTI_MUTATION, mutation(UPSERT, 1, b"x.y", b"1")),
            (Opcode.SUBDOC_MULTI_MUTATION, mutation(UPSERT, 0, b"z.y", b"1"), b"\0\0\1\0\1"),
        ):
            data = encode_request(opcode, key=b"\0k", value=asked, extras=b"".join(extras))
            out: list[bytes] = []
            at, held = fastpath.quick_answers(self.connection.session, self.bucket, data, 0, out, 2**20)
            self.assertEqual(at, len(data))
            self.assertGreaterEqual(held, len(b"".join(out)))
        long = lookup(GET, 0, b"n" * (MOST_LOOKUP_BYTES - 3))
        data = encode_request(Opcode.SUBDOC_MULTI_LOOKUP, key=b"\0k", value=long)
        self.assertEqual(
            fastpath.quick_answers(self.connection.session, self.bucket, data, 0, [], 2**20), (0, 0)
        )
