"""JSON Schemas described in words, for readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Names", "words_of"]

_MARK = "\0"


def words_of(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in a few words; :class:`Names` finds the named types in them."""
    if "$ref" in schema:
        return _MARK + str(schema["$ref"]).rpartition("/")[2] + _MARK
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return " or ".join(words_of(one) for one in schema[several])
    if "const" in schema:
        return f"`{schema['const']}`"
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return " or ".join(words_of({**schema, "type": kind}) if kind != "null" else kind for kind in kinds)
    words = [_kind(schema, kinds)]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        words.append(f"from {low} to {high}" if high is not None else f"from {low}")
    if "default" in schema:
        default = schema["default"]
        words.append(f"(default `{str(default).lower() if isinstance(default, bool) else default}`)")
    return " ".join(words)


def _kind(schema: Mapping[str, Any], kinds: str | None) -> str:
    if "enum" in schema:
        return " or ".join(f"`{word}`" for word in schema["enum"] if word is not None)
    if kinds is None:
        return "any JSON"
    if kinds.startswith("array"):
        return "array of " + words_of(schema.get("items", {}))
    if kinds.startswith("object"):
        members = ", ".join(f"`{name}`" for name in schema.get("properties", ()))
        return f"object with {members}" if members else "object"
    if schema.get("format") == "binary":
        return "bytes"
    return "whole number" if kinds == "integer" else kinds


class Names:
    """The named types of a document.

    :param schemas: by their names.
    """

    def __init__(self, schemas: Mapping[str, object]) -> None:
        self._schemas = schemas

    def cut(self, words: str) -> Iterator[tuple[str, str]]:
        """Split the text of :func:`words_of` into pairs (words, name), of which one is empty."""
        for number, part in enumerate(words.split(_MARK)):
            if number % 2 and part in self._schemas:
                yield "", part
            elif part:
                yield part, ""
