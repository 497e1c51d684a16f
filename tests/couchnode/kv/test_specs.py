"""Errors of a sub-document request that do not depend on the document: statuses and texts, in their order."""

from __future__ import annotations

from struct import pack
from typing import Any

from couchbase.protocol.constants import Datatype, Feature, Opcode, Status
from couchnode.kv.specs import RULES, Form, Spec, needs_system_attributes
from tests.couchnode.kv.subdocs import (
    ADD,
    BODY_FROM,
    COUNT,
    COUNTER,
    EXISTS,
    GET,
    INSERT,
    LOOKUP,
    MUTATE,
    PUSH_FIRST,
    PUSH_LAST,
    REMOVE,
    REPLACE,
    SUCCESS,
    UNIQUE,
    UPSERT,
    A,
    B,
    C,
    D,
    K,
    M,
    P,
    R,
    SubdocCase,
    V,
    X,
    change,
    context_of,
    spec,
)

EINVAL, COMBO = Status.EINVAL, Status.SUBDOC_INVALID_COMBO
LOOKUPS = (GET, EXISTS, COUNT)
BAD_FLAGS, BAD_DOC_FLAGS = "Request flags invalid", "Request document flags invalid"
NO_PATH, NO_VALUE = "Request must include path", "Request must include value"
WITH_VALUE, COMBINATION = (
    "Request must not include value",
    "Request contains an invalid combination of commands",
)
BAD_KEY, BAD_BASE64 = "Request XATTR key invalid", "Incorrectly encoded binary value"
CAS_MACRO = b'"${Mutation.CAS}"'

PATH_FLAGS: dict[int, int] = {
    GET: X | B, EXISTS: X, COUNT: X, ADD: P | X | M | B, UPSERT: P | X | M | B, REMOVE: X,
    REPLACE: X | M | B, PUSH_LAST: P | X | M, PUSH_FIRST: P | X | M, INSERT: X | M, UNIQUE: P | X,
    COUNTER: P | X, BODY_FROM: X | B, Opcode.GET: 0, Opcode.SET: 0, Opcode.DELETE: 0,
}  # fmt: skip
DOC_FLAGS: dict[int, int] = {
    GET: D | V | R, EXISTS: D | V | R, COUNT: D | V | R, ADD: K | A | D | C | V, UPSERT: K | A | D | C | V,
    REMOVE: D | V, REPLACE: A | D | V, PUSH_LAST: K | A | D | C | V, PUSH_FIRST: K | A | D | C | V,
    INSERT: A | D | C | V, UNIQUE: K | A | D | C | V, COUNTER: K | A | D | C | V, BODY_FROM: D | V,
    Opcode.GET: D | V | R, Opcode.SET: K | A, Opcode.DELETE: D | V,
}  # fmt: skip
WITHOUT_VALUE = frozenset({*LOOKUPS, REMOVE, BODY_FROM, Opcode.GET, Opcode.DELETE})
EMPTY_PATHS = frozenset({COUNT, PUSH_LAST, PUSH_FIRST, UNIQUE, Opcode.GET, Opcode.SET, Opcode.DELETE})


def extras_of(path: bytes, flags: int = 0, more: bytes = b"") -> bytes:
    """Return the extras of a command on one path."""
    return pack(">HB", len(path), flags) + more


# opcode, extras, value, CAS; then status and text
SINGLE: tuple[tuple[int, bytes, bytes, int, Status, str], ...] = (
    *((op, b"\0\1\0" + bytes(size - 3), b"a1", 0, EINVAL, "Invalid extras section")
      for op in (UPSERT, REMOVE) for size in (5, 6, 9, 10, 13)),
    (GET, b"\0\1", b"a", 0, EINVAL, "Invalid extras section"),
    (GET, b"\0\1\0\x40", b"a", 0, EINVAL, "Invalid extras section"),
    (UPSERT, b"\0\1\0\x80", b"a1", 0, EINVAL, "Invalid extras section"),
    (UPSERT, pack(">HB", 1025, 0), b"a" * 1025 + b"1", 0, EINVAL, "Request path length exceeds maximum"),
    (UPSERT, pack(">HB", 1025, 0), b"a", 0, EINVAL, "Request path length exceeds maximum"),
    (UPSERT, pack(">HB", 3, 0), b"a1", 0, EINVAL, "Path length can't exceed value"),
    (UPSERT, extras_of(b"a"), b"a", 0, EINVAL, NO_VALUE),
    # with neither path nor value the value is missed first
    (UPSERT, extras_of(b""), b"", 0, EINVAL, NO_VALUE),
    (UPSERT, extras_of(b"a", 0x02), b"a", 0, EINVAL, NO_VALUE),
    (GET, extras_of(b"a"), b"ab", 0, EINVAL, WITH_VALUE),
    (REMOVE, extras_of(b"a"), b"ab", 0, EINVAL, WITH_VALUE),
    (UPSERT, extras_of(b"a", 0x02), b"a1", 0, EINVAL, BAD_FLAGS),
    (UPSERT, extras_of(b"a", 0x08, bytes((K | A,))), b"a1", 0, EINVAL, BAD_FLAGS),
    (BODY_FROM, extras_of(b"a"), b"a", 0, EINVAL, "Request missing mandatory flags"),
    (REPLACE, extras_of(b"a", 0, bytes((K,))), b"a1", 0, EINVAL, BAD_DOC_FLAGS),
    (UPSERT, extras_of(b"a", X, bytes((C,))), b"a1", 0, EINVAL, "CreateAsDeleted requires Mkdoc or Add"),
    (UPSERT, extras_of(b"a", 0, bytes((C | A,))), b"a1", 0, EINVAL,
     "CreateAsDeleted does not support body path"),
    (UPSERT, extras_of(b"a", 0, bytes((A | K,))), b"a1", 7, EINVAL, "Request with add flag must have CAS 0"),
    (UPSERT, extras_of(b"a", 0, bytes((A | K,))), b"a1", 0, EINVAL,
     "Request must not contain both add and mkdoc flags"),
    (UPSERT, extras_of(b"", X), b"1", 0, Status.XATTR_EINVAL, BAD_KEY),
    (GET, extras_of(b""), b"", 0, EINVAL, NO_PATH),
    (UPSERT, extras_of(b""), b"1", 0, EINVAL, NO_PATH),
    (REMOVE, extras_of(b""), b"", 0, EINVAL, NO_PATH),
    (GET, extras_of(b"a", 0, bytes(4)), b"a", 0, EINVAL, "Request extras invalid"),
    (GET, extras_of(b"a", 0, bytes(9)), b"a", 0, EINVAL, "Request extras invalid"),
    (GET, extras_of(b"", 0, bytes(4)), b"", 0, EINVAL, NO_PATH),
)  # fmt: skip

# flags, path, value; then status and text
ATTRIBUTES: tuple[tuple[int, bytes, bytes, Status, str], ...] = (
    (M, b"a", CAS_MACRO, Status.SUBDOC_XATTR_INVALID_FLAG_COMBO,
     "EXPAND_MACROS flag requires XATTR flag to be set"),
    (B, b"a", b"1", Status.SUBDOC_XATTR_INVALID_FLAG_COMBO,
     "BINARY_VALUE flag requires XATTR flag to be set"),
    (X | B | M, b"a", b"1", Status.SUBDOC_XATTR_INVALID_FLAG_COMBO,
     "BINARY_VALUE can't be used together with EXPAND_MACROS"),
    *((X, key, b"1", Status.XATTR_EINVAL, BAD_KEY)
      for key in (b"", b".a", b"[0]", b"a" * 16, b"_", b"$", b"`a`", b"!a", b"#", b"~x", b"\x7f", b"\x01a",
                  b"a\0b", b"\xff", b"a.\xff", b"_.a")),
    (X, b"$document", b"1", Status.SUBDOC_XATTR_CANT_MODIFY_VATTR, ""),
    (X, b"$any.a", b"1", Status.SUBDOC_XATTR_CANT_MODIFY_VATTR, ""),
    *((X, b"a", value, Status.XATTR_EINVAL, BAD_BASE64)
      for value in (b'"cb-content-base64-encoded:***"', b'{"x":"cb-content-base64-encoded:a"}',
                    b'{"x":"cb-content-base64-encoded:YQ==')),
    *((X | M, b"a", macro, Status.SUBDOC_XATTR_UNKNOWN_MACRO, "")
      for macro in (b"1", b'"${Mutation.cas}"', b"${Mutation.CAS}", b'["${Mutation.CAS}"]', b'"${Mutation}"',
                    b'"${document}"', b'"${$document"')),
)  # fmt: skip
MULTI: tuple[tuple[bytes, int, bytes, int, Status, str], ...] = (
    # extras, opcode, value, CAS
    *((bytes(size), MUTATE, change(UPSERT, b"a", b"1"), 0, EINVAL, "Request extras invalid")
      for size in (2, 3, 6, 7, 10)),
    *((bytes(size), LOOKUP, spec(GET, b"a"), 0, EINVAL, "Request extras invalid")
      for size in (2, 4, 5, 8, 9)),
    (b"\x40", LOOKUP, spec(GET, b"a"), 0, EINVAL, "Request extras invalid"),
    (bytes((A | K,)), MUTATE, b"", 7, EINVAL, "Request with add flag must have CAS 0"),
    (bytes((A | K,)), MUTATE, b"", 0, EINVAL, "Request must not contain both add and mkdoc flags"),
    (bytes((V,)), MUTATE, b"", 0, EINVAL, "ReviveDocument can't be used without AccessDeleted"),
    (bytes((V | D | C,)), MUTATE, b"", 0, EINVAL, "ReviveDocument can't be used with CreateAsDeleted"),
    (b"", MUTATE, b"", 0, COMBO, "Request must contain at least one path"),
    (b"", LOOKUP, b"", 0, COMBO, "Request must contain at least one path"),
    (b"", MUTATE, change(UPSERT, b"a", b"1") * 17, 0, COMBO, "Request must contain at most 16 paths"),
    (b"", LOOKUP, spec(GET, b"a") * 17, 0, COMBO, "Request must contain at most 16 paths"),
    (b"", LOOKUP, spec(GET, b"a") * 16 + b"\0", 0, COMBO, "Request must contain at most 16 paths"),
    (b"", MUTATE, change(UPSERT, b"a", b"1")[:7], 0, EINVAL, "Multi mutation spec truncated"),
    (b"", MUTATE, change(UPSERT, b"a", b"1")[:-1], 0, EINVAL, "Multi mutation path and value truncated"),
    (b"", LOOKUP, spec(GET, b"a")[:3], 0, EINVAL, "Multi lookup spec truncated"),
    (b"", LOOKUP, spec(GET, b"ab")[:-1], 0, EINVAL, "Multi lookup path truncated"),
    *((b"", MUTATE, change(op, b"a", b"1"), 0, COMBO, "Subdoc and MCBP command must not both be invalid")
      for op in (Opcode.ADD, LOOKUP, MUTATE, 0x05, 0xFF)),
    (b"", MUTATE, change(GET, b"a"), 0, COMBO, "Mutation opcodes only permitted for mutation commands"),
    (b"", LOOKUP, spec(UPSERT, b"a"), 0, COMBO, "Mutation opcodes only permitted for mutation commands"),
    (b"", LOOKUP, spec(Opcode.SET, b""), 0, COMBO, "Mutation opcodes only permitted for mutation commands"),
    (b"", MUTATE, change(UPSERT, b"a", b"1", 0x02), 0, EINVAL, BAD_FLAGS),
    (b"", MUTATE, change(Opcode.SET, b"", b"1", X), 0, EINVAL, BAD_FLAGS),
    (b"", MUTATE, change(BODY_FROM, b"a"), 0, EINVAL, "Request missing mandatory flags"),
    (bytes((R,)), MUTATE, change(UPSERT, b"a", b"1"), 0, EINVAL, BAD_DOC_FLAGS),
    (bytes((D,)), MUTATE, change(UPSERT, b"a", b"1", X) + change(Opcode.SET, b"", b"1"), 0,
     EINVAL, BAD_DOC_FLAGS),
    (b"", MUTATE, change(UPSERT, b"a" * 1025, b"1"), 0, EINVAL, "Request path length exceeds maximum"),
    (b"", MUTATE, change(Opcode.SET, b"a", b"1"), 0, EINVAL,
     "Request must not include path for wholedoc operations"),
    (b"", LOOKUP, spec(Opcode.GET, b"a"), 0, EINVAL, "Request must not include path for wholedoc operations"),
    # with neither path nor value the path is missed first
    (b"", MUTATE, change(UPSERT, b"", b""), 0, EINVAL, NO_PATH),
    (b"", LOOKUP, spec(GET, b""), 0, EINVAL, NO_PATH),
    (b"", MUTATE, change(UPSERT, b"", b"1", X), 0, Status.XATTR_EINVAL, BAD_KEY),
    (b"", MUTATE, change(UPSERT, b"a"), 0, EINVAL, NO_VALUE),
    (b"", MUTATE, change(Opcode.SET, b""), 0, EINVAL, NO_VALUE),
    (b"", MUTATE, change(REMOVE, b"a", b"1"), 0, EINVAL, WITH_VALUE),
    (b"", MUTATE, change(Opcode.DELETE, b"", b"1"), 0, EINVAL, WITH_VALUE),
    (b"", MUTATE, change(UPSERT, b"a", b"1") + change(UPSERT, b"b", b"1", X), 0,
     Status.SUBDOC_INVALID_XATTR_ORDER, ""),
    (b"", LOOKUP, spec(GET, b"a") + spec(GET, b"$document", X), 0, Status.SUBDOC_INVALID_XATTR_ORDER, ""),
    (b"", MUTATE, change(Opcode.SET, b"", b"1") + change(BODY_FROM, b"a", b"", X), 0,
     Status.SUBDOC_INVALID_XATTR_ORDER, ""),
    (b"", MUTATE, change(UPSERT, b"a", b"1") + change(Opcode.DELETE, b""), 0, COMBO, COMBINATION),
    (b"", MUTATE, change(Opcode.DELETE, b"") + change(UPSERT, b"a", b"1"), 0, COMBO, COMBINATION),
    (b"", MUTATE, change(Opcode.DELETE, b"") + b"cut", 0, COMBO, COMBINATION),
)  # fmt: skip


class Requests(SubdocCase):
    """Each check has its status and its text; the document is not looked at, nor missed."""

    def assertRefused(self, opcode: int, expected: tuple[Status, str], **parts: Any) -> None:
        """Assert what the refusal of a request says, whether there is a document or not."""
        for key in (b"k", b"missing"):
            answer = self.ask(opcode, **{"key": key, **parts})
            self.assertEqual(
                (Status(answer.specific), context_of(answer)), expected, (Opcode(opcode).name, parts)
            )

    def setUp(self) -> None:
        """Store a document."""
        super().setUp()
        self.set(value=b'{"a":1}')

    def test_header(self) -> None:
        """A key is needed and a datatype is not, before anything else is looked at."""
        for opcode in (GET, UPSERT, LOOKUP, MUTATE, BODY_FROM):
            answer = self.ask(opcode, key=b"", datatype=int(Datatype.JSON))
            self.assertEqual((answer.specific, context_of(answer)), (EINVAL, "Request must include key"))
            for datatype in (Datatype.JSON, Datatype.SNAPPY, Datatype.XATTR):
                self.assertRefused(opcode, (EINVAL, "Request datatype invalid"), datatype=int(datatype))

    def test_single(self) -> None:
        """A command on one path."""
        for opcode, extras, value, cas, status, text in SINGLE:
            self.assertRefused(opcode, (status, text), extras=extras, value=value, cas=cas)

    def test_multi(self) -> None:
        """A command on several paths."""
        for extras, opcode, value, cas, status, text in MULTI:
            self.assertRefused(opcode, (status, text), extras=extras, value=value, cas=cas)

    def test_attributes(self) -> None:
        """Names, flags and values of attributes, on one path and on several."""
        for flags, path, value, status, text in ATTRIBUTES:
            self.assertRefused(UPSERT, (status, text), extras=extras_of(path, flags), value=path + value)
            self.assertRefused(MUTATE, (status, text), value=change(UPSERT, path, value, flags))

    def test_connection_without_attributes(self) -> None:
        """Attributes need the feature, also the virtual ones; bodies do not."""
        self.ask(Opcode.HELLO, value=pack(">HH", Feature.XERROR, Feature.JSON))
        off = (Status.NOT_SUPPORTED, "Connection not XATTR enabled")
        self.assertRefused(GET, off, extras=extras_of(b"a", X), value=b"a")
        self.assertRefused(LOOKUP, off, value=spec(GET, b"$document", X))
        self.assertRefused(MUTATE, off, value=change(UPSERT, b"$a", b"1", X))
        self.assertEqual(self.lookup(spec(GET, b"a"))[0], SUCCESS)

    def test_flags_of_each_operation(self) -> None:
        """Each operation admits its own flags, of paths and of the document."""
        self.assertEqual(set(RULES), set(PATH_FLAGS))
        for opcode, admitted in PATH_FLAGS.items():
            mutates = opcode not in (*LOOKUPS, Opcode.GET)
            value = b"" if opcode in WITHOUT_VALUE else b"1"
            path = b"" if opcode in (Opcode.GET, Opcode.SET, Opcode.DELETE) else b"a"
            needed = X if opcode == BODY_FROM else 0
            for bit in range(8):
                flags = needed | 1 << bit
                request = change(opcode, path, value, flags) if mutates else spec(opcode, path, flags)
                answer = self.ask(MUTATE if mutates else LOOKUP, key=b"k", value=request)
                refused = context_of(answer) == BAD_FLAGS if answer.specific == EINVAL else False
                self.assertEqual(refused, not admitted >> bit & 1, (Opcode(opcode).name, hex(flags)))
            for bit in range(6):
                flags = 1 << bit | (D if 1 << bit == V else 0)
                request = change(opcode, path, value, needed) if mutates else spec(opcode, path, needed)
                answer = self.ask(
                    MUTATE if mutates else LOOKUP, key=b"k", value=request, extras=bytes((flags,))
                )
                refused = answer.specific == EINVAL and context_of(answer) == BAD_DOC_FLAGS
                admits = not flags & ~DOC_FLAGS[opcode]
                self.assertEqual(refused, not admits, (Opcode(opcode).name, hex(flags)))
                self.set(value=b'{"a":1}')

    def test_empty_paths(self) -> None:
        """Only some operations take the document itself for their path, and none the attributes."""
        for opcode in RULES:
            mutates = opcode not in (*LOOKUPS, Opcode.GET)
            value = b"" if opcode in WITHOUT_VALUE else b"1"
            flags = X if opcode == BODY_FROM else 0
            request = change(opcode, b"", value, flags) if mutates else spec(opcode, b"", flags)
            answer = self.ask(MUTATE if mutates else LOOKUP, key=b"k", value=request)
            if opcode == BODY_FROM:
                self.assertEqual(context_of(answer), BAD_KEY)
                continue
            refused = answer.specific == EINVAL and context_of(answer) == NO_PATH
            self.assertEqual(refused, opcode not in EMPTY_PATHS, Opcode(opcode).name)
            self.set(value=b'{"a":1}')

    def test_frame_infos(self) -> None:
        """A lookup keeps no expiry and needs no other copies."""
        kept = self.ask(LOOKUP, key=b"k", value=spec(GET, b"a"), framing=b"\x50")
        self.assertEqual(kept.specific, Status.NOT_SUPPORTED)
        durable = self.ask(LOOKUP, key=b"k", value=spec(GET, b"a"), framing=b"\x11\1")
        self.assertEqual(durable.specific, EINVAL)

    def test_need_of_system_attributes(self) -> None:
        """One operation on a system attribute is enough; virtual ones do not count."""
        for flags, path, needed in (
            (X, b"_a.b", True),
            (X, b"a", False),
            (X, b"$XTOC", False),
            (0, b"_a", False),
        ):
            form = Form([Spec(GET, 0, b"x"), Spec(GET, flags, path)])
            self.assertEqual(needs_system_attributes(form), needed, path)
