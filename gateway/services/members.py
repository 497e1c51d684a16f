"""The members of one JSON object, as the bytes that were sent."""

from __future__ import annotations

import json
import re

from gateway.dialect.jsontools import RepeatedName, is_json

__all__ = ["member_end", "read_members"]

# Whole strings, and everything that is neither quote nor bracket nor comma; see gateway.batches.splitter.
_DEEP = re.compile(rb'(?:[^"\[\]{}]+|"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL)
_FLAT = re.compile(rb'(?:[^"\[\]{},]+|"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL)
_NAME = re.compile(rb'[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_SPACE = b" \t\n\r"


def member_end(text: bytes, at: int) -> int:
    """Return the position of the comma or bracket after the value that begins at ``at``; the text's length if
    there is none."""
    depth = 0
    end = len(text)
    while at < end:
        found = (_DEEP if depth else _FLAT).match(text, at)
        assert found is not None
        at = found.end()
        if at == end:
            break
        sign = text[at]
        if not depth and sign in b",]}":
            return at
        if sign in b"[{":
            depth += 1
        elif sign in b"]}":
            depth -= 1
        elif sign == 0x22:  # a string that is not closed
            return end
        at += 1
    return end


def read_members(text: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object, each value as it was sent, so that numbers of any size are kept.

    :raises RepeatedName: a member is given twice.
    :raises ValueError: it is not a JSON object.
    """
    if not is_json(text):
        raise ValueError("not JSON")
    text = text.strip(_SPACE)
    if text[:1] != b"{":
        raise ValueError("not an object")
    members: dict[str, bytes] = {}
    at = 1
    while True:
        found = _NAME.match(text, at)
        if found is None:  # the end, as it is valid JSON
            return members
        name = json.loads(str(found[1], "utf-8"))
        end = member_end(text, found.end())
        if name in members:
            raise RepeatedName(name)
        members[name] = text[found.end() : end].rstrip(_SPACE)
        at = end + 1
