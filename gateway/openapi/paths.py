"""The parameters of paths, and the conversion of Klein rules into OpenAPI paths."""

from __future__ import annotations

import re

from gateway.openapi.description import Parameter
from gateway.openapi.schemas import Schema, text

__all__ = ["NEW_PLACE", "PARAMETERS", "names_in", "template_of"]

_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 251, "pattern": "^[A-Za-z0-9_%-]+$"}

_NEW = {**_NAME, "pattern": "^[A-Za-z0-9-][A-Za-z0-9_%-]*$"}
NEW_PLACE = (
    Parameter("scope", "The scope's name.", _NEW, "drinks"),
    Parameter("collection", "The collection's name.", _NEW, "beers"),
)
"""Names that callers can create: names that begin with an underscore or a percent sign are reserved for the
cluster."""

PARAMETERS: dict[str, Parameter] = {
    row.name: row
    for row in (
        Parameter("bucket", "The bucket's name.", text(pattern="^[A-Za-z0-9_.%-]{1,100}$"), "default"),
        Parameter("scope", "The scope's name.", _NAME, "_default"),
        Parameter("collection", "The collection's name.", _NAME, "_default"),
        Parameter(
            "key",
            "The document's key: 1 to 250 bytes of UTF-8, percent-encoded; a slash as `%2F`.",
            {"type": "string", "minLength": 1, "maxLength": 250},
            "amber_ale",
        ),
        Parameter(
            "design",
            "The design document's name; the prefix `dev_` marks a development form.",
            {"type": "string", "minLength": 1},
            "beers",
        ),
        Parameter("view", "The view's name.", {"type": "string", "minLength": 1}, "by_name"),
    )
}
"""Parameters that several endpoints share, with usual values; others are in an endpoint's description."""

_PARAMETER = re.compile(r"<(?:[a-z]+(?:\([^)]*\))?:)?([a-z_]+)>")


def names_in(rule: str) -> list[str]:
    """Return the names of a rule's parameters, in order."""
    return _PARAMETER.findall(rule)


def template_of(rule: str) -> str:
    """Return a Klein rule as an OpenAPI path: ``/a/<path:b>`` as ``/a/{b}``."""
    return _PARAMETER.sub(r"{\1}", rule)
