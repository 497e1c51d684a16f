"""The collections of one bucket as one node knows them, and the prefixes of their keys."""

from __future__ import annotations

from couchbase.protocol.leb128 import MAX_BYTES
from couchnode.data.item import Ledger
from couchnode.data.keys import prefix_of
from couchnode.data.manifest import Collection, Manifest


class Collections:
    """The collections of one bucket on one node.

    :param ledger: gets the maximum expiry of documents.
    :ivar manifest: the current manifest.
    :ivar by_id: every collection, by its id.
    :ivar by_prefix: every collection, by the prefix of its documents' keys.
    :ivar quick: the one-byte prefixes, as numbers.
    """

    def __init__(self, manifest: Manifest, ledger: Ledger) -> None:
        self._ledger = ledger
        self.set(manifest)

    def set(self, manifest: Manifest) -> frozenset[bytes]:
        """Apply another manifest; return the prefixes of the dropped collections."""
        before = getattr(self, "by_prefix", {})
        self.manifest = manifest
        self.by_id: dict[int, Collection] = manifest.by_id
        self.by_prefix = {one.prefix: one for one in self.by_id.values()}
        self.quick = frozenset(prefix[0] for prefix in self.by_prefix if len(prefix) == 1)
        # NEVER_EXPIRES is negative; here 0 means no limit.
        self._ledger.max_ttls = {
            prefix: max(one.max_ttl, 0) for prefix, one in self.by_prefix.items() if one.max_ttl
        }
        return frozenset(prefix for prefix in before if prefix not in self.by_prefix)

    def has(self, key: bytes) -> bool:
        """Return whether the collection of a held key exists."""
        return key[0] in self.quick or prefix_of(key) in self.by_prefix

    def known_prefix(self, key: bytes) -> int:
        """Return the length of the prefix of a client's key, which may be any bytes; 0 if no collection has
        that prefix."""
        for size in range(1, MAX_BYTES + 1):
            if key[:size] in self.by_prefix:
                return size
        return 0
