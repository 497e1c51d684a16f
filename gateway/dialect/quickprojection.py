"""Projection of usual short documents; whatever is not usual, or fails, is left to
:mod:`gateway.dialect.projection`, which gives the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from couchbase.protocol.jsontext import at_once, skip
from gateway.dialect.jsontools import fast_loads, writer_of

__all__ = ["known_part", "plain_members", "quoted"]

_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_SIMPLE = re.compile(rb"[^,\[\]{}\" \t\r\n]+")


def plain_members(document: bytes, names: tuple[tuple[str, bytes], ...]) -> bytes | None:
    """Return an object with the members of these names that a document has; ``null`` if it has none.

    :returns: ``None`` if the general parser has to find them: the document is not a plain object, or a name
        occurs more than once.
    """
    if b"\\" in document:
        return None
    try:
        value = fast_loads(document)
    except ValueError:
        return None
    if type(value) is not dict:
        return None
    found = []
    text_of, searched = None, False
    for name, text in names:
        if name not in value:
            continue
        # Without backslashes each name has one spelling, so a single occurrence is the member.
        if document.count(text) != 1:
            return None
        colon = _COLON.match(document, document.index(text) + len(text))
        if colon is None:
            return None
        at = colon.end()
        kind = type(value[name])
        if kind is str:
            end = document.index(b'"', at + 1) + 1
        elif kind is dict or kind is list:
            if not searched:
                text_of, searched = writer_of(document, value), True
            end = at_once(skip(document, at)) if text_of is None else at + len(text_of(value[name]))
        else:
            end = _SIMPLE.match(document, at).end()  # type: ignore[union-attr]
        found.append(b"%b:%b" % (text, document[at:end]))
    return b"{%b}" % b",".join(found) if found else b"null"


def known_part(document: bytes, tree: Mapping[str | int, Any]) -> bytes | None:
    """Return the wanted parts of a document whose parts serialize to the texts that they have in it.

    :param tree: the wanted parts below each step, of :class:`gateway.dialect.projection.Projection`.
    :returns: ``None`` if the general parser has to find them, or to refuse the paths.
    """
    try:
        value = fast_loads(document)
        text_of = writer_of(document, value)
        return None if text_of is None else _part(value, tree, text_of) or b"null"
    except (TypeError, ValueError):
        # A value of another type than a path expects, or a document that is not JSON.
        return None


_INDEX = itemgetter(0)


def _part(value: Any, wanted: Any, text_of: Callable[[Any], bytes]) -> bytes:
    """Return the wanted parts of a value; empty if it has none of them.

    :raises TypeError: the value or a step is of another type.
    """
    if wanted.path is not None:
        return text_of(value)
    if type(value) is dict:
        members = []
        for name, below in wanted.items():
            if type(name) is not str:
                raise TypeError
            if name in value and (part := _part(value[name], below, text_of)):
                members.append(b"%b:%b" % (quoted(name), part))
        return b"{%b}" % b",".join(members) if members else b""
    if type(value) is not list:
        raise TypeError
    count = len(value)
    elements = []
    for index, below in wanted.items():
        at = count - 1 if index == -1 else index
        if 0 <= at < count and (part := _part(value[at], below, text_of)):
            elements.append((at, part))
    elements.sort(key=_INDEX)
    return b"[%b]" % b",".join([part for _, part in elements]) if elements else b""


def quoted(name: str | int) -> bytes:
    """Return a member's name as JSON without unnecessary escapes."""
    assert isinstance(name, str)
    if name.isidentifier():
        return b'"%b"' % name.encode("utf-8")
    return json.dumps(name, ensure_ascii=False).encode("utf-8")
