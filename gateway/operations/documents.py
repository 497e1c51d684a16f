"""Documents: read, store, append, prepend, remove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from gateway.dialect.conditions import (
    CONDITIONS,
    DURABILITY,
    ENCODING,
    EXPIRY,
    FLAGS,
    TIMEOUT,
    Condition,
    compare_and_write,
)
from gateway.dialect.errors import bad_request
from gateway.dialect.headers import NO_DURABILITY, Durability
from gateway.dialect.numbers import checked_number
from gateway.operations.kind import Driver, Explained, Kind, Show, Source, Words, kind
from gateway.operations.lineresults import with_cas, with_value
from gateway.operations.renderer import Renderer

__all__ = [
    "ADD",
    "APPEND",
    "DELETE",
    "GET",
    "GET_REPLICA",
    "PREPEND",
    "REPLACE",
    "SET",
    "waiting",
    "waits_of",
]

_NO_WAITS: dict[str, int] = {}

MOST_REPLICAS = 3
"""Largest number of replicas of a bucket."""


def waiting(waits: Durability, about: Explained) -> dict[str, int]:
    """Return a mutation's durability as arguments of the driver, and record it for the explanation of
    failures."""
    if waits == NO_DURABILITY:
        return _NO_WAITS
    about.durable = True
    return waits_of(waits)


def waits_of(waits: Durability) -> dict[str, int]:
    """Return a durability as arguments of the driver."""
    return {
        "persist_to": waits.persist_to,
        "replicate_to": waits.replicate_to,
        "durability_level": waits.level,
    }


# ---- reading -------------------------------------------------------------------------------------


class Get(NamedTuple):
    """Read a document."""

    expiry: int
    """Expiry to set as well; 0 for none."""

    @property
    def is_single(self) -> bool:
        """See :class:`gateway.operations.kind.Plan`."""
        return True

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        return driver.get(key, ttl=self.expiry) if self.expiry else driver.get(key)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.document


def _plan_get(_: None, source: Source, now: float) -> Get:
    expiry = source.expiry(now)
    if expiry == 0:
        raise bad_request("ttl: a get cannot clear the expiry; use touch")
    return Get(expiry or 0)


class GetReplica(NamedTuple):
    """Read a document's replica."""

    number: int | None
    """Index from 0; ``None`` for any replica."""

    @property
    def is_single(self) -> bool:
        """See :class:`gateway.operations.kind.Plan`."""
        return False

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        copies = driver.configured_replica_count
        if not copies:
            raise bad_request("replica: the bucket has no replicas")
        if self.number is not None and self.number >= copies:
            raise bad_request(f"replica: the bucket has {copies} replicas, counted from 0")
        return driver.rget(key, replica_index=self.number)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.document


def _read_replica(members: Mapping[str, Any], words: Words) -> GetReplica:
    index = members.get("replica", "any")
    if index == "any":
        return GetReplica(None)
    if type(index) is str:
        raise bad_request(f"replica: {index[:80]!r} is not one of any, 0, 1, 2")
    return GetReplica(checked_number(index, "replica", 0, MOST_REPLICAS - 1))


def _plan_replica(said: GetReplica, source: Source, now: float) -> GetReplica:
    return said


# ---- storing -------------------------------------------------------------------------------------


class Add(NamedTuple):
    """Store a new document."""

    value: bytes
    flags: int
    expiry: int
    waits: Durability

    @property
    def is_single(self) -> bool:
        """Whether the operation does not wait for copies."""
        return not self.waits.wants_copies

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        waits = waiting(self.waits, about)
        return driver.add(key, self.value, ttl=self.expiry, format=self.flags, **waits)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.stored


class Store(NamedTuple):
    """Store a document that may exist, or must exist.

    :ivar method: ``set`` or ``replace``.
    """

    method: str
    value: bytes
    flags: int
    expiry: int | None
    """New expiry; ``None`` to keep the old one."""
    condition: Condition
    waits: Durability

    @property
    def is_single(self) -> bool:
        """Whether the cluster itself checks the condition, and the operation does not wait for copies."""
        return not self.waits.wants_copies and self.condition.cas() is not None

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        waits = waiting(self.waits, about)
        cas = self.condition.cas()
        if cas is None:
            return self._compare_and_write(driver, key, about, waits)
        if cas:
            about.cas_given = True
        about.operation = self.method
        return self._write(driver, key, cas, waits)

    def _write(self, driver: Driver, key: bytes, cas: int, waits: dict[str, int]) -> Any:
        store = driver.set if self.method == "set" else driver.replace
        expiry = self.expiry
        return store(
            key,
            self.value,
            cas=cas,
            ttl=expiry or 0,
            format=self.flags,
            preserve_expiry=expiry is None,
            **waits,
        )

    def _compare_and_write(
        self, driver: Driver, key: bytes, about: Explained, waits: dict[str, int]
    ) -> Deferred[Any]:
        def replace(cas: int) -> Any:
            about.operation = "replace"
            return self._replace(method="replace")._write(driver, key, cas, waits)

        def create() -> Deferred[Any]:
            about.operation = "add"
            added: Deferred[Any] = driver.add(
                key, self.value, ttl=self.expiry or 0, format=self.flags, **waits
            )
            return added

        about.cas_given = True
        written: Deferred[Any] = compare_and_write(
            lambda: driver.get(key), self.condition, replace, create if self.method == "set" else None
        )
        return written

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.stored


def _plan_add(_: None, source: Source, now: float) -> Add:
    # If-None-Match is always true when the document is created, but it must be well-formed.
    source.condition()
    source.look_at_value()
    expiry = source.expiry(now)
    waits = source.durability()
    return Add(*source.value(), expiry or 0, waits)


def _plan_set(_: None, source: Source, now: float) -> Store:
    return _store("set", source, now)


def _plan_replace(_: None, source: Source, now: float) -> Store:
    return _store("replace", source, now)


def _store(method: str, source: Source, now: float) -> Store:
    condition = source.condition()
    source.look_at_value()
    expiry = source.expiry(now)
    waits = source.durability()
    return Store(method, *source.value(), expiry, condition, waits)


# ---- changing ------------------------------------------------------------------------------------


class Change(NamedTuple):
    """Change a document that must exist.

    :ivar method: ``append``, ``prepend`` or ``delete``.
    """

    method: str
    condition: Condition
    waits: Durability
    arguments: tuple[bytes, ...] = ()

    @property
    def is_single(self) -> bool:
        """Whether the cluster itself checks the condition, and the operation does not wait for copies."""
        return not self.waits.wants_copies and self.condition.cas() is not None

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        waits = waiting(self.waits, about)
        change = getattr(driver, self.method)
        cas = self.condition.cas()
        if cas != 0:
            about.cas_given = True
        if cas is not None:
            return change(key, *self.arguments, cas=cas, **waits)
        return compare_and_write(
            lambda: driver.get(key),
            self.condition,
            lambda cas: change(key, *self.arguments, cas=cas, **waits),
        )

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return renderer.stored


def _plan_delete(_: None, source: Source, now: float) -> Change:
    return Change("delete", source.condition(), source.durability())


def _plan_append(_: None, source: Source, now: float) -> Change:
    return _extend("append", source)


def _plan_prepend(_: None, source: Source, now: float) -> Change:
    return _extend("prepend", source)


def _extend(method: str, source: Source) -> Change:
    condition = source.condition()
    source.look_at_value()
    waits = source.durability()
    return Change(method, condition, waits, (source.addition(method),))


# ---- the rows ------------------------------------------------------------------------------------

_IF_MATCH, _IF_NONE_MATCH = CONDITIONS
_STORES = (_IF_MATCH, *EXPIRY, *DURABILITY, *TIMEOUT, *FLAGS)
_CHANGES = (_IF_MATCH, *DURABILITY, *TIMEOUT)
_VALUE = "value text base64"
_BYTES = "text base64"


def _storing(name: str, plan: Any, headers: tuple[str, ...] = _STORES) -> Kind:
    return kind(name, headers, plan, with_cas, value=_VALUE, request_only=(_IF_NONE_MATCH, *ENCODING))


GET = kind(
    "get", TIMEOUT, _plan_get, with_value, request_only=CONDITIONS, line_only="ttl expires", is_read=True
)
GET_REPLICA = kind(
    "get_replica",
    TIMEOUT,
    _plan_replica,
    with_value,
    read=_read_replica,
    members="replica",
    request_only=CONDITIONS,
    is_read=True,
)
SET = _storing("set", _plan_set)
ADD = _storing("add", _plan_add, (*EXPIRY, *DURABILITY, *TIMEOUT, *FLAGS))
REPLACE = _storing("replace", _plan_replace)
APPEND = kind("append", _CHANGES, _plan_append, with_cas, value=_BYTES, request_only=(_IF_NONE_MATCH,))
PREPEND = kind("prepend", _CHANGES, _plan_prepend, with_cas, value=_BYTES, request_only=(_IF_NONE_MATCH,))
DELETE = kind("delete", _CHANGES, _plan_delete, with_cas, request_only=(_IF_NONE_MATCH,))
