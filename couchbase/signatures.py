"""Types of operations' arguments and results, for type checkers.

The methods of a connection are written once for all drivers, but what they return depends on the driver: a
result, a Deferred of one, an AsyncResult. So their classes are generic in the result of each kind of
operation. The defaults are those of the blocking connection, which ``Connection`` in an annotation means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Union

from couchbase.items import ItemCollection
from couchbase.protocol.pathresults import SubdocResult
from couchbase.result import ExpiryResult, HttpResult, MultiResult, OperationResult, Result, ValueResult
from couchbase.transcoder import AnyTranscoder
from couchbase.user_constants import FormatAuto

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ValueT = TypeVar("ValueT", default=ValueResult)
    ExpiryT = TypeVar("ExpiryT", default=ExpiryResult)
    OperationT = TypeVar("OperationT", default=OperationResult)
    ValuesT = TypeVar("ValuesT", default=MultiResult[ValueResult])
    OperationsT = TypeVar("OperationsT", default=MultiResult[OperationResult])
    StatsT = TypeVar("StatsT", default=MultiResult[dict[str, Any]])
    DesignT = TypeVar("DesignT", default=HttpResult)
    SubdocT = TypeVar("SubdocT", default=SubdocResult)
    SubdocsT = TypeVar("SubdocsT", default=MultiResult[SubdocResult])
else:
    # The standard library's type variables have defaults only from Python 3.13 on.
    from typing import TypeVar

    ValueT = TypeVar("ValueT")
    ExpiryT = TypeVar("ExpiryT")
    OperationT = TypeVar("OperationT")
    ValuesT = TypeVar("ValuesT")
    OperationsT = TypeVar("OperationsT")
    StatsT = TypeVar("StatsT")
    DesignT = TypeVar("DesignT")
    SubdocT = TypeVar("SubdocT")
    SubdocsT = TypeVar("SubdocsT")

Key = Union[str, bytes]
"""A key: ``str``; ``bytes`` with a :class:`couchbase.transcoder.RawTranscoder`."""
Format = Union[int, FormatAuto]
"""One of the ``FMT_*`` constants; with a transcoder also other flags to store."""
Host = Union[str, Sequence[Union[str, tuple[str, int]]]]
"""Hosts of a cluster: a name, or a list of names and ``(name, port)`` pairs."""
Cas = Union[int, Result, Mapping[str, int]]
"""A version: a CAS, a result that has it, or a dict with ``cas``."""

Keys = Union[Collection[Key], ItemCollection]
"""Documents of a multi operation: a list, tuple or set of keys, a dict of key -> options, or items."""
CasKeys = Union[Collection[Key], Collection[Result], ItemCollection]
"""The same, or Results; a dict's values are of :data:`Cas`."""
VersionKeys = Union[Mapping[str, Cas], Mapping[bytes, Cas], Collection[Result], ItemCollection]
"""Documents, each with the CAS of its version."""
KeyValues = Union[Mapping[str, object], Mapping[bytes, object], ItemCollection]
"""The documents that a multi operation stores: a dict of key -> value, or items."""
KeyFragments = Union[Mapping[str, Union[str, bytes]], Mapping[bytes, Union[str, bytes]], ItemCollection]
"""The fragments that a multi operation appends: a dict of key -> text or bytes, or items."""


class _OftenGiven(TypedDict, total=False):
    bucket: str | None
    host: Host
    port: int
    password: str | None
    quiet: bool
    config_cache: str | None
    unlock_gil: bool
    timeout: float | None
    transcoder: AnyTranscoder | type[AnyTranscoder] | None
    lockmode: int


class RareOptions(TypedDict, total=False):
    """Keywords of a connection that ``Couchbase.connect`` passes on."""

    username: str | None
    default_format: Format | None
    conncache: str | None
    connection_string: str | None
    certpath: str | None
    client_cert: str | None
    client_key: str | None
    allow_plain: bool
    experimental_gevent_support: bool
    _no_connect_exceptions: bool
    _cntl: dict[int, Any] | None


class ConnectionOptions(_OftenGiven, RareOptions, total=False):
    """All keywords of :class:`couchbase.connection.Connection`."""
