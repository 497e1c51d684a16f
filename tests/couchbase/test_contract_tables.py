"""Promises of docs/sdk-1.2.md about exceptions and results: classes, tables, defaults, printed forms.

Standard library only, and Python 3.9.
"""

import builtins
from unittest import TestCase

from couchbase import _libcouchbase, _pyport, exceptions
from couchbase.connection import Connection
from couchbase.exceptions import ArgumentError, CouchbaseError, NotFoundError, TimeoutError
from couchbase.items import Item
from couchbase.protocol.statuses import result_code
from couchbase.result import (
    AsyncResult,
    HttpResult,
    MultiResult,
    ObserveInfo,
    OperationResult,
    Result,
    ValueResult,
)
from couchbase.transcoder import set_json_converters, set_pickle_converters
from couchbase.views.iterator import AlreadyQueriedError

# Result code: libcouchbase's name, detail class, category bits.
CODES = {
    0x00: ("SUCCESS", None, 0),
    0x01: ("AUTH_CONTINUE", None, 32 + 4 + 256),
    0x02: ("AUTH_ERROR", "AuthError", 4 + 1),
    0x03: ("DELTA_BADVAL", "DeltaBadvalError", 1 + 16 + 256),
    0x04: ("E2BIG", "TooBigError", 1 + 16 + 256),
    0x05: ("EBUSY", "BusyError", 8),
    0x06: ("EINTERNAL", None, 32),
    0x07: ("EINVAL", None, 1),
    0x08: ("ENOMEM", "NoMemoryError", 8),
    0x09: ("ERANGE", None, 1 + 16 + 256),
    0x0A: ("ERROR", None, 0),
    0x0B: ("ETMPFAIL", "TemporaryFailError", 8 + 128 + 256),
    0x0C: ("KEY_EEXISTS", "KeyExistsError", 16 + 256),
    0x0D: ("KEY_ENOENT", "NotFoundError", 16 + 256),
    0x0E: ("DLOPEN_FAILED", "DlopenFailedError", 1 + 4 + 64),
    0x0F: ("DLSYM_FAILED", "DlsymFailedError", 1 + 4 + 64),
    0x10: ("NETWORK_ERROR", "NetworkError", 2),
    0x11: ("NOT_MY_VBUCKET", "NotMyVbucketError", 2 + 8 + 256),
    0x12: ("NOT_STORED", "NotStoredError", 16 + 256),
    0x13: ("NOT_SUPPORTED", "NotSupportedError", 0),
    0x14: ("UNKNOWN_COMMAND", None, 256),
    0x15: ("UNKNOWN_HOST", "UnknownHostError", 2 + 1),
    0x16: ("PROTOCOL_ERROR", "ProtocolError", 2),
    0x17: ("ETIMEDOUT", "TimeoutError", 2 + 8),
    0x18: ("CONNECT_ERROR", "ConnectError", 2),
    0x19: ("BUCKET_ENOENT", "BucketNotFoundError", 1 + 4),
    0x1A: ("CLIENT_ENOMEM", None, 4),
    0x1B: ("CLIENT_ETMPFAIL", "ClientTemporaryFailError", 8),
    0x1C: ("EBADHANDLE", "BadHandleError", 1),
    0x1D: ("SERVER_BUG", None, 0),
    0x1E: ("PLUGIN_VERSION_MISMATCH", None, 1 + 4 + 64),
    0x1F: ("INVALID_HOST_FORMAT", "InvalidError", 1),
    0x20: ("INVALID_CHAR", "InvalidError", 1),
    0x21: ("DURABILITY_ETOOMANY", "ArgumentError", 1),
    0x22: ("DUPLICATE_COMMANDS", "ArgumentError", 1),
    0x23: ("NO_MATCHING_SERVER", None, 8),
    0x24: ("BAD_ENVIRONMENT", None, 4 + 1),
    0x25: ("BUSY", None, 32),
    0x26: ("INVALID_USERNAME", None, 1 + 4),
    0x27: ("CONFIG_CACHE_INVALID", None, 1),
    0x28: ("SASLMECH_UNAVAILABLE", None, 1 + 4),
    0x29: ("TOO_MANY_REDIRECTS", None, 2),
    0x2A: ("MAP_CHANGED", None, 2 + 8),
    0x2B: ("INCOMPLETE_PACKET", None, 8 + 1),
    0x2C: ("ECONNREFUSED", None, 2 + 8),
    0x2D: ("ESOCKSHUTDOWN", None, 2 + 8),
    0x2E: ("ECONNRESET", None, 2 + 8),
    0x2F: ("ECANTGETPORT", None, 2 + 4),
    0x30: ("EFDLIMITREACHED", None, 2 + 4),
    0x31: ("ENETUNREACH", None, 2 + 8),
    0x32: ("ECTL_UNKNOWN", None, 1),
    0x33: ("ECTL_UNSUPPMODE", None, 1),
    0x34: ("ECTL_BADARG", None, 1),
    0x35: ("EMPTY_KEY", None, 1),
    0x36: ("SSL_ERROR", None, 4),
    0x37: ("SSL_CANTVERIFY", None, 4),
    0x38: ("SCHEDFAIL_INTERNAL", None, 0),
    0x39: ("CLIENT_FEATURE_UNAVAILABLE", None, 1),
    0x3A: ("OPTIONS_CONFLICT", None, 1),
    0x3B: ("HTTP_ERROR", None, 0),
    0x3F: ("SUBDOC_PATH_ENOENT", "SubdocPathNotFoundError", 16 + 256),
    0x40: ("SUBDOC_PATH_MISMATCH", "SubdocPathMismatchError", 16 + 256),
    0x41: ("SUBDOC_PATH_EINVAL", "SubdocPathInvalidError", 1 + 256),
    0x42: ("SUBDOC_PATH_E2BIG", "SubdocPathTooBigError", 1 + 256),
    0x43: ("SUBDOC_DOC_E2DEEP", "DocumentTooDeepError", 16 + 256),
    0x44: ("SUBDOC_VALUE_CANTINSERT", "SubdocCantInsertValueError", 1 + 256),
    0x45: ("SUBDOC_DOC_NOTJSON", "DocumentNotJsonError", 16 + 256),
    0x46: ("SUBDOC_NUM_ERANGE", "SubdocNumberTooBigError", 16 + 256),
    0x47: ("SUBDOC_BAD_DELTA", "SubdocBadDeltaError", 16 + 256),
    0x48: ("SUBDOC_PATH_EEXISTS", "SubdocPathExistsError", 16 + 256),
    0x4A: ("SUBDOC_VALUE_E2DEEP", "SubdocValueTooDeepError", 1 + 256),
    0x4C: ("EMPTY_PATH", "SubdocEmptyPathError", 1),
    0x55: ("SUBDOC_INVALID_COMBO", None, 1 + 256),
    0x58: ("SUBDOC_XATTR_INVALID_FLAG_COMBO", "SubdocXattrError", 1 + 256),
    0x59: ("SUBDOC_XATTR_INVALID_KEY_COMBO", "SubdocXattrError", 1 + 256),
    0x5A: ("SUBDOC_XATTR_UNKNOWN_MACRO", "SubdocXattrError", 1 + 256),
    0x5B: ("SUBDOC_XATTR_UNKNOWN_VATTR", "SubdocXattrError", 1 + 256),
    0x5C: ("SUBDOC_XATTR_CANT_MODIFY_VATTR", "SubdocXattrError", 1 + 256),
    0x5E: ("SUBDOC_INVALID_XATTR_ORDER", "SubdocXattrError", 1 + 256),
    0x5F: ("COLLECTION_ENOENT", "CollectionNotFoundError", 1 + 256),
    0x1001: ("SCOPE_ENOENT", "ScopeNotFoundError", 1 + 256),
}
CATEGORIES = {
    1: "CouchbaseInputError",
    2: "CouchbaseNetworkError",
    4: "CouchbaseFatalError",
    8: "CouchbaseTransientError",
    16: "CouchbaseDataError",
    32: "CouchbaseInternalError",
}
# Status of the binary protocol: result code.
STATUSES = {
    0x00: 0x00,
    0x01: 0x0D,
    0x02: 0x0C,
    0x03: 0x04,
    0x04: 0x07,
    0x05: 0x12,
    0x06: 0x03,
    0x07: 0x11,
    0x20: 0x02,
    0x21: 0x01,
    0x22: 0x09,
    0x81: 0x14,
    0x82: 0x08,
    0x83: 0x13,
    0x84: 0x06,
    0x85: 0x05,
    0x86: 0x0B,
    0x99: 0x0A,
}
NETWORK_DETAILS = ("NetworkError", "UnknownHostError", "ProtocolError", "ConnectError")
DETAIL_NAMES = """
ArgumentError ValueFormatError AuthError DeltaBadvalError TooBigError BusyError InternalError InvalidError
NoMemoryError RangeError LibcouchbaseError TemporaryFailError KeyExistsError NotFoundError DlopenFailedError
DlsymFailedError NotMyVbucketError NotStoredError NotSupportedError UnknownCommandError TimeoutError
BucketNotFoundError ClientNoMemoryError ClientTemporaryFailError BadHandleError HTTPError ObjectThreadError
ViewEngineError ObjectDestroyedError PipelineError
"""


class ExceptionTests(TestCase):
    """Classes, codes, members."""

    def test_hierarchy(self):
        """Each class stands directly below the one that the table names."""
        bases = {
            "InternalSDKError": "CouchbaseError",
            "CouchbaseInternalError": "InternalSDKError",
            **dict.fromkeys(set(CATEGORIES.values()) - {"CouchbaseInternalError"}, "CouchbaseError"),
            **dict.fromkeys(NETWORK_DETAILS, "CouchbaseNetworkError"),
            **dict.fromkeys(DETAIL_NAMES.split(), "CouchbaseError"),
        }
        for name, base in bases.items():
            self.assertEqual(getattr(exceptions, name).__bases__, (getattr(exceptions, base),), name)
        self.assertEqual(CouchbaseError.__bases__, (Exception,))
        self.assertEqual(AlreadyQueriedError.__bases__, (CouchbaseError,))
        self.assertFalse(issubclass(TimeoutError, builtins.TimeoutError))

    def test_names_of_the_guide(self):
        """The guide's samples call two of them otherwise."""
        self.assertIs(exceptions.KeyNotFoundError, exceptions.NotFoundError)
        self.assertIs(exceptions.TemporaryFailureError, exceptions.TemporaryFailError)

    def test_names_of_the_c_library(self):
        """``couchbase._libcouchbase`` has each code under the C library's name."""
        self.assertEqual(
            {name: code for name, code in vars(_libcouchbase).items() if name.startswith("LCB_")},
            {f"LCB_{row.name}": rc for rc, row in exceptions.RESULT_CODES.items()},
        )
        self.assertEqual(_libcouchbase.LCB_NOT_STORED, exceptions.NotStoredError({"rc": 0x12}).rc)

    def test_names_from_the_inside(self):
        """Names that the original's own tests import: the converters in use, a flag, the names of two
        Pythons."""
        for kind, swap in (("json", set_json_converters), ("pickle", set_pickle_converters)):
            names = f"{kind}_encode", f"{kind}_decode"
            used = tuple(map(_libcouchbase._get_helper, names))
            self.addCleanup(swap, *used)
            self.assertEqual(swap(repr, len), used)
            self.assertEqual(tuple(map(_libcouchbase._get_helper, names)), (repr, len))
        self.assertRaises(AttributeError, _libcouchbase._get_helper, "xml_encode")
        self.assertEqual(Connection._privflags | _libcouchbase.PYCBC_CONN_F_WARNEXPLICIT, 1)
        self.assertEqual((_pyport.ulp.quote("a b"), _pyport.parse_qs("a=1")), ("a%20b", {"a": ["1"]}))
        self.assertEqual((_pyport.basestring, _pyport.unicode, _pyport.long), (str, str, int))
        self.assertEqual((list(_pyport.xrange(2)), callable(_pyport.urlopen)), ([0, 1], True))

    def test_codes(self):
        """Every code: its name, its class below detail and categories, its bits, its text."""
        self.assertEqual(set(exceptions.RESULT_CODES), set(CODES))
        for code, (name, detail, bits) in CODES.items():
            self.assertEqual(exceptions.RESULT_CODES[code].name, name)
            made = CouchbaseError.rc_to_exctype(code)
            error = made({"rc": code})
            self.assertEqual(error.categories, bits, name)
            for bit, category in CATEGORIES.items():
                below = issubclass(made, getattr(exceptions, category))
                self.assertEqual(below, bool(bits & bit), f"{name}: {category}")
            if detail:
                self.assertTrue(issubclass(made, getattr(exceptions, detail)))
                self.assertIsNot(made, getattr(exceptions, detail))
                self.assertIn(f"catch {detail}", made.__name__)
            elif bits & 63:
                self.assertEqual(made.__name__, f"LCB_0x{code:X}")
            else:
                self.assertIs(made, CouchbaseError)
            self.assertIs(CouchbaseError.rc_to_exctype(code), made)
            self.assertIsInstance(Result(code).errstr, str)
            self.assertTrue(Result(code).errstr)
        self.assertEqual(Result().errstr, "Success (Not an error)")

    def test_statuses(self):
        """The meaning of each protocol status for an operation."""
        for status, code in STATUSES.items():
            self.assertEqual(result_code("set", status), code, hex(status))

    def test_attributes(self):
        """Defaults, a message, a copy; never without arguments."""
        error = CouchbaseError({})
        self.assertEqual(
            (error.rc, error.message, error.key, error.result, error.all_results), (0, None, None, None, {})
        )
        self.assertEqual((error.inner_cause, error.objextra, error.csrc_info), (None, None, ()))
        self.assertEqual(CouchbaseError("words").message, "words")
        again = NotFoundError(CouchbaseError({"rc": 13, "key": "k", "message": "m", "objextra": 5}))
        self.assertEqual((again.rc, again.key, again.message, again.objextra), (13, "k", "m", 5))
        self.assertRaises(TypeError, CouchbaseError)
        self.assertEqual(ArgumentError.pyexc().rc, 0)
        self.assertIs(type(ArgumentError.pyexc("m")), ArgumentError)

    def test_bits(self):
        """The four questions are answered by the bit."""
        for code, (name, _, bits) in CODES.items():
            error = CouchbaseError.rc_to_exctype(code)({"rc": code})
            found = error.is_transient, error.is_fatal, error.is_network, error.is_data
            self.assertEqual(found, (bits & 8, bits & 4, bits & 2, bits & 16), name)
        self.assertEqual(CouchbaseError("x").categories, 0)

    def test_str(self):
        """All parts in their order; none for unset attributes."""
        error = CouchbaseError.rc_to_exctype(0x1B)(
            {
                "key": "k",
                "rc": 0x1B,
                "message": "words",
                "all_results": {"k": 1, "l": 2},
                "inner_cause": ValueError("inside"),
                "csrc_info": ("file.c", 7),
                "objextra": ["x"],
            }
        )
        self.assertEqual(
            str(error),
            f"<Key='k', RC=0x1B[{exceptions.describe(0x1B)}], words, Results=2, inner_cause=inside, "
            "C Source=(file.c,7), OBJ=['x']>",
        )
        self.assertEqual(str(CouchbaseError({})), "<>")


class ResultTests(TestCase):
    """Classes of results."""

    def test_hierarchy(self):
        """The base classes of each exception."""
        for cls, base in (
            (OperationResult, Result),
            (ValueResult, OperationResult),
            (Item, ValueResult),
            (HttpResult, Result),
            (MultiResult, dict),
            (AsyncResult, MultiResult),
        ):
            self.assertTrue(issubclass(cls, base))
        self.assertEqual(ObserveInfo.__bases__, (object,))
        self.assertFalse(issubclass(HttpResult, OperationResult))

    def test_empty(self):
        """Each class can be called without arguments, and has its attributes then."""
        for cls in (Result, OperationResult, ValueResult):
            made = cls()
            self.assertEqual((made.rc, made.success, made.value, made.cas), (0, True, None, 0))
            self.assertRaises(AttributeError, getattr, made, "key")
            self.assertFalse(hasattr(made, "__dict__"))
        self.assertEqual(ValueResult().flags, 0)
        self.assertFalse(hasattr(Result(), "flags"))
        made = HttpResult()
        self.assertEqual((made.http_status, made.value, made.headers, made.success), (0, None, None, False))
        self.assertEqual((made.rows_per_call, made._callback), (1, None))
        self.assertFalse(hasattr(made, "__dict__"))
        self.assertEqual((MultiResult().all_ok, dict(MultiResult())), (1, {}))
        self.assertEqual((AsyncResult().all_ok, AsyncResult().remaining), (1, 0))
        info = ObserveInfo()
        self.assertEqual((info.flags, info.from_master, info.cas), (0, 0, 0))
        self.assertFalse(hasattr(info, "__dict__"))

    def test_identity(self):
        """Equal and hashed by identity; read-only."""
        for cls in (Result, OperationResult, ValueResult, HttpResult, ObserveInfo, Item):
            self.assertNotEqual(cls(), cls())
            self.assertEqual(len({cls(), cls()}), 2)
        for cls, names in (
            (Result, ("rc", "success", "errstr", "key", "value", "cas")),
            (OperationResult, ("cas",)),
            (ValueResult, ("value", "flags", "cas")),
            (HttpResult, ("http_status", "value", "url", "headers", "success", "done", "key")),
            (ObserveInfo, ("flags", "from_master", "cas")),
            (AsyncResult, ("remaining",)),
        ):
            for name in names:
                self.assertRaises(AttributeError, setattr, cls(), name, 1)

    def test_multi(self):
        """A MultiResult is changed like any dict."""
        found = MultiResult(a=1)
        found["b"] = 2
        del found["a"]
        self.assertEqual((found, repr(found), str(found)), ({"b": 2}, "{'b': 2}", "{'b': 2}"))

    def test_async(self):
        """Callbacks can be set, and are no attributes before."""
        found = AsyncResult()
        for name in ("callback", "errback"):
            self.assertRaises(AttributeError, getattr, found, name)
        found.set_callbacks(print, repr)
        self.assertEqual((found.callback, found.errback), (print, repr))
        found.callback = found.errback = len
        self.assertEqual((found.callback, found.errback), (len, len))

    def test_repr(self):
        """str is repr; the class's own name; what has no name is left empty."""
        self.assertEqual(str(Result()), "Result<RC=0x0>")
        self.assertEqual(repr(OperationResult(0, 0xAB)), "OperationResult<RC=0x0, CAS=0xab>")
        failed = f"HttpResult<RC=0x17[{exceptions.describe(0x17)}], Value=None, HTTP=0, URL=/x>"
        self.assertEqual(repr(HttpResult(0x17, 0, None, "/x")), failed)
        for flags, text in (
            (0x00, "OBS_FOUND (0x0)"),
            (0x01, "OBS_PERSISTED (0x1)"),
            (0x80, "OBS_NOTFOUND (0x80)"),
            (0x81, "OBS_LOGICALLY_DELETED (0x81)"),
            (0x7F, " (0x7F)"),
        ):
            expected = f"ObserveInfo<Status=[{text}], Master=False, CAS=0xAB>"
            self.assertEqual(repr(ObserveInfo(flags, 0, 0xAB)), expected)

        class Mine(Item):
            pass

        self.assertEqual(repr(Mine("k", 1)), "Mine<RC=0x0, Key='k', Value=1, CAS=0x0, Flags=0x0>")
