"""Promises of docs/sdk-1.2.md without another test: results of a node's answers.

Standard library only, and Python 3.9.
"""

import gc
import json
import os
import socket
import tempfile
import time
import warnings
from unittest import mock

from couchbase import FMT_UTF8, Connection
from couchbase.blocking.cluster import Cluster
from couchbase.blocking.designs import Designs
from couchbase.blocking.driver import BlockingDriver
from couchbase.exceptions import (
    ArgumentError,
    HTTPError,
    KeyExistsError,
    NotFoundError,
    TemporaryFailError,
    TimeoutError,
    ValueFormatError,
)
from couchbase.items import Item, ItemSequence
from couchbase.result import MultiResult, OperationResult, ValueResult
from couchbase.transcoder import Transcoder
from tests.couchbase.support import ConnectionTestCase


class NodeTests(ConnectionTestCase):
    """Against a node that keeps everything in memory."""

    def test_internal_keywords(self):
        """Those by which SDK 1.2's own packages made connections are no unknown ones."""
        cb = self.connect(_iops=0, _flags=0, _conntype=0, _errors=0)
        self.assertTrue(cb.set(self.key(), 1).success)

    def test_locked(self):
        """A locked document is read with a CAS of all ones; touch and prepend need the lock's CAS."""
        self.cb.set(self.key(), "v", format=FMT_UTF8)
        locked = self.cb.lock(self.key(), ttl=10)
        seen = self.cb.get(self.key()).cas
        self.assertEqual(seen, 2**64 - 1)
        # Which is no CAS to unlock or to store with.
        self.assertRaises(TemporaryFailError, self.cb.unlock, self.key(), seen)
        self.assertRaises(KeyExistsError, self.cb.set, self.key(), 1, cas=seen)
        self.assertRaises(KeyExistsError, self.cb.prepend, self.key(), "x")
        self.assertRaises(KeyExistsError, self.cb.touch, self.key(), 10)
        self.assertRaises(TemporaryFailError, self.cb.decr, self.key())
        self.cb.append(self.key(), "w", cas=locked.cas)
        self.assertEqual(self.cb.lock(self.key(), ttl=10).value, "vw")

    def test_durability_in_vain(self):
        """ArgumentError 0x21 for a bucket without a disk, and nothing is stored."""
        for operation in (
            lambda: self.cb.set(self.key(), 1, persist_to=1),
            lambda: self.cb.set_multi({self.key(): 1}, persist_to=-1),
            lambda: self.cb.endure(self.key()),
        ):
            with self.assertRaises(ArgumentError) as caught:
                operation()
            self.assertEqual(caught.exception.rc, 0x21)
            self.assertFalse(self.cb.get(self.key(), quiet=True).success)

    def test_zero_counts(self):
        """endure with 0 and 0 only requires that the active node has it."""
        stored = self.cb.set(self.key(), 1)
        found = self.cb.endure(self.key(), persist_to=0, replicate_to=0)
        self.assertEqual((found.cas, found.key), (0, self.key()))
        self.assertTrue(self.cb.endure(self.key(), 0, 0, cas=stored.cas).success)
        self.assertRaises(NotFoundError, self.cb.endure, self.missing(), 0, 0)

    def test_results_without_cas(self):
        """Results of observe, and of unlock if the server sends no CAS."""
        self.cb.set(self.key(), 1)
        self.assertEqual(self.cb.observe(self.key()).cas, 0)
        locked = self.cb.lock(self.key(), ttl=10)
        self.assertEqual(self.cb.unlock(self.key(), locked.cas).cas, 0)

    def test_raw_multi(self):
        """``no_format`` of get_multi: bytes, with text keys and the stored flags."""
        self.cb.set_multi({self.key(): {"a": 1}})
        found = self.cb.get_multi([self.key()], no_format=True)[self.key()]
        self.assertEqual((found.value, found.key, found.flags), (b'{"a":1}', self.key(), 0))

    def test_any_key(self):
        """The transcoder decides which keys are valid, even ``None``."""

        class Numbers(Transcoder):
            def encode_key(self, key):
                return f"{test.id()}-{key!r}".encode()

            def decode_key(self, key):
                return eval(key.decode().rsplit("-", 1)[1])

        test = self
        self.cb.transcoder = Numbers()
        stored = self.cb.set_multi({None: 1, 5: 2, ("a", 1): 3})
        self.assertEqual(set(stored), {None, 5, ("a", 1)})
        self.assertEqual(self.cb.get(None).value, 1)
        self.assertEqual(self.cb.get_multi([5, None])[5].value, 2)

    def test_transcoder_of_a_class(self):
        """A class is called by the constructor only."""
        self.assertIsInstance(self.connect(transcoder=Transcoder).transcoder, Transcoder)
        self.cb.transcoder = Transcoder
        self.assertIs(self.cb.transcoder, Transcoder)

    def test_stats(self):
        """A MultiResult that is all right."""
        found = self.cb.stats()
        self.assertIs(type(found), MultiResult)
        self.assertEqual(found.all_ok, 1)
        for none in ([], ()):
            self.assertRaises(ArgumentError, self.cb.stats, none)

    def test_absolute_expiry(self):
        """To thirty days from now, above a Unix time: both are sent as given."""
        now = time.time()
        for ttl, moment in ((1000, now + 1000), (2592000, now + 2592000), (int(now) + 1000, now + 1000)):
            self.cb.set(self.key(), 1, ttl=ttl)
            self.assertLess(abs(self.cb.get_with_expiry(self.key()).expiry - moment), 30)

    def test_slow_host(self):
        """A silent host is given up after its share of the time, and the next one is asked."""

        class Hasty(Cluster):
            def __init__(self, *args, **keywords):
                super().__init__(*args, **keywords)
                self.host_timeout = 0.05

        class Driver(BlockingDriver):
            cluster_type = Hasty

        class Mine(Connection):
            _driver_type = Driver

        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            hosts = [("127.0.0.1", silent.getsockname()[1]), ("127.0.0.1", self.node.rest_ports[0])]
            before = time.monotonic()
            cb = Mine(bucket="default", host=hosts)
            self.addCleanup(cb._close)
            self.assertTrue(cb.set(self.key(), 1).success)
            self.assertLess(time.monotonic() - before, 2)
            self.assertEqual([code for code, _ in cb.errors()], [0x17])

    def test_last_errors(self):
        """The last thousand are kept."""
        for number in range(1500):
            self.cb._cluster.errors.append((0x10, str(number)))
        found = self.cb.errors()
        self.assertEqual((len(found), found[0], found[-1]), (1000, (0x10, "500"), (0x10, "1499")))
        self.assertEqual(self.cb.errors(), ())

    def test_duplicates_in_other_operations(self):
        """One warning for each repeated key, and no other warning."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.cb.set(self.key(), 1)
            self.cb.get_multi([self.key(), self.key()])
            gc.collect()
        self.assertEqual([one.category for one in caught], [RuntimeWarning])

    def test_json_text(self):
        """The text is compact and in UTF-8, whatever the value contains."""
        self.cb.set(self.key(), {"a": [1, "\u00e9"], "b": None})
        raw = self.cb.get(self.key(), no_format=True).value
        self.assertEqual(raw, '{"a":[1,"\u00e9"],"b":null}'.encode())
        self.assertEqual(json.loads(raw), {"a": [1, "\u00e9"], "b": None})

    def test_cache_made(self):
        """A missing file for the map is created."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "map")
            self.assertFalse(self.connect(config_cache=path)._cntl(0x15))
            self.assertEqual(os.listdir(folder), ["map"])
            self.assertTrue(self.connect(config_cache=path)._cntl(0x15))

    def test_kinds(self):
        """Which class an operation answers with."""
        key = self.key()
        stored = self.cb.set(key, "a", format=FMT_UTF8)
        for found in (
            stored,
            self.cb.append(key, "b"),
            self.cb.touch(key, 100),
            self.cb.replace(key, 1),
            self.cb.endure(key, 0, 0),
            self.cb.add(self.key("new"), 1),
            self.cb.delete(self.key("new")),
        ):
            self.assertIs(type(found), OperationResult)
        for found in (self.cb.get(key), self.cb.incr(key), self.cb.decr(key), self.cb.observe(key)):
            self.assertIs(type(found), ValueResult)
        found = self.cb.get_multi([key])
        self.assertEqual((type(found), type(found[key])), (MultiResult, ValueResult))

    def test_syncwait(self):
        """TimeoutError if a change does not become visible in time, although it was made."""
        for look in ("shows", "is_gone"):
            patched = mock.patch.object(Designs, look, lambda *args: False)
            patched.start()
            self.addCleanup(patched.stop)
        name = "contract"
        for operation in (
            lambda: self.cb.design_create(name, {"views": {}}, syncwait=0.02),
            lambda: self.cb.design_publish(name, syncwait=0.02),
            lambda: self.cb.design_delete(name, use_devmode=False, syncwait=0.02),
        ):
            self.assertRaises(TimeoutError, operation)
        self.assertRaises(HTTPError, self.cb.design_get, name, use_devmode=False)
        self.assertTrue(self.cb.design_delete(name).success)

    def test_development(self):
        """``use_devmode`` puts dev_ before the name of a design document, once."""
        for design, wanted in (("d", "dev_d"), ("dev_d", "dev_d")):
            self.assertEqual(self.cb.query(design, "v", use_devmode=True).design, wanted)
        self.assertEqual(self.cb.query("d", "v", False, limit=1).design, "d")

    def test_credentials_of_views(self):
        """Requests to views carry the pair that the connection was made with: with ``host``, the bucket's."""
        port = self.node.rest_ports[0]
        cb = Connection(bucket="secret", host="127.0.0.1", port=port, password="hush")
        self.addCleanup(cb._close)
        (target,) = cb._driver.views.targets()
        self.assertEqual(tuple(target.credentials)[:2], ("secret", "hush"))
        with self.assertRaises(HTTPError) as caught:
            cb._view("nothing", "there")
        self.assertEqual(caught.exception.objextra.http_status, 404)


class CopyTests(ConnectionTestCase):
    """Against nodes with copies."""

    options = {"nodes": 3, "replicas": 1, "disk": True}

    def test_items(self):
        """Items may be read from replicas, touched, counted down, and waited for."""
        item, counter = Item(self.key(), "a"), Item(self.key("count"), 5)
        self.cb.set_multi(ItemSequence([item, counter]), replicate_to=-1)
        other = Item(item.key)
        self.assertIs(self.cb.rget_multi(ItemSequence(other))[item.key], other)
        self.assertEqual((other.value, other.cas), ("a", item.cas))
        self.assertIs(self.cb.touch_multi(other.as_itcoll(ttl=100))[item.key], other)
        self.cb.decr_multi(counter.as_itcoll(delta=2))
        self.assertEqual(counter.value, 3)
        self.assertIs(self.cb.endure_multi(ItemSequence(counter))[counter.key], counter)
        self.assertIs(self.cb.get_multi(counter.as_itcoll(), replica=True)[counter.key], counter)
        self.assertRaises(ValueFormatError, self.cb.observe_multi, ItemSequence(item))
        self.assertRaises(ArgumentError, self.cb.arithmetic_multi, ItemSequence(counter))

    def test_quiet_replicas(self):
        """``quiet`` counts for both ways to read replicas, by argument and by attribute."""
        self.assertEqual(self.cb.get(self.missing(), replica=True, quiet=True).rc, 0x0D)
        self.assertEqual(self.cb.rget(self.missing(), 0, quiet=True).rc, 0x0D)
        self.cb.quiet = True
        self.assertEqual(self.cb.get(self.missing(), replica=True).rc, 0x0D)
        self.assertEqual(self.cb.rget(self.missing()).rc, 0x0D)
        self.assertRaises(NotFoundError, self.cb.rget, self.missing(), quiet=False)

    def test_no_durability(self):
        """Counters, touch, lock and unlock wait for nothing, also inside of a durability context."""
        self.cb.set(self.key(), 1)
        seen = []
        self.cb._dur_testhook = seen.append
        with self.cb.durability():
            self.cb.incr(self.key())
            self.cb.touch(self.key(), 100)
            locked = self.cb.lock(self.key(), ttl=10)
            self.cb.unlock(self.key(), locked.cas)
            self.assertEqual(seen, [])
            self.cb.replace(self.key(), 2)
        self.assertEqual(len(seen), 1)
