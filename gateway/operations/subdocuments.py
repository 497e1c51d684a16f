"""Parts of documents: lookup, which reads paths, and mutate, which changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from couchbase.paths import PreparedLookup, PreparedMutation
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.pathresults import SubdocResult
from couchbase.protocol.subdocument import (
    CREATE_PARENTS,
    EXPAND_MACROS,
    MAX_PATH_BYTES,
    MAX_SPECS,
    XATTR,
    Spec,
)
from couchbase.subdocument import StoreSemantics
from gateway.dialect.conditions import (
    CONDITIONS,
    DURABILITY,
    EXPIRY,
    NO_CONDITION,
    TIMEOUT,
    Condition,
    compare_and_write,
)
from gateway.dialect.errors import Refusal, bad_request
from gateway.dialect.fixedrefusals import refusal_of
from gateway.dialect.headers import Durability
from gateway.dialect.jsontools import dumps
from gateway.dialect.numbers import checked_boolean
from gateway.dialect.subdocuments import PathOperation
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.operations.documents import waiting
from gateway.operations.kind import Driver, Explained, Show, Source, Words, kind
from gateway.operations.renderer import Renderer

__all__ = [
    "LOOKUPS",
    "LOOKUP_IN",
    "MUTATE_IN",
    "MUTATIONS",
    "NEEDS_DOCUMENT",
    "SEMANTICS",
    "LookupIn",
    "changed_body",
]


class _Form(NamedTuple):
    """An operation's name in the Data API."""

    opcode: Opcode
    has_value: bool = False
    takes_empty_path: bool = False
    takes_many: bool = False
    """Whether the operation takes several values."""


LOOKUPS = {
    "Get": _Form(Opcode.SUBDOC_GET),
    "Exists": _Form(Opcode.SUBDOC_EXISTS),
    "GetCount": _Form(Opcode.SUBDOC_GET_COUNT, takes_empty_path=True),
}
MUTATIONS = {
    "DictAdd": _Form(Opcode.SUBDOC_DICT_ADD, True),
    "DictSet": _Form(Opcode.SUBDOC_DICT_UPSERT, True),
    "Delete": _Form(Opcode.SUBDOC_DELETE),
    "Replace": _Form(Opcode.SUBDOC_REPLACE, True),
    "ArrayPushLast": _Form(Opcode.SUBDOC_ARRAY_PUSH_LAST, True, True, True),
    "ArrayPushFirst": _Form(Opcode.SUBDOC_ARRAY_PUSH_FIRST, True, True, True),
    "ArrayInsert": _Form(Opcode.SUBDOC_ARRAY_INSERT, True, False, True),
    "ArrayAddUnique": _Form(Opcode.SUBDOC_ARRAY_ADD_UNIQUE, True, True),
    "Counter": _Form(Opcode.SUBDOC_COUNTER, True),
}
SEMANTICS = {
    "Replace": StoreSemantics.REPLACE,
    "Upsert": StoreSemantics.UPSERT,
    "Insert": StoreSemantics.INSERT,
}
NEEDS_DOCUMENT = (Opcode.SUBDOC_DELETE, Opcode.SUBDOC_REPLACE, Opcode.SUBDOC_ARRAY_INSERT)
_FLAGS = {"xattr": XATTR, "createParents": CREATE_PARENTS, "expandMacros": EXPAND_MACROS | XATTR}
_CREATES_PARENTS = frozenset(
    {
        *(Opcode.SUBDOC_DICT_ADD, Opcode.SUBDOC_DICT_UPSERT, Opcode.SUBDOC_ARRAY_PUSH_LAST),
        *(Opcode.SUBDOC_ARRAY_PUSH_FIRST, Opcode.SUBDOC_ARRAY_ADD_UNIQUE, Opcode.SUBDOC_COUNTER),
    }
)
_EXPANDS_MACROS = frozenset(
    {
        *(Opcode.SUBDOC_DICT_ADD, Opcode.SUBDOC_DICT_UPSERT, Opcode.SUBDOC_REPLACE),
        *(Opcode.SUBDOC_ARRAY_PUSH_LAST, Opcode.SUBDOC_ARRAY_PUSH_FIRST, Opcode.SUBDOC_ARRAY_INSERT),
    }
)
_MEMBERS = frozenset({"operation", "path", *_FLAGS})


# ---- reading the request -------------------------------------------------------------------------


class _Asked(NamedTuple):
    """The members of a body, with checked types."""

    operations: list[PathOperation]
    semantics: str
    preserves_expiry: bool
    access_deleted: bool


def _read(members: Mapping[str, Any], words: Words) -> _Asked:
    operations = members.get("operations")
    for number, operation in enumerate(operations or ()):
        _check_types(operation, f"operations[{number}]")
    semantics = members.get("storeSemantic", "Replace")
    if type(semantics) is not str:
        raise bad_request("storeSemantic: expected a string")
    return _Asked(
        operations or [],
        semantics,
        checked_boolean(members, "preserveExpiry"),
        checked_boolean(members, "accessDeleted"),
    )


def _check_types(operation: PathOperation, where: str) -> None:
    for name, given in operation.members.items():
        if name in ("operation", "path"):
            if type(given) is not str:
                raise bad_request(f"{where}.{name}: expected a string")
        elif name in _FLAGS:
            if type(given) is not bool:
                raise bad_request(f"{where}.{name}: expected true or false")
        elif name not in ("value", "values"):
            known = ", ".join(sorted(_MEMBERS | {"value", "values"}))
            raise bad_request(f"{where}: unknown member {name[:80]!r}; it takes {known}")


def _specs(operations: list[PathOperation], forms: Mapping[str, _Form]) -> list[Spec]:
    """Return the specs of operations.

    :raises Refusal: 400: there are none or too many operations, or one is unknown or incomplete.
    """
    if not operations:
        raise bad_request(f"operations: expected a list of 1 to {MAX_SPECS} operations")
    specs = [_spec(operation, f"operations[{n}]", forms) for n, operation in enumerate(operations)]
    if len(specs) > MAX_SPECS:
        raise bad_request(f"operations: there are {len(specs)}; at most {MAX_SPECS} are allowed")
    return specs


def _spec(operation: PathOperation, where: str, forms: Mapping[str, _Form]) -> Spec:
    members = operation.members
    form = forms.get(members.get("operation", ""))
    if form is None:
        raise bad_request(f"{where}.operation: expected one of {', '.join(forms)}")
    flags = 0
    for name, bits in _FLAGS.items():
        if members.get(name):
            flags |= bits
    if flags & CREATE_PARENTS and form.opcode not in _CREATES_PARENTS:
        raise bad_request(f"{where}.createParents: {members['operation']} creates nothing")
    if flags & EXPAND_MACROS and form.opcode not in _EXPANDS_MACROS:
        raise bad_request(f"{where}.expandMacros: {members['operation']} takes no macro")
    text = members.get("path", "")
    try:
        path = text.encode("utf-8")
    except UnicodeEncodeError:
        raise bad_request(f"{where}.path: it contains half of a surrogate pair") from None
    if not path and (flags & XATTR or not form.takes_empty_path):
        raise bad_request(f"{where}.path: the path cannot be empty")
    if len(path) > MAX_PATH_BYTES:
        raise bad_request(f"{where}.path: it has {len(path)} bytes; at most {MAX_PATH_BYTES} are allowed")
    return Spec(form.opcode, flags, path, _value(operation, where, form))


def _value(operation: PathOperation, where: str, form: _Form) -> bytes:
    value, values = operation.value, operation.values
    name = operation.members["operation"]
    if not form.has_value:
        if value is not None or values is not None:
            raise bad_request(f"{where}: {name} takes no value")
        return b""
    if values is not None:
        if value is not None:
            raise bad_request(f"{where}: value and values exclude each other")
        if len(values) != 1 and not (values and form.takes_many):
            expected = "at least one element" if form.takes_many else "one element"
            raise bad_request(f"{where}.values: expected {expected} for {name}")
        return b",".join(values)
    if value is None:
        raise bad_request(f"{where}.value: the value cannot be empty, and null counts as none (see values)")
    return value


# ---- lookup --------------------------------------------------------------------------------------


class LookupIn(NamedTuple):
    """Read paths of a document."""

    specs: list[Spec]
    access_deleted: bool

    @property
    def is_single(self) -> bool:
        """See :class:`gateway.operations.kind.Plan`."""
        return True

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        return driver.lookup_in(key, self.specs, access_deleted=self.access_deleted)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return partial(_show, renderer.read, _looked_up)


def _show(
    render: Callable[[SubdocResult, Request, bytes], Response],
    body: Callable[[SubdocResult], bytes],
    result: SubdocResult,
    request: Request,
) -> Response | Refusal:
    return refusal_of(result, request) if result.rc else render(result, request, body(result))


_REFUSED: dict[int, str] = {
    Status.SUBDOC_DOC_E2DEEP: "DocumentTooDeep",
    Status.SUBDOC_DOC_NOT_JSON: "DocumentNotJson",
}
"""Failures of a path that are failures of the whole request."""

_FAILED: dict[int, bytes] = {
    status: dumps({"error": {"error": code, "message": message}})
    for status, code, message in (
        (
            Status.SUBDOC_PATH_ENOENT,
            "PathNotFound",
            "The requested path was not found in the document.",
        ),
        (
            Status.SUBDOC_PATH_MISMATCH,
            "PathMismatch",
            "The structure implied by the provided path does not match the document.",
        ),
        (Status.SUBDOC_PATH_EINVAL, "InvalidArgument", "Invalid path specified."),
        (Status.SUBDOC_PATH_E2BIG, "InvalidArgument", "The specified path was too big."),
        (
            Status.SUBDOC_XATTR_UNKNOWN_VATTR,
            "UnknownVattr",
            "The requested xattr virtual attribute was not found in the document.",
        ),
    )
}
_FAILED_OTHERWISE = b'{"error":{"error":"Internal","message":""}}'


def _looked_up(result: SubdocResult) -> bytes:
    return b"[%b]" % b",".join(
        [
            b'{"value":%b}' % data if data and not status else _shown(spec.is_exists, status)
            for spec, (status, data) in result.outcomes
        ]
    )


def _shown(is_exists: bool, status: int) -> bytes:
    """Return the outcome of a path without a value.

    :param is_exists: whether it was asked if the path exists.
    """
    if is_exists and status in (0, Status.SUBDOC_PATH_ENOENT):
        return b'{"value":false}' if status else b'{"value":true}'
    refused = _REFUSED.get(status)
    if refused is not None:
        raise Refusal(refused)
    return _FAILED.get(status, _FAILED_OTHERWISE)


def _plan_lookup(asked: _Asked, source: Source, now: float) -> LookupIn:
    return LookupIn(PreparedLookup(_specs(asked.operations, LOOKUPS)), asked.access_deleted)


# ---- mutate --------------------------------------------------------------------------------------


class MutateIn(NamedTuple):
    """Change paths of a document: all of them, or none."""

    specs: list[Spec]
    semantics: StoreSemantics
    expiry: int
    preserves_expiry: bool
    condition: Condition
    waits: Durability
    access_deleted: bool

    @property
    def is_single(self) -> bool:
        """Whether the cluster itself checks the condition, and the operation does not wait for copies."""
        return not self.waits.wants_copies and self.condition.cas() is not None

    def start(self, driver: Driver, key: bytes, about: Explained) -> Any:
        """See :class:`gateway.operations.kind.Plan`."""
        cas = self.condition.cas()
        waits = waiting(self.waits, about)

        def write(cas: int) -> Any:
            return driver.mutate_in(
                key,
                self.specs,
                cas=cas,
                ttl=self.expiry,
                preserve_expiry=self.preserves_expiry,
                store_semantics=self.semantics,
                access_deleted=self.access_deleted,
                **waits,
            )

        if self.semantics is StoreSemantics.INSERT:
            about.operation = "insert_in"
        if cas != 0:
            about.cas_given = True
        if cas is not None:
            return write(cas)
        # Any path will do: only the version is needed.
        return compare_and_write(lambda: driver.lookup_in(key, [_ANY_PATH]), self.condition, write)

    def shown_by(self, renderer: Renderer) -> Show:
        """See :class:`gateway.operations.kind.Plan`."""
        return partial(_show, renderer.changed, changed_body)


_ANY_PATH = Spec(Opcode.SUBDOC_EXISTS, 0, b"_")


def changed_body(result: SubdocResult) -> bytes:
    """Return the body of the answer to a mutation."""
    answers = result.answers
    if not any(map(_TEXT_OF, answers)):
        return _NULLS[len(answers)]
    return b"[%b]" % b",".join([b'{"value":%b}' % (text or b"null") for _, text in answers])


_TEXT_OF = itemgetter(1)
_NULLS = tuple([b"[%b]" % b",".join([b'{"value":null}'] * count) for count in range(MAX_SPECS + 1)])


def _plan_mutate(asked: _Asked, source: Source, now: float) -> MutateIn:
    condition = source.condition()
    expiry = source.expiry(now)
    semantics = SEMANTICS.get(asked.semantics)
    if semantics is None:
        raise bad_request(f"storeSemantic: expected one of {', '.join(SEMANTICS)}")
    specs = _specs(asked.operations, MUTATIONS)
    if semantics is StoreSemantics.UPSERT:
        for number, spec in enumerate(specs):
            if spec.opcode in NEEDS_DOCUMENT:
                name = asked.operations[number].members["operation"]
                raise bad_request(f"operations[{number}]: {name} needs a document that exists, not Upsert")
    if semantics is not StoreSemantics.REPLACE and condition != NO_CONDITION:
        raise bad_request(
            f"{source.words.version} applies to a document that exists: it excludes {asked.semantics}"
        )
    if asked.preserves_expiry and semantics is StoreSemantics.INSERT:
        raise bad_request("preserveExpiry: Insert creates the document, which has no expiry yet")
    if asked.preserves_expiry and expiry is not None and semantics is StoreSemantics.REPLACE:
        raise bad_request("preserveExpiry keeps the expiry, so no other expiry can be given")
    return MutateIn(
        PreparedMutation(specs),
        semantics,
        expiry or 0,
        asked.preserves_expiry,
        condition,
        source.durability(),
        asked.access_deleted,
    )


# ---- the rows ------------------------------------------------------------------------------------


def _line(show: Callable[[SubdocResult], bytes]) -> Callable[[SubdocResult], bytes]:
    def render(result: SubdocResult) -> bytes:
        results = show(result)
        if results.find(b"\n") >= 0 or results.find(b"\r") >= 0:
            # A newline in JSON is only whitespace; in the answer it would end the line.
            results = results.replace(b"\n", b" ").replace(b"\r", b" ")
        return b',"cas":"%08x","results":%b}' % (result.cas, results)

    return render


_IF_MATCH, _IF_NONE_MATCH = CONDITIONS
LOOKUP_IN = kind(
    "lookup_in",
    TIMEOUT,
    _plan_lookup,
    _line(_looked_up),
    read=_read,
    members="operations accessDeleted",
    is_read=True,
)
MUTATE_IN = kind(
    "mutate_in",
    (_IF_MATCH, *EXPIRY, *DURABILITY, *TIMEOUT),
    _plan_mutate,
    _line(changed_body),
    read=_read,
    members="operations storeSemantic preserveExpiry accessDeleted",
    request_only=(_IF_NONE_MATCH,),
)
