"""Items: documents as objects, and their collections."""

from couchbase import FMT_PICKLE, FMT_UTF8
from couchbase.exceptions import (
    ArgumentError,
    CouchbaseError,
    KeyExistsError,
    NotFoundError,
    NotStoredError,
    ValueFormatError,
)
from couchbase.items import Item, ItemCollection, ItemOptionDict, ItemSequence
from couchbase.result import ValueResult
from tests.couchbase.support import ConnectionTestCase


class ItemTests(ConnectionTestCase):
    """Section 9 of the reference."""

    def item(self, value="value", name="key"):
        """Return an item whose document is not stored yet."""
        return Item(self.key(name), value)

    def test_fields(self):
        """Writable, with room for more, equal only to itself."""
        item = Item("k", 1)
        self.assertIsInstance(item, ValueResult)
        self.assertEqual((item.key, item.value, item.cas, item.flags), ("k", 1, 0, 0))
        self.assertEqual((item.rc, item.success, item.errstr), (0, True, "Success (Not an error)"))
        item.key, item.value, item.cas, item.flags, item.mine = "l", 2, 3, 4, 5
        self.assertEqual((item.key, item.value, item.cas, item.flags, item.mine), ("l", 2, 3, 4, 5))
        self.assertEqual(repr(item), "Item<RC=0x0, Key='l', Value=2, CAS=0x3, Flags=0x4>")
        self.assertNotEqual(Item("k", 1), Item("k", 1))
        self.assertEqual(len({item, Item("l", 2)}), 2)
        self.assertEqual((Item().key, Item().value), (None, None))

    def test_store_and_read(self):
        """The result is the item; its CAS is the new one, and is used for the next store."""
        item = self.item({"a": 1})
        results = self.cb.set_multi(item.as_itcoll())
        self.assertIs(results[item.key], item)
        self.assertEqual(item.cas, self.cb.get(item.key).cas)
        other = Item(item.key)
        self.assertIs(self.cb.get_multi(ItemSequence([other]))[item.key], other)
        self.assertEqual((other.value, other.flags, other.cas), ({"a": 1}, 0, item.cas))
        other.value = "new"
        self.cb.replace_multi(other.as_itcoll(format=FMT_UTF8))
        with self.assertRaises(KeyExistsError) as caught:
            self.cb.set_multi(item.as_itcoll())
        self.assertIs(caught.exception.result, item)
        self.assertEqual((item.rc, item.value), (0x0C, {"a": 1}))
        self.assertTrue(self.cb.set_multi(item.as_itcoll(ignore_cas=True)).all_ok)
        self.assertEqual(item.rc, 0)
        before = item.cas
        self.cb.delete_multi(ItemSequence(item))
        self.assertNotEqual(item.cas, before)
        self.cb.set(item.key, "again")
        self.assertRaises(KeyExistsError, self.cb.delete_multi, ItemSequence(item))

    def test_missing(self):
        """rc shows it; value and CAS are kept; a later success resets rc."""
        item = Item(self.missing(), "mine")
        item.cas = 77
        self.assertRaises(NotFoundError, self.cb.get_multi, item.as_itcoll())
        self.assertEqual((item.rc, item.success, item.value, item.cas), (0x0D, False, "mine", 77))
        self.assertIs(self.cb.get_multi(item.as_itcoll(), quiet=True)[item.key], item)
        self.cb.set(item.key, "there")
        self.cb.get_multi(item.as_itcoll())
        self.assertEqual((item.rc, item.value), (0, "there"))

    def test_null(self):
        """A value of None is JSON null."""
        item = self.item(None)
        self.cb.set_multi(item.as_itcoll())
        self.assertEqual(self.cb.get(item.key, no_format=True).value, b"null")

    def test_subclasses(self):
        """They may shadow fields: the SDK goes by the base's. Without its __init__ there is no value."""

        class Shadow(Item):
            def __init__(self, key):
                self.key = key

            @property
            def value(self):
                return "not this"

            @value.setter
            def value(self, value):
                pass

        shadow = Shadow(self.key())
        shadow.value = "lost"
        self.assertRaises(ArgumentError, self.cb.set_multi, shadow.as_itcoll())
        self.cb.set(shadow.key, "stored")
        self.assertIs(self.cb.get_multi(shadow.as_itcoll())[shadow.key], shadow)
        self.assertEqual(Item.value.__get__(shadow), "stored")
        self.assertEqual(shadow.value, "not this")
        Item.value.__set__(shadow, "base")
        self.cb.set_multi(shadow.as_itcoll())
        self.assertEqual(self.cb.get(shadow.key).value, "base")

    def test_keys(self):
        """Unset or None: refused."""
        for item in (Item(), Item(None, 1), Item.__new__(Item)):
            for method in (self.cb.set_multi, self.cb.get_multi, self.cb.delete_multi):
                self.assertRaises((ArgumentError, ValueFormatError), method, item.as_itcoll())

    def test_not_for_single_operations(self):
        """Single-key methods and plain lists do not take items."""
        item = self.item()
        for operation in (
            lambda: self.cb.set(item, 1),
            lambda: self.cb.get(item),
            lambda: self.cb.get_multi([item]),
            lambda: self.cb.set_multi({item: 1}),
        ):
            self.assertRaises(ValueFormatError, operation)

    def test_collections(self):
        """Valid and invalid item collections."""
        one, two = self.item(name="1"), self.item(name="2")
        self.assertIsInstance(one.as_itcoll(), ItemSequence)
        self.assertIsInstance(one.as_itcoll(ttl=1), ItemOptionDict)
        self.assertEqual(list(ItemSequence([one, two])), [(one, None), (two, None)])
        self.assertEqual(ItemSequence(one).sequence[0], one)
        self.assertRaises(ArgumentError, ItemSequence, 5)
        options = ItemOptionDict()
        options.add(one, ttl=5)
        options.add(one)
        options.add(two, ttl=5)
        self.assertEqual(options.dict, {one: None, two: {"ttl": 5}})
        self.assertEqual(list(options.dict_items()), [(one, None), (two, {"ttl": 5})])
        self.assertEqual(len(options), 2)
        self.assertRaises(NotImplementedError, len, ItemCollection())

        class Mine(ItemCollection):
            def __init__(self, entries):
                self.entries = entries

            def __len__(self):
                return len(self.entries)

            def __iter__(self):
                return iter(self.entries)

        self.assertTrue(self.cb.set_multi(Mine([(one,), (two, {"ttl": 0})])).all_ok)
        for bad in ([], [one], [(one, None, None)], [()], [("key", None)], [(one, 5)]):
            self.assertRaises(ArgumentError, self.cb.set_multi, Mine(bad))

    def test_options(self):
        """Those of stores, of reads, of counters; unknown ones are refused."""
        item = self.item({1})
        self.cb.set_multi(item.as_itcoll(ttl=1000, format=FMT_PICKLE))
        self.assertEqual(item.flags, 0)
        self.assertEqual(self.cb.get(item.key).value, {1})
        self.assertGreater(self.cb.get_with_expiry(item.key).expiry, 0)
        self.cb.touch_multi(item.as_itcoll(ttl=0))
        self.assertTrue(self.cb.get_multi(item.as_itcoll(ttl=1000)).all_ok)
        self.assertTrue(self.cb.lock_multi(item.as_itcoll(ttl=10)).all_ok)
        self.assertTrue(self.cb.unlock_multi(item.as_itcoll()).all_ok)
        counter = self.item(name="counter")
        self.cb.incr_multi(counter.as_itcoll(delta=5, initial=3, ttl=100))
        self.assertEqual(counter.value, 3)
        self.cb.incr_multi(counter.as_itcoll(delta=5))
        self.assertEqual((counter.value, counter.cas), (8, self.cb.get(counter.key).cas))
        for method, options in (
            (self.cb.set_multi, {"blah": 1}),
            (self.cb.set_multi, {"fragment": "x"}),
            (self.cb.get_multi, {"format": 1}),
            (self.cb.delete_multi, {"ttl": 1}),
            (self.cb.incr_multi, {"ttl": -1}),
        ):
            self.assertRaises(ArgumentError, method, item.as_itcoll(**options))

    def test_fragments(self):
        """append and prepend send the fragment and leave the value; the _items methods extend it."""
        item = self.item("b")
        self.cb.set_multi(item.as_itcoll(format=FMT_UTF8))
        self.cb.append_multi(item.as_itcoll(fragment="c"))
        self.assertEqual(item.value, "b")
        self.cb.prepend_items(item.as_itcoll(fragment="a"))
        self.assertEqual(item.value, "ab")
        self.cb.append_items(item.as_itcoll(fragment="!", format=FMT_UTF8))
        self.assertEqual(item.value, "ab!")
        self.assertEqual(self.cb.get(item.key).value, "abc!")
        for method in (self.cb.append_items, self.cb.prepend_items, self.cb.append_multi):
            self.assertRaises(ArgumentError, method, ItemSequence(item))
            self.assertRaises(ArgumentError, method, item.as_itcoll(ttl=5, format=FMT_UTF8))
        self.assertRaises(ArgumentError, self.cb.append_items, [item])
        missing = self.item("m", name="missing")
        both = ItemOptionDict({item: {"fragment": "?"}, missing: {"fragment": "?"}})
        with self.assertRaises(NotStoredError):
            self.cb.append_items(both)
        self.assertEqual((item.value, missing.value), ("ab!?", "m"))

    def test_endure(self):
        """endure_multi uses the item's CAS."""
        item = self.item()
        self.cb.set_multi(item.as_itcoll())
        results = self.cb.endure_multi(item.as_itcoll(), persist_to=0, replicate_to=0)
        self.assertIs(results[item.key], item)
        item.cas += 1
        with self.assertRaises(CouchbaseError) as caught:
            self.cb.endure_multi(item.as_itcoll(), persist_to=0, replicate_to=0)
        self.assertEqual((caught.exception.rc, item.rc), (0x0C, 0x0C))
        item.cas -= 1
        self.cb.data_passthrough = True
        results = self.cb.endure_multi(item.as_itcoll(), persist_to=0, replicate_to=0)
        self.assertEqual(list(results), [item.key.encode()])

    def test_pipeline(self):
        """Items are filled at the end of the block."""
        item = self.item()
        pipe = self.cb.pipeline()
        with pipe:
            self.cb.set_multi(item.as_itcoll())
            self.assertEqual(item.cas, 0)
        self.assertIs(pipe.results[0][item.key], item)
        self.assertGreater(item.cas, 0)
