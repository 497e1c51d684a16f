"""A request for one operation on one document, and its encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from couchbase.protocol.keyspace import DEFAULT_KEYSPACE, Keyspace


class Operation:
    """A row of the table of operations."""

    # Not a NamedTuple: every request and every answer reads its row, and slots are faster.
    __slots__ = ("decode", "mutates", "name", "opcode", "result")

    name: str
    """SDK 1.2's name of the operation."""
    opcode: int
    mutates: bool
    """Whether the document's state is unknown if the answer never arrives."""
    result: Callable[[int], Any]
    """The class of a failed operation's result in ``all_results``."""
    decode: Callable[[Request, int, bytes, int, int, int], Any]
    """Converts a successful response into a result. Called with the request, the CAS, bytes that include the
    body of the response, and three offsets in them: the start of its extras, the start of its value (there
    is no key), and its end."""

    def __init__(
        self,
        name: str,
        opcode: int,
        mutates: bool,
        result: Callable[[int], Any],
        decode: Callable[[Request, int, bytes, int, int, int], Any],
    ) -> None:
        self.name = name
        self.opcode = opcode
        self.mutates = mutates
        self.result = result
        self.decode = decode

    def __repr__(self) -> str:
        return f"<Operation {self.name} 0x{self.opcode:02x}>"


class Request:
    """One operation on one document.

    Drivers subclass it to add their own fields (deadline, opaque number, waiters).
    """

    __slots__ = (
        "cas",
        "decode_value",
        "extras",
        "framing",
        "key",
        "key_bytes",
        "keyspace",
        "operation",
        "quiet",
        "replica",
        "specs",
        "value",
        "vbucket",
    )

    operation: Operation
    key: Any
    """The key in the caller's form, for results and errors."""
    key_bytes: bytes
    keyspace: Keyspace
    """The collection that the document is in."""
    extras: bytes
    value: bytes
    cas: int
    framing: bytes
    quiet: int
    """Whether a missing document (for an add, an existing one) is a result instead of an error; with
    :data:`couchbase.protocol.refused.REFUSALS` more refusals are."""
    replica: int | None
    """The replica to ask, from 0; ``None`` for the active node."""
    decode_value: Callable[[bytes, int], Any] | None
    """Converts stored bytes and flags into a value; with ``None`` the value is the bytes."""
    specs: Any
    """The :class:`couchbase.protocol.subdocument.Specs` of a sub-document operation; others have none."""
    vbucket: int
    """The vbucket to which it was last sent; set by the driver's routing."""

    def __init__(
        self,
        operation: Operation,
        key: object,
        key_bytes: bytes,
        quiet: int = False,
        decode_value: Callable[[bytes, int], Any] | None = None,
        keyspace: Keyspace = DEFAULT_KEYSPACE,
    ) -> None:
        self.operation = operation
        self.key = key
        self.key_bytes = key_bytes
        self.extras = self.value = self.framing = b""
        self.cas = 0
        self.quiet = quiet
        self.replica = None
        self.keyspace = keyspace
        self.decode_value = decode_value

    @property
    def identity(self) -> Any:
        """A hashable value that identifies the document within the bucket."""
        return self.key_bytes if self.keyspace is DEFAULT_KEYSPACE else (self.keyspace, self.key_bytes)
