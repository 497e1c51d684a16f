"""The fast path of usual requests: the same answers as the general path, and its cost."""

from __future__ import annotations

import functools
import sys
from struct import pack
from typing import Any
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from couchbase.protocol.constants import Feature, FrameInfo, Magic, Opcode, Status
from couchbase.protocol.frames import encode_frame_infos, encode_request
from couchbase.protocol.operations import EXPIRY_LOOKUP_VALUE
from couchnode.access.rights import ALL_RIGHTS, DELETE, INSERT, READ, UPSERT, BucketRights, Rights
from couchnode.cluster.accounts import Account, User
from couchnode.data.bucket import NodeBucket
from couchnode.data.item import Item
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.manifest import Manifest, restored_manifest
from couchnode.data.storage import MemoryStore
from couchnode.kv import connection as kvconnection
from couchnode.kv import fastpath, snappy
from couchnode.kv.connection import KeyValueConnection
from couchnode.kv.server import KeyValueFactory
from tests import tries, work
from tests.couchnode.kv.test_privileges import acting_for
from tests.couchnode.kv.test_server import InMemoryCase
from tests.couchnode.nodes import UUID, StubNode
from tests.couchnode.stores import ManualStore

KEEP_EXPIRY = encode_frame_infos([(FrameInfo.PRESERVE_TTL, b"")])
FRAMINGS = (
    KEEP_EXPIRY,
    KEEP_EXPIRY + encode_frame_infos([(FrameInfo.BARRIER, b"")]),
    encode_frame_infos([(FrameInfo.PRESERVE_TTL, b"x")]),
    encode_frame_infos([(FrameInfo.DURABILITY, b"\1")]),
    encode_frame_infos([(9, b"")]),
)
LEVELS = tuple(
    encode_frame_infos(infos)
    for infos in (
        [(FrameInfo.DURABILITY, b"\1")],
        [(FrameInfo.DURABILITY, b"\1\1\0")],
        [(FrameInfo.PRESERVE_TTL, b""), (FrameInfo.DURABILITY, b"\1\1\0")],
        [(FrameInfo.DURABILITY, b"\2")],
        [(FrameInfo.DURABILITY, b"\3\0\1")],
        [(FrameInfo.DURABILITY, b"\1\0\0")],
        [(FrameInfo.DURABILITY, b"\1"), (FrameInfo.BARRIER, b"")],
    )
)
# In the default collection; in two with ids of one byte, the second with a longest life; in one with an id of
# two bytes, one that is being dropped, and one that never was.
KEYS = (b"a", b"b", b"\0a", b"\0b", b"\0", b"\1a", b"", bytes(251))
KEYS += (b"\x08a", b"\x09a", b"\x80\x01a", b"\x0aa", b"\x08", b"\x80\x01", b"\x80", b"\x80\x00a", b"\xff" * 6)
KEYS += tuple(prefix + b"k" * size for prefix in (b"\0", b"\x08", b"\x80\x01") for size in (246, 247, 250))
COMPRESSED = b"\x03\x08abc"
"""Three bytes, as Snappy compresses them."""
VALUES = (
    COMPRESSED,
    b"1",
    b"{}",
    b'{"a":[1,2]}',
    b"not JSON",
    b"",
    EXPIRY_LOOKUP_VALUE,
    EXPIRY_LOOKUP_VALUE[:-1],
)
STORES = (Opcode.SET, Opcode.ADD, Opcode.REPLACE)
LOCKS = (Opcode.GET_LOCKED, Opcode.UNLOCK)
CONCATS, COUNTERS = (Opcode.APPEND, Opcode.PREPEND), (Opcode.INCREMENT, Opcode.DECREMENT)
TOUCHES, OBSERVES = (Opcode.TOUCH, Opcode.GAT), (Opcode.OBSERVE, Opcode.OBSERVE_SEQNO)
OTHERS = (Opcode.GETQ, Opcode.SETQ, Opcode.GATQ, Opcode.INCREMENTQ, Opcode.NOOP, Opcode.STAT)
OTHERS += (*CONCATS, *COUNTERS, *TOUCHES, *OBSERVES)
FEATURES = (Feature.MUTATION_SEQNO, Feature.XATTR, Feature.XERROR, Feature.JSON, Feature.COLLECTIONS)
NEGOTIATED = (*FEATURES, Feature.SNAPPY)
EXPIRIES = (0, 0, 0, 1, 3, 100, 1_800_000_002, 5)
USUAL_KEY = "the first key, with the prefix of its collection where those are on"
CURRENT = "the CAS that the document has"


def store_extras(expiry: int) -> bytes:
    """Return flags and an expiry, as stores carry them."""
    return pack(">II", 0x02000006, expiry)


def _request(**parts: Any) -> dict[str, Any]:
    return parts


def mutation(opcode: int, flags: int, path: bytes, value: bytes) -> bytes:
    """Return one operation of a mutation."""
    return pack(">BBHI", opcode, flags, len(path), len(value)) + path + value


def mutations() -> st.SearchStrategy[bytes]:
    """Operations on paths: one, as most clients send, or several."""
    one = st.builds(
        mutation,
        st.sampled_from((0xC7, 0xC8, 0xC8, 0xC9, 0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF, 0x01, 0x04)),
        st.sampled_from((0, 0, 0, 1, 4)),
        st.sampled_from((b"a", b"a", b"b", b"a[0]", b"b.c", b"a[", b"", b"x" * 1025)),
        st.sampled_from((b"1", b'{"c":[2]}', b"[", b"", b"5,6")),
    )
    return st.one_of(one, one, st.lists(one, max_size=3).map(b"".join), one.map(lambda data: data[:-1]))


def usual() -> st.SearchStrategy[dict[str, Any]]:
    """Requests as clients send them, and a few that they might."""
    keys, vbuckets = st.sampled_from((USUAL_KEY, USUAL_KEY, b"b")), st.sampled_from((0, 0, 0, 1))
    cas = st.sampled_from((0, 0, 0, CURRENT, 1))
    where = {"key": keys, "vbucket": vbuckets}
    return st.one_of(
        st.fixed_dictionaries({"opcode": st.just(Opcode.GET), **where}),
        st.fixed_dictionaries(
            {"opcode": st.just(Opcode.SUBDOC_MULTI_LOOKUP), "value": st.just(EXPIRY_LOOKUP_VALUE), **where}
        ),
        st.fixed_dictionaries(
            {
                "opcode": st.sampled_from(STORES),
                "extras": st.sampled_from(EXPIRIES).map(store_extras),
                "value": st.one_of(st.just(COMPRESSED), st.sampled_from(VALUES)),
                "datatype": st.sampled_from((0, 0, 1, 2, 3, 4, 6)),
                "framing": st.sampled_from((b"", KEEP_EXPIRY)),
                "cas": cas,
                **where,
            }
        ),
        st.fixed_dictionaries({"opcode": st.just(Opcode.DELETE), "cas": cas, **where}),
        st.fixed_dictionaries(
            {
                "opcode": st.just(Opcode.SUBDOC_MULTI_MUTATION),
                "value": mutations(),
                "framing": st.sampled_from((b"", KEEP_EXPIRY)),
                "cas": cas,
                **where,
            }
        ),
        st.fixed_dictionaries(
            {"opcode": st.sampled_from(LOCKS), "cas": st.sampled_from((0, CURRENT)), **where}
        ),
    )


def odd() -> st.SearchStrategy[dict[str, Any]]:
    """Requests any part of which may be wrong, or seldom used."""
    return st.fixed_dictionaries(
        {
            "opcode": st.sampled_from(
                (
                    *(Opcode.GET, Opcode.SUBDOC_MULTI_LOOKUP, Opcode.SUBDOC_MULTI_MUTATION, Opcode.DELETE),
                    *(*STORES, *LOCKS, *OTHERS),
                )
            ),
            "key": st.sampled_from(KEYS),
            "vbucket": st.sampled_from((0, 1, 2, 3, 4, 65535)),
            "extras": st.one_of(
                st.sampled_from(EXPIRIES).map(store_extras),
                st.sampled_from((b"", b"\0", b"\4", bytes(4), b"\0\0\0\5", pack(">QQI", 1, 2, 3))),
            ),
            "value": st.sampled_from(VALUES),
            "datatype": st.sampled_from((0, 1, 2, 3, 4)),
            "cas": st.sampled_from((0, 1, CURRENT, 2**64 - 1)),
            "framing": st.sampled_from((b"", *FRAMINGS)),
            "magic": st.sampled_from((None, None, Magic.ALT_REQUEST, Magic.CLIENT_RESPONSE)),
        }
    )


def observed(*keys: tuple[int, bytes]) -> bytes:
    """Return the value of an OBSERVE of these keys, each with its vbucket."""
    return b"".join(pack(">HH", vbid, len(key)) + key for vbid, key in keys)


def edits() -> st.SearchStrategy[dict[str, Any]]:
    """The other changes of one document, and observation, as clients send them, and nearly so."""
    where = {
        "key": st.sampled_from((USUAL_KEY, USUAL_KEY, b"b", b"\0counter", b"\x08a")),
        "vbucket": st.sampled_from((0, 0, 0, 1, 2)),
    }
    seldom = {"cas": st.sampled_from((0, 0, 0, CURRENT, 1))}
    keys = st.tuples(st.sampled_from((0, 0, 0, 1, 2, 3, 4)), st.sampled_from((b"a", b"\0a", b"b", *KEYS)))
    return st.one_of(
        st.fixed_dictionaries(
            {
                "opcode": st.sampled_from((*TOUCHES, Opcode.GET_LOCKED)),
                "extras": st.sampled_from(EXPIRIES).map(functools.partial(pack, ">I")),
                **where,
            }
        ),
        st.fixed_dictionaries({"opcode": st.sampled_from((*LOCKS, Opcode.DELETE)), **where, **seldom}),
        st.fixed_dictionaries(
            {
                "opcode": st.sampled_from(COUNTERS),
                "extras": st.builds(
                    functools.partial(pack, ">QQI"),
                    st.sampled_from((0, 1, 2**64 - 1)),
                    st.sampled_from((0, 5)),
                    st.sampled_from((0, 100, 2**32 - 1)),
                ),
                **where,
            }
        ),
        st.fixed_dictionaries(
            {
                "opcode": st.sampled_from(CONCATS),
                "value": st.sampled_from(VALUES),
                "datatype": st.sampled_from((0, 0, 0, 1, 3)),
                **where,
                **seldom,
            }
        ),
        st.fixed_dictionaries(
            {
                "opcode": st.just(Opcode.OBSERVE),
                "key": st.sampled_from((b"", b"", b"", b"\0a")),
                "vbucket": st.sampled_from((0, 0, 2, 3, 4)),
                "value": st.one_of(
                    st.lists(keys, max_size=3).map(lambda listed: observed(*listed)),
                    keys.map(lambda one: observed(one)[:-1]),
                ),
            }
        ),
        st.fixed_dictionaries(
            {
                "opcode": st.just(Opcode.OBSERVE_SEQNO),
                "key": st.sampled_from((b"", b"", b"", b"\0a")),
                "vbucket": st.sampled_from((0, 0, 2, 3, 4)),
                "value": st.sampled_from((pack(">Q", 7), pack(">Q", 7), pack(">Q", 8), b"7")),
                "cas": st.sampled_from((0, 0, 1)),
            }
        ),
    )


UPSERT_PATH = mutation(0xC8, 0, b"a", b"1")
STORED = {"key": USUAL_KEY, "extras": store_extras(5), "value": b"{}"}
FORMS = (
    _request(opcode=Opcode.GET, key=USUAL_KEY),
    _request(opcode=Opcode.SUBDOC_MULTI_LOOKUP, key=USUAL_KEY, value=EXPIRY_LOOKUP_VALUE),
    *(_request(opcode=opcode, **STORED) for opcode in STORES),
    *(_request(opcode=opcode, framing=KEEP_EXPIRY, **STORED) for opcode in STORES),
    *(_request(opcode=opcode, datatype=3, **{**STORED, "value": COMPRESSED}) for opcode in STORES),
    _request(opcode=Opcode.SUBDOC_MULTI_MUTATION, key=USUAL_KEY, value=UPSERT_PATH),
    _request(opcode=Opcode.SUBDOC_MULTI_MUTATION, key=USUAL_KEY, value=UPSERT_PATH, framing=KEEP_EXPIRY),
    _request(opcode=Opcode.DELETE, key=USUAL_KEY),
    *(_request(opcode=opcode, key=USUAL_KEY, extras=pack(">I", 5)) for opcode in (*TOUCHES, LOCKS[0])),
    _request(opcode=Opcode.GET_LOCKED, key=USUAL_KEY),
    _request(opcode=Opcode.UNLOCK, key=USUAL_KEY, cas=1),
    *(_request(opcode=opcode, key=b"\x09a", extras=pack(">QQI", 1, 2, 3)) for opcode in COUNTERS),
    *(_request(opcode=opcode, key=USUAL_KEY, value=b"1") for opcode in CONCATS),
    _request(opcode=Opcode.OBSERVE, key=b"", value=observed((0, b"\0a"), (2, b"\x08a"))),
    _request(opcode=Opcode.OBSERVE_SEQNO, key=b"", value=pack(">Q", 7)),
)
UNUSUAL = {
    "opcode": (Opcode.GETQ, Opcode.SETQ, Opcode.INCREMENT, Opcode.TOUCH, Opcode.GETK, Opcode.SUBDOC_GET),
    "key": (*KEYS, b"new", b"\0new", bytes(250), pack(">HH", 0, 2) + b"\0a"),
    "vbucket": (1, 2, 3, 4, 65535),
    "extras": (b"", b"\0", b"\4", bytes(4), bytes(8), bytes(9), bytes(20), store_extras(1_800_000_000)),
    "value": VALUES,
    "datatype": (1, 2, 3, 4, 6, 7),
    "cas": (1, CURRENT, 2**64 - 1),
    "framing": (b"", *FRAMINGS),
    "magic": (Magic.ALT_REQUEST, Magic.CLIENT_RESPONSE),
}


def numbered(manifest: Manifest, name: str, number: int) -> Manifest:
    """Return a manifest in which a collection of the default scope has another id."""
    data = manifest.dump()
    for one in data["scopes"][0]["collections"]:
        if one["name"] == name:
            one["id"] = number
    return restored_manifest(data)


@functools.cache
def own_manifest() -> Manifest:
    """Return a manifest with the collections of KEYS."""
    manifest = Manifest().with_collection("_default", "a").with_collection("_default", "b", 3)
    manifest = manifest.with_collection("_default", "dropped").with_collection("_default", "large")
    return numbered(manifest.without_collection("_default", "dropped"), "large", 128)


class Node:
    """A node with a bucket of four vbuckets: 0 and 1 active, 2 a replica, 3 elsewhere."""

    def __init__(self, features: frozenset[Feature], persistent: bool) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.node = StubNode(self.clock)
        self.bucket = NodeBucket(
            "default",
            UUID,
            vbucket_count=4,
            quota_bytes=5000,
            store=ManualStore() if persistent else MemoryStore(),
            clock=self.clock,
        )
        self.bucket.start()
        self.bucket.set_topology(["active", "active", "replica", "dead"])
        for vbucket in self.bucket.vbuckets:
            if vbucket is not None:
                vbucket.failover_log = [(7, 0)]
                vbucket.load(Item(b"\0a", b"{}", 6, 0, 1000, 1, 1))
                vbucket.load(Item(b"\0b", b"not JSON", 0, 1_800_000_002, 1001, 2, 1))
                for number, prefix in enumerate((b"\x08", b"\x09", b"\x80\x01", b"\x0a")):
                    vbucket.load(Item(prefix + b"a", b"[%d]" % number, 0, 0, 1002 + number, 3 + number, 1))
        self.bucket.set_manifest(own_manifest())
        self.bucket.dropper.stop()
        self.node.buckets["default"] = self.bucket
        factory = KeyValueFactory(self.node)
        self.connection, self.transport = InMemoryCase.connect_to(factory)
        self.connection.session.set_features(features)

    def current_cas(self, vbid: int, key: bytes) -> int:
        """Return the CAS of a document, even if it is locked."""
        vbucket = self.bucket.vbuckets[vbid] if vbid < 4 else None
        if not self.connection.session.collections:
            key = DEFAULT_PREFIX + key
        item = vbucket.items.get(key) if vbucket is not None else None
        return item.cas if item is not None else 0

    def answers(self) -> bytes:
        """Return what was answered since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return data

    def state(self) -> Any:
        """Return everything that requests can change."""
        bucket = self.bucket
        return (
            (bucket.gets, bucket.misses, bucket.stores, bucket.ledger.memory_bytes),
            (bucket.ledger.queued_items, bucket.ledger.queued_bytes),
            [
                (vbucket.high_seqno, vbucket.max_cas, vbucket.may_expire, vbucket.max_deleted_revid)
                + tuple(
                    [
                        (i.key, i.value, i.flags, i.expiry, i.cas, i.seqno, i.revid, i.deleted, i.lock_until)
                        for i in held.values()
                    ]
                    for held in (vbucket.items, vbucket.tombstones, vbucket.pending)
                )
                for vbucket in bucket.vbuckets
                if vbucket is not None
            ],
        )


class MaskRights(Rights):
    """Rights with some privileges on every bucket."""

    def __init__(self, mask: int) -> None:
        super().__init__(())
        self.mask = mask

    def on_bucket(self, name: str) -> BucketRights:
        """Return them."""
        return BucketRights(self.mask, {})


class Pair:
    """Two nodes in the same state, one of which knows no short way."""

    def __init__(self, features: frozenset[Feature], persistent: bool = False) -> None:
        self._short, self._long = Node(features, persistent), Node(features, persistent)
        self._features = features
        self._opaque = 0

    def outcomes(
        self, requests: list[dict[str, Any]], cut: int = 0, bucket_state: Any = "ready"
    ) -> tuple[Any, Any]:
        """Send both the same requests in two pieces; returns what each answers and looks like then."""
        data = b"".join(map(self._encode, requests))
        pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
        outcomes = []
        for node, quick_answers in ((self._short, fastpath.quick_answers), (self._long, never)):
            node.bucket.state = bucket_state
            with (
                patch.object(kvconnection, "quick_answers", quick_answers),
                patch("couchnode.kv.session.uuid4", lambda: "reference"),
            ):
                for piece in pieces:
                    node.connection.dataReceived(piece)
            node.bucket.state = "ready"
            outcomes.append((node.answers(), node.state()))
        return outcomes[0], outcomes[1]

    def limit(self, mask: int, *, acts: bool) -> None:
        """Give the user of the connection these privileges; or every one, and these to the user ``bob``."""
        for node in (self._short, self._long):
            session, users = node.connection.session, {"ann": ALL_RIGHTS, "bob": MaskRights(mask)}
            rights = ALL_RIGHTS if acts else MaskRights(mask)
            node.node.cluster.rights = lambda user, users=users, rights=rights: users.get(user, rights)
            for name in users:
                node.node.cluster.users.put(name, User(False, Account(), {}))
            session.rights_changed()

    def copy(self, count: int) -> None:
        """Configure so many replicas."""
        for node in (self._short, self._long):
            node.bucket.replica_count = count

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        for node in (self._short, self._long):
            node.clock.advance(seconds)

    def end(self) -> None:
        """Disconnect."""
        for node in (self._short, self._long):
            node.connection.connectionLost()

    def _encode(self, request: dict[str, Any]) -> bytes:
        self._opaque += 1
        parts = dict(request)
        if parts["key"] == USUAL_KEY:
            parts["key"] = b"\0a" if Feature.COLLECTIONS in self._features else b"a"
        if parts.get("cas") == CURRENT:
            parts["cas"] = self._short.current_cas(parts.get("vbucket", 0), parts["key"])
        framing = parts.get("framing", b"")
        if framing:
            # Only one kind of request has room for it, and its keys are no longer than one byte can express.
            parts["magic"] = None
        return encode_request(opaque=self._opaque, **parts)


def never(session: Any, bucket: Any, data: bytes, at: int, out: list[bytes], limit: int) -> tuple[int, int]:
    """Leave every request to the long way."""
    return at, 0


class SameAnswers(InMemoryCase):
    """Requests are answered in the same way by the short way and the long one."""

    @settings(max_examples=tries(600), deadline=None)
    @given(
        st.sets(st.sampled_from(NEGOTIATED)).map(frozenset),
        st.booleans(),
        st.lists(
            st.tuples(
                st.lists(
                    st.one_of(usual(), usual(), usual(), edits(), edits(), odd()), min_size=1, max_size=8
                ),
                st.integers(0, 2000),
                st.sampled_from((0, 0, 0.5, 1, 2, 20)),
                st.sampled_from(("ready", "ready", "ready", "warmup")),
            ),
            max_size=6,
        ),
    )
    @example(
        frozenset({Feature.MUTATION_SEQNO, Feature.JSON}),
        True,
        [
            (
                [
                    _request(opcode=Opcode.SET, key=USUAL_KEY, extras=store_extras(3), value=b"{}"),
                    _request(opcode=Opcode.SUBDOC_MULTI_LOOKUP, key=USUAL_KEY, value=EXPIRY_LOOKUP_VALUE),
                    _request(opcode=Opcode.GET_LOCKED, key=USUAL_KEY),
                    _request(opcode=Opcode.GET, key=USUAL_KEY),
                    _request(opcode=Opcode.DELETE, key=USUAL_KEY, cas=CURRENT),
                ],
                30,
                20,
                "ready",
            ),
            ([_request(opcode=Opcode.GET, key=USUAL_KEY)] * 2, 0, 0, "ready"),
        ],
    )
    def test_byte_for_byte(
        self,
        features: frozenset[Feature],
        persistent: bool,
        chunks: list[tuple[list[dict[str, Any]], int, float, Any]],
    ) -> None:
        """The answers and the resulting state are the same byte for byte, for any requests, features, chunks
        and passage of time."""
        pair = Pair(features, persistent)
        for requests, cut, seconds, bucket_state in chunks:
            self.assertEqual(*pair.outcomes(requests, cut, bucket_state))
            pair.advance(seconds)
        pair.end()

    @settings(max_examples=tries(300), deadline=None)
    @given(
        st.sets(st.sampled_from(NEGOTIATED)).map(frozenset),
        st.sets(st.sampled_from((READ, INSERT, UPSERT, DELETE))).map(sum),
        st.booleans(),
        st.lists(
            st.tuples(
                st.one_of(usual(), usual(), edits(), odd()),
                st.sampled_from((b"", b"", *[acting_for(user) for user in ("ann", "bob", "nobody")],
                                 acting_for("ann", (FrameInfo.PRESERVE_TTL, b"")),
                                 acting_for("bob", (FrameInfo.PRESERVE_TTL, b"")),
                                 acting_for("ann", (FrameInfo.DURABILITY, b"\1")))),
            ),
            min_size=1,
            max_size=12,
        ),
    )  # fmt: skip
    def test_byte_for_byte_with_privileges(
        self,
        features: frozenset[Feature],
        mask: int,
        acts: bool,
        requests: list[tuple[dict[str, Any], bytes]],
    ) -> None:
        """The same for users with any privileges, and for connections that act for such users."""
        pair = Pair(features)
        pair.limit(mask, acts=acts)
        encoded = [{**request, "framing": framing} if framing else request for request, framing in requests]
        # Twice, because what a connection has accepted once may be on the fast path the second time.
        for _ in range(2):
            self.assertEqual(*pair.outcomes(encoded))
        pair.end()

    @settings(max_examples=tries(300), deadline=None)
    @given(
        st.booleans(),
        st.sampled_from((0, 0, 0, 1, 2)),
        st.lists(
            st.tuples(
                st.one_of(usual(), usual(), odd()),
                st.sampled_from((b"", *LEVELS, *LEVELS[:1] * 4)),
            ),
            min_size=1,
            max_size=12,
        ),
    )
    def test_byte_for_byte_with_levels(
        self, persistent: bool, replicas: int, requests: list[tuple[dict[str, Any], bytes]]
    ) -> None:
        """The same for synchronous writes, with and without other copies."""
        pair = Pair(frozenset(FEATURES), persistent)
        encoded = [{**request, "framing": framing} if framing else request for request, framing in requests]
        for count in (0, replicas, 0):
            pair.copy(count)
            self.assertEqual(*pair.outcomes(encoded))
        pair.end()

    def test_each_part_that_may_be_unusual(self) -> None:
        """Each part of each usual request, made invalid or unusual one at a time."""
        for features in (frozenset[Feature](), frozenset(NEGOTIATED)):
            for form in FORMS:
                for part, values in UNUSUAL.items():
                    for value in values:
                        pair = Pair(features)
                        other = {**form, part: value}
                        self.assertEqual(*pair.outcomes([other, FORMS[0]]), other)
                        pair.end()

    def short_way(self, *requests: bytes) -> int:
        """Return how many of these, sent in one piece, were answered by the short way."""
        data = b"".join(requests)
        out: list[bytes] = []
        at, held = fastpath.quick_answers(self.connection.session, self.bucket, data, 0, out, 2**20)
        self.assertLessEqual(sum(map(len, out)), held)
        ends = [sum(map(len, requests[: n + 1])) for n in range(len(requests))]
        return ends.index(at) + 1 if at else 0

    def test_what_is_usual(self) -> None:
        """Frequent requests take the fast path, with every feature enabled."""
        self.connection.session.set_features(frozenset(FEATURES) - {Feature.COLLECTIONS})
        key = {"key": b"k"}
        stored = {**key, "extras": store_extras(0), "value": b"{}"}
        requests = [
            encode_request(Opcode.ADD, **stored),
            encode_request(Opcode.SET, **stored, datatype=1),
            encode_request(Opcode.SET, framing=KEEP_EXPIRY, **stored),
            encode_request(Opcode.REPLACE, framing=KEEP_EXPIRY, **stored),
            encode_request(Opcode.SUBDOC_MULTI_MUTATION, value=UPSERT_PATH, **key),
            encode_request(Opcode.SUBDOC_MULTI_MUTATION, value=UPSERT_PATH, framing=KEEP_EXPIRY, **key),
            encode_request(Opcode.SET, key=b"k", extras=store_extras(100), value=b""),
            encode_request(Opcode.GET, **key),
            encode_request(Opcode.SUBDOC_MULTI_LOOKUP, value=EXPIRY_LOOKUP_VALUE, **key),
            *(encode_request(opcode, extras=pack(">I", 5), **key) for opcode in TOUCHES),
            *(encode_request(opcode, value=b"1", **key) for opcode in CONCATS),
            *(encode_request(opcode, extras=pack(">QQI", 1, 2, 3), **key) for opcode in COUNTERS),
            encode_request(Opcode.OBSERVE, value=observed((0, b"k"))),
            encode_request(Opcode.OBSERVE_SEQNO, value=pack(">Q", self.bucket.vbuckets[0].uuid)),
            # Refused, and not there.
            encode_request(Opcode.ADD, **stored),
            encode_request(Opcode.SET, cas=1, **stored),
            encode_request(Opcode.UNLOCK, cas=1, **key),
            encode_request(Opcode.GET_LOCKED, **key),
            encode_request(Opcode.SET, **stored),
            encode_request(Opcode.DELETE, key=b"j"),
            encode_request(Opcode.GET, key=b"j"),
            encode_request(Opcode.SUBDOC_MULTI_LOOKUP, key=b"j", value=EXPIRY_LOOKUP_VALUE),
        ]
        self.assertEqual(self.short_way(*requests), len(requests))
        self.connection.session.set_features(frozenset(FEATURES))
        prefixed = [encode_request(Opcode.SET, key=b"\0k", extras=store_extras(0))]
        self.assertEqual(self.short_way(*prefixed, encode_request(Opcode.GET, key=b"\0k")), 2)
        if snappy.FEATURES:
            self.connection.session.set_features(frozenset(NEGOTIATED))
            parts = {"key": b"\0k", "extras": store_extras(0), "datatype": 3}
            self.assertEqual(self.short_way(encode_request(Opcode.SET, value=COMPRESSED, **parts)), 1)
            self.assertEqual(self.short_way(encode_request(Opcode.SET, value=COMPRESSED[:-1], **parts)), 0)

    def test_levels(self) -> None:
        """A synchronous write takes the fast path from the second on, unless a majority is more than this
        copy."""
        self.connection.session.set_features(frozenset(FEATURES) - {Feature.COLLECTIONS})
        framing = LEVELS[1]
        stored = encode_request(Opcode.SET, key=b"k", extras=store_extras(0), framing=framing)
        removed = encode_request(Opcode.DELETE, key=b"k", framing=framing)
        self.assertEqual(self.short_way(stored), 0)
        self.connection.dataReceived(stored)
        self.assertEqual(self.short_way(stored, stored, removed, stored), 4)
        self.assertEqual(self.short_way(encode_request(Opcode.GET, key=b"k", framing=framing)), 0)
        self.bucket.replica_count = 1
        self.assertEqual(self.short_way(stored), 0)
        self.bucket.replica_count = 0
        with patch.dict(self.bucket.replicator.streams, {0: {}}):
            self.assertEqual(self.short_way(stored), 0)
        self.assertEqual(self.short_way(stored), 1)
        waiting = encode_request(Opcode.SET, key=b"k", extras=store_extras(0), framing=LEVELS[4])
        self.connection.dataReceived(waiting)
        self.assertEqual(self.short_way(waiting), 0)

    def test_what_is_not(self) -> None:
        """A request of another form is left to the general path, and so is everything after it."""
        stored = encode_request(Opcode.SET, key=b"k", extras=store_extras(0))
        get = encode_request(Opcode.GET, key=b"k")
        for other in (
            encode_request(Opcode.GET, key=b"k" * 251),
            encode_request(Opcode.GETQ, key=b"k"),
            encode_request(Opcode.SUBDOC_MULTI_MUTATION, key=b"k", value=UPSERT_PATH),
            encode_request(Opcode.UNLOCK, key=b"k"),
            encode_request(Opcode.SET, key=b"k", extras=store_extras(0), framing=FRAMINGS[3]),
            encode_request(Opcode.GET, key=b"k", vbucket=4),
            encode_request(Opcode.NOOP),
        ):
            self.assertEqual(self.short_way(stored, get, other, get), 2, other)

    def test_a_store_with_attributes(self) -> None:
        """A store that claims to have attributes is refused, even if the connection may use them and the
        value could be inflated."""
        self.connection.session.set_features(frozenset(FEATURES) - {Feature.COLLECTIONS})
        for opcode in STORES:
            for datatype in (4, 5, 6, 7):
                request = encode_request(
                    opcode, key=b"k", extras=store_extras(0), value=COMPRESSED, datatype=datatype
                )
                self.assertEqual(self.short_way(request), 0)
                self.connection.dataReceived(request)
                self.assertEqual([answer.specific for answer in self.answers()], [Status.EINVAL])
        self.assertEqual(self.bucket.item_count, 0)

    def test_the_limit(self) -> None:
        """No more is answered once the answers are long enough; the rest is answered after them."""
        self.connection.dataReceived(
            encode_request(Opcode.SET, key=b"k", extras=store_extras(0), value=b"x" * 100)
        )
        gets = encode_request(Opcode.GET, key=b"k") * 10
        out: list[bytes] = []
        at, held = fastpath.quick_answers(self.connection.session, self.bucket, gets, 0, out, 200)
        self.assertEqual((at * 10 // len(gets), held), (2, 2 * (24 + 4 + 100)))
        self.answers()
        with patch.object(kvconnection, "MAX_OUTPUT_BYTES", 200):
            self.connection.dataReceived(gets)
        self.assertEqual(len(self.answers()), 10)

    def test_much_work(self) -> None:
        """After searching or copying much, the rest is left to the caller, who can look at the time."""
        self.connection.session.set_features(frozenset(FEATURES) - {Feature.COLLECTIONS})
        document = b'{"b":"%b","a":1}' % (b"x" * 30_000)
        for value, opcode, parts in (
            (document, Opcode.SUBDOC_MULTI_LOOKUP, {"value": pack(">BBH", 0xC5, 0, 1) + b"a"}),
            (document, Opcode.SUBDOC_MULTI_MUTATION, {"value": UPSERT_PATH}),
            (b"x" * 2**20, Opcode.APPEND, {"value": b"x"}),
        ):
            self.bucket.vbuckets[0].store(0, b"\0k", value)
            request = encode_request(opcode, key=b"k", **parts)
            out: list[bytes] = []
            session, limit = self.connection.session, 2**17
            at, held = fastpath.quick_answers(session, self.bucket, request * 9, 0, out, limit)
            self.assertEqual(at, len(request) * (1 if opcode == Opcode.APPEND else 5))
            self.assertGreaterEqual(held, limit)
            self.connection.dataReceived(request * 9)
            self.assertEqual([answer.specific for answer in self.answers()], [0] * 9)

    def test_long_observation(self) -> None:
        """A long list of keys is left to the general path, which takes several turns for it."""
        key = pack(">HH", 0, 1) + b"k"
        for count, answered in ((1000, 1), (5000, 0)):
            self.assertEqual(self.short_way(encode_request(Opcode.OBSERVE, value=key * count)), answered)


class Work(InMemoryCase):
    """The work for one request in calls, which do not depend on the machine."""

    def calls(self, request: bytes) -> float:
        """Return the calls that one more request of a chunk costs."""
        connection: KeyValueConnection = self.connection
        connection.dataReceived(request * 2)
        few, many = (work.calls(lambda n=n: connection.dataReceived(request * n)) for n in (100, 1100))
        self.answers()
        return (many - few) / 1000

    def test_calls_a_request(self) -> None:
        """A read costs a handful of calls, a store some more."""
        self.connection.session.set_features(frozenset(FEATURES) - {Feature.COLLECTIONS})
        parts = {"key": b"k", "extras": store_extras(0), "value": b'{"text":"%b"}' % (b"x" * 1000)}
        requests = {
            "set": (23, encode_request(Opcode.SET, **parts)),
            "set, keeping the expiry": (24, encode_request(Opcode.SET, framing=KEEP_EXPIRY, **parts)),
            "synchronous set": (24, encode_request(Opcode.SET, framing=LEVELS[0], **parts)),
            "get": (8, encode_request(Opcode.GET, key=b"k")),
            "lookup": (
                13,
                encode_request(Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=EXPIRY_LOOKUP_VALUE),
            ),
        }
        for name, (most, request) in requests.items():
            self.assertLessEqual(self.calls(request), most, name)

    def test_one_at_a_time(self) -> None:
        """A usual request that arrives alone costs little more than one among others: the
        connection does not change its state. A partial one gets no answer, and its rest completes it."""
        self.connection.session.set_features(frozenset(FEATURES) - {Feature.COLLECTIONS})
        parts = {"key": b"k", "extras": store_extras(0), "value": b'{"text":"%b"}' % (b"x" * 1000)}
        requests = {
            "set": (880, 41, encode_request(Opcode.SET, **parts)),
            "get": (515, 26, encode_request(Opcode.GET, key=b"k")),
            "lookup": (
                540,
                31,
                encode_request(Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=EXPIRY_LOOKUP_VALUE),
            ),
        }
        for name, (most, most_calls, request) in requests.items():
            self.connection.dataReceived(request * 2)
            self.answers()
            self.assertLessEqual(
                work.calls(lambda r=request: self.connection.dataReceived(r)), most_calls, name
            )
            if sys.version_info[:2] in work.INSTRUCTIONS_OF:
                used = work.instructions(lambda r=request: self.connection.dataReceived(r))
                self.assertLessEqual(used, most, name)
            self.answers()
            self.connection.dataReceived(request[:-1])
            self.assertEqual(self.answers(), [], name)
            self.connection.dataReceived(request[-1:])
            self.assertEqual(len(self.answers()), 1, name)

    def test_named_collections(self) -> None:
        """A request in a named collection costs what one in the default collection costs, in calls and, where
        they are counted, within a few instructions; two calls more if its id takes two bytes."""
        self.connection.session.set_features(frozenset(FEATURES))
        manifest = Manifest().with_collection("_default", "a").with_collection("_default", "b")
        self.bucket.set_manifest(numbered(manifest, "b", 128))
        parts = {"extras": store_extras(0), "value": b'{"text":"%b"}' % (b"x" * 1000)}
        for opcode, more in ((Opcode.SET, parts), (Opcode.GET, {})):
            requests = [
                encode_request(opcode, key=prefix + b"k", **more) for prefix in (b"\0", b"\x08", b"\x80\x01")
            ]
            for prefix in (b"\0", b"\x08", b"\x80\x01"):
                self.connection.dataReceived(encode_request(Opcode.SET, key=prefix + b"k", **parts))
            default, named, large = map(self.calls, requests)
            self.assertLessEqual(named, default, opcode)
            self.assertLessEqual(large, default + 2, opcode)
            if sys.version_info[:2] in work.INSTRUCTIONS_OF:
                default, named = map(self.instructions, requests[:2])
                self.assertLessEqual(named, default + 4, opcode)

    def instructions(self, request: bytes) -> float:
        """Return the bytecode instructions that one more request of a chunk costs."""
        few, many = (
            work.instructions(lambda n=n: self.connection.dataReceived(request * n)) for n in (10, 60)
        )
        self.answers()
        return (many - few) / 50

    def test_calls_of_another_user(self) -> None:
        """A request for another user costs one call more than one without."""
        self.connection.session.set_features(frozenset(FEATURES))
        self.node.cluster.users.put("ann", User(False, Account(), {}))
        self.node.cluster.rights = lambda user: ALL_RIGHTS
        self.connection.session.rights_changed()
        framing = acting_for("ann")
        parts = {"key": b"\0k", "extras": store_extras(0), "value": b'{"text":"%b"}' % (b"x" * 1000)}
        requests = {
            "set": (24, encode_request(Opcode.SET, framing=framing, **parts)),
            "get": (9, encode_request(Opcode.GET, key=b"\0k", framing=framing)),
        }
        for name, (most, request) in requests.items():
            self.assertLessEqual(self.calls(request), most, name)
