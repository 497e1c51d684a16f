"""The form of a row: what an operation takes, how it is carried out, and how its result is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from gateway.dialect.conditions import MEMBERS, TIMEOUT, Condition
from gateway.dialect.headers import Durability
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.operations.rendering import Rendering

__all__ = ["Source", "Driver", "Explained", "Kind", "Plan", "Words", "kind"]


class Words(NamedTuple):
    """What one kind of caller calls things, for error messages."""

    version: str
    """The CAS."""
    told_as: str
    """The CAS, where a lock tells it."""
    expiry: str
    """What sets an expiry, and a verb."""
    add: str
    """The operation that adds to a counter."""
    subtract: str


class Source(Protocol):
    """What is asked of one operation beside its key: by a request's headers, or by the members of a line.

    Each method reads one thing when it is wanted, and raises Refusal (400, or 413 for a body) if it is wrong.
    """

    @property
    def words(self) -> Words:
        """What the caller calls things."""

    def condition(self) -> Condition:
        """Return for which versions of the document the operation is."""

    def version(self) -> int:
        """Return the one CAS that is named; 0 if none is."""

    def expiry(self, now: float) -> int | None:
        """Return the expiry as the protocol has it; ``None`` if nothing is said of it.

        :param now: Unix time in seconds.
        """

    def touched_expiry(self, now: float) -> int:
        """Return the expiry that a touch must name; 0 clears it."""

    def durability(self) -> Durability:
        """Return what the operation waits for."""

    def look_at_value(self) -> None:
        """Refuse a value that cannot be taken, before it is there."""

    def value(self) -> tuple[bytes, int]:
        """Return the document, and its flags."""

    def addition(self, how: str) -> bytes:
        """Return what is to be added to a document: at least a byte.

        :param how: the operation's name.
        """


class Explained(Protocol):
    """Who explains failures of an operation, and has to know what was source."""

    operation: str
    """The SDK's name of what is carried out now."""
    cas_given: bool
    """Whether it has a CAS."""
    durable: bool
    """Whether it waits for copies, or for a durability level."""


class Driver(Protocol):
    """What carries out operations: a connection, or its ``operations``.

    Methods have the arguments of the SDK, and return a Deferred or a call.
    """

    configured_replica_count: int

    def get(self, key: bytes, **options: object) -> Any:
        """Read a document."""

    def rget(self, key: bytes, **options: object) -> Any:
        """Read a replica."""

    def touch(self, key: bytes, **options: object) -> Any:
        """Set the expiry."""

    def lock(self, key: bytes, **options: object) -> Any:
        """Read and lock."""

    def unlock(self, key: bytes, cas: int) -> Any:
        """Give a lock up."""

    def add(self, key: bytes, value: bytes, **options: object) -> Any:
        """Store what is not there."""

    def observe(self, key: bytes, **options: object) -> Any:
        """Ask for the state of copies."""

    def endure(self, key: bytes, **options: object) -> Any:
        """Wait for copies."""


class Plan(Protocol):
    """What is asked of one operation, read and found well-formed."""

    @property
    def is_single(self) -> bool:
        """Whether it is one operation on one document and nothing more: a connection's ``operations`` can
        carry it out."""

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """Carry it out; returns what the driver does.

        :param about: told what is being carried out.
        :raises Refusal: 400 if the bucket cannot do it.
        """

    def response(self, rendering: Rendering, result: Any, request: Request) -> Response | Deferred[Response]:
        """Return the answer to a request."""


class Kind(NamedTuple):
    """One row of :data:`gateway.operations.table.OPERATIONS`."""

    name: str
    """The SDK's name; ``op`` in a batch."""
    takes: tuple[str, ...]
    """The headers that its request takes, of those that are refused elsewhere."""
    body: frozenset[str]
    """The members that the JSON body of its request may have, or the parameters of its query."""
    members: frozenset[str]
    """The members that its line may have."""
    read: Callable[[Mapping[str, Any], Words], Any]
    """Members -> what they say; raises Refusal (400). Needs nobody's permission, so it comes first."""
    plan: Callable[[Any, Source, float], Plan]
    """(what ``read`` returned, the rest, Unix time) -> plan; raises Refusal (400, 413)."""
    render: Callable[[Any], bytes]
    """Result -> the rest of a line's object, from a comma on."""
    is_read: bool
    """The answer may be far larger than the operation."""
    has_value: bool
    """A value comes with it."""
    success: tuple[str, str]
    """Its name and "ok", as successes are counted."""

    @property
    def takes_timeout(self) -> bool:
        """Whether time limits that are common to all operations hold for it."""
        return TIMEOUT[0] in self.takes


def _nothing(members: Mapping[str, Any], words: Words) -> None:
    return None


def kind(
    name: str,
    headers: tuple[str, ...],
    plan: Callable[[Any, Source, float], Plan],
    render: Callable[[Any], bytes],
    *,
    read: Callable[[Mapping[str, Any], Words], Any] = _nothing,
    members: str = "",
    value: str = "",
    request_only: tuple[str, ...] = (),
    body_only: str = "",
    line_only: str = "",
    is_read: bool = False,
) -> Kind:
    """Return a row.

    :param headers: those that a request takes, for each of which a line has a member.
    :param members: in the body (or query) of a request, and in a line.
    :param value: members of a line that hold what is the body of a request.
    :param request_only: headers for which a line has no member.
    :param body_only: members that a line does not take.
    :param line_only: members that a request does not take, or not there.
    """
    both = members.split()
    of_headers = [MEMBERS[header] for header in headers]
    in_line = ["op", "key", *of_headers, *both, *value.split(), *line_only.split()]
    return Kind(
        name,
        (*headers, *request_only),
        frozenset([*both, *body_only.split()]),
        frozenset(in_line),
        read,
        plan,
        render,
        is_read,
        bool(value),
        (name, "ok"),
    )
