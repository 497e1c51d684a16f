"""The base of the SDK's exceptions, and how a result code becomes a class of exceptions.

Programs import all of this from :mod:`couchbase.exceptions`, which has the classes and the table of codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_PUBLIC = "couchbase.exceptions"

CATEGORY_INPUT = 1
CATEGORY_NETWORK = 2
CATEGORY_FATAL = 4
CATEGORY_TRANSIENT = 8
CATEGORY_DATA = 16
CATEGORY_INTERNAL = 32
CATEGORY_PLUGIN = 64
CATEGORY_SERVER_LOAD = 128
CATEGORY_SERVER = 256


class CouchbaseError(Exception):
    """Base of all exceptions of the SDK.

    :param params: attributes by name, a message, or another ``CouchbaseError`` to copy.

    Attributes beyond those of SDK 1.2 (rc, message, key, result, all_results, inner_cause,
    objextra, csrc_info):

    ``status``
        status of the server's answer (an int, see the protocol), ``None`` without an answer.
    ``operation``
        name of the operation that failed (``"get"``, ``"set"`` ...), ``None`` outside of one.
    ``ambiguous``
        true if a mutation was sent and it is unknown whether the server executed it, or if it was executed
        but the wait for its copies failed. Repeat such an operation only if executing it twice does no harm.
    ``context``
        the server's own message about the failure, if it sent one.
    ``path``, ``path_index``
        the path of a sub-document operation that failed, and which of its specs it was, from 0.
    """

    __module__ = _PUBLIC

    rc: int = 0
    message: str | None = None
    key: Any = None
    result: Any = None
    all_results: Any = None
    inner_cause: BaseException | None = None
    objextra: Any = None
    csrc_info: tuple[Any, ...] = ()
    status: int | None = None
    operation: str | None = None
    ambiguous: bool = False
    context: str | None = None
    path: str | None = None
    path_index: int | None = None

    def __init__(self, params: dict[str, Any] | str | CouchbaseError) -> None:
        super().__init__(params)
        if isinstance(params, CouchbaseError):
            self.__dict__.update(params.__dict__)
        elif isinstance(params, str):
            self.message = params
        else:
            self.__dict__.update(params)
        if self.all_results is None:
            self.all_results = {}

    @classmethod
    def rc_to_exctype(cls, rc: int) -> type[CouchbaseError]:
        """Return the exception class for a result code, ``CouchbaseError`` itself if the code has none."""
        made = _CLASS_OF_RC.get(rc)
        if made is None:
            made = _CLASS_OF_RC[rc] = _make_class(rc)
        return made

    @classmethod
    def _can_derive(cls, rc: int) -> bool:
        """Return whether the exception for ``rc`` would be caught as this class."""
        return issubclass(cls.rc_to_exctype(rc), cls)

    @classmethod
    def pyexc(
        cls, message: str | None = None, obj: object = None, inner: BaseException | None = None
    ) -> CouchbaseError:
        """Return an error that the SDK itself detected (``rc`` 0).

        :param message: what was wrong and what was expected.
        :param obj: the offending object, kept as ``objextra``.
        :param inner: the exception that led to this one.
        """
        return cls({"message": message, "objextra": obj, "inner_cause": inner})

    @property
    def categories(self) -> int:
        """Category bits of :attr:`rc`."""
        row = RESULT_CODES.get(self.rc)
        return row.categories if row else 0

    @property
    def is_data(self) -> int:
        """Non-zero if the server refused the operation because of the document's state."""
        return self.categories & CATEGORY_DATA

    @property
    def is_transient(self) -> int:
        """Non-zero if the same operation may succeed after a short time."""
        return self.categories & CATEGORY_TRANSIENT

    @property
    def is_fatal(self) -> int:
        """Non-zero if the connection cannot be used any more."""
        return self.categories & CATEGORY_FATAL

    @property
    def is_network(self) -> int:
        """Non-zero if the cause is the network or a node."""
        return self.categories & CATEGORY_NETWORK

    def __str__(self) -> str:
        parts = []
        if self.key is not None:
            parts.append(f"Key={self.key!r}")
        if self.rc:
            parts.append(f"RC=0x{self.rc:X}[{describe(self.rc)}]")
        if self.message:
            parts.append(self.message)
        if self.all_results:
            parts.append(f"Results={len(self.all_results)}")
        if self.inner_cause is not None:
            parts.append(f"inner_cause={self.inner_cause}")
        if self.csrc_info:
            parts.append("C Source=({},{})".format(*self.csrc_info))
        if self.objextra is not None:
            parts.append(f"OBJ={self.objextra!r}")
        return "<" + ", ".join(parts) + ">"

    def __reduce__(self) -> tuple[Any, ...]:
        # Classes made for a code have no importable name, so errors pickle by code.
        made_for_rc = type(self) is _CLASS_OF_RC.get(self.rc)
        return _rebuild, (None if made_for_rc else type(self), self.rc, dict(self.__dict__))


class InternalSDKError(CouchbaseError):
    """The SDK, or a callback given to it, violated the SDK's rules."""

    __module__ = _PUBLIC


class CouchbaseInternalError(InternalSDKError):
    """Category: an inner failure of client or server."""

    __module__ = _PUBLIC


class CouchbaseNetworkError(CouchbaseError):
    """Category: no answer, or no connection."""

    __module__ = _PUBLIC


class CouchbaseInputError(CouchbaseError):
    """Category: the request itself was wrong."""

    __module__ = _PUBLIC


class CouchbaseTransientError(CouchbaseError):
    """Category: the operation may succeed after a short time."""

    __module__ = _PUBLIC


class CouchbaseFatalError(CouchbaseError):
    """Category: the connection cannot be used any more."""

    __module__ = _PUBLIC


class CouchbaseDataError(CouchbaseError):
    """Category: the document's state forbids the operation."""

    __module__ = _PUBLIC


class ResultCode(NamedTuple):
    """The properties of one result code."""

    name: str
    """libcouchbase's name for it."""
    exception: type[CouchbaseError] | None
    """The detail class, if the code has one."""
    categories: int
    text: str
    """One line of description."""


RESULT_CODES: dict[int, ResultCode] = {}
"""Result code -> its name, detail class, category bits and text; :mod:`couchbase.exceptions` fills it."""

_CATEGORY_CLASSES = (
    (CATEGORY_INPUT, CouchbaseInputError),
    (CATEGORY_NETWORK, CouchbaseNetworkError),
    (CATEGORY_FATAL, CouchbaseFatalError),
    (CATEGORY_TRANSIENT, CouchbaseTransientError),
    (CATEGORY_DATA, CouchbaseDataError),
    (CATEGORY_INTERNAL, CouchbaseInternalError),
)

_CLASS_OF_RC: dict[int, type[CouchbaseError]] = {}


def error_of(code: int, message: str | None = None, **fields: object) -> CouchbaseError:
    """Return the error of a result code, ready to be raised. The SDK creates all its errors here.

    :param code: a result code, such as :data:`ETIMEDOUT`.
    :param message: what happened, and what was expected instead.
    :param fields: further attributes of :class:`CouchbaseError`, by name.
    """
    return CouchbaseError.rc_to_exctype(code)({"rc": code, "message": message, **fields})


def describe(rc: int) -> str:
    """Return one line of text for a result code; never empty, also for unknown codes."""
    row = RESULT_CODES.get(rc)
    return row.text if row else f"Unknown result code {rc}"


def _make_class(rc: int) -> type[CouchbaseError]:
    row = RESULT_CODES.get(rc)
    if row is None:
        return CouchbaseError
    detail = row.exception
    bases = [detail] if detail else []
    for bit, category in _CATEGORY_CLASSES:
        # A category that the detail class already inherits would break the method resolution order.
        if row.categories & bit and not (detail and issubclass(detail, category)):
            bases.append(category)
    if not bases:
        return CouchbaseError
    if detail:
        name = f"_{detail.__name__}_0x{rc:X} (generated, catch {detail.__name__})"
    else:
        name = f"LCB_0x{rc:X}"
    return type(name, tuple(bases), {"__doc__": row.text, "__module__": _PUBLIC})


def _rebuild(cls: type[CouchbaseError] | None, rc: int, state: dict[str, Any]) -> CouchbaseError:
    return (cls or CouchbaseError.rc_to_exctype(rc))(state)
