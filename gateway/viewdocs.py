"""``include_docs=true``: rows with their documents, fetched some at a time, in order.

A document is never parsed into Python and printed again: its bytes go into the row as they are stored.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from couchbase.exceptions import CouchbaseError
from gateway.contenttypes import JSON, format_of
from gateway.errors import Refusal, describe
from gateway.jsontools import dumps, is_json, loads
from gateway.limits import Budget
from gateway.viewparams import reduced_documents

__all__ = ["MAX_BATCH", "DocumentJoiner"]

MAX_BATCH = 100
"""Documents fetched at once, at most."""

FIRST_BATCH = 8

BATCH_BYTES = 8 * 2**20
"""What the documents of a batch are meant to have together, judged by those before them."""


class DocumentJoiner:
    """Adds documents to the rows of one answer.

    Nobody knows how large a document is before it is there, so batches begin small, grow, and shrink
    at once when documents turn out large.

    :param budget: the gateway's; what a batch is expected to take is reckoned there while it is fetched.
    """

    def __init__(self, connection: Any, budget: Budget) -> None:
        self._connection = connection
        self._budget = budget
        self._size = FIRST_BATCH
        self._expected = 1

    @property
    def batch_size(self) -> int:
        """How many rows to join next."""
        return 1 if self._budget.is_full else self._size

    async def join(self, lines: list[bytes]) -> list[bytes]:
        """Return rows with their documents.

        :param lines: rows as the node printed them, without what is around them.
        :raises Refusal: 400 for reduced rows.
        """
        rows = [_id_of(line) for line in lines]
        ids = [docid.encode("utf-8", "surrogatepass") for docid in rows]
        charged = len(ids) * self._expected
        self._budget.adjust(charged)
        try:
            found, failure = await self._fetch(list(dict.fromkeys(ids)))
        finally:
            self._budget.adjust(-charged)
        self._learn(found)
        return [
            line[:-1] + _document(docid, found.get(key), failure) + b"}"
            for line, docid, key in zip(lines, rows, ids, strict=True)
        ]

    async def _fetch(self, ids: list[bytes]) -> tuple[dict[bytes, Any], CouchbaseError | None]:
        try:
            return await self._connection.get_multi(ids, quiet=True), None
        except CouchbaseError as error:
            # Some failed; those that did not are there all the same.
            return error.all_results or {}, error

    def _learn(self, found: dict[bytes, Any]) -> None:
        largest = max((len(result.value) for result in found.values() if result.success), default=1)
        known = self._expected
        self._expected = max(largest, known - (known - largest) // 16, 1)
        self._size = max(1, min(MAX_BATCH, self._size * 2, BATCH_BYTES // self._expected))


def _id_of(line: bytes) -> str:
    try:
        row = loads(line)
    except ValueError:
        row = json.loads(line)  # half a surrogate pair, for instance
    docid = row.get("id") if isinstance(row, dict) else None
    if not isinstance(docid, str):
        raise reduced_documents("the view's reduce function")
    return docid


def _document(docid: str, result: Any, failure: CouchbaseError | None) -> bytes:
    """Return what is added to a row, from a comma on."""
    if result is not None and result.success:
        meta = b'{"id":%b,"cas":"%08x","flags":%d}' % (dumps(docid), result.cas, result.flags)
        return b',"doc":{"meta":%b,%b}' % (meta, _content(result.flags, result.value))
    return b',"doc":null,"doc_error":' + dumps(_reason(result, failure))


def _content(flags: int, value: bytes) -> bytes:
    if format_of(flags) in (JSON, None) and is_json(value):
        if b"\n" in value or b"\r" in value:
            # In JSON a line end is a blank; in an answer of lines it would end the row.
            value = value.replace(b"\n", b" ").replace(b"\r", b" ")
        return b'"json":' + value
    return b'"base64":"' + b64encode(value) + b'"'


def _reason(result: Any, failure: CouchbaseError | None) -> dict[str, object]:
    """Tell why a document did not come: it is gone, as a rule."""
    if result is None:
        return describe(failure or Refusal("DocumentNotFound"), "get").fields()
    if failure is not None and failure.rc == result.rc:
        return describe(failure, "get").fields()
    return describe(CouchbaseError.rc_to_exctype(result.rc)({"rc": result.rc}), "get").fields()
