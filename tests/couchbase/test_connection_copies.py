"""Observe, durability and replica reads, on a cluster with copies."""

import time
from unittest import mock

import couchbase.subdocument as SD
from couchbase import OBS_FOUND, OBS_LOGICALLY_DELETED, OBS_NOTFOUND, OBS_PERSISTED
from couchbase.admin import Admin
from couchbase.exceptions import (
    ArgumentError,
    BucketNotFoundError,
    CouchbaseError,
    KeyExistsError,
    NotFoundError,
    TimeoutError,
    ValueFormatError,
)
from couchbase.result import OperationResult, ValueResult
from couchbase.transcoder import Transcoder
from tests.couchbase.support import ConnectionTestCase


class CopyTests(ConnectionTestCase):
    """Section 11 of the reference."""

    options = {"nodes": 3, "replicas": 1, "disk": True}

    def test_observe(self):
        """The master and every replica, or the master alone."""
        stored = self.cb.set(self.key(), 1, persist_to=-1, replicate_to=-1)
        found = self.cb.observe(self.key())
        self.assertIs(type(found), ValueResult)
        self.assertEqual((found.cas, found.key, len(found.value)), (0, self.key(), 2))
        self.assertEqual(sorted(info.from_master for info in found.value), [0, 1])
        for info in found.value:
            self.assertIn(info.flags, (OBS_FOUND, OBS_PERSISTED))
            self.assertEqual(info.cas, stored.cas)
        (master,) = self.cb.observe(self.key(), master_only=True).value
        self.assertTrue(master.from_master)

    def test_observe_missing(self):
        """No error."""
        for info in self.cb.observe(self.missing()).value:
            self.assertIn(info.flags, (OBS_NOTFOUND, OBS_LOGICALLY_DELETED))

    def test_observe_multi(self):
        """A MultiResult of such results."""
        keys = [self.key(str(number)) for number in range(20)]
        self.cb.set_multi(dict.fromkeys(keys, 1))
        found = self.cb.observe_multi(keys)
        self.assertEqual({len(result.value) for result in found.values()}, {2})
        found = self.cb.observe_multi(keys, master_only=True)
        self.assertEqual({len(result.value) for result in found.values()}, {1})

    def test_mutations(self):
        """Each mutation may wait for copies; the result is its own."""
        key = self.key()
        for stored in (
            self.cb.set(key, "a", format=4, persist_to=2, replicate_to=1),
            self.cb.append(key, "b", persist_to=1),
            self.cb.prepend(key, "c", replicate_to=1),
            self.cb.replace(key, 1, persist_to=-1),
        ):
            self.assertIs(type(stored), OperationResult)
        self.assertEqual(self.cb.get(key).cas, stored.cas)
        self.assertTrue(self.cb.delete(key, persist_to=1, replicate_to=1).success)
        self.assertTrue(self.cb.add(key, 1, replicate_to=-1).success)
        keys = {self.key(str(number)): "x" for number in range(10)}
        self.assertTrue(self.cb.set_multi(keys, persist_to=2).all_ok)
        self.assertTrue(self.cb.delete_multi(list(keys), persist_to=-1, replicate_to=-1).all_ok)

    def test_counters(self) -> None:
        """They wait for copies, and count nothing if the cluster cannot hold as many."""
        key = self.key()
        self.assertEqual(self.cb.incr(key, initial=5, persist_to=-1, replicate_to=1).value, 5)
        for count, more in ((self.cb.incr, 1), (self.cb.decr, -1)):
            for wanted in ({"persist_to": 3}, {"replicate_to": 2}):
                with self.assertRaises(ArgumentError) as raised:
                    count(key, **wanted)
                self.assertEqual(raised.exception.rc, 0x21)
            self.assertEqual(self.cb.get(key).value, 5)
            self.assertEqual(count(key, persist_to=1).value, 5 + more)
            self.cb.set(key, 5)

    def test_too_many(self):
        """ArgumentError 0x21 before anything is sent."""
        for wanted in ({"persist_to": 3}, {"replicate_to": 2}):
            for operation in (
                lambda wanted=wanted: self.cb.set(self.key(), 1, **wanted),
                lambda wanted=wanted: self.cb.set_multi({self.key(): 1}, **wanted),
                lambda wanted=wanted: self.cb.endure(self.key(), **wanted),
            ):
                with self.assertRaises(ArgumentError) as caught:
                    operation()
                self.assertEqual(caught.exception.rc, 0x21)
        self.assertFalse(self.cb.get(self.key(), quiet=True).success)
        self.assertRaises(ArgumentError, self.cb.set, self.key(), 1, persist_to="x")

    def test_not_in_time(self):
        """TimeoutError; the mutation is kept, and the failed result has its CAS."""
        self.cb._cntl(0x0D, 150_000)

        def replaced(result):
            # From now on the observed copies belong to another version.
            other.delete(result.key)

        other = self.connect()
        self.cb._dur_testhook = replaced
        with self.assertRaises(CouchbaseError) as caught:
            self.cb.set(self.key(), 1, persist_to=1)
        error = caught.exception
        self.assertEqual(error.rc, error.all_results[self.key()].rc)
        self.assertGreater(error.result.cas, 0)

    def test_hook(self):
        """Called with the result of each mutation that waits, and of no other."""
        seen = []
        self.cb._dur_testhook = seen.append
        stored = self.cb.set(self.key(), 1, persist_to=1)
        self.cb.set(self.key(), 1)
        self.assertEqual(seen, [stored])
        self.cb.set_multi({self.key("1"): 1, self.key("2"): 1}, replicate_to=1)
        self.assertEqual(len(seen), 3)

    def test_context(self):
        """Defaults inside of the block, the former ones afterwards, also after an error."""
        seen = []
        self.cb._dur_testhook = lambda result: seen.append(self.cb._dur_timeout)
        with self.cb.durability(persist_to=1, timeout=1.5) as given:
            self.assertIsNone(given)
            self.assertEqual((self.cb._dur_persist_to, self.cb._dur_replicate_to), (1, -1))
            self.cb.set(self.key(), 1)
            self.cb.incr(self.key())
            self.cb.delete_multi([self.key()])
            with self.cb.durability(replicate_to=1, persist_to=0):
                self.assertEqual(self.cb._dur_persist_to, 0)
                self.cb.set(self.key(), 1)
            self.assertEqual(self.cb._dur_persist_to, 1)
        self.assertEqual(seen, [1_500_000, 1_500_000, 0])
        self.cb.set(self.key(), 1)
        self.assertEqual(len(seen), 3)
        with self.assertRaises(ZeroDivisionError), self.cb.durability():
            raise ZeroDivisionError
        state = self.cb._dur_persist_to, self.cb._dur_replicate_to, self.cb._dur_timeout
        self.assertEqual(state, (0, 0, 0))
        with self.assertRaises(ArgumentError), self.cb.durability(persist_to=7):
            self.cb.set(self.key(), 1)

    def test_endure(self):
        """Existing documents, versions, removal, misses."""
        stored = self.cb.set(self.key(), 1)
        self.assertTrue(self.cb.endure(self.key()).success)
        self.assertTrue(self.cb.endure(self.key(), persist_to=1, replicate_to=1, cas=stored.cas).success)
        self.assertTrue(self.cb.endure(self.key(), persist_to=0, replicate_to=0).success)
        with self.assertRaises(KeyExistsError):
            self.cb.endure(self.key(), cas=stored.cas + 1)
        self.cb.quiet = True
        self.assertRaises(NotFoundError, self.cb.endure, self.missing())
        before = time.monotonic()
        with self.assertRaises(TimeoutError):
            self.cb.endure(self.key(), check_removed=True, timeout=0.2, interval=0.05)
        self.assertLess(time.monotonic() - before, 2)
        self.cb.delete(self.key())
        self.assertTrue(self.cb.endure(self.key(), check_removed=True).success)
        for bad in ({"timeout": 0}, {"timeout": "x"}, {"interval": -1}, {"cas": "x"}, {"persist_to": None}):
            self.assertRaises(ArgumentError, self.cb.endure, self.key(), **bad)

    def test_endure_multi(self):
        """Keys, a dict of CAS, a MultiResult, Results; duplicates are refused."""
        stored = self.cb.set_multi({self.key(str(number)): 1 for number in range(5)})
        keys = list(stored)
        by_cas = {key: result.cas for key, result in stored.items()}
        for good in (keys, set(keys), by_cas, stored, list(stored.values())):
            self.assertEqual(set(self.cb.endure_multi(good)), set(keys))
        with self.assertRaises(ArgumentError) as caught:
            self.cb.endure_multi([keys[0], keys[0]])
        self.assertEqual(caught.exception.rc, 0x22)
        with self.assertRaises(NotFoundError) as caught:
            self.cb.endure_multi([keys[0], self.missing()])
        self.assertTrue(caught.exception.all_results[keys[0]].success)

    def test_keys_of_a_transcoder(self):
        """Results carry what it decodes, as those of all operations do; what cannot be hashed is refused."""

        class Joining(Transcoder):
            decoded = tuple

            def encode_key(self, key):
                return "/".join(key).encode()

            def decode_key(self, key):
                return self.decoded(key.decode().split("/"))

        self.cb.transcoder = Joining()
        given, key = [self.key(), "a"], (self.key(), "a")
        self.assertEqual(self.cb.set(given, 1).key, key)
        for single, multi in (
            (self.cb.observe, self.cb.observe_multi),
            (self.cb.endure, self.cb.endure_multi),
        ):
            self.assertEqual(single(given).key, key)
            self.assertEqual({of: result.key for of, result in multi([given]).items()}, {key: key})
            with mock.patch.object(Joining, "decoded", list):
                self.assertRaises(ValueFormatError, single, given)
                self.assertRaises(ValueFormatError, multi, [given, key])
        self.cb.transcoder, self.cb.data_passthrough = None, True
        self.assertEqual(self.cb.observe("/".join(key)).key, "/".join(key).encode())

    def test_paths_of_replicas(self):
        """Parts of documents are read from the replica that is named, or from any."""
        self.cb.mutate_in(
            self.key(),
            SD.upsert("a", [1, 2]),
            SD.upsert("by", "ada", xattr=True),
            store_semantics=SD.StoreSemantics.UPSERT,
            replicate_to=1,
        )
        cas = self.cb.get(self.key()).cas
        for replica in (0, "any"):
            found = self.cb.lookup_in(
                self.key(), SD.get("a[1]"), SD.get("by", xattr=True), SD.exists("b"), replica=replica
            )
            self.assertEqual((list(found), found.cas), ([2, "ada", False], cas))
            found = self.cb.lookup_in_multi([self.key()], SD.count("a"), replica=replica)
            self.assertEqual(found[self.key()][0], 2)
            with self.assertRaises(NotFoundError):
                self.cb.lookup_in(self.missing(), SD.get("a"), replica=replica)
            missed = self.cb.lookup_in(self.missing(), SD.get("a"), replica=replica, quiet=True)
            self.assertEqual(missed.rc, 0x0D)
        for replica in (1, 2, -1):
            with self.assertRaises(CouchbaseError) as caught:
                self.cb.lookup_in(self.key(), SD.get("a"), replica=replica)
            self.assertEqual(caught.exception.rc, 0x23, replica)
        for replica in (True, "some", 1.0):
            with self.assertRaises(ArgumentError):
                self.cb.lookup_in(self.key(), SD.get("a"), replica=replica)

    def test_replicas(self):
        """Read from replicas only: any, or one by its index."""
        stored = self.cb.set(self.key(), {"v": 1}, replicate_to=1)
        for found in (
            self.cb.rget(self.key()),
            self.cb.rget(self.key(), replica_index=0),
            self.cb.get(self.key(), replica=True),
            self.cb.rget_multi([self.key()])[self.key()],
            self.cb.get_multi([self.key()], replica=True)[self.key()],
        ):
            self.assertIs(type(found), ValueResult)
            self.assertEqual((found.value, found.cas, found.key), ({"v": 1}, stored.cas, self.key()))
        for index in (-1, 1, 7):
            with self.assertRaises(CouchbaseError) as caught:
                self.cb.rget(self.key(), replica_index=index)
            self.assertEqual(caught.exception.rc, 0x23)
        self.assertRaises(NotFoundError, self.cb.rget, self.missing())
        self.assertRaises(NotFoundError, self.cb.rget, self.missing(), replica_index=0)
        self.assertEqual(self.cb.rget(self.missing(), quiet=True).rc, 0x0D)
        self.assertRaises(ArgumentError, self.cb.get, self.key(), replica=True, ttl=5)
        self.assertRaises(ArgumentError, self.cb.get_multi, [self.key()], replica=True, ttl=5)
        self.assertEqual(self.cb.configured_replica_count, 1)
        mixed = self.cb.rget_multi([self.key(), self.missing()], quiet=True)
        self.assertEqual([result.rc for result in mixed.values()], [0, 0x0D])


class GoneTests(ConnectionTestCase):
    """A bucket that is deleted while a client is connected."""

    options = {"nodes": 3, "replicas": 1, "disk": True}

    def test_at_once(self):
        """What asks several nodes fails at once, like an operation on one document."""
        admin = Admin("Administrator", "password", host="127.0.0.1", port=self.node.rest_ports[0])
        name = f"gone-{type(self).__module__[6:12]}"
        admin.bucket_create(name, ram_quota=100, replicas=1)
        cb = self.connect(bucket=name)
        cb.set("k", 1)
        scan = cb.scan()
        admin.bucket_delete(name)
        began = time.monotonic()
        for ask in (
            lambda: next(scan),
            lambda: cb.observe("k"),
            lambda: cb.observe_multi(["k", "l"]),
            lambda: cb.endure("k", persist_to=1, replicate_to=1, timeout=30),
            lambda: cb.endure_multi(["k", "l"], persist_to=1, replicate_to=0, timeout=30),
            cb.stats,
            lambda: next(cb.collection("c").scan()),
            lambda: cb.get("k"),
        ):
            with self.assertRaises(BucketNotFoundError) as raised:
                ask()
            self.assertIn("does not exist", str(raised.exception))
        self.assertLess(time.monotonic() - began, 15)
        scan.close()
