"""Strict JSON, for clients' requests: Python's parser accepts more than the standard."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from couchbase.protocol.jsonparsing import first_repeated, without_collecting
from couchbase.protocol.jsontext import whole_number

MAX_LEVELS = 900
"""Most nested arrays and objects. CPython's parser takes hardly more before 3.13, and ``marshal`` 2000; what
one Python has stored must be readable for all."""

_BETWEEN_BRACKETS = re.compile(r'(?:[^][{}"]+|"(?:[^"\\]|\\.)*")+')


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
            value = json.loads(
                text,
                parse_constant=_refuse_constant,
                parse_float=_finite,
                parse_int=_whole,
                object_pairs_hook=_unique,
            )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_LEVELS:
        _check_levels(text)
    return value


def _check_levels(text: str) -> None:
    """Limit the levels of a text that is JSON."""
    level = 0
    for mark in _BETWEEN_BRACKETS.sub("", text):
        if mark in "[{":
            level += 1
            if level > MAX_LEVELS:
                raise ValueError("nested too deeply")
        else:
            level -= 1


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
