"""A connection's views of collections."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Generic

from couchbase.documents import DocumentMethods
from couchbase.exceptions import ArgumentError
from couchbase.pipeline import DurabilityContext, Pipeline
from couchbase.protocol.constants import MAX_COLLECTION_KEY_BYTES, MAX_COLLECTION_NAME, MAX_KEY_BYTES
from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, DEFAULT_NAME, Keyspace
from couchbase.protocol.request import Operation, Request
from couchbase.signatures import (
    ExpiryT,
    OperationsT,
    OperationT,
    StatsT,
    SubdocsT,
    SubdocT,
    ValuesT,
    ValueT,
)

_NAME = re.compile(r"[A-Za-z0-9_%-]+")
_SETTINGS = ("quiet", "default_format", "transcoder", "data_passthrough")


class InCollection:
    """Mixin that directs the requests of key-value methods to a collection."""

    def _enter(self: Any, keyspace: Keyspace) -> None:
        """Choose the collection."""
        self._keyspace = keyspace
        is_default = keyspace is DEFAULT_KEYSPACE
        self._most_key_bytes = MAX_KEY_BYTES if is_default else MAX_COLLECTION_KEY_BYTES

    @property
    def name(self: Any) -> str:
        """Name of the collection."""
        name: str = self._keyspace.collection
        return name

    @property
    def scope(self: Any) -> str:
        """Name of the collection's scope."""
        scope: str = self._keyspace.scope
        return scope

    def _request(self: Any, operation: Operation, key: Any, make: type[Request] | None = None) -> Any:
        request = super()._request(operation, key, make)  # type: ignore[misc]  # of the other base
        if len(request.key_bytes) > self._most_key_bytes:
            raise self._too_long(request.key_bytes)
        request.keyspace = self._keyspace
        return request

    def _members(
        self: Any,
        operation: Operation,
        keys: Sequence[Any],
        quiet: bool,
        decode_value: Callable[[bytes, int], Any] | None,
    ) -> list[Any]:
        members: list[Any] = super()._members(operation, keys, quiet, decode_value)  # type: ignore[misc]
        keyspace, most = self._keyspace, self._most_key_bytes
        for request in members:
            if len(request.key_bytes) > most:
                raise self._too_long(request.key_bytes)
            request.keyspace = keyspace
        return members

    def _encode_key(self: Any, key: object) -> bytes:
        encoded: bytes = super()._encode_key(key)  # type: ignore[misc]  # of the other base
        if len(encoded) > self._most_key_bytes:
            raise self._too_long(encoded)
        return encoded

    def _too_long(self: Any, encoded: bytes) -> ArgumentError:
        error: ArgumentError = ArgumentError.pyexc(  # type: ignore[assignment]
            f"a key has at most {self._most_key_bytes} bytes of UTF-8 in {self.scope}.{self.name}, "
            f"not {len(encoded)}",
            obj=encoded,
        )
        return error


class Collection(
    InCollection,
    DocumentMethods[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
    Generic[ValueT, ExpiryT, OperationT, ValuesT, OperationsT, StatsT, SubdocT, SubdocsT],
):
    """A connection's view of one collection: its key-value methods, on the documents of that collection.

    Made by :meth:`couchbase.connection.Connection.collection`; nothing is sent until the first operation.
    Methods take the same arguments, and return and raise the same as the connection's, and:

    * CollectionNotFoundError or ScopeNotFoundError if the bucket has no such collection (any more);
    * NotSupportedError if the server has no collections, except in the default one;
    * ArgumentError for a key over 246 bytes of UTF-8 (250 in the default collection).

    ``quiet``, ``default_format``, ``transcoder`` and ``data_passthrough`` follow the connection's settings
    until they are set on this object. Timeouts, pipelines and durability contexts are those of the
    connection: a pipeline collects the operations of both. Statistics are those of the bucket.

    Two views are equal if their connection and their collection are the same.

    :param connection: a connection to a bucket.
    :param name: name of the collection.
    :param scope: name of its scope, ``None`` for the default scope.
    :raises ArgumentError: a name that is not valid for a collection or scope.
    """

    def __init__(self, connection: Any, name: str, scope: str | None = None) -> None:
        scope = DEFAULT_NAME if scope is None else scope
        check_name("a collection's name", name)
        check_name("a scope's name", scope)
        self._connection = connection
        self._driver = connection._driver
        self._own: set[str] = set()
        self._enter(connection._cluster.collections.keyspace(scope, name))
        for setting in _SETTINGS:
            self._adopt(setting, getattr(connection, setting))

    # ---- settings and state ----------------------------------------------------------------------

    @property
    def connection(self) -> Any:
        """The connection that this view belongs to."""
        return self._connection

    def _choose(self) -> None:
        super()._choose()
        self._request_type = type(self._connection)._request_type
        self._member_type = type(self._connection)._member_type

    def _tell(self, setting: str, value: object) -> None:
        self._own.add(setting)

    def _adopt(self, setting: str, value: object) -> None:
        """Use a setting of the connection, unless it was set here."""
        if setting not in self._own:
            setattr(self, setting, value)
            self._own.discard(setting)

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        bucket: str = self._connection.bucket
        return bucket

    @property
    def timeout(self) -> float:
        """Timeout of an operation in seconds, retries included: the connection's."""
        seconds: float = self._connection.timeout
        return seconds

    @timeout.setter
    def timeout(self, value: float) -> None:
        self._connection.timeout = value

    @property
    def connected(self) -> bool:
        """Whether the connection has a cluster map."""
        connected: bool = self._connection.connected
        return connected

    @property
    def closed(self) -> bool:
        """Whether the connection was closed."""
        closed: bool = self._connection.closed
        return closed

    @property
    def configured_replica_count(self) -> int:
        """Number of replicas that the bucket is configured to have."""
        count: int = self._connection.configured_replica_count
        return count

    # ---- contexts --------------------------------------------------------------------------------

    def pipeline(self) -> Pipeline:
        """Return a context manager that collects operations of the connection, and sends them together."""
        pipeline: Pipeline = self._connection.pipeline()
        return pipeline

    def durability(
        self, persist_to: int = -1, replicate_to: int = -1, timeout: float = 0.0
    ) -> DurabilityContext:
        """Return a context manager that sets the durability of the connection's mutations; see
        :meth:`couchbase.connection.Connection.durability`."""
        context: DurabilityContext = self._connection.durability(persist_to, replicate_to, timeout)
        return context

    # ---- identity --------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Collection):
            return NotImplemented
        return self._connection is other._connection and self._keyspace.path == other._keyspace.path

    def __hash__(self) -> int:
        return hash((id(self._connection), self._keyspace.path))

    def __repr__(self) -> str:
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{kind} {self.scope}.{self.name} of {self._connection!r}>"


def check_name(what: str, name: object) -> None:
    """Refuse the name of a collection or a scope that a server cannot have.

    :raises ArgumentError: not a ``str`` of 1 to 251 characters out of A-Z, a-z, 0-9, ``_``, ``-`` and ``%``.
    """
    if not isinstance(name, str):
        raise ArgumentError.pyexc(f"{what} must be a str, not {type(name).__name__}", obj=name)
    if not _NAME.fullmatch(name) or len(name) > MAX_COLLECTION_NAME:
        raise ArgumentError.pyexc(
            f"{what} must have 1 to {MAX_COLLECTION_NAME} characters out of A-Z, a-z, 0-9, _, - and %",
            obj=name,
        )
