"""Sub-document requests and answers for tests."""

from __future__ import annotations

import json
from struct import pack, unpack
from typing import Any

from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import Frame
from couchnode.kv.specs import DocFlag, PathFlag
from tests.couchnode.kv.test_commands import CommandCase

ADD, UPSERT, REPLACE = Opcode.SUBDOC_DICT_ADD, Opcode.SUBDOC_DICT_UPSERT, Opcode.SUBDOC_REPLACE
GET, EXISTS, COUNT = Opcode.SUBDOC_GET, Opcode.SUBDOC_EXISTS, Opcode.SUBDOC_GET_COUNT
REMOVE, COUNTER = Opcode.SUBDOC_DELETE, Opcode.SUBDOC_COUNTER
PUSH_LAST, PUSH_FIRST = Opcode.SUBDOC_ARRAY_PUSH_LAST, Opcode.SUBDOC_ARRAY_PUSH_FIRST
INSERT, UNIQUE = Opcode.SUBDOC_ARRAY_INSERT, Opcode.SUBDOC_ARRAY_ADD_UNIQUE
BODY_FROM = Opcode.SUBDOC_REPLACE_BODY_WITH_XATTR
LOOKUP, MUTATE = Opcode.SUBDOC_MULTI_LOOKUP, Opcode.SUBDOC_MULTI_MUTATION
P, X, M, B = (int(flag) for flag in PathFlag)
K, A, D, C, V, R = (int(flag) for flag in DocFlag)
MAX_FAILURE_BYTES = 3

SUCCESS, DELETED = Status.SUCCESS, Status.SUBDOC_SUCCESS_DELETED
ENOENT, FAILED, FAILED_DELETED = (
    Status.SUBDOC_PATH_ENOENT,
    Status.SUBDOC_MULTI_PATH_FAILURE,
    Status.SUBDOC_MULTI_PATH_FAILURE_DELETED,
)


def spec(opcode: int, path: bytes, flags: int = 0) -> bytes:
    """Return one lookup of a multi command."""
    return pack(">BBH", opcode, flags, len(path)) + path


def change(opcode: int, path: bytes, value: bytes = b"", flags: int = 0) -> bytes:
    """Return one mutation of a multi command."""
    return pack(">BBHI", opcode, flags, len(path), len(value)) + path + value


class SubdocCase(CommandCase):
    """Tests that look up and mutate parts of the document ``k``."""

    features = (
        Feature.XERROR,
        Feature.JSON,
        Feature.MUTATION_SEQNO,
        Feature.XATTR,
        Feature.ALT_REQUEST,
        Feature.SYNC_REPLICATION,
        Feature.PRESERVE_TTL,
    )

    def lookup(
        self, *specs: bytes, flags: int | None = None, key: bytes = b"k", **parts: Any
    ) -> tuple[Status, list[tuple[Status, bytes]]]:
        """Return the header's status and each path's."""
        extras = b"" if flags is None else bytes((flags,))
        answer = self.ask(LOOKUP, key=key, value=b"".join(specs), extras=extras, **parts)
        if answer.specific not in (SUCCESS, DELETED, FAILED, FAILED_DELETED):
            return Status(answer.specific), []
        results, data = [], answer.value
        while data:
            status, size = unpack(">HI", data[:6])
            results.append((Status(status), data[6 : 6 + size]))
            data = data[6 + size :]
        return Status(answer.specific), results

    def mutate(
        self,
        *changes: bytes,
        flags: int | None = None,
        expiry: int | None = None,
        key: bytes = b"k",
        **parts: Any,
    ) -> Frame:
        """Return the answer to a multi mutation."""
        extras = b"" if expiry is None else pack(">I", expiry)
        if flags is not None:
            extras += bytes((flags,))
        return self.ask(MUTATE, **{"key": key, "value": b"".join(changes), "extras": extras, **parts})

    def done(self, *changes: bytes, status: Status = SUCCESS, **parts: Any) -> Frame:
        """Return the answer to a multi mutation that succeeds."""
        answer = self.mutate(*changes, **parts)
        self.assertEqual((Status(answer.specific), answer.value), (status, b""))
        return answer

    def fails(self, index: int, status: Status, *changes: bytes, **parts: Any) -> None:
        """Assert that an operation fails, with an answer of exactly three bytes."""
        answer = self.mutate(*changes, **parts)
        self.assertEqual((Status(answer.specific), answer.extras, answer.cas), (FAILED, b"", 0))
        self.assertEqual(answer.value, pack(">BH", index, status))

    def refused(self, status: Status, *changes: bytes, context: str = "", **parts: Any) -> None:
        """Assert that a multi mutation is refused as a whole."""
        answer = self.mutate(*changes, **parts)
        self.assertEqual(Status(answer.specific), status)
        self.assertEqual(context_of(answer), context)

    def single(
        self, opcode: int, path: bytes, value: bytes = b"", flags: int = 0, extras: bytes = b"", **parts: Any
    ) -> Frame:
        """Return the answer to a command on one path; ``extras`` are those behind the path's flags."""
        return self.ask(
            opcode,
            **{"key": b"k", "value": path + value, "extras": pack(">HB", len(path), flags) + extras, **parts},
        )

    def attribute(self, path: bytes, doc_flags: int = D, key: bytes = b"k") -> Any:
        """Return the value of an attribute, of a tombstone too; ``None`` if there is none."""
        status, results = self.lookup(spec(GET, path, X), flags=doc_flags, key=key)
        return json.loads(results[0][1]) if results and results[0][0] == SUCCESS else None

    def body(self, key: bytes = b"k") -> bytes | None:
        """Return the document, ``None`` if there is none."""
        answer = self.ask(Opcode.GET, key=key)
        return answer.value if answer.specific == SUCCESS else None


def context_of(answer: Frame) -> str:
    """Return the text of a refusal; empty without one."""
    return str(json.loads(answer.value)["error"]["context"]) if answer.value else ""
