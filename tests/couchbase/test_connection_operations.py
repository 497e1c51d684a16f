"""Single operations of a blocking connection, against a node."""

import json
import time
import warnings

import couchbase
from couchbase import FMT_AUTO, FMT_BYTES, FMT_JSON, FMT_PICKLE, FMT_UTF8
from couchbase.exceptions import (
    ArgumentError,
    CouchbaseDataError,
    CouchbaseError,
    CouchbaseInputError,
    CouchbaseTransientError,
    DeltaBadvalError,
    KeyExistsError,
    NotFoundError,
    NotStoredError,
    TemporaryFailError,
    ValueFormatError,
)
from couchbase.result import OperationResult, ValueResult
from couchbase.transcoder import NoPickleTranscoder, RawTranscoder, Transcoder, TranscoderPP
from tests.couchbase.support import ConnectionTestCase


class _Upper(RawTranscoder):
    def decode_value(self, value, flags):
        return value.upper()


class KeyValueTests(ConnectionTestCase):
    """Section 7 of the reference."""

    def test_set_and_get(self):
        """Result types, and their fields."""
        stored = self.cb.set(self.key(), {"a": ["\u00e9", 1.5, None]})
        self.assertIs(type(stored), OperationResult)
        self.assertEqual((stored.rc, stored.success, stored.key), (0, True, self.key()))
        found = self.cb.get(self.key())
        self.assertIs(type(found), ValueResult)
        self.assertEqual(found.value, {"a": ["\u00e9", 1.5, None]})
        self.assertEqual((found.cas, found.flags, found.key), (stored.cas, 0, self.key()))
        self.assertGreater(found.cas, 0)

    def test_mapping(self):
        """get, set and delete by item syntax."""
        self.cb[self.key()] = "value"
        self.assertEqual(self.cb[self.key()].value, "value")
        del self.cb[self.key()]
        self.assertRaises(NotFoundError, lambda: self.cb[self.key()])

    def test_cas(self):
        """A CAS that differs, one of a missing document, and types."""
        first = self.cb.set(self.key(), 1)
        second = self.cb.set(self.key(), 2, cas=first.cas)
        for method in (self.cb.set, self.cb.replace):
            with self.assertRaises(KeyExistsError) as caught:
                method(self.key(), 3, cas=first.cas)
            self.assertIsInstance(caught.exception, CouchbaseDataError)
            self.assertRaises(NotFoundError, method, self.missing(), 3, cas=first.cas)
        self.assertRaises(KeyExistsError, self.cb.delete, self.key(), cas=first.cas)
        for bad in (None, "1", -1, 2**64):
            for method in (self.cb.set, self.cb.replace, self.cb.append, self.cb.prepend):
                self.assertRaises(ArgumentError, method, self.key(), "x", cas=bad)
        self.assertTrue(self.cb.delete(self.key(), cas=second.cas).success)

    def test_add_and_replace(self):
        """Only if missing, only if there."""
        self.assertRaises(NotFoundError, self.cb.replace, self.key(), 1)
        self.cb.add(self.key(), 1)
        self.assertRaises(KeyExistsError, self.cb.add, self.key(), 2)
        self.cb.replace(self.key(), 3)
        self.assertEqual(self.cb.get(self.key()).value, 3)

    def test_errors_carry_all(self):
        """rc, key, result, all_results and categories."""
        with self.assertRaises(NotFoundError) as caught:
            self.cb.get(self.missing())
        error = caught.exception
        self.assertEqual((error.rc, error.key), (0x0D, self.missing()))
        self.assertEqual(error.all_results[self.missing()].rc, 0x0D)
        self.assertIs(error.all_results[self.missing()], error.result)
        self.assertFalse(error.all_results.all_ok)
        self.assertTrue(error.is_data)
        self.assertIn("Results=1", str(error))
        self.assertIn(f"Key={self.missing()!r}, RC=0xD[", str(error))

    def test_quiet(self):
        """A miss is a result for get, delete, touch and lock; the argument overrides the attribute."""
        for found in (self.cb.get(self.missing(), quiet=True), self.cb.delete(self.missing(), quiet=True)):
            self.assertEqual((found.rc, found.success, found.value, found.cas), (0x0D, False, None, 0))
        self.cb.quiet = True
        for operation in (
            lambda: self.cb.get(self.missing()),
            lambda: self.cb.delete(self.missing()),
            lambda: self.cb.touch(self.missing()),
            lambda: self.cb.lock(self.missing(), ttl=5),
        ):
            self.assertEqual(operation().rc, 0x0D)
        self.assertRaises(NotFoundError, self.cb.get, self.missing(), quiet=False)
        self.assertRaises(NotFoundError, self.cb.delete, self.missing(), quiet=False)
        for operation in (
            lambda: self.cb.incr(self.missing()),
            lambda: self.cb.replace(self.missing(), 1),
            lambda: self.cb.set(self.missing(), 1, cas=5),
            lambda: self.cb.unlock(self.missing(), 5),
            lambda: self.cb.endure(self.missing(), persist_to=0, replicate_to=0),
        ):
            self.assertRaises(NotFoundError, operation)
        self.assertRaises(NotStoredError, self.cb.append, self.missing(), "x")

    def test_append_and_prepend(self):
        """Text by default; the document's flags are kept; other formats and a ttl are refused."""
        self.assertRaises(NotStoredError, self.cb.append, self.missing(), "x")
        self.assertRaises(NotStoredError, self.cb.prepend, self.missing(), "x")
        self.cb.set(self.key(), "b", format=FMT_UTF8)
        self.cb.append(self.key(), "c")
        appended = self.cb.prepend(self.key(), "a")
        found = self.cb.get(self.key())
        self.assertEqual((found.value, found.flags, found.cas), ("abc", FMT_UTF8, appended.cas))
        self.cb.append(self.key(), b"d", format=FMT_BYTES)
        self.assertEqual(self.cb.get(self.key()).value, "abcd")
        self.assertRaises(KeyExistsError, self.cb.append, self.key(), "x", cas=appended.cas)
        for bad in (FMT_JSON, FMT_PICKLE, FMT_AUTO, 123):
            self.assertRaises(ArgumentError, self.cb.append, self.key(), "x", format=bad)
        for value, format in ((1, None), (b"x", None), ("x", FMT_BYTES)):
            self.assertRaises(ValueFormatError, self.cb.prepend, self.key(), value, format=format)
        with self.assertRaises(CouchbaseError) as caught:
            self.cb.append(self.key(), "x", ttl=5)
        self.assertEqual(caught.exception.rc, 0x3A)
        self.cb.set(self.key(), {"a": 1})
        self.cb.prepend(self.key(), "blah")
        self.assertRaises(ValueFormatError, self.cb.get, self.key())

    def test_expiry(self):
        """A document is gone after its ttl; get and touch change it; touch 0 removes it."""
        self.cb.set(self.key(), 1, ttl=1)
        self.cb.set(self.key("kept"), 1, ttl=1)
        self.cb.set(self.key("got"), 1, ttl=1)
        self.assertTrue(self.cb.touch(self.key("kept")).success)
        self.cb.get(self.key("got"), ttl=100)
        deadline = time.monotonic() + 5
        while self.cb.get(self.key(), quiet=True).success and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(self.cb.get(self.key(), quiet=True).success)
        self.assertEqual(self.cb.get(self.key("kept")).value, 1)
        self.assertEqual(self.cb.get(self.key("got")).value, 1)
        self.assertRaises(NotFoundError, self.cb.touch, self.missing(), 5)

    def test_bad_expiry(self):
        """Not a number, a float, negative or too large: ArgumentError. False values mean none."""
        for bad in ("1", 1.5, -1, 2**64):
            for operation in (
                lambda bad=bad: self.cb.set(self.key(), 1, ttl=bad),
                lambda bad=bad: self.cb.get(self.key(), ttl=bad),
                lambda bad=bad: self.cb.touch(self.key(), bad),
                lambda bad=bad: self.cb.lock(self.key(), bad),
                lambda bad=bad: self.cb.incr(self.key(), ttl=bad, initial=1),
            ):
                self.assertRaises(ArgumentError, operation)
        for none in (0, None, False):
            self.assertTrue(self.cb.set(self.key(), 1, ttl=none).success)
            self.assertTrue(self.cb.get(self.key(), ttl=none).success)

    def test_locks(self):
        """The operations that a lock forbids, and the ends of a lock."""
        self.cb.set(self.key(), {"v": 1})
        locked = self.cb.lock(self.key(), ttl=10)
        self.assertEqual(locked.value, {"v": 1})
        self.assertEqual(self.cb.get(self.key()).value, {"v": 1})
        with self.assertRaises(TemporaryFailError) as caught:
            self.cb.lock(self.key(), ttl=10)
        self.assertIsInstance(caught.exception, CouchbaseTransientError)
        for operation in (
            lambda: self.cb.set(self.key(), 2),
            lambda: self.cb.replace(self.key(), 2),
            lambda: self.cb.append(self.key(), "2"),
            lambda: self.cb.delete(self.key()),
        ):
            self.assertRaises(KeyExistsError, operation)
        self.assertRaises(TemporaryFailError, self.cb.incr, self.key())
        self.assertRaises(TemporaryFailError, self.cb.unlock, self.key(), locked.cas + 1)
        unlocked = self.cb.unlock(self.key(), locked.cas)
        self.assertIs(type(unlocked), OperationResult)
        self.assertRaises(TemporaryFailError, self.cb.unlock, self.key(), locked.cas)
        again = self.cb.lock(self.key(), ttl=10)
        self.cb.set(self.key(), 3, cas=again.cas)
        self.assertTrue(self.cb.set(self.key(), 4).success)
        self.assertRaises(NotFoundError, self.cb.lock, self.missing(), 5)
        self.assertRaises(NotFoundError, self.cb.unlock, self.missing(), 5)
        for bad in (0, None, "x"):
            self.assertRaises(ArgumentError, self.cb.unlock, self.key(), bad)

    def test_counters(self):
        """Values, initial, direction, and what is refused."""
        self.assertRaises(NotFoundError, self.cb.incr, self.key())
        made = self.cb.incr(self.key(), initial=10, amount=5)
        self.assertIs(type(made), ValueResult)
        self.assertEqual(made.value, 10)
        self.assertEqual(self.cb.incr(self.key()).value, 11)
        self.assertEqual(self.cb.decr(self.key(), 2).value, 9)
        self.assertEqual(self.cb.incr(self.key(), -4).value, 5)
        self.assertEqual(self.cb.decr(self.key(), amount=-1).value, 6)
        last = self.cb.arithmetic(self.key(), 4)
        found = self.cb.get(self.key())
        self.assertEqual((found.value, found.cas), (10, last.cas))
        self.assertEqual(self.cb.decr(self.key(), 100).value, 0)
        self.assertRaises(NotFoundError, self.cb.incr, self.missing(), initial="none")
        self.cb.set(self.key("text"), "abc")
        with self.assertRaises(DeltaBadvalError) as caught:
            self.cb.incr(self.key("text"))
        self.assertIsInstance(caught.exception, CouchbaseInputError)
        for bad in ("1", None, 1.5):
            self.assertRaises(ArgumentError, self.cb.incr, self.key(), bad)
            self.assertRaises(ArgumentError, self.cb.decr, self.key(), bad)
        self.assertRaises(ArgumentError, self.cb.incr, self.key(), initial=-1)
        with self.assertRaises(CouchbaseError) as caught:
            self.cb.incr(self.key(), ttl=10)
        self.assertEqual(caught.exception.rc, 0x3A)

    def test_large(self):
        """A value of megabytes goes out and comes back, in pieces."""
        value = "x" * (5 * 2**20)
        self.cb.set(self.key(), value, format=FMT_UTF8)
        self.assertEqual(self.cb.get(self.key()).value, value)


class FormatTests(ConnectionTestCase):
    """Section 6 of the reference."""

    def test_keys(self):
        """Text that is not empty; results have text again."""
        key = self.key("\u03c0\U0001f511")
        self.assertEqual(self.cb.set(key, 1).key, key)
        for bad in (b"bytes", 1, None, ["x"], object()):
            for method in (self.cb.get, self.cb.delete, self.cb.touch, self.cb.incr, self.cb.observe):
                self.assertRaises(ValueFormatError, method, bad)
        for operation in (
            lambda: self.cb.get(""),
            lambda: self.cb.set("", 1),
            lambda: self.cb.delete(""),
            lambda: self.cb.incr(""),
            lambda: self.cb.lock("", 5),
            lambda: self.cb.unlock("", 5),
            lambda: self.cb.rget(""),
            lambda: self.cb.observe(""),
            lambda: self.cb.endure(""),
            lambda: self.cb.get_multi([self.key(), ""]),
            lambda: self.cb.set_multi({"": 1}),
        ):
            self.assertRaises(ArgumentError, operation)

    def test_formats(self):
        """Each value comes back by its flags."""
        for value, format, flags, stored in (
            ({"a": "\u00e9"}, None, 0, '{"a":"\u00e9"}'.encode()),
            ("\u00e9", FMT_UTF8, 4, "\u00e9".encode()),
            (b"\x00\xff", FMT_BYTES, 2, b"\x00\xff"),
            (bytearray(b"ab"), FMT_BYTES, 2, b"ab"),
            ("", FMT_UTF8, 4, b""),
            (b"t", FMT_AUTO, 2, b"t"),
            ("t", FMT_AUTO, 4, b"t"),
            ([1, None], FMT_AUTO, 0, b"[1,null]"),
            (None, FMT_AUTO, 0, b"null"),
            ("t", 0x14, 4, b"t"),
        ):
            self.cb.set(self.key(), value, format=format)
            found = self.cb.get(self.key())
            self.assertEqual((found.value, found.flags), (value, flags))
            raw = self.cb.get(self.key(), no_format=True)
            self.assertEqual((raw.value, raw.flags, raw.key), (stored, flags, self.key()))
        for value in (1, {1, 2}, 1.5):
            self.cb.set(self.key(), value, format=FMT_AUTO)
            found = self.cb.get(self.key())
            self.assertEqual((found.value, found.flags), (value, FMT_PICKLE))

    def test_bad_formats(self):
        """Formats that are none: ArgumentError. Values that do not fit: ValueFormatError with its cause."""
        for bad in ("x", -1, 2**32, 1.5):
            self.assertRaises(ArgumentError, self.cb.set, self.key(), "x", format=bad)
        for value, format in ((object(), FMT_JSON), ("x", FMT_BYTES), (b"x", FMT_UTF8), (1, FMT_UTF8)):
            self.assertRaises(ValueFormatError, self.cb.set, self.key(), value, format=format)
        with self.assertRaises(ValueFormatError) as caught:
            self.cb.set(self.key(), object())
        self.assertIsInstance(caught.exception.inner_cause, TypeError)

    def test_undecodable(self):
        """ValueFormatError with the raw bytes, also when quiet; all_results has it without a value."""
        self.cb.set(self.key(), b"{", format=FMT_BYTES)
        writer = self.connect(transcoder=_Flags())
        writer.set(self.key(), b"{")
        with self.assertRaises(ValueFormatError) as caught:
            self.cb.get(self.key(), quiet=True)
        error = caught.exception
        self.assertEqual((error.objextra, error.key, error.rc), (b"{", self.key(), 0))
        self.assertIsNone(error.all_results[self.key()].value)
        self.assertTrue(error.all_results[self.key()].success)
        with self.assertRaises(ValueFormatError) as caught:
            self.cb.get_multi([self.missing(), self.key()])
        self.assertEqual(caught.exception.all_results[self.missing()].rc, 0x0D)
        self.assertIsNone(caught.exception.all_results[self.key()].value)

    def test_default_format(self):
        """Applies where no format is given; append keeps to text."""
        self.cb.default_format = FMT_BYTES
        self.cb.set(self.key(), b"x")
        self.assertEqual(self.cb.get(self.key()).flags, FMT_BYTES)
        self.cb.append(self.key(), "y")
        self.assertEqual(self.cb.get(self.key()).value, b"xy")
        self.cb.default_format = FMT_AUTO
        self.cb.set_multi({self.key(): "text"})
        self.assertEqual(self.cb.get(self.key()).flags, FMT_UTF8)

    def test_passthrough(self):
        """Values, and keys in results, are bytes; the transcoder is not asked to decode."""
        self.cb.set(self.key(), {"a": 1})
        self.cb.data_passthrough = True
        found = self.cb.get(self.key())
        self.assertEqual((found.value, found.key, found.flags), (b'{"a":1}', self.key().encode(), 0))
        self.assertEqual(list(self.cb.get_multi([self.key()])), [self.key().encode()])
        self.cb.transcoder = _Flags()
        self.assertEqual(self.cb.get(self.key()).value, b'{"a":1}')

    def test_raw(self):
        """Keys and values are bytes both ways, with their flags; of a subclass the methods are asked."""
        raw = self.connect(transcoder=RawTranscoder)
        key = self.key().encode()
        for passthrough in (False, True):
            raw.data_passthrough = passthrough
            self.assertEqual(raw.set(key, b"ab\xff", format=0x02000004).key, key)
            found = raw.get(key)
            self.assertEqual((found.key, found.value, found.flags), (key, b"ab\xff", 0x02000004))
            self.assertEqual(raw.get_multi([key])[key].value, b"ab\xff")
            self.assertEqual(raw.get(key, no_format=True).value, b"ab\xff")
        raw.append(key, b"c", format=0)
        self.assertEqual(raw.set_multi({key: b"d"})[key].success, True)
        self.assertEqual((raw.get(key).value, raw.get(key).flags), (b"d", 0))
        for keys in ([key, "text"], [b""], [b"k" * 251]):
            self.assertRaises((ValueFormatError, ArgumentError), raw.get_multi, keys)
        raw.transcoder = _Upper()
        self.assertEqual(raw.get(key, no_format=False).value, b"d")
        raw.data_passthrough = False
        self.assertEqual(raw.get(key).value, b"D")
        raw.transcoder = None
        self.assertEqual(raw.get(self.key(), no_format=True).value, b"d")

    def test_converters(self):
        """Replaced for all connections at once; the former pair comes back."""
        before = couchbase.set_json_converters(
            lambda value: json.dumps({"wrapped": value}), lambda text: json.loads(text)["wrapped"]
        )
        try:
            self.cb.set(self.key(), 5)
            self.assertEqual(self.connect().get(self.key()).value, 5)
            self.assertEqual(self.cb.get(self.key(), no_format=True).value, b'{"wrapped": 5}')
        finally:
            mine = couchbase.set_json_converters(*before)
        self.assertEqual(mine[1]('{"wrapped": 1}'), 1)
        before = couchbase.set_pickle_converters(lambda value: b"!", lambda data: b"!")
        try:
            self.cb.set(self.key(), {1}, format=FMT_PICKLE)
            self.assertEqual(self.cb.get(self.key()).value, b"!")
        finally:
            couchbase.set_pickle_converters(*before)

    def test_transcoder(self):
        """The transcoder converts everything, with the caller's arguments."""

        class Tuples(Transcoder):
            def encode_key(self, key):
                return "/".join(key).encode()

            def decode_key(self, key):
                return tuple(key.decode().split("/"))

            def encode_value(self, value, format):
                self.format = format
                return repr(value).encode(), 0x77

            def decode_value(self, value, flags):
                return value, flags

        self.cb.transcoder = coder = Tuples()
        key = (self.key(), "part")
        self.assertEqual(self.cb.set(key, 1, format="anything").key, key)
        self.assertEqual(coder.format, "anything")
        self.cb.set(key, 1)
        self.assertEqual(coder.format, FMT_JSON)
        self.assertEqual(self.cb.get(key).value, (b"1", 0x77))
        raw = self.cb.get(key, no_format=True)
        self.assertEqual((raw.value, raw.flags), ((b"1", FMT_BYTES), 0x77))
        self.assertEqual(self.cb.get_multi([key])[key].flags, 0x77)
        self.cb.transcoder = None
        self.assertEqual(self.cb.get("/".join(key), no_format=True).value, b"1")
        for none in (False, 0, None):
            self.cb.transcoder = none
            self.assertIsNone(self.cb.transcoder)

    def test_broken_transcoders(self):
        """Whatever goes wrong inside is a ValueFormatError, with its cause if there is one."""
        self.cb.set(self.key(), 1)

        def broken(**methods):
            return type("Broken", (Transcoder,), methods)()

        def fails(*args):
            raise KeyError("inside")

        for transcoder, operation in (
            (broken(encode_key=lambda self, key: key), lambda: self.cb.get(self.key())),
            (broken(encode_key=lambda self, key: b""), lambda: self.cb.get(self.key())),
            (broken(decode_key=lambda self, key: []), lambda: self.cb.get(self.key(), quiet=True)),
            (broken(decode_key=lambda self, key: []), lambda: self.cb.get_multi([self.key()])),
            (broken(encode_value=lambda self, v, f: v), lambda: self.cb.set(self.key(), 1)),
            (broken(encode_value=lambda self, v, f: (b"", 2**32)), lambda: self.cb.set(self.key(), 1)),
            (broken(encode_value=lambda self, v, f: ("", 1)), lambda: self.cb.set(self.key(), 1)),
            (object(), lambda: self.cb.get(self.key())),
        ):
            self.cb.transcoder = transcoder
            self.assertRaises(ValueFormatError, operation)
        for name in ("encode_key", "decode_key", "encode_value", "decode_value"):
            self.cb.transcoder = broken(**{name: fails})
            with self.assertRaises(ValueFormatError) as caught:
                self.cb.set(self.key(), 1)
                self.cb.get(self.key())
            self.assertIsInstance(caught.exception.inner_cause, KeyError)

    def test_without_pickles(self):
        """NoPickleTranscoder does all formats but one."""
        self.cb.set(self.key("pickle"), {1}, format=FMT_PICKLE)
        self.cb.transcoder = NoPickleTranscoder()
        self.assertRaises(ValueFormatError, self.cb.get, self.key("pickle"))
        self.assertRaises(ValueFormatError, self.cb.set, self.key(), {1}, format=FMT_PICKLE)
        self.assertRaises(ValueFormatError, self.cb.set, self.key(), 1.5, format=FMT_AUTO)
        for value, format in (("t", FMT_AUTO), (b"t", FMT_BYTES), ([1], None), ("t", FMT_UTF8)):
            self.cb.set(self.key(), value, format=format)
            self.assertEqual(self.cb.get(self.key()).value, value)

    def test_sample_transcoder(self):
        """TranscoderPP: json's spaces, whole formats as flags, a warning for flags that say nothing."""
        self.cb.transcoder = coder = TranscoderPP()
        for value, format, stored, flags in (
            ({"a": 1}, None, b'{"a": 1}', 0),
            (b"t", 0x12, b"t", 0x12),
            ("t", 0x14, b"t", 0x14),
            ("t", FMT_AUTO, b"t", FMT_UTF8),
        ):
            self.cb.set(self.key(), value, format=format)
            found = self.cb.get(self.key())
            self.assertEqual((found.value, found.flags), (value, flags))
            self.assertEqual(coder.encode_value(value, 0 if format is None else format), (stored, flags))
        self.cb.set(self.key(), {1}, format=FMT_PICKLE)
        self.assertEqual(self.cb.get(self.key()).value, {1})
        self.assertRaises(TypeError, coder.encode_value, 1, FMT_UTF8)
        self.assertRaises(TypeError, coder.encode_value, "x", FMT_BYTES)
        self.assertRaises(ValueError, coder.encode_value, "x", 3)
        self.assertRaises(ValueFormatError, self.cb.set, self.key(), 1, format=FMT_UTF8)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertEqual(coder.decode_value(b"x", 3), b"x")
        self.assertEqual(len(caught), 1)


class _Flags(Transcoder):
    """Stores bytes with the flags of JSON."""

    def encode_value(self, value, format):
        return value, 0
