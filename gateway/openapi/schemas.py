"""Short forms of JSON Schema (2020-12), with which endpoints declare requests and answers."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = [
    "ANY",
    "BINARY",
    "BOOLEAN",
    "COMPONENTS",
    "CSV",
    "DURABILITY_LEVEL",
    "TEXT",
    "Schema",
    "choice",
    "listed",
    "named",
    "nullable",
    "text",
    "thing",
    "whole",
]

Schema = Mapping[str, object]
"""A JSON Schema."""

ANY: Schema = {}
"""Any JSON."""
TEXT: Schema = {"type": "string"}
BINARY: Schema = {"type": "string", "format": "binary"}
"""Any bytes."""
BOOLEAN: Schema = {"type": "boolean", "default": False}
CSV: Schema = {"type": "string", "pattern": "^([^,]+(,[^,]+)*)?$"}
"""Values separated by commas."""

COMPONENTS: dict[str, Schema] = {}
"""Name -> the schema that :func:`named` was called with."""


def named(name: str, schema: Schema) -> Schema:
    """Return a reference to a named schema; generated clients use its name for the type.

    :param name: in CamelCase; it must be used for one schema only.
    """
    if COMPONENTS.setdefault(name, schema) != schema:
        raise ValueError(f"there are two schemas of the name {name}")
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """Return the schema of an optional member, for which ``null`` counts as missing.

    Its default becomes a part of its description, because generators require a member with a default, or send
    it.
    """
    schema = _in_words(schema)
    either = schema.get("anyOf") or ([schema] if "$ref" in schema else None)
    if isinstance(either, list):
        return {**({} if "$ref" in schema else schema), "anyOf": [*either, {"type": "null"}]}
    kinds = schema.get("type")
    words = schema.get("enum")
    found = dict(schema)
    if kinds is not None:
        found["type"] = [*(kinds if isinstance(kinds, list) else [kinds]), "null"]
    if isinstance(words, list):
        found["enum"] = [*words, None]
    return found


def thing(
    members: Mapping[str, Schema], required: str = "", *, more: bool | Schema = False, about: str = ""
) -> Schema:
    """Return the schema of an object.

    :param required: names of the required members, separated by blanks.
    :param more: whether it may have other members, or their schema.
    :param about: its description.
    """
    found: dict[str, object] = {"type": "object", "properties": dict(members)}
    if required:
        found["required"] = required.split()
    if more is not True:
        found["additionalProperties"] = more
    if about:
        found["description"] = about
    return found


def listed(of: Schema, least: int | None = None, most: int | None = None) -> Schema:
    """Return the schema of an array.

    :param least: number of elements; ``None`` for no limit.
    :param most: the same.
    """
    found: dict[str, object] = {"type": "array", "items": of}
    if least is not None:
        found["minItems"] = least
    if most is not None:
        found["maxItems"] = most
    return found


def text(about: str = "", *, pattern: str = "", default: str | None = None) -> Schema:
    """Return the schema of a string."""
    found: dict[str, object] = {"type": "string"}
    if pattern:
        found["pattern"] = pattern
    if default is not None:
        found["default"] = default
    if about:
        found["description"] = about
    return found


def whole(low: int, high: int | None = None, *, default: int | None = None, about: str = "") -> Schema:
    """Return the schema of an integer between two inclusive bounds."""
    found: dict[str, object] = {"type": "integer", "minimum": low}
    if high is not None:
        found["maximum"] = high
    if default is not None:
        found["default"] = default
    if about:
        found["description"] = about
    return found


def choice(*words: str, default: str | None = None, about: str = "") -> Schema:
    """Return the schema of one of several words."""
    found: dict[str, object] = {"type": "string", "enum": list(words)}
    if default is not None:
        found["default"] = default
    if about:
        found["description"] = about
    return found


def _in_words(schema: Schema) -> Schema:
    if "default" not in schema:
        return schema
    found = {name: value for name, value in schema.items() if name != "default"}
    about = str(schema.get("description", "")).rstrip(".")
    default = json.dumps(schema["default"])
    found["description"] = f"{about}; default `{default}`." if about else f"Default `{default}`."
    return found


DURABILITY_LEVEL = named(
    "DurabilityLevel", choice("None", "Majority", "MajorityAndPersistOnMaster", "PersistToMajority")
)
