"""Multi operations of a blocking connection, against two nodes."""

import warnings

from couchbase import FMT_UTF8
from couchbase.exceptions import (
    ArgumentError,
    CouchbaseError,
    KeyExistsError,
    NotFoundError,
    NotStoredError,
    TemporaryFailError,
    ValueFormatError,
)
from couchbase.result import MultiResult, OperationResult, ValueResult
from tests.couchbase.support import ConnectionTestCase


class Keys:
    """A collection that says what its length is."""

    def __init__(self, keys, length):
        self.keys = keys
        self.length = length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(self.keys)


class MultiTests(ConnectionTestCase):
    """Section 8 of the reference."""

    options = {"nodes": 2}

    def keys(self, count=5):
        """Return some keys."""
        return [self.key(str(number)) for number in range(count)]

    def store(self, count=5):
        """Store documents; returns key -> value."""
        values = {key: {"number": number} for number, key in enumerate(self.keys(count))}
        self.stored = self.cb.set_multi(values)
        return values

    def test_set_and_get(self):
        """A MultiResult with a result for each key, from all nodes."""
        values = self.store(200)
        self.assertIs(type(self.stored), MultiResult)
        self.assertTrue(self.stored.all_ok)
        self.assertIs(type(self.stored[self.key("0")]), OperationResult)
        found = self.cb.get_multi(list(values))
        self.assertEqual({key: result.value for key, result in found.items()}, values)
        self.assertEqual(list(found), list(values))
        self.assertIs(type(found[self.key("0")]), ValueResult)
        self.assertEqual({self.cb._vbmap(key)[1] for key in values}, {0, 1})

    def test_collections(self):
        """Valid and invalid collections of keys."""
        values = self.store(3)
        keys = list(values)
        for good in (tuple(keys), set(keys), values.keys(), Keys(keys, 3), dict.fromkeys(keys, 0)):
            self.assertEqual(set(self.cb.get_multi(good)), set(keys))
        self.assertEqual(set(self.cb.get_multi(Keys(keys, 2))), set(keys[:2]))
        generator = (key for key in keys)
        for bad in (keys[0], b"x", bytearray(b"x"), None, 5, iter(keys), generator, [], {}, Keys(keys, 4)):
            for name in ("get", "delete", "incr", "observe", "touch", "rget", "endure"):
                self.assertRaises(ArgumentError, getattr(self.cb, f"{name}_multi"), bad)
        for bad in (None, 5, b"x", ["x"]):
            self.assertRaises(ValueFormatError, self.cb.get_multi, [keys[0], bad])
        for bad in (keys, tuple(keys), None, {}, "x"):
            self.assertRaises(ArgumentError, self.cb.set_multi, bad)

    def test_nothing_sent_before_all_are_good(self):
        """If one value is invalid, no document is stored."""
        values = {self.key("a"): 1, self.key("b"): object()}
        self.assertRaises(ValueFormatError, self.cb.set_multi, values)
        self.assertFalse(self.cb.get(self.key("a"), quiet=True).success)

    def test_first_failure(self):
        """Raised when all answers are in, with every result."""
        keys = list(self.store(3))
        with self.assertRaises(NotFoundError) as caught:
            self.cb.get_multi([keys[0], self.missing(), keys[1]])
        error = caught.exception
        self.assertEqual(error.key, self.missing())
        self.assertEqual(len(error.all_results), 3)
        self.assertFalse(error.all_results.all_ok)
        self.assertEqual(error.all_results[keys[1]].value, {"number": 1})
        self.assertEqual(error.all_results[self.missing()].rc, error.rc)
        quiet = self.cb.get_multi([keys[0], self.missing()], quiet=True)
        self.assertFalse(quiet.all_ok)
        self.assertEqual(quiet[self.missing()].rc, 0x0D)
        self.cb.quiet = True
        self.assertFalse(self.cb.get_multi([keys[0], self.missing()]).all_ok)

    def test_duplicates(self):
        """Each is sent; there is one RuntimeWarning for each and no other; the last result is kept."""
        key = self.keys()[0]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = self.cb.incr_multi([key, key, key], initial=1)
        self.assertEqual([warning.category for warning in caught], [RuntimeWarning] * 2)
        self.assertIn("Found duplicate key", str(caught[0].message))
        self.assertEqual(found[key].value, 3)

    def test_stores(self):
        """add, replace, append, prepend, with their failures."""
        keys = self.keys(2)
        self.assertTrue(self.cb.add_multi(dict.fromkeys(keys, "b"), format=FMT_UTF8).all_ok)
        self.assertRaises(KeyExistsError, self.cb.add_multi, dict.fromkeys(keys, "x"))
        self.cb.append_multi(dict.fromkeys(keys, "c"))
        self.cb.prepend_multi(dict.fromkeys(keys, "a"))
        self.assertEqual({result.value for result in self.cb.get_multi(keys).values()}, {"abc"})
        self.cb.replace_multi(dict.fromkeys(keys, 5))
        self.assertEqual({result.value for result in self.cb.get_multi(keys).values()}, {5})
        self.assertRaises(NotFoundError, self.cb.replace_multi, {self.missing(): 1})
        self.assertRaises(NotStoredError, self.cb.append_multi, {self.missing(): "x"})

    def test_expiry_by_key(self):
        """A dict gives each key's ttl, as a number or by name; not together with a common one."""
        keys = list(self.store(3))
        for method in (self.cb.get_multi, self.cb.touch_multi):
            self.assertTrue(method({keys[0]: 100, keys[1]: {"ttl": 100}, keys[2]: 0}).all_ok)
            self.assertTrue(method(keys, ttl=100).all_ok)
            self.assertRaises(ArgumentError, method, {keys[0]: 100}, ttl=100)
            for bad in ("x", -1, {"tll": 1}, {"ttl": "x"}):
                self.assertRaises(ArgumentError, method, {keys[0]: bad})
        expiry = self.cb.get_with_expiry(keys[0]).expiry
        self.assertGreater(expiry, 0)

    def test_locks(self):
        """lock_multi and unlock_multi with a MultiResult, a dict, or Results."""
        keys = list(self.store(2))
        locked = self.cb.lock_multi(keys, ttl=10)
        self.assertRaises(TemporaryFailError, self.cb.lock_multi, {keys[0]: {"ttl": 5}})
        self.assertTrue(self.cb.unlock_multi(locked).all_ok)
        locked = self.cb.lock_multi(keys, ttl=10)
        self.assertTrue(self.cb.unlock_multi({key: result.cas for key, result in locked.items()}).all_ok)
        locked = self.cb.lock_multi(keys, ttl=10)
        self.assertTrue(self.cb.unlock_multi(list(locked.values())).all_ok)
        for bad in (keys, dict.fromkeys(keys, 0)):
            self.assertRaises(ArgumentError, self.cb.unlock_multi, bad)

    def test_deletes(self):
        """Plain keys, a MultiResult, a CAS by key in every spelling."""
        keys = list(self.store(3))
        self.assertRaises(ArgumentError, self.cb.delete_multi, keys, cas=5)
        with self.assertRaises(KeyExistsError):
            self.cb.delete_multi({keys[0]: self.stored[keys[0]].cas + 1})
        self.assertTrue(self.cb.delete_multi(self.stored).all_ok)
        self.assertFalse(self.cb.delete_multi(keys, quiet=True).all_ok)
        self.assertRaises(NotFoundError, self.cb.delete_multi, keys)
        self.store(3)
        by_key = {
            keys[0]: self.stored[keys[0]],
            keys[1]: self.stored[keys[1]].cas,
            keys[2]: {"cas": self.stored[keys[2]].cas},
        }
        self.assertTrue(self.cb.delete_multi(by_key).all_ok)

    def test_counters(self):
        """Amounts by key, and options by key."""
        keys = self.keys(2)
        self.assertEqual({r.value for r in self.cb.incr_multi(keys, initial=5).values()}, {5})
        self.assertEqual({r.value for r in self.cb.incr_multi(keys, amount=2).values()}, {7})
        self.assertEqual({r.value for r in self.cb.decr_multi(keys).values()}, {6})
        self.assertEqual({r.value for r in self.cb.incr_multi({keys[0]: 4, keys[1]: 4}).values()}, {10})
        found = self.cb.arithmetic_multi({keys[0]: {"delta": 1}, self.key("new"): {"delta": 1, "initial": 7}})
        self.assertEqual([result.value for result in found.values()], [11, 7])
        self.assertRaises(ArgumentError, self.cb.arithmetic_multi, keys)
        self.assertRaises(ArgumentError, self.cb.incr_multi, {keys[0]: {"initial": 1}})
        self.assertRaises(ArgumentError, self.cb.incr_multi, {keys[0]: {"delta": 1, "x": 1}})
        with self.assertRaises(CouchbaseError) as caught:
            self.cb.incr_multi(keys, ttl=5)
        self.assertEqual(caught.exception.rc, 0x3A)

    def test_many(self):
        """More than fits any buffer, both ways."""
        values = {self.key(str(number)): "x" * 1000 for number in range(20_000)}
        self.cb.timeout = 30
        self.assertTrue(self.cb.set_multi(values).all_ok)
        found = self.cb.get_multi(list(values))
        self.assertEqual({key: result.value for key, result in found.items()}, values)
