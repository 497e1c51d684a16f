"""Buckets: their list, their statistics, and the caller's identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from couchbase.protocol import operations
from couchbase.protocol.constants import Status
from couchbase.protocol.failures import error_for
from couchbase.protocol.request import Request as StatsRequest
from couchbase.result import MultiResult
from gateway.cluster.connection import GatewayConnection
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.jsontools import loads
from gateway.dialect.paths import BUCKET
from gateway.http.request import Request
from gateway.http.response import Response, json_response
from gateway.http.routing import endpoint
from gateway.http.tracecontext import forwarded
from gateway.openapi.description import JSON, Answer, Example, Parameter, described
from gateway.openapi.schemas import CSV, listed, named, text, thing
from gateway.resources.base import BucketResource, caller_of

__all__ = ["Buckets"]

MAX_GROUPS = 16
"""Largest number of groups of statistics in one request."""

_STATS_QUERY = frozenset({"group"})


_NUMBER = {"type": ["integer", "null"]}
_OF_BUCKET = named(
    "Bucket",
    thing(
        {
            "name": text(),
            "type": {"type": ["string", "null"]},
            **dict.fromkeys(("replicas", "items", "memoryBytes", "quotaBytes"), _NUMBER),
        },
        "name type replicas items memoryBytes quotaBytes",
    ),
)
_STATISTICS = thing(
    {"stats": thing({}, more=thing({}, more=True, about="Node -> value."), about="Name -> values.")}, "stats"
)


class Buckets(BucketResource):
    """Resources about buckets as a whole."""

    @endpoint("caller_identity", "GET", "/v1/callerIdentity", "/v1.alpha/callerIdentity", operation="open")
    @described(
        "Buckets",
        {200: Answer("The user's name.", {JSON: thing({"user": text()}, "user")})},
        examples=(Example("Who am I?"),),
    )
    def caller_identity(self, request: Request) -> Any:
        """Return the user name by which the cluster knows the caller."""
        request.query()
        return self._session(request, _identity)

    @endpoint("list_buckets", "GET", "/v1/buckets", "/v1.alpha/buckets", operation="open")
    @described(
        "Buckets",
        {200: Answer("The buckets.", {JSON: thing({"buckets": listed(_OF_BUCKET)}, "buckets")})},
        errors="NoReadAccess",
        examples=(Example("All"),),
    )
    def list_buckets(self, request: Request) -> Any:
        """List the buckets that the caller may see."""
        request.query()
        return self._session(request, _list)

    def _session(self, request: Request, act: Callable[[GatewayConnection, Request], Any]) -> Any:
        request.caller = caller = self._authorizer.identify(request)
        session = self._pool.connection(None, caller)
        if isinstance(session, Deferred):
            return session.addCallback(act, request)
        return act(session, request)

    @endpoint("bucket_stats", "GET", "/stats", on=BUCKET, operation="stats")
    @described(
        "Buckets",
        {200: Answer("Each statistic of each node.", {JSON: _STATISTICS})},
        query=(
            Parameter(
                "group", f"Up to {MAX_GROUPS} groups of statistics, separated by commas.", CSV, "memory"
            ),
        ),
        examples=(Example("Statistics of its memory", query={"group": "memory"}),),
    )
    def bucket_stats(self, request: Request) -> Any:
        """Return the nodes' statistics of the bucket."""
        return self.connected(request, self._stats, _groups(request.query(_STATS_QUERY).get("group", "")))

    def _stats(
        self, connection: GatewayConnection, request: Request, groups: list[str]
    ) -> Deferred[Response]:
        asked: Deferred[Any] = connection.stats(groups or None)
        return asked.addCallback(_statistics)


def _groups(text: str) -> list[str]:
    """Read the groups of statistics, separated by commas; without any, the general ones.

    :raises Refusal: 400 if a group is empty or repeated, or there are too many.
    """
    groups = text.split(",") if text else []
    if "" in groups or len(set(groups)) < len(groups) or len(groups) > MAX_GROUPS:
        raise bad_request(
            f"group: {text[:80]!r} is invalid; expected 1 to {MAX_GROUPS} groups of statistics, each once, "
            "separated by commas, as in memory,vbucket"
        )
    return groups


def _identity(session: GatewayConnection, request: Request) -> Response:
    return json_response({"user": caller_of(request).name})


def _list(session: GatewayConnection, request: Request) -> Deferred[Response]:
    asking = session.with_headers(forwarded(request))
    asked: Deferred[Any] = asking.management_request("GET", "/pools/default/buckets")
    return asked.addCallback(_listed, request)


def _listed(answer: tuple[int, Any, bytes], request: Request) -> Response:
    status, _, body = answer
    if status in (401, 403):
        raise Refusal("InvalidAuth" if status == 401 else "NoReadAccess", resource="/buckets")
    if status != 200:
        raise Refusal("ServerError", f"The cluster's management service answered with status {status}.")
    try:
        buckets = [_summary(bucket) for bucket in loads(body)]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refusal("ServerError", "The answer of the cluster's management service is malformed.") from None
    caller = caller_of(request)
    shown = [bucket for bucket in buckets if caller.shows(str(bucket["name"]))]
    return json_response({"buckets": sorted(shown, key=lambda bucket: str(bucket["name"]))})


def _summary(bucket: dict[str, Any]) -> dict[str, Any]:
    stats = bucket.get("basicStats") or {}
    return {
        "name": bucket["name"],
        "type": bucket.get("bucketType"),
        "replicas": bucket.get("replicaNumber"),
        "items": stats.get("itemCount"),
        "memoryBytes": stats.get("memUsed"),
        "quotaBytes": (bucket.get("quota") or {}).get("ram"),
    }


def _statistics(result: MultiResult[dict[str, Any]]) -> Response:
    unknown = [group for group, status in result.refused.items() if status == Status.KEY_ENOENT]
    if unknown:
        raise bad_request(f"group: the cluster has no statistics named {', '.join(map(repr, unknown))}")
    for group, status in result.refused.items():
        raise error_for(StatsRequest(operations.STATS, None, group.encode()), status)
    return json_response({"stats": {name: dict(values) for name, values in result.items()}})
