"""Strict JSON, for clients' requests: Python's parser accepts more than the standard."""

from __future__ import annotations

import json
import math
from typing import Any

from couchbase.protocol.jsonparsing import first_repeated, without_collecting
from couchbase.protocol.jsontext import whole_number


class RepeatedName(ValueError):
    """An object in a JSON text has two members with that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the member {name[:80]!r} is given twice")


def read_json(text: str | bytes) -> Any:
    """Parse strict JSON: without NaN, numbers beyond 64 bits, or repeated names in an object.

    A leading byte order mark is ignored.

    :raises RepeatedName: an object has two members with the same name.
    :raises ValueError: the text is not valid JSON, or nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    text = text.removeprefix("\ufeff")
    try:
        with without_collecting():
            return json.loads(
                text,
                parse_constant=_refuse_constant,
                parse_float=_finite,
                parse_int=_whole,
                object_pairs_hook=_unique,
            )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise RepeatedName(first_repeated(name for name, _ in pairs))
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:100]} is too large")
    return number


def _whole(text: str) -> int:
    number = whole_number(text)
    if isinstance(number, float):
        raise ValueError(f"{text[:100]} is too large")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
