"""The lines of an export.

One document is one line, a JSON object::

    {"id": "beer", "scope": "shop", "collection": "stock",
     "export": {"meta": {"flags": 33554432, "expiry": 1800000000, "xattrs": {"a": 1}}, "json": {"abv": 5.2}}}

``id_base64`` replaces ``id`` for a key that is not UTF-8; ``base64`` replaces ``json`` for a value that is
not JSON, or that a line cannot contain unchanged. ``scope`` and ``collection`` are missing in lines of the
default collection; ``expiry`` (Unix time in seconds) and ``xattrs`` are missing if there are none.
"""

from __future__ import annotations

import json
import re

__all__ = ["EXPORT", "is_of_transaction", "line_of", "place_members", "plain_line"]

EXPORT = "export"
"""The member that only exported lines have."""

# A row of a listing with documents. Key and version are redundant there, or useless for another bucket.
_ROW = re.compile(
    rb'\{("id(?:_base64)?":"(?:[^"\\]|\\.)*"),"doc":\{"meta":\{\1,"cas":"[0-9a-f]*",', re.DOTALL
).match
_OF_TRANSACTION = b'{"id":"_txn:'

plain_line = re.compile(
    rb'\{"id": ?("[ !#-\[\]-~]{1,250}"), ?(?:"doc":|'
    rb'((?:"scope":"[\w%-]{1,251}","collection":"[\w%-]{1,251}",)?)'
    rb'"export":\{"meta":\{"flags":(0|[1-9][0-9]{0,8})(?:,"expiry":([1-9][0-9]{0,8}|[1-3][0-9]{9}))?\},"json":)'
).match
"""Matches the beginning of a line with a plain key, up to its document; the rest is not checked.

Its groups are the key as JSON and, in exported lines without attributes, the members of the collection, each
followed by a comma, the flags, and the expiry or ``None``.
"""


def place_members(scope: str, collection: str) -> bytes:
    """Return the members that name a collection in its lines, each followed by a comma."""
    if (scope, collection) == ("_default", "_default"):
        return b""
    return b'"scope":%b,"collection":%b,' % (json.dumps(scope).encode(), json.dumps(collection).encode())


def is_of_transaction(row: bytes) -> bool:
    """Return whether a row is a record of transaction attempts."""
    return row.startswith(_OF_TRANSACTION)


def line_of(row: bytes, place: bytes) -> bytes | None:
    """Return the line for a row of a listing with documents, ``None`` if the text is not such a row.

    :param place: the result of :func:`place_members`.
    """
    match = _ROW(row)
    if match is None:
        return None
    return b'{%b,%b"export":{"meta":{%b' % (match[1], place, row[match.end() :])
