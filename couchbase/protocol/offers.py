"""Features that a node's HELLO did not grant, and their replacements.

Couchbase Server from 5.0 on is supported. Frames and lookups that a node did not offer are never sent to it:
older nodes close the connection at an unknown frame, which ends all operations on it.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from enum import Enum
from struct import Struct
from typing import Any

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, ProtocolError
from couchbase.protocol.constants import Feature, Status
from couchbase.protocol.failures import PathsRefused, client_error, failed_result
from couchbase.protocol.frames import Frame
from couchbase.protocol.handshake import HandshakeResult
from couchbase.protocol.operations import (
    ADD,
    EXPIRY_ONLY_LOOKUP_VALUE,
    GET_EXPIRY,
    GET_WITH_EXPIRY,
    GET_WITHOUT_EXPIRY,
    LOOKUP_REFUSALS,
    PRESERVE_EXPIRY_FRAMING,
    SET,
    read_plainly,
    store_extras,
)
from couchbase.protocol.request import Request
from couchbase.protocol.subdocument import LOOKUP_IN, MUTATE_IN, XATTR, decode_lookup_entries

NO_FULL_LOOKUP = -1
"""Marker among the lacking features: the node refused to read flags, expiry and body at once."""
NO_EXPIRY_LOOKUP = -2
"""Marker among the lacking features: the node refused to read the expiry."""
NO_FLAGS_LOOKUP = -3
"""Marker among the lacking features: the node refused to read the flags alone (before Couchbase Server
5.5)."""

MAX_KEEPING_ATTEMPTS = 16
"""Number of attempts, if other clients change the document between reading its expiry and storing it."""

_USED = frozenset({Feature.XATTR, Feature.ALT_REQUEST, Feature.SYNC_REPLICATION, Feature.PRESERVE_TTL})
_STORE_EXTRAS = Struct(">II")
_LOCKED_CAS = 2**64 - 1
"""The CAS that a server shows for a locked document."""


class Adapted(Enum):
    """How to execute a request on a node."""

    SEND = "send"
    KEEP_EXPIRY = "keep expiry"
    """Run :func:`keep_expiry` instead."""
    READ_EXPIRY = "read expiry"
    """Run :func:`read_expiry` instead."""


def lacks(session: HandshakeResult) -> frozenset[int]:
    """Return the features that we use and that a session does not have; empty for servers from 7.0 on."""
    return _USED - session.features


def is_durable(framing: bytes) -> bool:
    """Return whether a request's framing extras ask for a synchronous write."""
    return framing != b"" and framing != PRESERVE_EXPIRY_FRAMING


def adapt(request: Request, lacking: frozenset[int], name: str) -> Adapted:
    """Adapt a request, in place, to a node that lacks some features.

    :param name: ``host:port`` of the node.
    :raises CouchbaseError: NotSupportedError, this is impossible; nothing was sent.
    """
    if request.operation is GET_WITH_EXPIRY:
        if Feature.XATTR in lacking or NO_FULL_LOOKUP in lacking:
            read_plainly(request)
        return Adapted.READ_EXPIRY if NO_FLAGS_LOOKUP in lacking else Adapted.SEND
    if request.operation is LOOKUP_IN or request.operation is MUTATE_IN:
        _check_paths(request, lacking, name)
    framing = request.framing
    if not framing:
        return Adapted.SEND
    if is_durable(framing) and (Feature.SYNC_REPLICATION in lacking or Feature.ALT_REQUEST in lacking):
        raise client_error(
            request,
            exceptions.NOT_SUPPORTED,
            f"{name} does not offer durability levels: they need Couchbase Server 6.5 or later",
        )
    if framing.startswith(PRESERVE_EXPIRY_FRAMING) and (
        Feature.PRESERVE_TTL in lacking or Feature.ALT_REQUEST in lacking
    ):
        return Adapted.KEEP_EXPIRY
    return Adapted.SEND


def check_replica_read(request: Request, features: Collection[int], name: str) -> None:
    """Refuse a lookup from a replica if the node does not support it; raises NotSupportedError."""
    if request.operation is LOOKUP_IN and Feature.SUBDOC_REPLICA_READ not in features:
        message = f"{name} cannot read paths from replicas, which needs Couchbase Server 7.6 or later"
        raise client_error(request, exceptions.NOT_SUPPORTED, message)


def _check_paths(request: Request, lacking: frozenset[int], name: str) -> None:
    """Refuse a sub-document operation that a node does not support; raises NotSupportedError."""
    if Feature.XATTR in lacking and any(spec.flags & XATTR for spec in request.specs.given):
        message = f"{name} has no extended attributes: they need Couchbase Server 5.0 or later"
        raise client_error(request, exceptions.NOT_SUPPORTED, message)
    if request.framing.startswith(PRESERVE_EXPIRY_FRAMING) and (
        Feature.PRESERVE_TTL in lacking or Feature.ALT_REQUEST in lacking
    ):
        message = (
            f"{name} cannot keep the expiry when a path is changed, which needs Couchbase Server 7.0 or later"
        )
        raise client_error(request, exceptions.NOT_SUPPORTED, message)


def keep_expiry(request: Request, lacking: set[int]) -> Generator[Request, Any, Any]:
    """Plan that stores a document with its previous expiry, on a server without that feature.

    It yields requests; their results are sent to it, their errors are thrown into it. The expiry is read
    first, and the document stored with it if it is still the same version; if not, everything is repeated.
    If the expiry cannot be read either (no server since 5.0), the document is stored with the expiry in
    ``request``.

    :param request: a set or replace whose framing extras request the feature.
    :param lacking: the features that the node lacks; :data:`NO_EXPIRY_LOOKUP` is added if it turns out to be
        lacking.
    :returns: the result of the store.
    """
    flags, given = _STORE_EXTRAS.unpack(request.extras)
    last: CouchbaseError | None = None
    for _ in range(MAX_KEEPING_ATTEMPTS):
        if Feature.XATTR in lacking or NO_EXPIRY_LOOKUP in lacking:
            return (yield _store(request, request.operation, request.extras, request.cas))
        lookup = Request(GET_EXPIRY, request.key, request.key_bytes)
        lookup.value = EXPIRY_ONLY_LOOKUP_VALUE
        try:
            found = yield lookup
        except PathsRefused:
            lacking.add(NO_EXPIRY_LOOKUP)
            continue
        except CouchbaseError as error:
            if error.status in LOOKUP_REFUSALS:
                lacking.add(NO_EXPIRY_LOOKUP)
                continue
            if error.status != Status.KEY_ENOENT or request.operation is not SET or request.cas:
                raise
            try:
                return (yield _store(request, ADD, request.extras, 0))
            except CouchbaseError as taken:
                if taken.rc != exceptions.KEY_EEXISTS or taken.status == Status.LOCKED:
                    raise
                last = taken
                continue
        extras = store_extras(flags, found.expiry)
        # Without a condition, the error for a locked document is correct.
        cas = request.cas or (found.cas if found.cas != _LOCKED_CAS else 0)
        try:
            return (yield _store(request, request.operation, extras, cas))
        except CouchbaseError as changed:
            gone = changed.status == Status.KEY_ENOENT and request.operation is SET
            if request.cas or not cas or not (gone or changed.status == Status.KEY_EEXISTS):
                raise
            last = changed
    message = f"other clients changed the document {MAX_KEEPING_ATTEMPTS} times while it was being stored"
    busy = client_error(request, exceptions.ETMPFAIL, message)
    busy.inner_cause = last
    raise busy


def refuses_flags_alone(answer: Frame) -> bool:
    """Return whether a node was asked for flags, expiry and body at once, and returned only the last two."""
    if answer.specific != Status.SUBDOC_MULTI_PATH_FAILURE:
        return False
    try:
        statuses = [status for status, _ in decode_lookup_entries(answer.value)]
    except ProtocolError:
        return False
    return statuses == [Status.SUBDOC_PATH_ENOENT, 0, 0]


def read_expiry(request: Request, lacking: set[int]) -> Generator[Request, Any, Any]:
    """Plan that reads a document and then its expiry, on a server that cannot give both at once.

    It is repeated if other clients change the document in between; after :data:`MAX_KEEPING_ATTEMPTS`
    attempts, the expiry is that of a later version.

    :param request: a read with the expiry.
    :param lacking: the features that the node lacks.
    :returns: the result of the read.
    """
    found: Any = None
    for _ in range(MAX_KEEPING_ATTEMPTS):
        plain = Request(GET_WITHOUT_EXPIRY, request.key, request.key_bytes)
        plain.quiet, plain.decode_value = request.quiet, request.decode_value
        found = yield plain
        if not found.success:
            return found
        lookup = Request(GET_EXPIRY, request.key, request.key_bytes)
        lookup.value = EXPIRY_ONLY_LOOKUP_VALUE
        try:
            expiring = yield lookup
        except CouchbaseError as error:
            if isinstance(error, PathsRefused) or error.status in LOOKUP_REFUSALS:
                lacking.add(NO_FULL_LOOKUP)
                return found
            if error.status != Status.KEY_ENOENT:
                raise
            continue
        found._expiry = expiring.expiry
        if expiring.cas == found.cas:
            break
    return found


def _store(request: Request, operation: Any, extras: bytes, cas: int) -> Request:
    store = Request(operation, request.key, request.key_bytes)
    store.value, store.extras, store.cas = request.value, extras, cas
    store.framing = request.framing[len(PRESERVE_EXPIRY_FRAMING) :]
    return store


def as_of(request: Request, error: BaseException) -> BaseException:
    """Convert the error of one of a plan's requests into an error of the request that the plan replaces."""
    if isinstance(error, CouchbaseError):
        error.key = request.key
        error.operation = request.operation.name
        error.result = failed_result(request, error.rc)
    return error
