"""``include_docs=true``: rows with their documents, fetched in batches, in order.

A document is never parsed and serialized again: its stored bytes are copied into the row.
"""

from __future__ import annotations

from typing import Any

from couchbase.exceptions import CouchbaseError, error_of
from couchbase.protocol.jsontext import at_once
from couchbase.result import ValueResult
from gateway.cluster.bulk import Lane
from gateway.dialect.errors import Refusal, describe
from gateway.dialect.jsontools import dumps, loads
from gateway.dialect.projection import object_members
from gateway.dialect.values import VIEW, value_member, value_member_steps
from gateway.fairness.steps import AT_ONCE_BYTES, StepRunner
from gateway.http.limits import Budget
from gateway.views.parameters import reduced_documents

__all__ = ["MAX_BATCH", "DocumentJoiner"]

MAX_BATCH = 100
"""Largest number of documents that are fetched at once."""

FIRST_BATCH = 8

BATCH_BYTES = 8 * 2**20
"""Target for the total size of a batch's documents in bytes, estimated from earlier documents."""


class DocumentJoiner:
    """Adds documents to the rows of one answer.

    A document's size is unknown until it arrives, so batches begin small, grow, and shrink at once when
    documents turn out large.

    :param lane: the lane on which documents are read: they may be large, and must not delay other operations.
    :param budget: the gateway's budget, in which a batch's expected size is reserved while the batch is
        fetched.
    :param steps: renders long documents.
    """

    def __init__(self, lane: Lane, budget: Budget, steps: StepRunner) -> None:
        self._lane = lane
        self._steps = steps
        self._budget = budget
        self._size = FIRST_BATCH
        self._expected = BATCH_BYTES // FIRST_BATCH
        self._knows_size = False

    @property
    def batch_size(self) -> int:
        """Number of rows to join next."""
        return 1 if self._budget.is_full else self._size

    async def join(self, lines: list[bytes]) -> list[bytes]:
        """Return rows with their documents.

        :param lines: rows as the node serialized them, without the text around them.
        :raises Refusal: 400 for reduced rows.
        """
        rows = [_id_of(line) for line in lines]
        ids = [docid.encode("utf-8", "surrogatepass") for docid in rows]
        wanted = list(dict.fromkeys(ids))
        charged = len(wanted) * self._expected
        self._budget.adjust(charged)
        try:
            found, failure = await self._fetch(wanted, charged)
        finally:
            self._budget.adjust(-charged)
        self._learn(found)
        contents = {key: await self._content(result) for key, result in found.items() if result.success}
        return [
            line[:-1] + _document(docid, found.get(key), contents.get(key), failure) + b"}"
            for line, docid, key in zip(lines, rows, ids, strict=True)
        ]

    async def _content(self, result: ValueResult) -> bytes:
        value = result.value
        if len(value) <= AT_ONCE_BYTES:
            return value_member(VIEW, result.flags, value)
        return await self._steps.run(value_member_steps(VIEW, result.flags, value))

    async def _fetch(self, ids: list[bytes], size: int) -> tuple[dict[bytes, Any], CouchbaseError | None]:
        try:
            return await self._lane.ask(size, lambda bulk: bulk.get_multi(ids, quiet=True)), None
        except CouchbaseError as error:
            # Some operations failed; the others have results.
            return error.all_results or {}, error

    def _learn(self, found: dict[bytes, Any]) -> None:
        largest = max((len(result.value) for result in found.values() if result.success), default=1)
        known = self._expected
        if self._knows_size:
            largest = max(largest, known - (known - largest) // 16)
        self._expected, self._knows_size = max(largest, 1), True
        self._size = max(1, min(MAX_BATCH, self._size * 2, BATCH_BYTES // self._expected))


def _id_of(line: bytes) -> str:
    for name, start, end in at_once(object_members(line)):
        if name == b'"id"':
            docid = loads(line[start:end])
            if isinstance(docid, str):
                return docid
    raise reduced_documents("the view's reduce function")


def _document(docid: str, result: Any, content: bytes | None, failure: CouchbaseError | None) -> bytes:
    """Return the members added to a row, beginning with a comma."""
    if content is not None:
        meta = b'{"id":%b,"cas":"%08x","flags":%d}' % (dumps(docid), result.cas, result.flags)
        return b',"doc":{"meta":%b,%b}' % (meta, content)
    return b',"doc":null,"doc_error":' + dumps(_reason(result, failure))


def _reason(result: ValueResult | None, failure: CouchbaseError | None) -> dict[str, object]:
    """Return why a document could not be fetched: usually it was deleted."""
    if result is None:
        return describe(failure or Refusal("DocumentNotFound"), "get").fields()
    if failure is not None and failure.rc == result.rc:
        return describe(failure, "get").fields()
    return describe(error_of(result.rc), "get").fields()
