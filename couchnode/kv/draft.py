"""The draft of a document, which the operations of one sub-document command change."""

from __future__ import annotations

from couchbase.protocol.constants import MAX_VALUE_BYTES, Datatype, Opcode, Status
from couchnode.data.attributes import MAX_SYSTEM_BYTES, canonical, section_bytes, system_only
from couchnode.data.item import Item, StatusError, is_json
from couchnode.kv import binaryvalues
from couchnode.kv.macros import Macros
from couchnode.kv.specs import PUSHES, RULES, DocFlag, Form, PathFlag, Spec
from couchnode.kv.subdoc import lookup, mutate

_X, _M, _B, _P = (
    int(flag) for flag in (PathFlag.XATTR, PathFlag.EXPAND_MACROS, PathFlag.BINARY, PathFlag.CREATE_PARENTS)
)
_CREATE_AS_DELETED, _REVIVE = int(DocFlag.CREATE_AS_DELETED), int(DocFlag.REVIVE)


class Draft:
    """The body and the attributes of a document, with the changes so far.

    :param old: the document before the command, or its tombstone; ``None`` if a new document is created.
    :ivar was_deleted: the document is a tombstone, or is created as one.
    :ivar deletes: an operation deletes the document.
    """

    def __init__(self, form: Form, old: Item | None, macros: Macros) -> None:
        self.body = old.value if old is not None else b""
        self.deletes = False
        self.was_deleted = bool(old.deleted if old is not None else form.doc_flags & _CREATE_AS_DELETED)
        self._revives = bool(form.doc_flags & _REVIVE)
        self._creates_parents = form.creates
        self._xattrs = (old.xattrs if old is not None else b"") or b"{}"
        self._macros = macros
        self._old = old
        # Whether the body is JSON; None until it is needed, because a large body is checked in a thread.
        self._is_json: bool | None = None
        if old is None and not self.was_deleted:
            self.body = _first_body(form)

    @property
    def is_deleted(self) -> bool:
        """Whether the result is a tombstone."""
        return self.deletes or (self.was_deleted and not self._revives)

    def apply(self, spec: Spec) -> bytes | None:
        """Execute one operation; return its answer, if it has one.

        :raises StatusError: a SUBDOC status; the draft cannot be used afterwards.
        """
        opcode, flags, path, value = spec
        if opcode == Opcode.SUBDOC_REPLACE_BODY_WITH_XATTR:
            self.body = look_up_text(Opcode.SUBDOC_GET, self._xattrs, spec)
            self._is_json = None if flags & _B else True
            return None
        if opcode == Opcode.SET:
            self.body, self._is_json = value, None
            return None
        if opcode == Opcode.DELETE:
            self.body, self._is_json, self.deletes = b"", False, True
            return None
        creates_parents = self._creates_parents or bool(flags & _P)
        if flags & _X:
            if flags & _M:
                value = self._macros.expand(value)
            elif flags & _B:
                value = binaryvalues.encode(value)
            self._xattrs, answer = mutate(opcode, self._xattrs, path, value, creates_parents)
            return answer
        if self._is_json is None:
            old = self._old
            if old is not None and self.body is old.value:
                self._is_json = bool(old.datatype & Datatype.JSON)
            else:
                self._is_json = is_json(self.body)
        if not self._is_json:
            raise StatusError(Status.SUBDOC_DOC_NOT_JSON)
        self.body, answer = mutate(opcode, self.body, path, value, creates_parents)
        return answer

    def attributes(self) -> bytes:
        """Return the attributes to store, with the marks of macros, after all operations.

        :raises StatusError: SUBDOC_DELETED_CANT_HAVE_VALUE for a tombstone with a body, E2BIG, and
            SUBDOC_VALUE_CANTINSERT for a number that is too large for attributes.
        """
        if self.was_deleted and not self._revives and self.body:
            raise StatusError(Status.SUBDOC_DELETED_CANT_HAVE_VALUE, "A deleted document can't have a value")
        try:
            xattrs = canonical(self._xattrs) if self._xattrs != b"{}" else b""
        except ValueError as error:
            text = f"an attribute cannot be stored: {error}"
            raise StatusError(Status.SUBDOC_VALUE_CANTINSERT, text) from None
        if self.deletes:
            xattrs = system_only(xattrs)
        user_bytes, system_bytes = section_bytes(xattrs)
        if len(self.body) + user_bytes > MAX_VALUE_BYTES or system_bytes > MAX_SYSTEM_BYTES:
            raise StatusError(Status.E2BIG)
        return xattrs


def look_up_text(opcode: int, text: bytes, spec: Spec) -> bytes:
    """Look up the path of an operation in a JSON text; a binary value is decoded.

    :raises StatusError: SUBDOC_FIELD_NOT_BINARY_VALUE, and the statuses of
        :func:`couchnode.kv.subdoc.lookup`.
    """
    found = lookup(opcode, text, spec.path)
    return decoded(found) if spec.flags & _B else found


def decoded(found: bytes) -> bytes:
    """Return the bytes that the text of a binary value encodes.

    :raises StatusError: SUBDOC_FIELD_NOT_BINARY_VALUE.
    """
    try:
        return binaryvalues.decode(found)
    except ValueError:
        raise StatusError(Status.SUBDOC_FIELD_NOT_BINARY_VALUE) from None


def _first_body(form: Form) -> bytes:
    """Return the initial body of a new document, an empty array or object: the first operation on a path
    decides, also one on an attribute. Empty if all operations are on the whole document."""
    for spec in form.specs:
        if RULES[spec.opcode].whole or spec.opcode == Opcode.SUBDOC_REPLACE_BODY_WITH_XATTR:
            continue
        first = spec.path.lstrip()[:1]
        return b"[]" if first == b"[" or (not first and spec.opcode in PUSHES) else b"{}"
    return b""
