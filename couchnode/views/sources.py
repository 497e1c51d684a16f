"""The indexes that take part in a query, and how they fail."""

from __future__ import annotations

from typing import Any

from couchnode.views.index import Facts, IndexReader, signature


class SourceError(Exception):
    """One index cannot give more rows; the text says why."""


class IndexMissing(SourceError):
    """The query needs an index that was up to date a moment ago, but there is none now."""


class Source:
    """One index that takes part in a query.

    :param given: ``path``, ``design``, ``map``, ``reduce`` and ``from`` of the request; ``made`` if the index
        was there when the query was sent.
    :param reader: ``None`` if there is no index yet.
    :raises IndexMissing: the index was there, and is no longer.
    """

    def __init__(self, given: dict[str, Any], reader: IndexReader | None) -> None:
        self.reader = reader
        self.name: str = given["from"]
        self.facts = Facts(0, None)
        self.signature = signature(given["map"], given["reduce"])
        if reader is not None:
            try:
                self.facts = reader.facts(self.signature)
            except FileNotFoundError:
                self.reader = None  # the view was changed, and has not been indexed since
        if self.reader is None and given.get("made"):
            raise IndexMissing("the index was deleted")

    def debug(self) -> dict[str, Any]:
        """Return its part of the answer to ``debug=true``."""
        marks = self.reader.marks() if self.reader is not None else {}
        group = {
            "signature": self.signature,
            "active_partitions": list(marks),
            "passive_partitions": [],
            "cleanup_partitions": [],
            "indexable_seqs": {str(vb): seqno for vb, (_, seqno) in marks.items()},
            "rows": self.facts.rows,
        }
        return {"main_group": group}
