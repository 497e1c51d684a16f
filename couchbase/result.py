"""Results of operations.

Results are read-only records without ``__dict__``; they compare and hash by identity. The SDK
fills them through their underscored slots.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from couchbase.exceptions import HTTPError, describe, error_of
from couchbase.user_constants import OBS_FOUND, OBS_LOGICALLY_DELETED, OBS_NOTFOUND, OBS_PERSISTED

unpack_token: Callable[[bytes], tuple[int, int]] = Struct(">QQ").unpack
"""Returns ``uuid`` and ``seqno`` of a :class:`MutationToken` in wire format."""
_OBSERVE_NAMES = {
    OBS_FOUND: "OBS_FOUND",
    OBS_PERSISTED: "OBS_PERSISTED",
    OBS_NOTFOUND: "OBS_NOTFOUND",
    OBS_LOGICALLY_DELETED: "OBS_LOGICALLY_DELETED",
}


if TYPE_CHECKING:
    from builtins import property as _of_slot

    from typing_extensions import TypeVar as _TypeVar

    _ResultT = _TypeVar("_ResultT", default=Any)
else:
    from typing import TypeVar as _TypeVar

    _ResultT = _TypeVar("_ResultT")

    def _of_slot(method: Callable[[Any], Any]) -> property:
        """Return a property that reads the slot with the method's name after an underscore.

        Type checkers see an ordinary property; reading it runs no Python code.
        """
        return property(attrgetter(f"_{method.__name__}"), doc=method.__doc__)


class MutationToken(NamedTuple):
    """Identifies one mutation in the history of its vbucket."""

    vbucket: int
    uuid: int
    """Identifies the branch of the vbucket's history; a failover starts a new one."""
    seqno: int


class Result:
    """Result of an operation.

    ``rc`` is the result code (0: success) and ``key`` the key as the caller gave it
    (``AttributeError`` if there is none).
    """

    __slots__ = ("_cas", "_key", "_rc", "_token")

    _rc: int
    _key: Any
    _cas: int
    # The mutation's token in wire format, and its vbucket: unpacked on demand.
    _token: tuple[int, bytes] | None

    def __init__(self, rc: int = 0, cas: int = 0) -> None:
        self._rc = rc
        self._cas = cas
        self._token = None

    @_of_slot
    def rc(self) -> int:
        """Result code, 0 for success."""
        return self._rc

    @_of_slot
    def key(self) -> Any:
        """The key as the caller gave it."""
        return self._key

    @_of_slot
    def cas(self) -> int:
        """CAS of the document, 0 if unknown."""
        return self._cas

    @property
    def success(self) -> bool:
        """True if :attr:`rc` is 0."""
        return self._rc == 0

    @property
    def errstr(self) -> str:
        """Description of :attr:`rc`."""
        return describe(self._rc)

    @property
    def value(self) -> Any:
        """The document's value; ``None`` for results without one."""
        return None

    @property
    def mutation_token(self) -> MutationToken | None:
        """The mutation's position in its vbucket's history, if the server sent it."""
        if self._token is None:
            return None
        vbucket, packed = self._token
        return MutationToken(vbucket, *unpack_token(packed))

    def _fields(self) -> list[str]:
        shown = [f"RC=0x{self._rc:X}" + (f"[{self.errstr}]" if self._rc else "")]
        if hasattr(self, "_key"):
            shown.append(f"Key={self._key!r}")
        return shown

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{', '.join(self._fields())}>"


class OperationResult(Result):
    """Result of an operation that changes a document; ``cas`` is that of the new version."""

    __slots__ = ()

    def _fields(self) -> list[str]:
        return [*super()._fields(), f"CAS=0x{self._cas:x}"]


class ValueResult(OperationResult):
    """Result of an operation that returns a value."""

    __slots__ = ("_flags", "_value")

    _value: Any
    _flags: int

    def __init__(self, rc: int = 0, cas: int = 0, value: object = None, flags: int = 0) -> None:
        self._rc = rc
        self._cas = cas
        self._token = None
        self._value = value
        self._flags = flags

    @_of_slot
    def value(self) -> Any:
        """The document's value, ``None`` if there is none."""
        return self._value

    @_of_slot
    def flags(self) -> int:
        """Flags stored with the document."""
        return self._flags

    def _fields(self) -> list[str]:
        fields = super()._fields()
        return [*fields[:-1], f"Value={self._value!r}", fields[-1], f"Flags=0x{self._flags:x}"]


class ExpiryResult(ValueResult):
    """A value together with its expiry."""

    __slots__ = ("_expiry",)

    _expiry: int

    @_of_slot
    def expiry(self) -> int:
        """Unix time in seconds at which the document expires, 0 for never."""
        return self._expiry


class HttpResult(Result):
    """Result of a request over HTTP: to a view, a design document, or the cluster manager.

    ``key`` is the path that was requested, as is ``url``.
    """

    __slots__ = ("_callback", "_done", "_headers", "_http_status", "_value", "rows_per_call")

    _http_status: int
    _value: Any
    _headers: dict[str, str] | None
    _done: bool
    _callback: Any

    rows_per_call: int
    """For an asynchronous view: minimum number of rows in one call; -1 for all rows in one call at the
    end."""

    def __init__(
        self,
        rc: int = 0,
        http_status: int = 0,
        value: object = None,
        url: str = "",
        headers: dict[str, str] | None = None,
        done: bool = True,
    ) -> None:
        super().__init__(rc)
        self._key = url
        self._http_status = http_status
        self._value = value
        self._headers = headers
        self._done = done
        self._callback = None
        self.rows_per_call = 1

    @_of_slot
    def http_status(self) -> int:
        """HTTP status, 0 before the answer."""
        return self._http_status

    @_of_slot
    def value(self) -> Any:
        """The decoded answer, or its text if it is not JSON."""
        return self._value

    @property
    def url(self) -> str:
        """The path that was requested, with its query."""
        key: str = self._key
        return key

    @_of_slot
    def headers(self) -> dict[str, str] | None:
        """Headers by name, ``None`` if not requested."""
        return self._headers

    @_of_slot
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._done

    @property
    def success(self) -> bool:
        """True if :attr:`rc` is 0 and the status is one of 200 to 299."""
        return self._rc == 0 and 200 <= self._http_status <= 299

    def _maybe_raise(self) -> None:
        """Raise the failure in this answer, if any.

        :raises HTTPError: a status outside 200..299; ``objextra`` is this object.
        :raises CouchbaseError: of :attr:`rc`.
        """
        if self._rc:
            raise error_of(self._rc, key=self._key, objextra=self)
        if self._done and not self.success:
            raise HTTPError(
                {
                    "message": f"HTTP status {self._http_status}{_server_words(self._value)}",
                    "key": self._key,
                    "objextra": self,
                }
            )

    def _fields(self) -> list[str]:
        shown = [f"RC=0x{self._rc:X}" + (f"[{self.errstr}]" if self._rc else "")]
        return [*shown, f"Value={self._value!r}", f"HTTP={self._http_status}", f"URL={self._key}"]


def _server_words(value: object) -> str:
    """Return a server's text about a failure, for a message."""
    if isinstance(value, dict) and ("reason" in value or "error" in value):
        words = ": ".join(str(value[name]) for name in ("error", "reason") if name in value)
    elif isinstance(value, str):
        words = value.strip()
    else:
        return ""
    return f": {words[:500]}" if words else ""


class ObserveInfo:
    """The state of one key on one node."""

    __slots__ = ("_cas", "_flags", "_from_master")

    def __init__(self, flags: int = 0, from_master: int = 0, cas: int = 0) -> None:
        self._flags = flags
        self._from_master = int(from_master)
        self._cas = cas

    @_of_slot
    def flags(self) -> int:
        """One of the ``OBS_*`` constants."""
        return self._flags

    @_of_slot
    def from_master(self) -> int:
        """1 if the active node answered, 0 for a replica."""
        return self._from_master

    @_of_slot
    def cas(self) -> int:
        """CAS of the node's copy."""
        return self._cas

    def __repr__(self) -> str:
        name = _OBSERVE_NAMES.get(self._flags, "")
        return (
            f"ObserveInfo<Status=[{name} (0x{self._flags:X})], "
            f"Master={bool(self._from_master)}, CAS=0x{self._cas:X}>"
        )


class MultiResult(dict[Any, _ResultT]):
    """Results of a multi operation by key.

    ``all_ok`` is 1 unless some operation failed; a missing document counts as a failure even with ``quiet``.
    """

    __slots__ = ("_refused", "all_ok")

    all_ok: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.all_ok = 1

    @property
    def refused(self) -> dict[str, int]:
        """The groups of statistics that no node has returned, with the status of a refusal. An addition to
        SDK 1.2."""
        found: dict[str, int] = getattr(self, "_refused", {})
        return found

    @refused.setter
    def refused(self, groups: dict[str, int]) -> None:
        self._refused = groups


class AsyncResult(MultiResult[_ResultT]):
    """Results that are still pending.

    Fills as answers arrive. After the last one, ``callback(r)`` is called with the result (of a single
    operation) or this object (of a multi operation); or, if some operation failed, ``errback(async_result,
    exc_type, exc_value, traceback)``. Set both before control returns to the event loop.
    """

    __slots__ = ("__weakref__", "callback", "errback", "_remaining")

    callback: Callable[[Any], Any]
    errback: Callable[[Any, Any, Any, Any], Any]

    def __init__(self) -> None:
        self.all_ok = 1
        self._remaining = 0

    @_of_slot
    def remaining(self) -> int:
        """Number of operations that are not over."""
        return self._remaining

    def set_callbacks(self, ok: Callable[[Any], Any], err: Callable[[Any, Any, Any, Any], Any]) -> None:
        """Set :attr:`callback` and :attr:`errback`."""
        self.callback = ok
        self.errback = err

    def __repr__(self) -> str:
        return f"{type(self).__name__}<Remaining={self._remaining}, Results={dict.__repr__(self)}>"
