"""Exceptions, results and formats as SDK 1.2 defines them."""

import json
import pickle

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions, transcoder
from couchbase.collection import InCollection
from couchbase.commands import Commands
from couchbase.exceptions import (
    ArgumentError,
    CouchbaseDataError,
    CouchbaseError,
    CouchbaseInputError,
    CouchbaseNetworkError,
    CouchbaseTransientError,
    NotFoundError,
    TimeoutError,
    ValueFormatError,
)
from couchbase.protocol import operations
from couchbase.protocol.keyspace import Keyspace
from couchbase.result import MultiResult, ObserveInfo, OperationResult, Result, ValueResult
from couchbase.user_constants import FMT_AUTO, FMT_BYTES, FMT_JSON, FMT_PICKLE, FMT_UTF8
from tests import tries

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class ExceptionTests(SynchronousTestCase):
    """One class a result code, catchable by detail and by category."""

    def test_detail_and_categories(self):
        """The class for a code inherits from both, and is neither."""
        made = CouchbaseError.rc_to_exctype(exceptions.KEY_ENOENT)
        self.assertTrue(issubclass(made, NotFoundError))
        self.assertTrue(issubclass(made, CouchbaseDataError))
        self.assertIsNot(made, NotFoundError)
        late = CouchbaseError.rc_to_exctype(exceptions.ETIMEDOUT)
        for base in (TimeoutError, CouchbaseNetworkError, CouchbaseTransientError):
            self.assertTrue(issubclass(late, base))
        self.assertTrue(NotFoundError._can_derive(exceptions.KEY_ENOENT))
        self.assertFalse(NotFoundError._can_derive(exceptions.KEY_EEXISTS))

    def test_made_by_code(self):
        """error_of makes the class of the code, with its rc, the message, and whatever else is named."""
        error = exceptions.error_of(exceptions.KEY_ENOENT, "gone", key="k", ambiguous=True)
        self.assertIs(type(error), CouchbaseError.rc_to_exctype(exceptions.KEY_ENOENT))
        self.assertEqual(
            (error.rc, error.message, error.key, error.ambiguous), (exceptions.KEY_ENOENT, "gone", "k", True)
        )
        self.assertEqual(
            (
                exceptions.error_of(exceptions.ERROR).message,
                exceptions.error_of(exceptions.ERROR).all_results,
            ),
            (None, {}),
        )

    def test_codes_without_a_detail_class(self):
        """Categories alone make a class named by the code; without both it is CouchbaseError."""
        made = CouchbaseError.rc_to_exctype(exceptions.EINVAL)
        self.assertEqual((made.__name__, made.__bases__), ("LCB_0x7", (CouchbaseInputError,)))
        self.assertIs(CouchbaseError.rc_to_exctype(0x999), CouchbaseError)

    def test_str(self):
        """Only the parts that are set, in the documented order."""
        error = CouchbaseError.rc_to_exctype(13)({"rc": 13, "key": "k", "message": "why", "objextra": 5})
        self.assertEqual(str(error), f"<Key='k', RC=0xD[{exceptions.describe(13)}], why, OBJ=5>")
        self.assertTrue(error.is_data)
        self.assertFalse(error.is_network)

    def test_every_code_is_made_described_and_pickled(self):
        """An error survives pickling with its class and attributes."""
        for code in exceptions.RESULT_CODES:
            error = CouchbaseError.rc_to_exctype(code)({"rc": code, "key": "k"})
            again = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(again), again.rc, again.key), (type(error), code, "k"))
            self.assertTrue(exceptions.describe(code))

    def test_pyexc(self):
        """An error that the SDK itself detects has no code, and keeps object and cause."""
        cause = ValueError("x")
        error = ArgumentError.pyexc("message", obj=[1], inner=cause)
        self.assertEqual((error.rc, error.message), (0, "message"))
        self.assertEqual((error.objextra, error.inner_cause), ([1], cause))
        self.assertEqual(CouchbaseError(error).message, "message")


class ResultTests(SynchronousTestCase):
    """Read-only records with fixed printed forms."""

    def test_repr(self):
        """As documented, with and without key and failure."""
        self.assertEqual(repr(Result()), "Result<RC=0x0>")
        stored = OperationResult(0, 0x1F)
        stored._key = "k"
        self.assertEqual(repr(stored), "OperationResult<RC=0x0, Key='k', CAS=0x1f>")
        missed = ValueResult(13)
        missed._key = "k"
        expected = f"ValueResult<RC=0xD[{exceptions.describe(13)}], Key='k', Value=None, CAS=0x0, Flags=0x0>"
        self.assertEqual(repr(missed), expected)
        self.assertEqual(
            repr(ObserveInfo(1, 1, 0xF6)), "ObserveInfo<Status=[OBS_PERSISTED (0x1)], Master=True, CAS=0xF6>"
        )
        self.assertEqual(repr(MultiResult({"a": 1})), "{'a': 1}")

    def test_read_only(self):
        """Attributes cannot be set, and there is no __dict__."""
        result = ValueResult()
        for name in ("rc", "key", "value", "cas", "flags", "success", "other"):
            self.assertRaises(AttributeError, setattr, result, name, 1)
        self.assertRaises(AttributeError, lambda: result.key)
        self.assertFalse(hasattr(result, "__dict__"))


class FormatTests(SynchronousTestCase):
    """From values to bytes and flags, and back."""

    @given(values)
    def test_json_round_trip(self, value):
        """JSON is what the json module writes compactly, and reads back equal."""
        encoded, flags = transcoder.encode_value(value, FMT_JSON)
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        self.assertEqual((encoded, flags), (text.encode("utf-8", "surrogatepass"), FMT_JSON))
        self.assertEqual(transcoder.decode_value(encoded, 0), value)
        self.assertEqual(transcoder.decode_value(b" " + encoded + b"\n", transcoder.COMMON_JSON), value)

    def test_formats(self):
        """Each format keeps its flags; FMT_AUTO chooses by type."""
        for value, format, flags in (
            ("\u00e9", FMT_UTF8, 4),
            (b"\xff", FMT_BYTES, 2),
            (bytearray(b"x"), FMT_BYTES, 2),
            ({1, 2}, FMT_PICKLE, 1),
            ("t", FMT_AUTO, 4),
            (b"b", FMT_AUTO, 2),
            ([1], FMT_AUTO, 0),
            (True, FMT_AUTO, 0),
            (1, FMT_AUTO, 1),
        ):
            encoded, stored = transcoder.encode_value(value, format)
            self.assertEqual(stored, flags)
            self.assertEqual(transcoder.decode_value(encoded, stored), value)

    def test_flags_of_current_sdks(self):
        """Common flags in the top byte are understood."""
        self.assertEqual(transcoder.decode_value(b"[1]", 0x02000000), [1])
        self.assertEqual(transcoder.decode_value(b"t", 0x04000004), "t")
        self.assertEqual(transcoder.decode_value(b"\xff", 0x03000002), b"\xff")

    def test_refused(self):
        """A value that does not fit its format is a ValueFormatError with its cause."""
        cycle: list = []
        cycle.append(cycle)
        for value, format in ((b"x", FMT_UTF8), ("x", FMT_BYTES), (object(), FMT_JSON), (cycle, FMT_JSON)):
            self.assertRaises(ValueFormatError, transcoder.encode_value, value, format)
        error = self.assertRaises(ValueFormatError, transcoder.decode_value, b"{", 0)
        self.assertEqual(error.objextra, b"{")
        self.assertIsInstance(error.inner_cause, ValueError)

    def test_converters(self):
        """Replacing the JSON functions returns the former pair."""
        former = transcoder.set_json_converters(lambda value: b"x", lambda text: "decoded")
        self.addCleanup(transcoder.set_json_converters, *former)
        self.assertEqual(transcoder.encode_value(5, FMT_JSON), (b"x", 0))
        self.assertEqual(transcoder.decode_value(b"5", 0), "decoded")

    def test_keys(self):
        """Text of 1 to 250 bytes of UTF-8."""
        self.assertEqual(transcoder.encode_key("\u00e9"), b"\xc3\xa9")
        self.assertEqual(len(transcoder.encode_key("k" * 250)), 250)
        for key in ("", "k" * 251, "\u00e9" * 126):
            self.assertRaises(ArgumentError, transcoder.encode_key, key)
        for key in (b"k", None, 5, "\ud800"):
            self.assertRaises(ValueFormatError, transcoder.encode_key, key)


class Taking:
    """A driver that returns requests."""

    def submit(self, request):
        return request


class InNamed(InCollection, Commands):
    """The key-value methods of a collection."""


TEXTS = st.text("k\u00e9\u20ac\U0001f600", max_size=66)
KEYS = st.one_of(
    *(TEXTS, TEXTS, st.integers(60, 64).map("\U0001f600".__mul__), st.just("k\ud800")),
    *(st.binary(max_size=4), st.none()),
)


class ReadTests(SynchronousTestCase):
    """The requests of reads."""

    @settings(max_examples=tries(300), deadline=None)
    @given(
        *(st.lists(KEYS, min_size=8), st.sampled_from([None, True, False, 1]), st.booleans(), st.booleans()),
        *(st.integers(0, 4), st.sampled_from([None, transcoder.Transcoder(), transcoder.RawTranscoder()])),
    )
    def test_the_same(self, keys, quiet, no_format, is_quiet, passes, transcodes):
        """``get`` makes the request, or raises the error, that it would make from an encoded key."""
        for reads in (Commands(), InNamed()):
            reads._driver, reads.quiet = Taking(), is_quiet
            reads._enter(Keyspace("s", "c")) if isinstance(reads, InNamed) else None
            reads.data_passthrough = not passes
            self.check(reads, keys, quiet, no_format)
            reads.transcoder = transcodes
            self.check(reads, keys, quiet, no_format)

    def check(self, reads, keys, quiet, no_format):
        """Compare the requests with those of the general way."""
        text_type = reads._text_type
        for key in keys:
            seen = []
            for reads._text_type in (text_type, None):
                try:
                    request = reads.get(key, quiet=quiet, no_format=no_format)
                except CouchbaseError as error:
                    seen.append((type(error), str(error)))
                    continue
                seen.append([getattr(request, name, None) for name in request.__slots__])
                self.assertIs(request.operation, operations.GET)
                self.assertIs(request.keyspace, reads._keyspace)
            self.assertEqual(seen[0], seen[1])
        reads._text_type = text_type
