"""Results of sub-document operations."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, Union

from couchbase.exceptions import (
    ERROR,
    SUBDOC_PATH_ENOENT,
    ArgumentError,
    ValueFormatError,
    describe,
    error_of,
)
from couchbase.protocol.statuses import RC_OF_STATUS
from couchbase.result import OperationResult

BINARY = 0x20
"""A path flag of ours, which is not sent: the value of an attribute is binary."""

KindT = TypeVar("KindT")
_BINARY_PREFIX = "cb-content-base64-encoded:"
Which = Union[int, str]
"""A spec of an operation: its position from 0, or its path."""


class PathResult(NamedTuple):
    """The outcome of one spec of a sub-document operation."""

    path: bytes
    is_exists: bool
    """Whether the spec asked if the path exists."""
    status: int
    """The server's status for the path, 0 for success."""
    code: int
    """The result code of :attr:`status`."""
    data: bytes
    """JSON text; empty if there is no value."""
    is_binary: bool = False
    """Whether the text encodes bytes."""


class SubdocResult(OperationResult):
    """Result of a sub-document operation: a value for each of its specs, in their order.

    ``result[0]`` is the value of the first spec, ``result["a.b"]`` that of the first spec with that path. A
    failed path raises its exception when it is accessed, and does not affect the others. Values are decoded
    JSON; a bool for ``exists``; ``None`` for mutations other than counters.
    """

    __slots__ = ("_answers", "_is_deleted", "_known", "_specs")

    _known: list[PathResult] | None
    # What the entries are made of on demand: the specs and, in the same order, their statuses and values.
    _specs: Sequence[Any]
    _answers: Sequence[tuple[int, bytes]]
    _is_deleted: bool

    def __init__(self, rc: int = 0, cas: int = 0, entries: list[PathResult] | None = None) -> None:
        super().__init__(rc, cas)
        self._known = entries or []
        self._is_deleted = False

    @property
    def entries(self) -> list[PathResult]:
        """The outcome of each spec, with the server's status and the JSON text."""
        if self._known is None:
            self._known = [
                PathResult(
                    spec.path,
                    spec.is_exists,
                    status,
                    RC_OF_STATUS.get(status, ERROR) if status else 0,
                    data,
                    spec.is_lookup and bool(spec.flags & BINARY),
                )
                for spec, (status, data) in zip(self._specs, self._answers)
            ]
        return self._known

    @property
    def answers(self) -> Sequence[tuple[int, bytes]]:
        """The server's status and the JSON text of each spec: those of :attr:`entries`."""
        if self._known is None:
            return self._answers
        return [(entry.status, entry.data) for entry in self._known]

    @property
    def outcomes(self) -> Iterator[tuple[Any, tuple[int, bytes]]]:
        """For each spec, the spec or its entry, of which both have ``is_exists``, and its answer; see
        :attr:`answers`."""
        return zip(self._specs if self._known is None else self._known, self.answers)

    @property
    def is_deleted(self) -> bool:
        """Whether the document is deleted, so that it has only attributes (see ``access_deleted``)."""
        return self._is_deleted

    @property
    def flags(self) -> int:
        """Flags of the document, if ``$document`` or ``$document.flags`` was looked up; else 0."""
        for entry in self.entries:
            if not entry.status and entry.path in (b"$document", b"$document.flags"):
                found = json.loads(entry.data)
                return int(found["flags"] if isinstance(found, dict) else found)
        return 0

    @property
    def content_as(self) -> _ContentAs:
        """``result.content_as[str](0)``: a value of that type; ValueFormatError if it has another type."""
        return _ContentAs(self)

    def exists(self, which: Which) -> bool:
        """Return whether a path exists.

        :raises CouchbaseError: the spec failed for another reason, or there is no such spec.
        """
        entry = self._entry(which)
        if entry.code and entry.code != SUBDOC_PATH_ENOENT:
            self._value_of(entry)
        return not entry.code

    def get(self, which: Which, default: object = None) -> Any:
        """Return the value of a spec, ``default`` if its path does not exist."""
        entry = self._entry(which)
        return default if entry.code == SUBDOC_PATH_ENOENT else self._value_of(entry)

    def raw(self, which: Which) -> bytes:
        """Return the value of a spec as the JSON text that the server sent; raises its failure."""
        entry = self._entry(which)
        if entry.code:
            self._value_of(entry)
        return entry.data

    def __getitem__(self, which: Which) -> Any:
        return self._value_of(self._entry(which))

    def __len__(self) -> int:
        return len(self.entries)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values; a failed path raises its exception."""
        return map(self._value_of, self.entries)

    def _entry(self, which: Which) -> PathResult:
        if self._rc:
            raise error_of(self._rc, "the document was not found", key=self._key, result=self)
        if isinstance(which, str):
            path = which.encode("utf-8", "surrogatepass")
            for entry in self.entries:
                if entry.path == path:
                    return entry
        elif isinstance(which, int) and not isinstance(which, bool) and 0 <= which < len(self.entries):
            return self.entries[which]
        raise ArgumentError.pyexc(f"there is no spec {which!r}; {len(self.entries)} were given", obj=which)

    def _value_of(self, entry: PathResult) -> Any:
        if entry.is_exists and entry.code in (0, SUBDOC_PATH_ENOENT):
            return not entry.code
        path = entry.path.decode("utf-8", "replace")
        if entry.code:
            raise error_of(
                entry.code,
                f"path {path!r}: {describe(entry.code)} (status 0x{entry.status:02x})",
                key=self._key,
                status=entry.status,
                result=self,
                path=path,
            )
        if entry.is_binary and not entry.is_exists:
            return self._bytes_of(entry, path)
        try:
            return json.loads(entry.data) if entry.data else None
        except ValueError as error:
            raise ValueFormatError.pyexc(f"path {path!r}: not JSON", obj=entry.data, inner=error) from error

    def _bytes_of(self, entry: PathResult, path: str) -> bytes:
        try:
            text = json.loads(entry.data)
            if text.startswith(_BINARY_PREFIX):
                return b64decode(text[len(_BINARY_PREFIX) :], validate=True)
        except (ValueError, AttributeError):
            pass
        raise ValueFormatError.pyexc(f"path {path!r}: not a binary value", obj=entry.data)

    def _fields(self) -> list[str]:
        return [*super()._fields(), f"Paths={len(self.entries)}"]


class _ContentAs:
    """Typed access to the values of a :class:`SubdocResult`."""

    __slots__ = ("_result",)

    def __init__(self, result: SubdocResult) -> None:
        self._result = result

    def __getitem__(self, kind: type[KindT]) -> Callable[[Which], KindT]:
        def content(which: Which) -> KindT:
            value = self._result[which]
            if not isinstance(value, kind):
                raise ValueFormatError.pyexc(
                    f"{which!r} is {type(value).__name__}, not {kind.__name__}", obj=value
                )
            return value

        return content
