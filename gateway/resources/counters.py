"""Counters: documents that are an unsigned decimal number of 64 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from gateway.cluster.credentials import Authorizer
from gateway.cluster.pool import ConnectionPool
from gateway.dialect import contenttypes
from gateway.dialect.bodies import json_object
from gateway.dialect.conditions import DURABILITY, EXPIRY, TIMEOUT
from gateway.dialect.errors import bad_request
from gateway.dialect.headers import NO_DURABILITY, Durability
from gateway.dialect.paths import DOCUMENT
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.routing import endpoint
from gateway.resources.base import BucketResource, check_collection, document_key, note
from gateway.resources.documents import MutationHeaders, read_expiry, read_mutation
from gateway.resources.rendering import Rendering

__all__ = ["Counters", "checked_delta", "checked_number", "count"]

_MEMBERS = frozenset({"delta", "initial"})
MAX_COUNTER = 2**64 - 1


def checked_number(value: object, name: str, low: int, high: int) -> int:
    """Return a JSON member that must be a whole number.

    :raises Refusal: 400, naming the member and its range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad_request(f"{name}: expected a whole number from {low} to {high}")
    return value


def checked_delta(members: dict[str, Any], *names: str) -> int:
    """Return the amount that a counter changes by, 1 if none is given.

    :param names: what the operations that add and subtract are called.
    :raises Refusal: 400; of a negative number it says which operation is meant.
    """
    delta = members.get("delta", 1)
    if type(delta) in (int, float) and delta < 0:
        add, subtract = names
        raise bad_request(
            f"delta: expected a whole number from 0 to {MAX_COUNTER}, not {str(delta)[:24]}; "
            f"{add} adds it and {subtract} subtracts it"
        )
    return checked_number(delta, "delta", 0, MAX_COUNTER)


class _Step(NamedTuple):
    """What a counter request asks for."""

    delta: int
    initial: int | None
    headers: MutationHeaders


def read_step(request: Request) -> _Step:
    """Read headers and body; raises Refusal (400)."""
    headers = read_mutation(request)
    body = json_object(request, _MEMBERS, required=False)
    delta = checked_delta(body, "increment", "decrement")
    initial = body.get("initial")
    if initial is not None:
        initial = checked_number(initial, "initial", 0, MAX_COUNTER)
    # The protocol's way to say "do not create".
    return _Step(delta, None if initial == MAX_COUNTER else initial, headers)


class Counters(BucketResource):
    """Increment and decrement."""

    def __init__(
        self, authorizer: Authorizer, pool: ConnectionPool, rendering: Rendering, now: Callable[[], float]
    ) -> None:
        super().__init__(authorizer, pool)
        self._rendering = rendering
        self._now = now

    @endpoint(
        "increment_document",
        "POST",
        "/increment",
        on=DOCUMENT,
        operation="incr",
        takes=(*EXPIRY, *DURABILITY, *TIMEOUT),
    )
    def increment_document(self, request: Request) -> Any:
        """Add to the number; above 2**64-1 it wraps around."""
        return self.connected(request, self._count, read_step(request))

    @endpoint(
        "decrement_document",
        "POST",
        "/decrement",
        on=DOCUMENT,
        operation="decr",
        takes=(*EXPIRY, *DURABILITY, *TIMEOUT),
    )
    def decrement_document(self, request: Request) -> Any:
        """Subtract from the number; it stops at 0."""
        return self.connected(request, self._count, read_step(request))

    def _count(self, connection: Any, request: Request, step: _Step) -> Deferred[Response]:
        key = document_key(request)
        request.body()
        expiry = read_expiry(step.headers, self._now())
        waits = step.headers.durability()
        note(request, durable=waits != NO_DURABILITY)
        if expiry and step.initial is None:
            raise bad_request("Expires needs 'initial': it counts only if the counter is created")
        check_collection(request)
        counted = count(connection, request.operation, key, step.delta, step.initial, expiry or 0, waits)
        return counted.addCallback(self._counted, request)

    def _counted(self, result: Any, request: Request) -> Response:
        mutation = self._rendering.mutation_headers(result, request.parameters["bucket"])
        return Response(200, [(b"Content-Type", contenttypes.JSON), *mutation], b"%d" % result.value)


def count(
    connection: Any,
    operation: str,
    key: bytes,
    delta: int,
    initial: int | None,
    ttl: int,
    waits: Durability,
) -> Deferred[Any]:
    """Carry out ``incr`` or ``decr``, and wait for its copies."""
    method = connection.incr if operation == "incr" else connection.decr
    counted: Deferred[Any] = method(
        key,
        amount=delta,
        initial=initial,
        ttl=ttl,
        persist_to=waits.persist_to,
        replicate_to=waits.replicate_to,
        durability_level=waits.level,
    )
    return counted
