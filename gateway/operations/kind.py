"""The form of a table row: an operation's parameters, its execution, and the form of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from couchbase.protocol.subdocument import Spec
from gateway.dialect.conditions import MEMBERS, TIMEOUT, Condition
from gateway.dialect.headers import Durability
from gateway.http.refusal import Refusal
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.operations.renderer import Renderer

__all__ = ["Source", "Driver", "Explained", "Kind", "Plan", "Show", "Words", "kind"]

Show = Callable[[Any, Request], "Response | Deferred[Response] | Refusal"]
"""Converts an operation's result, including that of a missing document, into the answer to a request."""


class Words(NamedTuple):
    """The vocabulary of one kind of caller, for error messages."""

    version: str
    """The CAS."""
    told_as: str
    """The CAS that a lock returned."""
    expiry: str
    """The members that set an expiry, followed by a verb."""
    add: str
    """The operation that adds to a counter."""
    subtract: str


class Source(Protocol):
    """The parameters of one operation apart from its key: from a request's headers, or the members of a line.

    Each method reads one parameter on demand, and raises Refusal (400, or 413 for a body) if it is invalid.
    """

    @property
    def words(self) -> Words:
        """The caller's vocabulary."""

    def condition(self) -> Condition:
        """Return the condition on the document's version."""

    def version(self) -> int:
        """Return the single CAS given; 0 if there is none."""

    def expiry(self, now: float) -> int | None:
        """Return the expiry in the protocol's form; ``None`` if it is not given.

        :param now: Unix time in seconds.
        """

    def touched_expiry(self, now: float) -> int:
        """Return the expiry, which a touch requires; 0 clears it."""

    def durability(self) -> Durability:
        """Return the durability that the operation waits for."""

    def look_at_value(self) -> None:
        """Refuse an unacceptable value before it arrives."""

    def value(self) -> tuple[bytes, int]:
        """Return the document, and its flags."""

    def addition(self, how: str) -> bytes:
        """Return the bytes to add to a document: at least one.

        :param how: the operation's name.
        """


class Explained(Protocol):
    """The facts about an operation that explain its failures."""

    operation: str
    """The SDK's name of the current operation."""
    cas_given: bool
    """Whether the operation has a CAS."""
    durable: bool
    """Whether the operation waits for copies, or for a durability level."""


class Driver(Protocol):
    """Carries out operations: a connection, or its ``operations``.

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
        """Release a lock."""

    def add(self, key: bytes, value: bytes, **options: object) -> Any:
        """Store a new document."""

    def set(self, key: bytes, value: bytes, **options: object) -> Any:
        """Store a document."""

    def replace(self, key: bytes, value: bytes, **options: object) -> Any:
        """Store over a document."""

    def incr(self, key: bytes, **options: object) -> Any:
        """Add to a counter."""

    def decr(self, key: bytes, **options: object) -> Any:
        """Subtract from a counter."""

    def lookup_in(self, key: bytes, specs: list[Spec], **options: object) -> Any:
        """Read paths."""

    def mutate_in(self, key: bytes, specs: list[Spec], **options: object) -> Any:
        """Change paths."""

    def observe(self, key: bytes, **options: object) -> Any:
        """Ask for the state of copies."""

    def endure(self, key: bytes, **options: object) -> Any:
        """Wait for copies."""


class Plan(Protocol):
    """The plan of one operation, with valid parameters. Plans without a value are reused for the same
    operation on other documents."""

    @property
    def is_single(self) -> bool:
        """Whether it is a single operation on one document, which a connection's ``operations`` can carry
        out."""

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """Execute the plan; returns the driver's Deferred or call.

        :param about: updated with the facts about the operation.
        :raises Refusal: 400 if the bucket does not support the operation.
        """

    def shown_by(self, renderer: Renderer) -> Show:
        """Return the function that makes the answer to a request."""


class Kind(NamedTuple):
    """One row of :data:`gateway.operations.table.OPERATIONS`."""

    name: str
    """The SDK's name; ``op`` in a batch."""
    takes: tuple[str, ...]
    """The headers that its request takes, among those that other endpoints refuse."""
    body: frozenset[str]
    """The members that the JSON body of its request may have, or the parameters of its query."""
    members: frozenset[str]
    """The members that its batch line may have."""
    read: Callable[[Mapping[str, Any], Words], Any]
    """Function: members -> parsed values; raises Refusal (400). Called first, because it needs no
    permission."""
    plan: Callable[[Any, Source, float], Plan]
    """Function: (result of ``read``, source of the other parameters, Unix time) -> plan; raises Refusal (400,
    413)."""
    render: Callable[[Any], bytes]
    """Function: result -> the rest of an answer line's object, beginning with a comma."""
    is_read: bool
    """Whether the answer may be much larger than the operation."""
    has_value: bool
    """Whether it takes a value."""
    success: tuple[str, str]
    """The operation's name and "ok", to count successes."""

    @property
    def takes_timeout(self) -> bool:
        """Whether the common time limits apply to the operation."""
        return TIMEOUT[0] in self.takes


def _nothing(members: Mapping[str, Any], words: Words) -> None:
    return None


# Many parameters: the columns of the table of operations; keywords.
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

    :param headers: headers that a request takes; a line has a member for each of them.
    :param members: members in the body (or query) of a request, and in a line.
    :param value: members of a line that correspond to the body of a request.
    :param request_only: headers without a member in lines.
    :param body_only: members that a line does not take.
    :param line_only: members that a request does not take, or takes elsewhere.
    """
    both = members.split()
    of_headers = [MEMBERS[header] for header in headers]
    in_line = [
        "op",
        "scope",
        "collection",
        "key",
        "key_base64",
        *of_headers,
        *both,
        *value.split(),
        *line_only.split(),
    ]
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
