"""Touch, lock and unlock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.bodies import json_object
from gateway.dialect.conditions import TIMEOUT, one_version, parse_if_match
from gateway.dialect.errors import bad_request
from gateway.dialect.expiry import expiry_from_touch, expiry_from_ttl
from gateway.dialect.paths import DOCUMENT
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.resources.base import BucketResource, check_collection, document_key, note
from gateway.resources.counters import checked_number
from gateway.resources.rendering import Rendering

__all__ = ["DEFAULT_LOCK_SECONDS", "Locks"]

DEFAULT_LOCK_SECONDS = 15

_TOUCH_MEMBERS = frozenset({"expiry", "returnContent"})
_LOCK_MEMBERS = frozenset({"lockTime"})


class _Touch(NamedTuple):
    expiry: int
    return_content: bool


def _read_touch(request: Request, now: float) -> _Touch:
    request.query()
    ttl = request.text_header(b"X-CB-TTL")
    body = json_object(request, _TOUCH_MEMBERS, required=ttl is None)
    expiry = body.get("expiry")
    return_content = body.get("returnContent", False)
    if not isinstance(return_content, bool):
        raise bad_request("returnContent: expected true or false")
    if ttl is not None:
        if expiry is not None:
            raise bad_request("expiry and the header X-CB-TTL both set the expiry; send one of them")
        return _Touch(expiry_from_ttl(ttl), return_content)
    if not isinstance(expiry, str):
        raise bad_request("expiry: expected a string: a date, a duration as in '90s', or '' for none")
    return _Touch(expiry_from_touch(expiry, now), return_content)


def _read_lock(request: Request) -> int:
    request.query()
    body = json_object(request, _LOCK_MEMBERS, required=False)
    seconds = checked_number(body.get("lockTime", 0), "lockTime", 0, 2**32 - 1)
    return seconds or DEFAULT_LOCK_SECONDS


class Locks(BucketResource):
    """Expiry and locks of a document, apart from its value."""

    def __init__(
        self, authorizer: Authorizer, pool: ConnectionPool, rendering: Rendering, now: Callable[[], float]
    ) -> None:
        super().__init__(authorizer, pool)
        self._rendering = rendering
        self._now = now

    @endpoint(
        "touch_document", "POST", "/touch", on=DOCUMENT, operation="touch", takes=("X-CB-TTL", *TIMEOUT)
    )
    def touch_document(self, request: Request) -> Any:
        """Set the document's expiry, and return the document if asked to."""
        return self.connected(request, self._touch, _read_touch(request, self._now()))

    def _touch(self, connection: Any, request: Request, touch: _Touch) -> Deferred[Response]:
        key = document_key(request)
        check_collection(request)
        if not touch.return_content:
            return connection.touch(key, ttl=touch.expiry).addCallback(self._touched)
        if touch.expiry:
            return connection.get(key, ttl=touch.expiry).addCallback(self._rendering.document)
        # A get with expiry 0 is a plain get in SDK 1.2, so clearing it takes two operations.
        cleared: Deferred[Any] = connection.touch(key, ttl=0)
        return cleared.addCallback(lambda _: connection.get(key)).addCallback(self._rendering.document)

    @endpoint("lock_document", "POST", "/lock", on=DOCUMENT, operation="lock", takes=TIMEOUT)
    def lock_document(self, request: Request) -> Any:
        """Return the document, and let nobody change it who does not know the ETag returned."""
        return self.connected(request, self._lock, _read_lock(request))

    def _lock(self, connection: Any, request: Request, seconds: int) -> Deferred[Response]:
        key = document_key(request)
        check_collection(request)
        return connection.lock(key, ttl=seconds).addCallback(self._rendering.document)

    @endpoint(
        "unlock_document", "POST", "/unlock", on=DOCUMENT, operation="unlock", takes=("If-Match", *TIMEOUT)
    )
    def unlock_document(self, request: Request) -> Any:
        """Give the lock up."""
        request.query()
        return self.connected(request, self._unlock, request.header(b"If-Match"))

    def _unlock(self, connection: Any, request: Request, if_match: bytes | None) -> Deferred[Response]:
        key = document_key(request)
        cas = one_version(parse_if_match(if_match))
        if not cas:
            raise bad_request("If-Match is missing: it takes the ETag that the lock returned")
        note(request, cas_given=True)
        check_collection(request)
        return connection.unlock(key, cas).addCallback(self._unlocked, request)

    def _touched(self, result: Any) -> Response:
        return Response(204, self._rendering.etag_header(result))

    def _unlocked(self, result: Any, request: Request) -> Response:
        mutation = self._rendering.mutation_headers(result, request.parameters["bucket"])
        headers = [pair for pair in mutation if pair[0] != b"ETag"]
        if not headers:
            # As in the Data API: an unlock is no mutation, and its token is of zeros.
            headers = [(b"X-CB-MutationToken", request.parameters["bucket"] + b":0:00000000:0")]
        return Response(200, headers)
