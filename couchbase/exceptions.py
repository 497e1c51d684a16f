"""Exceptions of the SDK, keyed by result code.

A failed operation has an ``rc``, one of libcouchbase's numbers. The exception raised for it is an instance of
a class made for that code, which inherits from the code's detail class (for example :class:`NotFoundError`)
and from each of its categories (for example :class:`CouchbaseDataError`), so both can be caught. One table,
:data:`RESULT_CODES`, lists them for each code.

This module imports only :mod:`couchbase.errorbase`, since all others depend on it.
"""

from __future__ import annotations

from couchbase.errorbase import CATEGORY_DATA as CATEGORY_DATA
from couchbase.errorbase import CATEGORY_FATAL as CATEGORY_FATAL
from couchbase.errorbase import CATEGORY_INPUT as CATEGORY_INPUT
from couchbase.errorbase import CATEGORY_INTERNAL as CATEGORY_INTERNAL
from couchbase.errorbase import CATEGORY_NETWORK as CATEGORY_NETWORK
from couchbase.errorbase import CATEGORY_PLUGIN as CATEGORY_PLUGIN
from couchbase.errorbase import CATEGORY_SERVER as CATEGORY_SERVER
from couchbase.errorbase import CATEGORY_SERVER_LOAD as CATEGORY_SERVER_LOAD
from couchbase.errorbase import CATEGORY_TRANSIENT as CATEGORY_TRANSIENT
from couchbase.errorbase import RESULT_CODES as RESULT_CODES
from couchbase.errorbase import CouchbaseDataError as CouchbaseDataError
from couchbase.errorbase import CouchbaseError as CouchbaseError
from couchbase.errorbase import CouchbaseFatalError as CouchbaseFatalError
from couchbase.errorbase import CouchbaseInputError as CouchbaseInputError
from couchbase.errorbase import CouchbaseInternalError as CouchbaseInternalError
from couchbase.errorbase import CouchbaseNetworkError as CouchbaseNetworkError
from couchbase.errorbase import CouchbaseTransientError as CouchbaseTransientError
from couchbase.errorbase import InternalSDKError as InternalSDKError
from couchbase.errorbase import ResultCode as ResultCode
from couchbase.errorbase import describe as describe
from couchbase.errorbase import error_of as error_of


class ArgumentError(CouchbaseError):
    """An argument has a wrong type or value."""


class ValueFormatError(CouchbaseError):
    """A key or a value cannot be encoded or decoded."""


class AuthError(CouchbaseError):
    """User name or password is wrong, or the user lacks the permission."""


class DeltaBadvalError(CouchbaseError):
    """The counter's document is not an unsigned decimal number."""


class TooBigError(CouchbaseError):
    """The document is larger than the server allows."""


class BusyError(CouchbaseError):
    """The server is too busy to serve the request."""


class InternalError(CouchbaseError):
    """Declared by SDK 1.2; never raised."""


class InvalidError(CouchbaseError):
    """A host name or another part of the connection's address is malformed."""


class NoMemoryError(CouchbaseError):
    """The server has no memory left for the document."""


class RangeError(CouchbaseError):
    """Declared by SDK 1.2; never raised."""


class LibcouchbaseError(CouchbaseError):
    """Declared by SDK 1.2; never raised."""


class TemporaryFailError(CouchbaseError):
    """The server cannot execute the operation now: overload, warm-up, or (for locks) a locked document."""


class KeyExistsError(CouchbaseError):
    """The document exists already, or is not the version that the CAS names, or is locked."""


class NotFoundError(CouchbaseError):
    """No such document."""


class DlopenFailedError(CouchbaseError):
    """Declared by SDK 1.2; never raised."""


class DlsymFailedError(CouchbaseError):
    """Declared by SDK 1.2; never raised."""


class NetworkError(CouchbaseNetworkError):
    """A connection was refused or lost."""


class NotMyVbucketError(CouchbaseError):
    """The node does not own the key; the operation is retried with a new map, so this is not normally
    seen."""


class NotStoredError(CouchbaseError):
    """Append or prepend to a document that does not exist."""


class NotSupportedError(CouchbaseError):
    """The server does not offer this operation."""


class UnknownCommandError(CouchbaseError):
    """Declared by SDK 1.2; never raised."""


class UnknownHostError(CouchbaseNetworkError):
    """A host name does not resolve."""


class ProtocolError(CouchbaseNetworkError):
    """The server's answer is malformed."""


class TimeoutError(CouchbaseError):
    """No answer in time. Not Python's built-in class of this name."""


class ConnectError(CouchbaseNetworkError):
    """No connection could be made."""


class BucketNotFoundError(CouchbaseError):
    """The cluster has no such bucket, or the user may not see it."""


class CollectionNotFoundError(CouchbaseError):
    """The bucket has no such collection, or the user may not see it. Beyond SDK 1.2."""


class ScopeNotFoundError(CouchbaseError):
    """The bucket has no such scope, or the user may not see it. Beyond SDK 1.2."""


class ClientNoMemoryError(CouchbaseError):
    """Declared by SDK 1.2; never raised."""


class ClientTemporaryFailError(CouchbaseError):
    """The client cannot take the operation: not connected, closed, or its queue is full."""


class BadHandleError(CouchbaseError):
    """The operation does not fit this type of connection."""


class HTTPError(CouchbaseError):
    """An HTTP answer outside 200..299; ``objextra`` holds it."""


class CollectionExistsError(HTTPError):
    """The scope has a collection of this name already. Beyond SDK 1.2."""


class ScopeExistsError(HTTPError):
    """The bucket has a scope of this name already. Beyond SDK 1.2."""


class ObjectThreadError(CouchbaseError):
    """Another thread is using the connection."""


class ViewEngineError(CouchbaseError):
    """The answer to a view query carries errors; ``objextra`` is the list of them."""


class ObjectDestroyedError(CouchbaseError):
    """The connection was garbage-collected before it connected."""


class PipelineError(CouchbaseError):
    """A pipeline is used in a way that it does not support."""


class SubdocPathNotFoundError(CouchbaseError):
    """The path does not exist in the document, or its parent does not."""


class SubdocPathExistsError(CouchbaseError):
    """The path exists already, or the array has the value already."""


class SubdocPathMismatchError(CouchbaseError):
    """The document has another type at the path: a name in an array, an index in an object, a step into a
    scalar, or a counter that is not an integer."""


class SubdocPathInvalidError(CouchbaseError):
    """The path has a wrong syntax, or ends in an index where a name is needed."""


class SubdocPathTooBigError(CouchbaseError):
    """The path has too many components (a server allows 31)."""


class SubdocEmptyPathError(CouchbaseError):
    """An empty path where the operation needs one."""


class SubdocCantInsertValueError(CouchbaseError):
    """The value is not allowed at the path: it is not JSON, or not a scalar for array_addunique, or a counter
    would overflow."""


class SubdocValueTooDeepError(CouchbaseError):
    """The value would make the document nested too deep (a server allows 32 levels)."""


class SubdocNumberTooBigError(CouchbaseError):
    """The counter's number in the document does not fit into 64 bits."""


class SubdocBadDeltaError(CouchbaseError):
    """A counter's delta is 0, or not a 64-bit integer."""


class SubdocXattrError(CouchbaseError):
    """Wrong use of extended attributes: unknown macro, unknown virtual attribute, change of a virtual one."""


class DocumentNotJsonError(CouchbaseError):
    """The document is not JSON (or is deleted), so it has no paths."""


class DocumentTooDeepError(CouchbaseError):
    """The document is nested too deep for sub-document operations (a server allows 32 levels)."""


SUCCESS = 0x00
AUTH_CONTINUE = 0x01
AUTH_ERROR = 0x02
DELTA_BADVAL = 0x03
E2BIG = 0x04
EBUSY = 0x05
EINTERNAL = 0x06
EINVAL = 0x07
ENOMEM = 0x08
ERANGE = 0x09
ERROR = 0x0A
ETMPFAIL = 0x0B
KEY_EEXISTS = 0x0C
KEY_ENOENT = 0x0D
NETWORK_ERROR = 0x10
NOT_MY_VBUCKET = 0x11
NOT_STORED = 0x12
NOT_SUPPORTED = 0x13
UNKNOWN_COMMAND = 0x14
UNKNOWN_HOST = 0x15
PROTOCOL_ERROR = 0x16
ETIMEDOUT = 0x17
CONNECT_ERROR = 0x18
BUCKET_ENOENT = 0x19
CLIENT_ETMPFAIL = 0x1B
EBADHANDLE = 0x1C
INVALID_HOST_FORMAT = 0x1F
DURABILITY_ETOOMANY = 0x21
DUPLICATE_COMMANDS = 0x22
NO_MATCHING_SERVER = 0x23
INVALID_USERNAME = 0x26
SASLMECH_UNAVAILABLE = 0x28
TOO_MANY_REDIRECTS = 0x29
EMPTY_KEY = 0x35
SSL_ERROR = 0x36
SSL_CANTVERIFY = 0x37
OPTIONS_CONFLICT = 0x3A
SUBDOC_PATH_ENOENT = 0x3F
SUBDOC_PATH_MISMATCH = 0x40
SUBDOC_PATH_EINVAL = 0x41
SUBDOC_PATH_E2BIG = 0x42
SUBDOC_DOC_E2DEEP = 0x43
SUBDOC_VALUE_CANTINSERT = 0x44
SUBDOC_DOC_NOTJSON = 0x45
SUBDOC_NUM_ERANGE = 0x46
SUBDOC_BAD_DELTA = 0x47
SUBDOC_PATH_EEXISTS = 0x48
SUBDOC_VALUE_E2DEEP = 0x4A
EMPTY_PATH = 0x4C
SUBDOC_INVALID_COMBO = 0x55
SUBDOC_XATTR_INVALID_FLAG_COMBO = 0x58
SUBDOC_XATTR_INVALID_KEY_COMBO = 0x59
SUBDOC_XATTR_UNKNOWN_MACRO = 0x5A
SUBDOC_XATTR_UNKNOWN_VATTR = 0x5B
SUBDOC_XATTR_CANT_MODIFY_VATTR = 0x5C
SUBDOC_INVALID_XATTR_ORDER = 0x5E
COLLECTION_ENOENT = 0x5F
SCOPE_ENOENT = 0x1001
"""libcouchbase 2 has no code for this error; codes from 0x1000 on are free."""

_ROWS: dict[int, ResultCode] = {
    0x00: ResultCode("SUCCESS", None, 0, "Success (Not an error)"),
    0x01: ResultCode("AUTH_CONTINUE", None, 32 + 4 + 256, "The server expects another authentication step"),
    0x02: ResultCode("AUTH_ERROR", AuthError, 4 + 1, "Wrong user name or password, or access denied"),
    0x03: ResultCode("DELTA_BADVAL", DeltaBadvalError, 1 + 16 + 256, "The document is not a counter"),
    0x04: ResultCode("E2BIG", TooBigError, 1 + 16 + 256, "The document is too large"),
    0x05: ResultCode("EBUSY", BusyError, 8, "The server is busy"),
    0x06: ResultCode("EINTERNAL", None, 32, "Internal error of the server"),
    0x07: ResultCode("EINVAL", None, 1, "Invalid arguments"),
    0x08: ResultCode("ENOMEM", NoMemoryError, 8, "The server is out of memory"),
    0x09: ResultCode("ERANGE", None, 1 + 16 + 256, "A number is out of range"),
    0x0A: ResultCode("ERROR", None, 0, "The server answered with a status that has no code of its own"),
    0x0B: ResultCode("ETMPFAIL", TemporaryFailError, 8 + 128 + 256, "Temporary failure; try again later"),
    0x0C: ResultCode("KEY_EEXISTS", KeyExistsError, 16 + 256, "The key exists, or its CAS differs"),
    0x0D: ResultCode("KEY_ENOENT", NotFoundError, 16 + 256, "The key does not exist"),
    0x0E: ResultCode("DLOPEN_FAILED", DlopenFailedError, 1 + 4 + 64, "A library could not be loaded"),
    0x0F: ResultCode("DLSYM_FAILED", DlsymFailedError, 1 + 4 + 64, "A symbol was not found in a library"),
    0x10: ResultCode("NETWORK_ERROR", NetworkError, 2, "Network failure"),
    0x11: ResultCode("NOT_MY_VBUCKET", NotMyVbucketError, 2 + 8 + 256, "The node does not own the vbucket"),
    0x12: ResultCode("NOT_STORED", NotStoredError, 16 + 256, "Nothing to append or prepend to"),
    0x13: ResultCode("NOT_SUPPORTED", NotSupportedError, 0, "Not supported"),
    0x14: ResultCode("UNKNOWN_COMMAND", None, 256, "The server does not know the command"),
    0x15: ResultCode("UNKNOWN_HOST", UnknownHostError, 2 + 1, "The host name does not resolve"),
    0x16: ResultCode("PROTOCOL_ERROR", ProtocolError, 2, "The peer violated the protocol"),
    0x17: ResultCode("ETIMEDOUT", TimeoutError, 2 + 8, "The operation timed out"),
    0x18: ResultCode("CONNECT_ERROR", ConnectError, 2, "No connection could be made"),
    0x19: ResultCode("BUCKET_ENOENT", BucketNotFoundError, 1 + 4, "The bucket does not exist"),
    0x1A: ResultCode("CLIENT_ENOMEM", None, 4, "The client is out of memory"),
    0x1B: ResultCode(
        "CLIENT_ETMPFAIL", ClientTemporaryFailError, 8, "The client cannot take the operation now"
    ),
    0x1C: ResultCode("EBADHANDLE", BadHandleError, 1, "Wrong type of connection for this operation"),
    0x1D: ResultCode("SERVER_BUG", None, 0, "The server misbehaves"),
    0x1E: ResultCode("PLUGIN_VERSION_MISMATCH", None, 1 + 4 + 64, "A plug-in has the wrong version"),
    0x1F: ResultCode("INVALID_HOST_FORMAT", InvalidError, 1, "Malformed host name"),
    0x20: ResultCode("INVALID_CHAR", InvalidError, 1, "Illegal character"),
    0x21: ResultCode("DURABILITY_ETOOMANY", ArgumentError, 1, "More copies asked for than the cluster has"),
    0x22: ResultCode("DUPLICATE_COMMANDS", ArgumentError, 1, "The same key twice in one request"),
    0x23: ResultCode("NO_MATCHING_SERVER", None, 8, "No server holds such a copy of the key"),
    0x24: ResultCode("BAD_ENVIRONMENT", None, 4 + 1, "An environment variable has a bad value"),
    0x25: ResultCode("BUSY", None, 32, "An operation of this kind is running"),
    0x26: ResultCode("INVALID_USERNAME", None, 1 + 4, "The user name must be the bucket's name"),
    0x27: ResultCode("CONFIG_CACHE_INVALID", None, 1, "The configuration cache is unusable"),
    0x28: ResultCode("SASLMECH_UNAVAILABLE", None, 1 + 4, "No SASL mechanism in common"),
    0x29: ResultCode("TOO_MANY_REDIRECTS", None, 2, "Too many HTTP redirects"),
    0x2A: ResultCode("MAP_CHANGED", None, 2 + 8, "The cluster map changed"),
    0x2B: ResultCode("INCOMPLETE_PACKET", None, 8 + 1, "An incomplete packet was passed"),
    0x2C: ResultCode("ECONNREFUSED", None, 2 + 8, "Connection refused"),
    0x2D: ResultCode("ESOCKSHUTDOWN", None, 2 + 8, "The peer closed the connection"),
    0x2E: ResultCode("ECONNRESET", None, 2 + 8, "The peer reset the connection"),
    0x2F: ResultCode("ECANTGETPORT", None, 2 + 4, "No local port left"),
    0x30: ResultCode("EFDLIMITREACHED", None, 2 + 4, "Too many open files"),
    0x31: ResultCode("ENETUNREACH", None, 2 + 8, "The host or its network cannot be reached"),
    0x32: ResultCode("ECTL_UNKNOWN", None, 1, "No such setting"),
    0x33: ResultCode("ECTL_UNSUPPMODE", None, 1, "The setting cannot be used this way"),
    0x34: ResultCode("ECTL_BADARG", None, 1, "Bad value for a setting"),
    0x35: ResultCode("EMPTY_KEY", None, 1, "The key is empty"),
    0x36: ResultCode("SSL_ERROR", None, 4, "TLS failure"),
    0x37: ResultCode("SSL_CANTVERIFY", None, 4, "The server's certificate cannot be verified"),
    0x38: ResultCode("SCHEDFAIL_INTERNAL", None, 0, "The operation could not be scheduled"),
    0x39: ResultCode("CLIENT_FEATURE_UNAVAILABLE", None, 1, "The client lacks this feature"),
    0x3A: ResultCode("OPTIONS_CONFLICT", None, 1, "These options cannot be combined"),
    0x3B: ResultCode("HTTP_ERROR", None, 0, "HTTP request failed"),
    # Not in SDK 1.2; the numbers are those of libcouchbase 3.
    0x3F: ResultCode("SUBDOC_PATH_ENOENT", SubdocPathNotFoundError, 16 + 256, "The path does not exist"),
    0x40: ResultCode(
        "SUBDOC_PATH_MISMATCH", SubdocPathMismatchError, 16 + 256, "The document has another type at the path"
    ),
    0x41: ResultCode("SUBDOC_PATH_EINVAL", SubdocPathInvalidError, 1 + 256, "The path's syntax is wrong"),
    0x42: ResultCode("SUBDOC_PATH_E2BIG", SubdocPathTooBigError, 1 + 256, "The path has too many components"),
    0x43: ResultCode("SUBDOC_DOC_E2DEEP", DocumentTooDeepError, 16 + 256, "The document is nested too deep"),
    0x44: ResultCode(
        "SUBDOC_VALUE_CANTINSERT", SubdocCantInsertValueError, 1 + 256, "The value is not allowed at the path"
    ),
    0x45: ResultCode("SUBDOC_DOC_NOTJSON", DocumentNotJsonError, 16 + 256, "The document is not JSON"),
    0x46: ResultCode(
        "SUBDOC_NUM_ERANGE", SubdocNumberTooBigError, 16 + 256, "The number in the document is too big"
    ),
    0x47: ResultCode(
        "SUBDOC_BAD_DELTA", SubdocBadDeltaError, 16 + 256, "The delta is 0 or no 64-bit whole number"
    ),
    0x48: ResultCode("SUBDOC_PATH_EEXISTS", SubdocPathExistsError, 16 + 256, "The path exists already"),
    0x4A: ResultCode(
        "SUBDOC_VALUE_E2DEEP", SubdocValueTooDeepError, 1 + 256, "The value would be nested too deep"
    ),
    0x4C: ResultCode("EMPTY_PATH", SubdocEmptyPathError, 1, "The path is empty"),
    0x55: ResultCode("SUBDOC_INVALID_COMBO", None, 1 + 256, "These paths cannot be combined"),
    0x58: ResultCode(
        "SUBDOC_XATTR_INVALID_FLAG_COMBO", SubdocXattrError, 1 + 256, "These path flags cannot be combined"
    ),
    0x59: ResultCode(
        "SUBDOC_XATTR_INVALID_KEY_COMBO", SubdocXattrError, 1 + 256, "Attributes with different names"
    ),
    0x5A: ResultCode("SUBDOC_XATTR_UNKNOWN_MACRO", SubdocXattrError, 1 + 256, "Unknown macro"),
    0x5B: ResultCode("SUBDOC_XATTR_UNKNOWN_VATTR", SubdocXattrError, 1 + 256, "Unknown virtual attribute"),
    0x5C: ResultCode(
        "SUBDOC_XATTR_CANT_MODIFY_VATTR", SubdocXattrError, 1 + 256, "Virtual attributes cannot be changed"
    ),
    0x5E: ResultCode(
        "SUBDOC_INVALID_XATTR_ORDER", SubdocXattrError, 1 + 256, "Attributes must come before the body"
    ),
    0x5F: ResultCode("COLLECTION_ENOENT", CollectionNotFoundError, 1 + 256, "The collection does not exist"),
    0x1001: ResultCode("SCOPE_ENOENT", ScopeNotFoundError, 1 + 256, "The scope does not exist"),
}
"""Result code -> its name, detail class, category bits and text."""

RESULT_CODES.update(_ROWS)

for _rc in RESULT_CODES:
    CouchbaseError.rc_to_exctype(_rc)

# Names used in samples of the SDK's guide.
KeyNotFoundError = NotFoundError
TemporaryFailureError = TemporaryFailError
