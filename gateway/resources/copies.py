"""Where the copies of a document are: observe, and endure, which waits."""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from couchbase.protocol.constants import ObserveState
from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect.bodies import json_object
from gateway.dialect.conditions import TIMEOUT, one_version, parse_if_match
from gateway.dialect.errors import bad_request
from gateway.dialect.expiry import parse_duration
from gateway.dialect.headers import MAX_COPIES, etag
from gateway.dialect.paths import DOCUMENT
from gateway.http.request import Request
from gateway.http.response import Response, json_response
from gateway.http.routing import endpoint
from gateway.resources.base import BucketResource, check_collection, document_key, note
from gateway.resources.counters import checked_number
from gateway.resources.rendering import Rendering

__all__ = ["DurabilityChecks", "copies", "read_waiting"]

_MEMBERS = frozenset({"persistTo", "replicateTo", "checkRemoved", "timeout", "interval"})
_OBSERVE_QUERY = frozenset({"masterOnly"})
_STATES = {
    ObserveState.FOUND: "found",
    ObserveState.PERSISTED: "persisted",
    ObserveState.NOT_FOUND: "notFound",
    ObserveState.LOGICALLY_DELETED: "logicallyDeleted",
}

MAX_TIMEOUT_SECONDS = 300.0


class _Endure(NamedTuple):
    persist_to: int
    replicate_to: int
    check_removed: bool
    timeout: float
    interval: float
    if_match: bytes | None


def read_seconds(body: dict[str, Any], name: str, default: str, low: float, high: float) -> float:
    """Return a duration among the members of a JSON object, in seconds; raises Refusal (400)."""
    value = body.get(name, default)
    nanoseconds = parse_duration(value) if isinstance(value, str) else None
    if nanoseconds is None or not low <= nanoseconds / 1e9 <= high:
        raise bad_request(
            f"{name}: expected a duration as in '5s' or '10ms', from {low:g} to {high:g} seconds"
        )
    return nanoseconds / 1e9


def read_waiting(body: dict[str, Any]) -> tuple[float, float]:
    """Return ``timeout`` and ``interval`` of an endure, in seconds; raises Refusal (400)."""
    return (
        read_seconds(body, "timeout", "5s", 0.001, MAX_TIMEOUT_SECONDS),
        read_seconds(body, "interval", "10ms", 0.001, 60.0),
    )


def _read_endure(request: Request) -> _Endure:
    request.query()
    body = json_object(request, _MEMBERS, required=False)
    check_removed = body.get("checkRemoved", False)
    if not isinstance(check_removed, bool):
        raise bad_request("checkRemoved: expected true or false")
    return _Endure(
        checked_number(body.get("persistTo", -1), "persistTo", -1, MAX_COPIES),
        checked_number(body.get("replicateTo", -1), "replicateTo", -1, MAX_COPIES),
        check_removed,
        *read_waiting(body),
        request.header(b"If-Match"),
    )


def copies(result: Any) -> list[dict[str, Any]]:
    """Return an observe result as JSON shows it: the active copy first."""
    return [
        {
            "copy": "active" if info.from_master else "replica",
            "state": _STATES[info.flags],
            "cas": etag(info.cas).decode("ascii") if info.cas else None,
        }
        for info in sorted(result.value, key=lambda info: not info.from_master)
    ]


class DurabilityChecks(BucketResource):
    """State of the copies of a document."""

    def __init__(self, authorizer: Authorizer, pool: ConnectionPool, rendering: Rendering) -> None:
        super().__init__(authorizer, pool)
        self._rendering = rendering

    @endpoint("observe_document", "GET", "/observe", on=DOCUMENT, operation="observe", takes=TIMEOUT)
    def observe_document(self, request: Request) -> Any:
        """Tell, for each copy, whether it is in memory, on disk, or gone."""
        master_only = request.query(_OBSERVE_QUERY).get("masterOnly", "false").lower()
        if master_only not in ("true", "false"):
            raise bad_request(f"masterOnly: {master_only[:80]!r} is not taken; it takes true or false")
        return self.connected(request, self._observe, master_only == "true")

    def _observe(self, connection: Any, request: Request, master_only: bool) -> Deferred[Response]:
        key = document_key(request)
        check_collection(request)
        seen = connection.observe(key, master_only=True) if master_only else connection.observe(key)
        return seen.addCallback(_observed, key)

    @endpoint("endure_document", "POST", "/endure", on=DOCUMENT, operation="endure", takes=("If-Match",))
    def endure_document(self, request: Request) -> Any:
        """Answer as soon as the document is (or its removal has got) on that many copies."""
        return self.connected(request, self._endure, _read_endure(request))

    def _endure(self, connection: Any, request: Request, wanted: _Endure) -> Deferred[Response]:
        key = document_key(request)
        cas = one_version(parse_if_match(wanted.if_match))
        note(request, cas_given=cas != 0)
        check_collection(request)
        endured: Deferred[Any] = connection.endure(
            key,
            persist_to=wanted.persist_to,
            replicate_to=wanted.replicate_to,
            cas=cas,
            check_removed=wanted.check_removed,
            timeout=wanted.timeout,
            interval=wanted.interval,
        )
        return endured.addCallback(self._endured)

    def _endured(self, result: Any) -> Response:
        return Response(204, self._rendering.etag_header(result))


def _observed(result: Any, key: bytes) -> Response:
    return json_response({"key": key.decode("utf-8"), "copies": copies(result)})
