"""The members of JSON bodies and of batch lines, each described once."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.openapi.schemas import (
    ANY,
    BOOLEAN,
    DURABILITY_LEVEL,
    Schema,
    choice,
    listed,
    named,
    nullable,
    text,
    thing,
    whole,
)

__all__ = ["CAS", "LOOKED_UP", "MUTATED", "body_of", "line_of"]

CAS: Schema = text("The CAS in hexadecimal, as in `ETag`.", pattern="^[0-9A-Fa-f]{1,16}$")

_MOST_COUNTED = 2**64 - 1
_COPIES: Schema = whole(-1, 4, default=-1, about="Number of copies, -1 for all.")
_DURATION = r"^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$"


_PATH = text("A path such as `a.b`, `list[0]` or `list[-1]`; other names are put in backticks.")
_FLAGS = {
    "xattr": nullable({**BOOLEAN, "description": "Whether the path is that of an extended attribute."}),
    "createParents": nullable({**BOOLEAN, "description": "Whether to create missing parent objects."}),
    "expandMacros": nullable({**BOOLEAN, "description": "Whether the cluster expands a macro in the value."}),
}
_LOOKUP = named(
    "Lookup",
    thing(
        {"operation": choice("Get", "Exists", "GetCount"), "path": _PATH, "xattr": _FLAGS["xattr"]},
        "operation",
    ),
)
_MUTATION = named(
    "Mutation",
    thing(
        {
            "operation": choice(
                *("DictAdd", "DictSet", "Delete", "Replace", "ArrayPushLast", "ArrayPushFirst"),
                *("ArrayInsert", "ArrayAddUnique", "Counter"),
            ),
            "path": _PATH,
            "value": {"description": "Any JSON, stored exactly as written; `null` counts as missing."},
            "values": nullable({**listed(ANY, 1), "description": "Several elements, instead of `value`."}),
            **_FLAGS,
        },
        "operation",
    ),
)
_SEMANTIC = named(
    "StoreSemantic",
    choice(
        *("Replace", "Upsert", "Insert"),
        about="Whether the document must exist, may exist, or must not.",
    ),
)
_MEMBERS: dict[str, Schema] = {
    "delta": whole(0, _MOST_COUNTED, default=1, about="The number to add or subtract."),
    "initial": whole(0, _MOST_COUNTED, about="Initial number; creates the counter if it does not exist."),
    "expiry": text("As the header `Expires`, or an RFC 3339 date; empty for never."),
    "returnContent": {**BOOLEAN, "description": "Whether to return the document."},
    "lockTime": whole(0, 2**32 - 1, default=15, about="Seconds; 0 stands for the default."),
    "persistTo": _COPIES,
    "replicateTo": _COPIES,
    "checkRemoved": {**BOOLEAN, "description": "Whether to wait for the document's removal."},
    "timeout": text("A duration, at most `300s`.", pattern=_DURATION, default="5s"),
    "interval": text("A duration between polls, at most `60s`.", pattern=_DURATION, default="10ms"),
    "masterOnly": {**BOOLEAN, "description": "Whether to ask the active copy only."},
    "accessDeleted": {**BOOLEAN, "description": "Whether to access a deleted document's attributes."},
    "preserveExpiry": {**BOOLEAN, "description": "Whether to keep the document's expiry."},
    "storeSemantic": _SEMANTIC,
    "replica": {"anyOf": [choice("any"), whole(0, 2)], "default": "any"},
    "maxTTL": whole(-1, 2**31 - 1, about="Longest time to live in seconds; 0 for the bucket's, -1 for none."),
    # Members of batch lines.
    "key": text("The document's key."),
    "key_base64": text("The document's key, if it is not UTF-8."),
    "scope": text(),
    "collection": text(),
    "value": {"description": "The document: any JSON, stored exactly as written."},
    "text": text("The document, as text."),
    "base64": text("The document, as base64."),
    "cas": CAS,
    "flags": whole(0, 2**32 - 1),
    "ttl": {"type": ["integer", "string"], "description": "As `X-CB-TTL`."},
    "expires": {"type": ["integer", "string"], "description": "As `Expires`."},
    "durabilityLevel": DURABILITY_LEVEL,
    "durabilityTimeout": text("As `X-CB-DurabilityTimeout`."),
}
_OPERATIONS = {"lookup_in": listed(_LOOKUP, 1, 16), "mutate_in": listed(_MUTATION, 1, 16)}


def _member(name: str, operation: str) -> Schema:
    return _OPERATIONS[operation] if name == "operations" else _MEMBERS[name]


def body_of(name: str, names: Iterable[str], operation: str = "") -> Schema:
    """Return the schema of a JSON body.

    :param name: name of its type.
    :param names: names of its members; ``null`` counts as missing.
    :param operation: the SDK's name of the operation.
    """
    members = {member: _member(member, operation) for member in sorted(names)}
    shown = {
        member: schema if member == "operations" else nullable(schema) for member, schema in members.items()
    }
    return named(name, thing(shown, "operations" if "operations" in members else ""))


def line_of(name: str, members: Iterable[str]) -> Schema:
    """Return the schema of a line of a batch.

    :param name: name of its operation.
    """
    shown: dict[str, Schema] = {"op": {"const": name}}
    for member in sorted(set(members) - {"op"}):
        # A line's own time limit, for all operations except endure, which has its own member for it.
        shown[member] = nullable(_member(member, name))
    return thing(shown, "op")


LOOKED_UP = listed(
    thing(
        {"value": {}, "error": thing({"error": text(), "message": text()}, "error message")},
        about="A value or an error.",
    )
)
"""The answer to a lookup."""

MUTATED = listed(thing({"value": {"description": "A counter's number, else `null`."}}, "value"))
"""The answer to a mutation."""
