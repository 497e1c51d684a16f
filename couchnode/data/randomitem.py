"""A random document."""

from __future__ import annotations

import random
from itertools import islice

from couchnode.data.item import Item
from couchnode.data.keys import DEFAULT_PREFIX
from couchnode.data.ports import Documents
from couchnode.data.vbucket import VBucket


def random_item(documents: Documents, prefix: bytes = DEFAULT_PREFIX) -> Item | None:
    """Return a random live document of an active vbucket, or ``None`` if there is none.

    :param prefix: key prefix of the collection to choose from.
    """
    candidates = [
        vb for vb in documents.vbuckets if vb is not None and vb.state == "active" and vb.count(prefix)
    ]
    random.shuffle(candidates)
    for vbucket in candidates:
        start = random.randrange(len(vbucket.items))
        for key in _keys(vbucket, prefix, start, start + 16) or _keys(vbucket, prefix):
            item = vbucket.get(key)
            if item is not None:
                return item
    return None


def _keys(vbucket: VBucket, prefix: bytes, start: int = 0, end: int | None = None) -> list[bytes]:
    """Return the keys of a collection within a slice of a vbucket's keys."""
    return [key for key in islice(vbucket.items, start, end) if key.startswith(prefix)]
