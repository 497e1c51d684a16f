"""The common part of all resources below a bucket: the order of checks, and small helpers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from couchbase.protocol.constants import MAX_COLLECTION_KEY_BYTES, MAX_KEY_BYTES
from gateway.cluster.connection import GatewayConnection
from gateway.cluster.credentials import Authorizer, CallerCredentials
from gateway.cluster.pool import ConnectionPool, NoAccessError
from gateway.cluster.timelimits import limits_of, within_limits
from gateway.dialect.encodings import parse_accept_encoding
from gateway.dialect.errors import READS, Refusal, bad_request
from gateway.dialect.places import DEFAULT_PLACE, collection_names
from gateway.http.known import Known
from gateway.http.request import BodyWanted, NotYet, Request
from gateway.http.tracecontext import forwarded

__all__ = [
    "Admission",
    "BucketResource",
    "ServiceResource",
    "bucket_name",
    "caller_of",
    "check_accepted",
    "check_collection",
    "document_key",
    "document_place",
    "in_collection",
]

_Plan = TypeVar("_Plan")

_DEFAULT = b"_default"
_BUCKET = re.compile(rb"[A-Za-z0-9_.%-]{1,100}")


# A cache of well-formed names; a cluster has few buckets, but clients can ask for any name.
_known_names: Known[bytes, str] = Known(1024)


def bucket_name(request: Request) -> str:
    """Return the bucket's name.

    :raises Refusal: 404 if the name is not valid for a bucket.
    """
    name = request.parameters["bucket"]
    known = _known_names.get(name)
    if known is None:
        if not _BUCKET.fullmatch(name):
            raise Refusal("BucketNotFound", "No bucket has such a name.")
        known = _known_names.learn(name, name.decode("ascii"))
    return known


def document_key(request: Request) -> bytes:
    """Return the document's key.

    :raises Refusal: 400 if the key is too long.
    """
    key = request.parameters["key"]
    if len(key) > MAX_COLLECTION_KEY_BYTES:
        most = MAX_KEY_BYTES if in_default_collection(request) else MAX_COLLECTION_KEY_BYTES
        if len(key) > most:
            raise bad_request(f"the document's key has {len(key)} bytes; it must have 1 to {most}")
    return key


def in_default_collection(request: Request) -> bool:
    """Return whether the path names no collection, or the default one."""
    parameters = request.parameters
    return (
        parameters.get("scope", _DEFAULT) == _DEFAULT and parameters.get("collection", _DEFAULT) == _DEFAULT
    )


def check_collection(request: Request) -> None:
    """Refuse invalid names of scopes and collections; whether these exist is checked by the cluster.

    :raises Refusal: 404 ScopeNotFound or CollectionNotFound.
    """
    if "scope" in request.parameters:
        collection_names(request.parameters)


def in_collection(connection: Any, request: Request) -> Any:
    """Return a connection for the collection that the path names.

    :param connection: a connection to the bucket, or already to that collection.
    :raises Refusal: 404 ScopeNotFound or CollectionNotFound if a name is not valid.
    """
    if "scope" not in request.parameters:
        return connection
    place = collection_names(request.parameters)
    return connection if place is DEFAULT_PLACE else connection.within(*place)


def document_place(request: Request) -> tuple[bytes, bytes]:
    """Return a text that identifies a document in the cluster."""
    parameters = request.parameters
    bucket = parameters["bucket"]
    if not in_default_collection(request):
        # Names of buckets and scopes have no slash.
        bucket = b"/".join((bucket, parameters["scope"], parameters["collection"]))
    return bucket, parameters["key"]


def check_accepted(request: Request) -> None:
    """Refuse a malformed ``Accept-Encoding`` before anything is started; raises Refusal (400)."""
    if b"accept-encoding" in request.headers:
        parse_accept_encoding(b",".join(request.header_values(b"Accept-Encoding")))


class Asked(NamedTuple):
    """The facts about a request that determine the error code of a failure."""

    cas_given: bool = False
    """Whether the caller gave a CAS."""
    durable: bool = False
    """Whether the caller asked for durability."""


_NOTHING = Asked()


def asked_of(request: Request) -> Asked:
    """Return the facts noted about a request."""
    return request.context or _NOTHING


_ASKED = {(given, durable): Asked(given, durable) for given in (False, True) for durable in (False, True)}


def note(request: Request, cas_given: bool, durable: bool) -> None:
    """Record whether a CAS was given and durability was requested; see :class:`Asked`."""
    request.context = _ASKED[cas_given, durable]


def caller_of(request: Request) -> CallerCredentials:
    """Return the caller of a request, who must have been identified."""
    caller = request.caller
    assert isinstance(caller, CallerCredentials)
    return caller


class BucketResource:
    """Base of the resources that use a connection to a bucket.

    A handler works in three steps, which is also the order of checks of the Data API: it checks everything
    that needs no cluster (query, header syntax, JSON body), gets a confirmed connection (credentials,
    bucket), and executes the operation on it (the rest).
    """

    checks_first = True

    def __init__(self, authorizer: Authorizer, pool: ConnectionPool) -> None:
        self._authorizer = authorizer
        self._pool = pool

    def connected(self, request: Request, act: Callable[[Any, Request, _Plan], Any], plan: _Plan) -> Any:
        """Call ``act(connection, request, plan)`` as soon as there is a connection for the caller."""
        operation = request.operation
        request.operation = "open"
        try:
            request.caller = caller = self._authorizer.identify(request)
        except NotYet:
            # The handler will be called again, from its beginning.
            request.operation = operation
            raise
        bucket = _known_names.get(request.parameters["bucket"]) or bucket_name(request)
        if request.selective is not None and request.selective.has_limit:
            # Read first, as they may be refused: then nothing would wait for the connection, or its failure.
            limits = limits_of(request)
            connection = self._pool.connection(bucket, caller)
            connection = within_limits(connection, limits, request.application.clock)
        else:
            connection = self._pool.connection(bucket, caller)
        if type(connection) is Deferred:
            return connection.addCallbacks(
                self._act,
                self._not_opened,
                callbackArgs=(request, act, plan, operation),
                errbackArgs=(request, operation),
            )
        request.operation = operation
        return act(connection, request, plan)

    def identify_again(self, request: Request) -> CallerCredentials | Refusal:
        """Identify the caller of a running request again, after the rules or the keys have changed.

        :returns: credentials of the same account, or why nothing more may be done for the request.
        """
        before = caller_of(request)
        try:
            caller = self._authorizer.identify(request)
        except NotYet as wait:
            # As long as nothing confirms the caller, nothing is done for it.
            wait.until.addErrback(lambda _: None)
            wait.until.cancel()
            message = "The credentials of this request are no longer valid."
            return Refusal("Unauthorized", message, resource="")
        except Refusal as refusal:
            return refusal
        if (caller.user, caller.digest) != (before.user, before.digest):
            # The connection is that of the account before.
            message = "The rules have changed, and name another account; the rest needs another request."
            return Refusal("AccessDenied", message, resource="")
        return caller

    def _act(
        self,
        connection: GatewayConnection,
        request: Request,
        act: Callable[[Any, Request, _Plan], Any],
        plan: _Plan,
        operation: str,
    ) -> Any:
        request.operation = operation
        return act(connection, request, plan)

    def _not_opened(self, failure: Failure, request: Request, operation: str) -> Failure:
        if failure.check(NoAccessError):
            request.operation = operation
            raise Refusal("NoReadAccess" if operation in READS else "NoWriteAccess")
        return failure


class ServiceResource(BucketResource):
    """Base of the resources that use the cluster over HTTP: their requests continue the caller's trace."""

    def connected(self, request: Request, act: Callable[[Any, Request, _Plan], Any], plan: _Plan) -> Any:
        """Do what :meth:`BucketResource.connected` does; requests over ``connection`` have the trace's
        headers."""

        def act_in_trace(connection: Any, request: Request, plan: _Plan) -> Any:
            return act(connection.with_headers(forwarded(request)), request, plan)

        return super().connected(request, act_in_trace, plan)


class Admission(BucketResource):
    """Checks whether the caller may use a bucket, if the resource's handler does not.

    This is needed if a handler reads the body before it checks the caller, and in plugins.
    """

    def open(self, request: Request, bucket: str) -> Deferred[Any]:
        """Return a Deferred of the connection to a bucket for the request's caller."""
        request.parameters = {**request.parameters, "bucket": bucket.encode("utf-8")}
        opened: Deferred[Any] = maybeDeferred(self.connected, request, _itself, None)
        return opened

    def admit(self, request: Request) -> Any:
        """Confirm the caller, the bucket and the key; see ``Application.admission``."""
        return self.connected(request, _admitted, None)


def _itself(connection: GatewayConnection, request: Request, _: None) -> Any:
    return connection


def _admitted(connection: GatewayConnection, request: Request, _: None) -> Any:
    if "key" in request.parameters:
        document_key(request)
    raise BodyWanted
